/* A trial: the LSTM and Dense layer of the default model over rows in tiles of TILE, whose sums stay in registers for a
   block of columns. Arrays are Keras', but for the kernels: blocks of BLOCK columns, one after the other. */
#include <math.h>
#include <string.h>

#define BLOCK 16

typedef struct {
    int timesteps, features, units, classes, blocks;
    const float *mean, *deviation, *kernels, *bias, *dense, *dense_bias;
} model;

typedef float vector __attribute__((vector_size(4 * BLOCK), aligned(4)));

static void sums(const model *m, const float *restrict operand, float *restrict z)
{
    const int depth = m->features + m->units, width = m->blocks * BLOCK;
    for (int k = 0; k < m->blocks; ++k) {
        vector sum[TILE];
#pragma GCC unroll 8
        for (int r = 0; r < TILE; ++r) sum[r] = *(const vector *)(m->bias + k * BLOCK);
        const float *w = m->kernels + (size_t)k * depth * BLOCK;
        for (int f = 0; f < depth; ++f, w += BLOCK) {
            const vector row = *(const vector *)w;
#pragma GCC unroll 8
            for (int r = 0; r < TILE; ++r) sum[r] += operand[f * TILE + r] * row;
        }
#pragma GCC unroll 8
        for (int r = 0; r < TILE; ++r) *(vector *)(z + r * width + k * BLOCK) = sum[r];
    }
}

static float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

static void tile(const model *m, const float *x, int rows, float *y)
{
    const int T = m->timesteps, F = m->features, U = m->units, width = m->blocks * BLOCK;
    float operand[(F + U) * TILE], c[TILE * U], z[TILE * width];
    memset(operand, 0, sizeof operand);
    memset(c, 0, sizeof c);
    for (int t = 0; t < T; ++t) {
        for (int r = 0; r < rows; ++r)
            for (int f = 0; f < F; ++f) operand[f * TILE + r] = (x[(r * T + t) * F + f] - m->mean[f]) / m->deviation[f];
        sums(m, operand, z);
        for (int r = 0; r < rows; ++r) {
            const float *const i = z + r * width, *const f = i + U, *const g = f + U, *const o = g + U;
            float *const s = c + r * U;
            float h[U];
            for (int u = 0; u < U; ++u) {
                s[u] = sigmoid(f[u]) * s[u] + sigmoid(i[u]) * tanhf(g[u]);
                h[u] = sigmoid(o[u]) * tanhf(s[u]);
            }
            for (int u = 0; u < U; ++u) operand[(F + u) * TILE + r] = h[u];
        }
    }
    for (int r = 0; r < rows; ++r) {
        float sum = 0, *const out = y + r * m->classes;
        for (int k = 0; k < m->classes; ++k) {
            out[k] = m->dense_bias[k];
            for (int u = 0; u < U; ++u) out[k] += operand[(F + u) * TILE + r] * m->dense[u * m->classes + k];
            sum += out[k] = expf(out[k]);
        }
        for (int k = 0; k < m->classes; ++k) out[k] /= sum;
    }
}

void batch(const model *m, int n, const float *x, float *y)
{
    for (int k = 0; k < n; k += TILE)
        tile(m, x + (size_t)k * m->timesteps * m->features, n - k < TILE ? n - k : TILE, y + k * m->classes);
}
