static float clip(float x, float low, float high)
{
    return x < low ? low : x > high ? high : x;
}

static float larger(float a, float b)
{
    return a > b ? a : b;
}

static float smaller(float a, float b)
{
    return a < b ? a : b;
}

static float where(int condition, float then, float otherwise)
{
    return condition ? then : otherwise;
}

static void softmax(int n, float *x)
{
    float largest = x[0], sum = 0.0f;
    for (int k = 1; k < n; ++k) largest = larger(x[k], largest);
    for (int k = 0; k < n; ++k) sum += x[k] = expf(x[k] - largest);
    for (int k = 0; k < n; ++k) x[k] /= sum;
}

static void log_softmax(int n, float *x)
{
    float largest = x[0], sum = 0.0f;
    for (int k = 1; k < n; ++k) largest = larger(x[k], largest);
    for (int k = 0; k < n; ++k) sum += expf(x[k] - largest);
    for (int k = 0; k < n; ++k) x[k] -= largest + logf(sum);
}

static void sparsemax(int n, float *x)
{
    float taken = -1.0f;
    int large = 0;
    for (int k = 0; k < n; ++k) {
        float sum = 0.0f;
        int count = 0;
        for (int j = 0; j < n; ++j)
            if (x[j] > x[k] || (x[j] == x[k] && j <= k)) sum += x[j], ++count;
        if (x[k] - (sum - 1.0f) / (float)count > 0.0f) taken += sum, ++large;
    }
    taken /= (float)large;
    for (int k = 0; k < n; ++k) x[k] = larger(x[k] - taken, 0.0f);
}

/* y (U) += x (F) @ w (F, columns), of w U columns from the first. Four rows at a time spare three stores of four. */
static void product(int F, int U, int columns, const float *restrict x, const float *restrict w, float *restrict y)
{
    int f = 0;
    for (; f + 4 <= F; f += 4) {
        const float a = x[f], b = x[f + 1], c = x[f + 2], d = x[f + 3];
        const float *const row = w + f * columns;
        for (int u = 0; u < U; ++u)
            y[u] = y[u] + a * row[u] + b * row[columns + u] + c * row[2 * columns + u] + d * row[3 * columns + u];
    }
    for (; f < F; ++f)
        for (int u = 0; u < U; ++u) y[u] += x[f] * w[f * columns + u];
}

/* y (n) = b (n), or 0. */
static void start(int n, const float *b, float *y)
{
    for (int k = 0; k < n; ++k) y[k] = b ? b[k] : 0.0f;
}

static void copy(int n, const float *x, float *y)
{
    for (int k = 0; k < n; ++k) y[k] = x[k];
}

/* y (n, F) = (x - minus) / over * times + plus, each of these (F) or NULL. */
static void affine(int n, int F, const float *x, const float *minus, const float *over, const float *times,
                   const float *plus, float *y)
{
    for (int k = 0; k < n; ++k)
        for (int f = 0; f < F; ++f) {
            float v = x[k * F + f];
            if (minus) v -= minus[f];
            if (over) v /= over[f];
            if (times) v *= times[f];
            if (plus) v += plus[f];
            y[k * F + f] = v;
        }
}

/* In double, as it was done to the data before training. */
static void scaling(int n, int F, const float *x, const double *offset, const double *scale, float *y)
{
    for (int k = 0; k < n; ++k)
        for (int f = 0; f < F; ++f) y[k * F + f] = (float)(((double)x[k * F + f] - offset[f]) / scale[f]);
}

/* In double, as what was done to the targets before training is undone. */
static void unscaling(int n, int F, const float *x, const double *offset, const double *scale, float *y)
{
    for (int k = 0; k < n; ++k)
        for (int f = 0; f < F; ++f) y[k * F + f] = (float)((double)x[k * F + f] * scale[f] + offset[f]);
}

static void dense(int n, int F, int U, const float *x, const float *w, const float *b, void (*act)(int, float *),
                  float *y)
{
    for (int k = 0; k < n; ++k) {
        start(U, b, y + k * U);
        product(F, U, U, x + k * F, w, y + k * U);
        act(U, y + k * U);
    }
}

static void activate(int n, int F, const float *x, void (*act)(int, float *), float *y)
{
    copy(n * F, x, y);
    for (int k = 0; k < n; ++k) act(F, y + k * F);
}

static void prelu(int n, int F, const float *x, const float *alpha, float *y)
{
    for (int k = 0; k < n; ++k)
        for (int f = 0; f < F; ++f) y[k * F + f] = x[k * F + f] > 0.0f ? x[k * F + f] : alpha[f] * x[k * F + f];
}

static void standardize(int n, int F, const float *x, const float *gamma, const float *beta, float epsilon, float *y)
{
    for (int k = 0; k < n; ++k) {
        float mean = 0.0f, square = 0.0f;
        for (int f = 0; f < F; ++f) mean += x[k * F + f];
        mean /= (float)F;
        for (int f = 0; f < F; ++f) square += (x[k * F + f] - mean) * (x[k * F + f] - mean);
        const float deviation = sqrtf(square / (float)F + epsilon);
        for (int f = 0; f < F; ++f)
            y[k * F + f] = (x[k * F + f] - mean) / deviation * (gamma ? gamma[f] : 1.0f) + (beta ? beta[f] : 0.0f);
    }
}

static void embedding(int n, int U, const int *ids, const float *table, float *y, unsigned char *mask)
{
    for (int k = 0; k < n; ++k) {
        copy(U, table + ids[k] * U, y + k * U);
        if (mask) mask[k] = ids[k] != 0;
    }
}

/* Whatever a number is: an id below the limit. */
static void to_ids(int limit, int n, const float *x, int *ids)
{
    for (int k = 0; k < n; ++k) ids[k] = x[k] > 0.0f ? (int)smaller(x[k], (float)(limit - 1)) : 0;
}

static void to_numbers(int n, const int *ids, float *x)
{
    for (int k = 0; k < n; ++k) x[k] = (float)ids[k];
}

static void masking(int n, int F, const float *x, float value, float *y, unsigned char *mask)
{
    for (int k = 0; k < n; ++k) {
        mask[k] = 0;
        for (int f = 0; f < F; ++f) mask[k] |= !(x[k * F + f] >= value && x[k * F + f] <= value);
        for (int f = 0; f < F; ++f) y[k * F + f] = mask[k] ? x[k * F + f] : 0.0f;
    }
}

static void conv1d(int T, int F, int size, int U, int n, int stride, int dilation, int before, const float *x,
                   const float *w, const float *b, void (*act)(int, float *), float *y)
{
    for (int k = 0; k < n; ++k) {
        start(U, b, y + k * U);
        for (int s = 0; s < size; ++s) {
            const int t = k * stride + s * dilation - before;
            if (t >= 0 && t < T) product(F, U, U, x + t * F, w + s * F * U, y + k * U);
        }
        act(U, y + k * U);
    }
}

static void pool(int T, int F, int size, int n, int stride, int before, int average, const float *x, float *y)
{
    for (int k = 0; k < n; ++k)
        for (int f = 0; f < F; ++f) {
            float v = 0.0f;
            int met = 0;
            for (int t = k * stride - before; t < k * stride - before + size; ++t)
                if (t >= 0 && t < T) {
                    const float here = x[t * F + f];
                    v = met == 0 ? here : average ? v + here : here > v ? here : v;
                    ++met;
                }
            y[k * F + f] = average ? v / (float)met : v;
        }
}

static void pool_all(int T, int F, int average, const float *x, const unsigned char *mask, float *y)
{
    for (int f = 0; f < F; ++f) {
        float v = average ? 0.0f : x[f];
        int met = 0;
        for (int t = 0; t < T; ++t) {
            const float here = x[t * F + f];
            if (!average) v = here > v ? here : v;
            else if (!mask || mask[t]) v += here, ++met;
        }
        y[f] = average ? v / (float)met : v;
    }
}

/* y, of these sizes: at each place the number of x to which so many steps along each axis lead, from `start` on. */
static void view(int rank, const int *sizes, const int *steps, int start, const float *x, float *y)
{
    int total = 1;
    for (int j = 0; j < rank; ++j) total *= sizes[j];
    for (int k = 0; k < total; ++k) {
        int at = start, rest = k;
        for (int j = rank - 1; j >= 0; --j) {
            at += rest % sizes[j] * steps[j];
            rest /= sizes[j];
        }
        y[k] = x[at];
    }
}

/* y (n, U) = x (n, F) @ w (F, U). */
static void multiply(int n, int F, int U, const float *x, const float *w, float *y)
{
    for (int k = 0; k < n * U; ++k) y[k] = 0.0f;
    for (int k = 0; k < n; ++k) product(F, U, U, x + k * F, w, y + k * U);
}

static void zeroed(int n, int F, const float *x, const unsigned char *mask, float *y)
{
    for (int k = 0; k < n * F; ++k) y[k] = mask[k / F] ? x[k] : 0.0f;
}

/* x (n, F) into columns of y (n, columns). */
static void place(int n, int F, int columns, const float *x, float *y)
{
    for (int k = 0; k < n; ++k) copy(F, x + k * F, y + k * columns);
}

/* y (T, F): the steps of x (T, F), last first. */
static void reverse(int T, int F, const float *x, float *y)
{
    for (int t = 0; t < T; ++t) copy(F, x + (T - 1 - t) * F, y + t * F);
}

static void reverse_mask(int T, const unsigned char *mask, unsigned char *reversed)
{
    for (int t = 0; t < T; ++t) reversed[t] = mask[T - 1 - t];
}

static void join_masks(int T, int all, const unsigned char *a, const unsigned char *b, unsigned char *joined)
{
    for (int t = 0; t < T; ++t) joined[t] = all ? a[t] && b[t] : a[t] || b[t];
}

/* A step's output: h, or 0 where it is masked and `zeros` is 2, or 1 and no step before it has counted. */
static void keep(int U, int zero, const float *h, float *y)
{
    for (int u = 0; u < U; ++u) y[u] = zero ? 0.0f : h[u];
}

/* s is h (U), c (U): the state, kept from call to call. The columns of w, r, b and z are i, f, c, o. */
static void lstm(int T, int F, int U, const float *x, const unsigned char *mask, const float *w, const float *r,
                 const float *b, void (*act)(int, float *), void (*gate)(int, float *), float *s, float *y,
                 int sequences, int backwards, int zeros, float *z)
{
    float *const h = s, *const c = s + U;
    int begun = 0;
    for (int k = 0; k < T; ++k) {
        const int t = backwards ? T - 1 - k : k;
        if (!mask || mask[t]) {
            begun = 1;
            start(4 * U, b, z);
            product(F, 4 * U, 4 * U, x + t * F, w, z);
            product(U, 4 * U, 4 * U, h, r, z);
            gate(U, z);
            gate(U, z + U);
            act(U, z + 2 * U);
            gate(U, z + 3 * U);
            for (int u = 0; u < U; ++u) h[u] = c[u] = z[U + u] * c[u] + z[u] * z[2 * U + u];
            act(U, h);
            for (int u = 0; u < U; ++u) h[u] *= z[3 * U + u];
        }
        if (sequences || k == T - 1) keep(U, zeros > begun && mask && !mask[t], h, sequences ? y + k * U : y);
    }
}

/* s is h (U). The columns of w, r and b are z, r, h; b2 is the bias of the recurrent product. z is (6 U). */
static void gru(int T, int F, int U, const float *x, const unsigned char *mask, const float *w, const float *r,
                const float *b, const float *b2, int reset_after, void (*act)(int, float *),
                void (*gate)(int, float *), float *s, float *y, int sequences, int backwards, int zeros, float *z)
{
    float *const h = s, *const a = z + 3 * U, *const g = z + 2 * U;
    int begun = 0;
    for (int k = 0; k < T; ++k) {
        const int t = backwards ? T - 1 - k : k;
        if (!mask || mask[t]) {
            begun = 1;
            start(3 * U, b, z);
            product(F, 3 * U, 3 * U, x + t * F, w, z);
            start(3 * U, b2, a);
            product(U, (reset_after ? 3 : 2) * U, 3 * U, h, r, a);
            for (int u = 0; u < 2 * U; ++u) z[u] += a[u];
            gate(U, z);
            gate(U, z + U);
            if (reset_after) {
                for (int u = 0; u < U; ++u) g[u] += z[U + u] * a[2 * U + u];
            } else {
                for (int u = 0; u < U; ++u) a[u] = z[U + u] * h[u];
                product(U, U, 3 * U, a, r + 2 * U, g);
            }
            act(U, g);
            for (int u = 0; u < U; ++u) h[u] = z[u] * h[u] + (1.0f - z[u]) * g[u];
        }
        if (sequences || k == T - 1) keep(U, zeros > begun && mask && !mask[t], h, sequences ? y + k * U : y);
    }
}

/* s is h (U). */
static void simple_rnn(int T, int F, int U, const float *x, const unsigned char *mask, const float *w, const float *r,
                       const float *b, void (*act)(int, float *), float *s, float *y, int sequences, int backwards,
                       int zeros, float *z)
{
    int begun = 0;
    for (int k = 0; k < T; ++k) {
        const int t = backwards ? T - 1 - k : k;
        if (!mask || mask[t]) {
            begun = 1;
            start(U, b, z);
            product(F, U, U, x + t * F, w, z);
            product(U, U, U, s, r, z);
            act(U, z);
            copy(U, z, s);
        }
        if (sequences || k == T - 1) keep(U, zeros > begun && mask && !mask[t], s, sequences ? y + k * U : y);
    }
}
