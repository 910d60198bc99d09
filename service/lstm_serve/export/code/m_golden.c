/* $rows golden predictions: $whose. Exit status 0 where all are met to $tolerance; with an argument, all answers. */
#include "m.h"

#include <math.h>
#include <stdio.h>

$inputs
static const float golden_y[$rows][$width] = {
$y
};
/* Above this a difference is relative. */
static const float unit[$width] = {$unit};
/* Of each output its last number. */
static const int ends[$count] = {$ends};

int main(int argc, char **argv)
{
    static float out[$width];
    float worst = 0.0f;
    (void)argv;
    for (int k = 0; k < $rows; ++k) {
        $call
        for (int u = 0, output = 0; u < $width; ++u) {
            const float expected = golden_y[k][u];
            const float size = fabsf(expected) > unit[u] ? fabsf(expected) : unit[u];
            const float difference = fabsf(out[u] - expected) / size;
            if (!(difference <= worst)) worst = difference;
            if (argc > 1) printf("%.9g%c", (double)out[u], u + 1 == ends[output] ? ';' : ' ');
            if (u + 1 == ends[output]) ++output;
        }
        if (argc > 1) printf("\n");
    }
    printf("the largest difference is %.2g\n", (double)worst);
    return !(worst <= ${tolerance}f);
}
