/*
$head
 *
 * $bytes
 * Nothing here allocates, reads a file or keeps a state of its own. Needs libm: expf, tanhf and their kin.
 */
#ifndef M_H
#define M_H

$sizes
$state
/* $what */
$signature;

#endif
