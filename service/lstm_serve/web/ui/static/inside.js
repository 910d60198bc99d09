// What each layer computed on the window, gate by gate.

import { map, short } from "./chart.js";

const MOST_UNITS = 128;
// The gates and states by what the layer's arrays are called; of one direction of two that is behind a slash.
const WORDS = { i: "input gate", f: "forget gate", o: "output gate", "c~": "candidate", c: "cell state", h: "state" };

const worded = (name) => {
  const last = name.split("/").pop();
  return WORDS[last] ? `${name}, ${WORDS[last]}` : name;
};
// Of an LSTM z holds the sums of all gates, which are seen one by one.
const ofGates = (name, names) => name.split("/").pop() === "z" && names.includes(`${name.slice(0, -1)}f`);

export function showInside(found, { row, first, step, sequence }) {
  document.getElementById("inside-title").textContent = step === "row" ? `Rows ${first} to ${row}, layer by layer` : `Row ${row}, layer by layer`;
  const parts = [];
  const maps = [];
  for (const layer of found.layers) {
    const heading = document.createElement("h3");
    heading.textContent = `${layer.name} (${layer.class_name})`;
    parts.push(heading);
    const names = layer.arrays.map(({ name }) => name);
    for (const { name, values } of layer.arrays) {
      if (ofGates(name, names)) continue;
      const figure = document.createElement("figure");
      const caption = document.createElement("figcaption");
      const canvas = document.createElement("canvas");
      const steps = Array.isArray(values[0]) ? values : [values];
      const cells = steps[0].slice(0, MOST_UNITS).map((_, unit) => steps.map((step) => [step[unit]].flat(Infinity)[0]));
      const [low, high] = [Math.min, Math.max].map((most) => most(...cells.map((line) => most(...line))));
      const more = steps[0].length > MOST_UNITS ? `, the first ${MOST_UNITS} of ${steps[0].length} units` : "";
      caption.textContent = `${worded(name)}: ${short(low)} to ${short(high)}${more}`;
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", caption.textContent);
      figure.append(caption, canvas);
      parts.push(figure);
      // An array of the last step alone stands below its row.
      maps.push([canvas, cells, steps.length === sequence.length ? first : steps.length === 1 ? first + sequence.length - 1 : 1]);
    }
  }
  document.getElementById("layers").replaceChildren(...parts);
  for (const [canvas, cells, first] of maps) map(canvas, cells, { size: Math.max(2, Math.min(14, 160 / cells.length)), first });
}
