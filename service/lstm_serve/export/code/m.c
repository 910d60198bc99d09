/*
$head
 */
#include "m.h"

#include <math.h>
#include <stddef.h>

$functions

$constants
$body