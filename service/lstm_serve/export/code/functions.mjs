function value(input, sizes, narrow) {
  const flat = Array.isArray(input) ? input.flat(Infinity) : input;
  const d = Float64Array.from(flat, narrow ? Math.fround : (x) => x);
  const known = sizes.reduce((product, size) => product * (size ?? 1), 1);
  const s = sizes.map((size) => size ?? d.length / known);
  const fits = d.length > 0 && s.reduce((a, b) => a * b, 1) === d.length && s.every(Number.isInteger);
  if (!fits || !d.every(Number.isFinite))
    throw new RangeError(`expected finite numbers of the shape ${JSON.stringify(sizes)}, got ${d.length}`);
  return { d, s };
}

function nested(d, s) {
  if (s.length < 2) return Array.from(d);
  const size = d.length / s[0];
  return Array.from({ length: s[0] }, (_, k) => nested(d.subarray(k * size, (k + 1) * size), s.slice(1)));
}

function each(f) {
  return (d, start, n) => {
    for (let k = start; k < start + n; k++) d[k] = f(d[k]);
  };
}

function clip(x, low, high) {
  return Math.min(Math.max(x, low), high);
}

function where(condition, then, otherwise) {
  return condition ? then : otherwise;
}

// To 1.5e-7: Abramowitz and Stegun, 7.1.26.
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  let series = 0;
  for (const factor of [1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592])
    series = (series + factor) * t;
  return Math.sign(x) * (1 - series * Math.exp(-x * x));
}

function softmax(d, start, n) {
  const part = d.subarray(start, start + n);
  const largest = part.reduce((a, b) => Math.max(a, b));
  let sum = 0;
  for (let k = 0; k < n; k++) sum += part[k] = Math.exp(part[k] - largest);
  for (let k = 0; k < n; k++) part[k] /= sum;
}

function log_softmax(d, start, n) {
  const part = d.subarray(start, start + n);
  const largest = part.reduce((a, b) => Math.max(a, b));
  const sum = part.reduce((total, x) => total + Math.exp(x - largest), 0);
  for (let k = 0; k < n; k++) part[k] -= largest + Math.log(sum);
}

function sparsemax(d, start, n) {
  const part = d.subarray(start, start + n);
  let sum = 0, taken = -1, large = 0;
  part.slice().sort().reverse().forEach((x, k) => {
    sum += x;
    if (x - (sum - 1) / (k + 1) > 0) [taken, large] = [taken + sum, large + 1];
  });
  for (let k = 0; k < n; k++) part[k] = Math.max(part[k] - taken / large, 0);
}

// y (U) += x (F) @ w (F, columns), of w U columns from `from` on.
function product(x, at, F, w, columns, from, U, y, to) {
  for (let f = 0; f < F; f++) {
    const v = x[at + f], row = f * columns + from;
    for (let u = 0; u < U; u++) y[to + u] += v * w[row + u];
  }
}

function dense(x, w, b, U, act) {
  const F = w.length / U, n = x.d.length / F, d = new Float64Array(n * U);
  for (let k = 0; k < n; k++) {
    if (b) d.set(b, k * U);
    product(x.d, k * F, F, w, U, 0, U, d, k * U);
    act(d, k * U, U);
  }
  return { d, s: [...x.s.slice(0, -1), U] };
}

function activate(x, act) {
  const d = x.d.slice(), F = x.s[x.s.length - 1];
  for (let k = 0; k < d.length; k += F) act(d, k, F);
  return { d, s: x.s };
}

function affine(x, minus, over, times, plus) {
  const d = x.d.map((v, k) => {
    if (minus) v -= minus[k % minus.length];
    if (over) v /= over[k % over.length];
    if (times) v *= times[k % times.length];
    return plus ? v + plus[k % plus.length] : v;
  });
  return { d, s: x.s };
}

// In double, and then to float, as it was done to the data before training.
function scaling(x, offset, scale) {
  const F = offset.length;
  return { d: x.d.map((v, k) => Math.fround((v - offset[k % F]) / scale[k % F])), s: x.s };
}

// In double, as what was done to the targets before training is undone.
function unscaling(x, offset, scale) {
  const F = offset.length;
  return { d: x.d.map((v, k) => Math.fround(v * scale[k % F] + offset[k % F])), s: x.s };
}

function prelu(x, alpha) {
  return { d: x.d.map((v, k) => (v > 0 ? v : alpha[k % alpha.length] * v)), s: x.s };
}

function standardize(x, gamma, beta, epsilon) {
  const d = x.d.slice(), F = x.s[x.s.length - 1];
  for (let k = 0; k < d.length; k += F) {
    const row = d.subarray(k, k + F);
    const mean = row.reduce((a, b) => a + b, 0) / F;
    const deviation = Math.sqrt(row.reduce((a, b) => a + (b - mean) ** 2, 0) / F + epsilon);
    for (let f = 0; f < F; f++) row[f] = ((row[f] - mean) / deviation) * (gamma ? gamma[f] : 1) + (beta ? beta[f] : 0);
  }
  return { d, s: x.s };
}

function count(s) {
  return s.reduce((a, b) => a * b, 1);
}

// At each place of the sizes s the number of x to which so many steps along each axis lead, from `start` on.
function view(x, s, steps, start) {
  const d = Float64Array.from({ length: count(s) }, (_, k) => {
    let at = start;
    for (let j = s.length - 1; j >= 0; j--) {
      at += (k % s[j]) * steps[j];
      k = Math.floor(k / s[j]);
    }
    return x.d[at];
  });
  return { d, s };
}

function steps(s) {
  return s.map((_, k) => count(s.slice(k + 1)));
}

function permute(x, order) {
  const along = steps(x.s);
  return view(x, order.map((axis) => x.s[axis]), order.map((axis) => along[axis]), 0);
}

// The parts are those of a slice in Python: start, stop, step.
function slice(x, parts) {
  const along = steps(x.s), s = [], by = [];
  let from = 0;
  parts.forEach(([start, stop, step], axis) => {
    step ??= 1;
    const n = x.s[axis], [low, high] = step < 0 ? [-1, n - 1] : [0, n];
    const end = (at, otherwise) => (at === null ? otherwise : Math.min(Math.max(at < 0 ? at + n : at, low), high));
    const first = end(start, step < 0 ? high : low), last = end(stop, step < 0 ? low : high);
    s.push(Math.max(Math.ceil((last - first) / step), 0));
    by.push(step * along[axis]);
    from += first * along[axis];
  });
  return view(x, s, by, from);
}

// x repeated along the axes on which it has one number, or none.
function spread(x, s) {
  if (s.length === x.s.length && s.every((n, axis) => n === x.s[axis])) return x;
  const own = [...Array(s.length - x.s.length).fill(1), ...x.s], along = steps(own);
  return view(x, s, own.map((n, axis) => (n === 1 ? 0 : along[axis])), 0);
}

function merge(xs, join, over) {
  const rank = Math.max(...xs.map((x) => x.s.length));
  const sizes = (axis) => xs.map((x) => x.s[x.s.length - rank + axis] ?? 1);
  const s = Array.from({ length: rank }, (_, axis) => Math.max(...sizes(axis)));
  const ds = xs.map((x) => spread(x, s).d);
  const d = Float64Array.from(ds[0], (v, k) => ds.slice(1).reduce((a, other) => join(a, other[k]), v) / over);
  return { d, s };
}

function reduce(x, axes, join, mean, keepdims) {
  const kept = x.s.map((_, axis) => axis).filter((axis) => !axes.includes(axis));
  const turned = permute(x, [...kept, ...axes]).d, n = count(axes.map((axis) => x.s[axis]));
  const d = Float64Array.from({ length: turned.length / n }, (_, k) => {
    const v = turned.subarray(k * n, (k + 1) * n).reduce((a, b) => join(a, b));
    return mean ? v / n : v;
  });
  return { d, s: keepdims ? x.s.map((size, axis) => (axes.includes(axis) ? 1 : size)) : kept.map((axis) => x.s[axis]) };
}

function matmul(a, b) {
  const rank = a.s.length, [m, F] = a.s.slice(-2), U = b.s[rank - 1];
  const lead = a.s.slice(0, -2).map((size, axis) => Math.max(size, b.s[axis]));
  const x = spread(a, [...lead, m, F]).d, w = spread(b, [...lead, F, U]).d, d = new Float64Array(count(lead) * m * U);
  for (let k = 0; k < count(lead) * m; k++) product(x, k * F, F, w.subarray(Math.floor(k / m) * F * U), U, 0, U, d, k * U);
  return { d, s: [...lead, m, U] };
}

function joinMasks(a, b, all) {
  return a.map((counts, t) => (all ? counts && b[t] : counts || b[t]));
}

function masksInTime(xs, masks) {
  return xs.flatMap((x, k) => masks[k] ?? Array(x.s[0]).fill(true));
}

function concatenate(xs, axis) {
  const s = xs[0].s.slice();
  s[axis] = xs.reduce((sum, x) => sum + x.s[axis], 0);
  const outer = s.slice(0, axis).reduce((a, b) => a * b, 1), d = new Float64Array(s.reduce((a, b) => a * b, 1));
  let to = 0;
  for (let k = 0; k < outer; k++)
    for (const x of xs) {
      const size = x.d.length / outer;
      d.set(x.d.subarray(k * size, (k + 1) * size), to);
      to += size;
    }
  return { d, s };
}

function embedding(x, table, U) {
  const d = new Float64Array(x.d.length * U);
  x.d.forEach((id, k) => {
    if (!Number.isInteger(id) || id < 0 || id >= table.length / U) throw new RangeError(`${id} is no id of this model`);
    d.set(table.subarray(id * U, (id + 1) * U), k * U);
  });
  return { d, s: [...x.s, U] };
}

function notZero(x) {
  return Array.from(x.d, (id) => id !== 0);
}

function notAll(x, value) {
  const F = x.s[1];
  return Array.from({ length: x.s[0] }, (_, t) => x.d.subarray(t * F, (t + 1) * F).some((v) => v !== value));
}

function zeroed(x, mask) {
  const size = x.d.length / x.s[0];
  return { d: x.d.map((v, k) => (mask[Math.floor(k / size)] ? v : 0)), s: x.s };
}

function windows(T, { size, stride, dilation, padding }) {
  const span = (size - 1) * dilation;
  const n = Math.ceil((T - (padding === "valid" ? span : 0)) / stride);
  const same = Math.floor(Math.max((n - 1) * stride + span + 1 - T, 0) / 2);
  return [n, { valid: 0, causal: span, same }[padding]];
}

function conv1d(x, w, b, U, window, act) {
  const [T, F] = x.s, [n, before] = windows(T, window), d = new Float64Array(n * U);
  for (let k = 0; k < n; k++) {
    if (b) d.set(b, k * U);
    for (let i = 0; i < window.size; i++) {
      const t = k * window.stride + i * window.dilation - before;
      if (t >= 0 && t < T) product(x.d, t * F, F, w.subarray(i * F * U, (i + 1) * F * U), U, 0, U, d, k * U);
    }
    act(d, k * U, U);
  }
  return { d, s: [n, U] };
}

function pool(x, average, window) {
  const [T, F] = x.s, [n, before] = windows(T, window), d = new Float64Array(n * F);
  for (let k = 0; k < n; k++)
    for (let f = 0; f < F; f++) {
      let v = average ? 0 : -Infinity, met = 0;
      for (let i = 0; i < window.size; i++) {
        const t = k * window.stride + i * window.dilation - before;
        if (t < 0 || t >= T) continue;
        v = average ? v + x.d[t * F + f] : Math.max(v, x.d[t * F + f]);
        met++;
      }
      d[k * F + f] = average ? v / met : v;
    }
  return { d, s: [n, F] };
}

function poolAll(x, mask, average, keepdims) {
  const [T, F] = x.s, d = new Float64Array(F).fill(average ? 0 : -Infinity);
  let met = 0;
  for (let t = 0; t < T; t++) {
    if (average && mask && !mask[t]) continue;
    met++;
    for (let f = 0; f < F; f++) d[f] = average ? d[f] + x.d[t * F + f] : Math.max(d[f], x.d[t * F + f]);
  }
  return { d: average ? d.map((v) => v / met) : d, s: keepdims ? [1, F] : [F] };
}

function repeat(x, n) {
  return spread(x, [n, ...x.s]);
}

function reshape(x, target) {
  const known = target.reduce((product, size) => (size === -1 ? product : product * size), 1);
  return { d: x.d, s: target.map((size) => (size === -1 ? x.d.length / known : size)) };
}

function reverse(x) {
  const [T, F] = x.s, d = new Float64Array(T * F);
  for (let t = 0; t < T; t++) d.set(x.d.subarray((T - 1 - t) * F, (T - t) * F), t * F);
  return { d, s: x.s };
}

function reverseMask(mask) {
  return mask.slice().reverse();
}

function eachStep(x, layer) {
  const size = x.d.length / x.s[0];
  const row = (t) => ({ d: x.d.slice(t * size, (t + 1) * size), s: x.s.slice(1) });
  const ys = Array.from({ length: x.s[0] }, (_, t) => layer(row(t)));
  const d = new Float64Array(ys.length * ys[0].d.length);
  ys.forEach((y, t) => d.set(y.d, t * y.d.length));
  return { d, s: [ys.length, ...ys[0].s] };
}

// The h of each step from the states given or from 0, or the last one's alone. A masked step changes no state.
function scan(x, mask, step, U, states, given, sequences, backwards, zeros) {
  const [T, F] = x.s, h = Array.from({ length: states }, (_, k) => (given[k] ? given[k].d.slice() : new Float64Array(U)));
  const d = new Float64Array(sequences ? T * U : U);
  let begun = false;
  for (let k = 0; k < T; k++) {
    const t = backwards ? T - 1 - k : k, counts = !mask || mask[t];
    begun ||= counts;
    if (counts) step(x.d, t * F, F, ...h);
    if (!sequences && k < T - 1) continue;
    if (counts || (begun && !zeros)) d.set(h[0], sequences ? k * U : 0);
  }
  return { d, s: sequences ? [T, U] : [U], states: h.map((state) => ({ d: state, s: [U] })) };
}

// The columns are i, f, c, o.
function lstm(U, w, r, b, act, gate) {
  const z = new Float64Array(4 * U), squashed = new Float64Array(U);
  return (x, at, F, h, c) => {
    z.fill(0);
    if (b) z.set(b);
    product(x, at, F, w, 4 * U, 0, 4 * U, z, 0);
    product(h, 0, U, r, 4 * U, 0, 4 * U, z, 0);
    gate(z, 0, U);
    gate(z, U, U);
    act(z, 2 * U, U);
    gate(z, 3 * U, U);
    for (let u = 0; u < U; u++) squashed[u] = c[u] = z[U + u] * c[u] + z[u] * z[2 * U + u];
    act(squashed, 0, U);
    for (let u = 0; u < U; u++) h[u] = z[3 * U + u] * squashed[u];
  };
}

// The columns are z, r, h; b is the input's bias and then the recurrent one.
function gru(U, w, r, b, act, gate, resetAfter) {
  const z = new Float64Array(3 * U), a = new Float64Array(3 * U), reset = new Float64Array(U);
  return (x, at, F, h) => {
    z.set(b.subarray(0, 3 * U));
    a.set(b.subarray(3 * U));
    product(x, at, F, w, 3 * U, 0, 3 * U, z, 0);
    product(h, 0, U, r, 3 * U, 0, (resetAfter ? 3 : 2) * U, a, 0);
    for (let u = 0; u < 2 * U; u++) z[u] += a[u];
    gate(z, 0, U);
    gate(z, U, U);
    if (resetAfter) for (let u = 0; u < U; u++) z[2 * U + u] += z[U + u] * a[2 * U + u];
    else {
      for (let u = 0; u < U; u++) reset[u] = z[U + u] * h[u];
      product(reset, 0, U, r, 3 * U, 2 * U, U, z, 2 * U);
    }
    act(z, 2 * U, U);
    for (let u = 0; u < U; u++) h[u] = z[u] * h[u] + (1 - z[u]) * z[2 * U + u];
  };
}

function simpleRnn(U, w, r, b, act) {
  const z = new Float64Array(U);
  return (x, at, F, h) => {
    z.fill(0);
    if (b) z.set(b);
    product(x, at, F, w, U, 0, U, z, 0);
    product(h, 0, U, r, U, 0, U, z, 0);
    act(z, 0, U);
    h.set(z);
  };
}
