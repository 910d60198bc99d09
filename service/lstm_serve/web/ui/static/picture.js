// A series as it is drawn: above what the model says, below the columns that came in, on one axis.

import { title } from "./answers.js";
import { axis, colour, cursor, frame, label, legend, line, ramp, reach, sheet, short, stack, ticks } from "./chart.js";

const BAND = 54; // pixels of a channel

// The elements `at` are made the picture of rows `first` to `last`. `inputs[k]` is what came in as row `numbers[k]`, and
// `curve` what is said at `rows`; NaN is what is missing. `row` is the chosen one, `length` that of its window, `said` what
// is said of it; `joined` says whether rows follow on each other.
export function picture(at, about) {
  const { model, features, curve, rows, numbers, inputs, row, first, last, length, said, joined, brushed = null } = about;
  at.title.textContent = title(model);
  const inks = curve.stacked ? ramp(curve.names.length) : curve.names.map((_, k) => colour(k));
  const limit = curve.stacked ? null : curve.threshold ?? null;
  const named = limit === null ? curve.names : [...curve.names, `threshold ${short(limit)}`];
  if (limit !== null) inks.push(colour(3));
  legend(at.legend, named.map((name, k) => [inks[k], name]));
  const above = sheet(at.answers, Number(at.answers.dataset.height));
  const x = axis(above.width, first, last);
  const band = { top: 4, height: above.height - 26, low: curve.low, high: curve.high };
  if (curve.stacked) stack(above.pen, x, rows, curve.values, inks, band);
  else curve.values.forEach((values, k) => line(above.pen, x, rows, values, { ...band, ink: inks[k], joined }));
  if (limit !== null) line(above.pen, x, [first, last], [limit, limit], { ...band, ink: inks.at(-1) });
  frame(above.pen, x, band);
  ticks(above.pen, x, above.height - 10);

  const below = sheet(at.channels, features.length * BAND + 22);
  const chosen = numbers.indexOf(row);
  features.forEach((name, f) => {
    const values = inputs.map((each) => each[f]);
    const seen = values.filter((_, k) => numbers[k] >= first && numbers[k] <= last);
    const { low, high } = reach(seen);
    const beyond = seen.filter((value) => value < low || value > high).length;
    const place = { top: f * BAND + 16, height: BAND - 20, low, high, ink: colour(0), joined };
    line(below.pen, x, numbers, values, place);
    const far = beyond ? `; ${beyond} off the scale` : "";
    frame(below.pen, x, { ...place, name: `${name}: ${short(values[chosen], high - low)}${far}` });
  });
  ticks(below.pen, x, below.height - 10);
  for (const [{ pen, height }, window] of [[above, 1], [below, length]]) {
    cursor(pen, x, row, window, height - 20);
    if (brushed) pen.strokeRect(Math.min(...brushed), 1, Math.abs(brushed[1] - brushed[0]), height - 22);
  }
  at.answers.setAttribute("aria-label", `${title(model)}, rows ${first} to ${last}. ${said}`);
  at.channels.setAttribute("aria-label", `The ${features.length} columns that came in, rows ${first} to ${last}`);
}

// One picture of what a panel shows, below what stands `above` it: titles, legends, lists and pictures in their order.
export function saved(panel, above) {
  const drawn = (part) => part.tagName === "CANVAS";
  const parts = [...above, ...panel.querySelectorAll("h2, h3, figcaption, .legend li, .reasons li, canvas")]
    .filter((part) => part.clientWidth && !(drawn(part) && part.closest(".legend")));
  const tall = (part) => (drawn(part) ? part.clientHeight : 16) + 6;
  const whole = document.createElement("canvas");
  const { pen, width } = sheet(whole, parts.reduce((sum, part) => sum + tall(part), 8), Math.max(...parts.map((part) => part.clientWidth)));
  let y = 4;
  for (const part of parts) {
    const ink = part.querySelector("canvas");
    pen.fillStyle = getComputedStyle(part).color;
    pen.font = `${getComputedStyle(part).fontWeight} 12px system-ui, sans-serif`;
    if (drawn(part)) pen.drawImage(part, 0, y, part.clientWidth, part.clientHeight);
    else label(pen, part.textContent, ink ? 20 : 4, y + 8, width - 24);
    if (ink) pen.drawImage(ink, 4, y + 2, 12, 12);
    y += tall(part);
  }
  return whole;
}
