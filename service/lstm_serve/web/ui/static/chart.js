// Pictures on a canvas: stacked shares, lines, and maps of cells, over rows that run from left to right.

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Okabe and Ito's colours, which the colour-blind tell apart; in no order.
const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#f0e442", "#999999"];
export const MOST_COLOURS = COLOURS.length;
export const colour = (k) => COLOURS[k % COLOURS.length];

// So many colours in an order that is seen, the colour-blind included: from violet to yellow, evenly lighter. None of them
// is an alarm's: which class is the worst nobody has said.
export function ramp(count) {
  const stops = [[68, 15, 92], [60, 80, 140], [40, 140, 140], [110, 196, 110], [240, 226, 90]];
  return Array.from({ length: count }, (_, k) => {
    const at = count > 1 ? (k / (count - 1)) * (stops.length - 1) : 0;
    const low = Math.min(stops.length - 2, Math.floor(at));
    return `rgb(${stops[low].map((from, c) => Math.round(from + (stops[low + 1][c] - from) * (at - low))).join()})`;
  });
}

const LEFT = 52;
const RIGHT = 8;

// A canvas made as large as it is shown, in the screen's own pixels, and cleared.
export function sheet(canvas, height, width = canvas.clientWidth || canvas.parentElement.clientWidth) {
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.fillStyle = css("--paper");
  pen.fillRect(0, 0, width, height);
  pen.font = "12px system-ui, sans-serif";
  pen.textBaseline = "middle";
  return { pen, width, height };
}

// Where rows lie: `at(row)` is the pixel of the middle of a row, `half` of one is so wide, `row(pixel)` is the nearest row.
// Rows first to last.
export function axis(width, first, last, left = LEFT) {
  const span = Math.max(1, last - first);
  const room = width - left - RIGHT;
  return {
    first, last, left, right: width - RIGHT, half: room / span / 2,
    at: (row) => left + ((row - first) / span) * room,
    row: (pixel) => Math.min(last, Math.max(first, Math.round(first + ((pixel - left) / room) * span))),
  };
}

// A number in four digits, or in as many as tell it from its neighbour `apart` away.
export function short(number, apart = 0) {
  if (number === null || number === undefined || !Number.isFinite(number)) return "–";
  const size = Math.abs(number);
  const digits = apart > 0 && size > 0 ? Math.min(9, Math.max(4, Math.ceil(Math.log10(size / apart)) + 2)) : 4;
  if (size !== 0 && (size >= 1e7 || size < 1e-3)) return number.toExponential(2);
  return String(Number(number.toPrecision(digits)));
}

// Text that fits, so that a name of 300 letters stays in its place.
export function label(pen, text, x, y, room) {
  let shown = text;
  while (shown.length > 1 && pen.measureText(shown).width > room) shown = `${shown.slice(0, Math.floor(shown.length * 0.8) - 1)}…`;
  pen.fillText(shown, x, y);
}

// Text in up to `most` lines of whole words, from `y` on.
function wrapped(pen, text, x, y, room, most = 4) {
  const lines = [];
  for (const word of text.split(" ")) {
    const longer = lines.length ? `${lines.at(-1)} ${word}` : word;
    if (lines.length && (lines.length === most || pen.measureText(longer).width <= room)) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  lines.forEach((line, k) => label(pen, line, x, y + 14 * k, room));
}

// Shares side by side, a group of bars for each bin: `each` has an array of shares for each of the inks. The bins may have
// names.
export function bars(canvas, each, inks, names = []) {
  const height = 56;
  const words = canvas.clientWidth / each[0].length > 40 ? names : [];
  const { pen, width } = sheet(canvas, height + (words.length ? 62 : 0));
  const high = Math.max(...each.flat(), 1e-9);
  const room = width / each[0].length;
  pen.fillStyle = css("--ink");
  pen.textAlign = "center";
  words.forEach((name, bin) => wrapped(pen, name, (bin + 0.5) * room, height + 10, room - 4));
  each.forEach((shares, k) => shares.forEach((share, bin) => {
    const tall = (share / high) * (height - 4);
    pen.fillStyle = inks[k];
    pen.fillRect(bin * room + 2 + k * ((room - 4) / each.length), height - 1 - tall, (room - 4) / each.length, tall);
  }));
  pen.fillStyle = css("--line");
  pen.fillRect(0, height - 1, width, 1);
}

// The numbers of rows below a picture.
export function ticks(pen, x, y) {
  pen.fillStyle = css("--quiet");
  pen.textAlign = "center";
  const wished = Math.max(1, (x.last - x.first) / Math.max(2, (x.right - x.left) / 90));
  const power = 10 ** Math.floor(Math.log10(wished));
  const step = Math.max(1, [1, 2, 5, 10].find((k) => k * power >= wished) * power);
  for (let row = Math.ceil(x.first / step) * step; row <= x.last; row += step) {
    const half = pen.measureText(String(row)).width / 2;
    pen.fillText(String(row), Math.min(x.at(row), pen.canvas.clientWidth - half), y);
  }
}

// The first and the last index of sorted `rows` within an axis, one more on either side.
function within(rows, x) {
  const from = rows.findIndex((row) => row >= x.first);
  let to = rows.length - 1;
  while (to > 0 && rows[to] > x.last) to -= 1;
  return from < 0 ? [0, -1] : [Math.max(0, from - 1), Math.min(rows.length - 1, to + 1)];
}

// Of more points than pixels, the least and the greatest of each pixel: what is drawn stays the same.
function thin(rows, values, from, to, x) {
  const points = [];
  const each = Math.max(1, Math.floor((to - from + 1) / Math.max(1, 2 * (x.right - x.left))));
  for (let k = from; k <= to; k += each) {
    let low = k;
    let high = k;
    for (let j = k; j < Math.min(k + each, to + 1); j += 1) {
      if (values[j] < values[low]) low = j;
      if (values[j] > values[high]) high = j;
    }
    for (const j of [...new Set([Math.min(low, high), Math.max(low, high)])]) points.push([x.at(rows[j]), values[j]]);
  }
  return points;
}

// The scale of values, {low, high}: where a few, as a broken sensor sends them, are over a hundred times as far off as most
// are from each other, that of the others.
export function reach(values) {
  const sorted = Float64Array.from(values.filter((value) => !Number.isNaN(value))).sort();
  const last = sorted.length - 1;
  const middle = sorted[Math.floor(last / 2)];
  const apart = Math.abs(sorted[Math.floor(0.9 * last)] - sorted[Math.ceil(0.1 * last)]) || Math.abs(middle);
  const near = sorted.filter((value) => Math.abs(value - middle) <= (100 * apart || Infinity));
  return near.length ? { low: near[0], high: near.at(-1) } : { low: Infinity, high: -Infinity };
}

// A line through `values` at `rows`, or dots, in a band from `top` of `height` pixels; `low` to `high` is its scale, at
// whose edge is a mark for what is beyond.
export function line(pen, x, rows, values, { top, height, low, high, ink, joined = true }) {
  const [from, to] = within(rows, x);
  const room = high - low || 1;
  const edge = joined ? 0 : 2; // half a dot is of no less than the last row, or the greatest value
  pen.save();
  pen.beginPath();
  pen.rect(x.left - edge, top - 1 - edge, x.right - x.left + 2 * edge, height + 2 + 2 * edge);
  pen.clip();
  pen.strokeStyle = ink;
  pen.lineWidth = 1.5;
  pen.beginPath();
  const points = thin(rows, values, from, to, x);
  const there = (k) => k >= 0 && k < points.length && !Number.isNaN(points[k][1]);
  const next = (k, other) => joined && there(k) && there(other); // a line goes not across what is missing
  points.forEach(([px, value], k) => {
    const near = Math.min(high + room, Math.max(low - room, value));
    const y = top + height - (high > low || near !== low ? (near - low) / room : 0.5) * height;
    if (there(k)) pen[next(k, k - 1) ? "lineTo" : "moveTo"](px, y);
    if (there(k) && !next(k, k - 1) && !next(k, k + 1)) pen.rect(px - 1, y - 1, 2, 2);
  });
  pen.stroke();
  pen.fillStyle = css("--bad");
  for (const [px, value] of points) {
    if ((value < low || value > high) && px >= x.left && px <= x.right) pen.fillRect(px - 1.5, value > high ? top : top + height - 7, 3, 7);
  }
  pen.restore();
}

// Shares that sum to 1, one on the other: `shares[k][i]` is of class k at rows[i]. A column of pixels shows its middle row,
// and nothing where that has no answer.
export function stack(pen, x, rows, shares, inks, { top, height }) {
  const [from, to] = within(rows, x);
  if (to < from) return;
  const half = Math.max(1.5, x.half); // a single one is seen in any case
  let k = from;
  for (let pixel = Math.floor(Math.max(x.left, x.at(rows[from]) - half)); pixel < Math.min(x.right, x.at(rows[to]) + half); pixel += 1) {
    while (k < to && Math.abs(x.at(rows[k + 1]) - pixel) <= Math.abs(x.at(rows[k]) - pixel)) k += 1;
    if (Math.abs(x.at(rows[k]) - pixel) > half) continue;
    let y = top + height;
    for (let c = 0; c < shares.length; c += 1) {
      const tall = shares[c][k] * height;
      pen.fillStyle = inks[c];
      pen.fillRect(pixel, y - tall, 1, tall);
      y -= tall;
    }
  }
}

// What is around a band: a box, its scale on the left, and its name above it.
export function frame(pen, x, { top, height, low, high, name = "" }) {
  pen.strokeStyle = css("--line");
  pen.lineWidth = 1;
  pen.strokeRect(x.left, top, x.right - x.left, height);
  pen.fillStyle = css("--quiet");
  pen.textAlign = "right";
  const scale = (value, y) => pen.fillText(short(value, high - low), x.left - 4, y, x.left - 6);
  if (low === high) scale(low, top + height / 2);
  else {
    scale(high, top + 6);
    scale(low, top + height - 6);
  }
  pen.textAlign = "left";
  pen.fillStyle = css("--ink");
  label(pen, name, x.left, top - 8, x.right - x.left);
}

// The row that is chosen, and in a shade the window that ends there.
export function cursor(pen, x, row, timesteps, height) {
  const top = 0;
  if (row === null) return;
  const from = Math.max(x.left, x.at(row - timesteps + 1));
  const to = Math.min(x.right, x.at(row));
  pen.fillStyle = `${css("--mark")}26`;
  if (to > from) pen.fillRect(from, top, to - from, height);
  if (row < x.first || row > x.last) return;
  const both = [["--paper", 5], ["--ink", 2]]; // seen on any colour; on lines the wide one would be a gap
  for (const [ink, wide] of timesteps > 1 ? both.slice(1) : both) {
    pen.fillStyle = css(ink);
    pen.fillRect(x.at(row) - wide / 2, top, wide, height);
  }
}

// From blue by the paper's colour to orange: -1, 0, 1.
function diverging(share) {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const end = dark ? (share < 0 ? [86, 180, 233] : [255, 148, 60]) : (share < 0 ? [0, 114, 178] : [213, 94, 0]);
  const middle = dark ? [30, 35, 40] : [243, 245, 247];
  const t = Math.min(1, Math.abs(share));
  return `rgb(${middle.map((m, k) => Math.round(m + (end[k] - m) * t)).join()})`;
}

// A map of `cells[line][column]`; zero is the middle of its scale. `names` of the lines stand on the left, where there are any.
export function map(canvas, cells, { size = 14, names = null, first = 1 }) {
  const left = names ? Math.min(130, canvas.clientWidth / 3) : 0;
  const tall = Math.max(40, cells.length * size);
  const { pen, width } = sheet(canvas, tall + 20);
  const columns = cells[0].length;
  const scale = Math.max(...cells.map((row) => Math.max(...row.map(Math.abs)))) || 1;
  const wide = (width - left - RIGHT) / columns;
  const high = tall / cells.length;
  cells.forEach((row, r) => row.forEach((value, c) => {
    pen.fillStyle = diverging(value / scale);
    pen.fillRect(left + c * wide, r * high, wide + 0.5, high + 0.5);
  }));
  pen.fillStyle = css("--ink");
  pen.textAlign = "right";
  (names ?? []).forEach((name, r) => label(pen, name, left - 6, (r + 0.5) * high, left - 10));
  ticks(pen, axis(width - wide / 2, first, first + columns - 1, left + wide / 2), tall + 10);
  return { cell: (px, py) => [Math.floor(py / high), Math.floor((px - left) / wide)] };
}

// A legend of [ink, text] each. A patch of colour is a canvas, since the page's policy allows no inline style.
export function legend(list, each) {
  list.replaceChildren(...each.map(([ink, text]) => {
    const [item, canvas] = ["li", "canvas"].map((kind) => document.createElement(kind));
    canvas.width = canvas.height = 24;
    const pen = canvas.getContext("2d");
    pen.fillStyle = ink;
    pen.fillRect(0, 0, 24, 24);
    item.append(canvas, text);
    return item;
  }));
}
export const ends = () => [diverging(-1), diverging(1)];
