// A series as it is drawn: above what the model says, below the columns that came in, on one axis.

import { title } from "./answers.js";
import { axis, colour, cursor, frame, line, patch, ramp, sheet, short, stack, ticks } from "./chart.js";

const BAND = 54; // pixels of a channel

// The elements `at` are made the picture of rows `first` to `last`. `inputs[k]` is what came in as row `numbers[k]`, and
// `curve` what is said at `rows`; NaN is what is missing. `row` is the chosen one, `length` that of its window, `said` what
// is said of it.
export function picture(at, { model, features, curve, rows, numbers, inputs, row, first, last, length, said, brushed = null }) {
  at.title.textContent = title(model);
  const inks = curve.stacked ? ramp(curve.names.length) : curve.names.map((_, k) => colour(k));
  const limit = curve.stacked ? null : curve.threshold ?? null;
  const named = limit === null ? curve.names : [...curve.names, `threshold ${short(limit)}`];
  if (limit !== null) inks.push(colour(3));
  at.legend.replaceChildren(...named.map((name, k) => {
    const item = document.createElement("li");
    item.append(patch(inks[k]), name);
    return item;
  }));
  const above = sheet(at.answers, Number(at.answers.dataset.height));
  const x = axis(above.width, first, last);
  const band = { top: 4, height: above.height - 26, low: curve.low, high: curve.high };
  if (curve.stacked) stack(above.pen, x, rows, curve.values, inks, band);
  else curve.values.forEach((values, k) => line(above.pen, x, rows, values, { ...band, ink: inks[k] }));
  if (limit !== null) line(above.pen, x, [first, last], [limit, limit], { ...band, ink: inks.at(-1) });
  frame(above.pen, x, band);
  ticks(above.pen, x, above.height - 10);

  const below = sheet(at.channels, features.length * BAND + 22);
  const chosen = numbers.indexOf(row);
  features.forEach((name, f) => {
    const values = inputs.map((each) => each[f]);
    let low = Infinity;
    let high = -Infinity;
    values.forEach((value, k) => {
      if (numbers[k] < first || numbers[k] > last) return;
      if (value < low) low = value;
      if (value > high) high = value;
    });
    const place = { top: f * BAND + 16, height: BAND - 20, low, high, ink: colour(0) };
    line(below.pen, x, numbers, values, place);
    frame(below.pen, x, { ...place, name: `${name}: ${short(values[chosen], high - low)}` });
  });
  ticks(below.pen, x, below.height - 10);
  for (const [{ pen, height }, window] of [[above, 1], [below, length]]) {
    cursor(pen, x, row, window, height - 20);
    if (brushed) pen.strokeRect(Math.min(...brushed), 1, Math.abs(brushed[1] - brushed[0]), height - 22);
  }
  at.answers.setAttribute("aria-label", `${title(model)}, rows ${first} to ${last}. ${said}`);
  at.channels.setAttribute("aria-label", `The ${features.length} columns that came in, rows ${first} to ${last}`);
}
