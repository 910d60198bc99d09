// Why the model said so: what each value adds to its answer.

import { named, ofSteps, percent } from "./answers.js";
import { ends, legend, map, short } from "./chart.js";

const $ = (id) => document.getElementById(id);
const MOST = 10;
const signed = (value, shown) => `${value < 0 ? "−" : "+"}${shown(Math.abs(value))}`;
const tenths = (size) => (size < 0.05 ? short(size) : size.toFixed(1));
// What spoke most, in that order.
const mostOf = (all) => all.filter(({ effect }) => effect !== 0)
  .sort((a, b) => Math.abs(b.effect) - Math.abs(a.effect)).slice(0, MOST);

export function showWhy(found, { model, features, row, first, step, sequence }) {
  const probable = model.kind !== "values";
  const effectOf = (effect) => (probable ? `${signed(100 * effect, tenths)} points` : signed(effect, short));
  const score = (value) => (probable ? percent(value) : short(value));
  const usual = found.baseline.values;
  const instead = (f) => (Array.isArray(usual) && usual.length === features.length && step === "row" ? `, compared with ${short(usual[f])}` : "");
  const about = model.kind === "values" ? `value ${found.class}` : `“${named(model, found.class)}”`;
  const sum = (found.by_step ?? found.by_feature).reduce((all, each) => all + each, 0);
  const where = `row ${row}${ofSteps(model) ? ", the last step of its window" : ""}`;
  $("why-title").textContent = `What speaks for ${about} at ${where}, and what against`;
  $("why-how").textContent = (found.method === "occlusion"
    ? `Each value is replaced (by ${found.baseline.from}), and the model asked again: what the answer loses by that spoke `
      + "for it. "
    : `For a sequence that says nothing (${found.baseline.from}) the answer is ${score(found.score - sum)}, for this one ${
      score(found.score)}. Below is what each value adds, by integrated gradients. `
      + (found.completeness_error > 0.001 ? `The sum misses the difference by ${short(found.completeness_error)}. ` : ""))
    + (probable ? "A point is a hundredth of the probability. " : "")
    + "Only what the model does is explained here, not the machine behind it.";
  const values = sequence.map((step) => (Array.isArray(step) ? step : [step]));
  // Lines are features, columns are steps.
  const grid = found.attribution ?? found.by_step;
  const cells = features.map((_, f) => grid.map((step) => (Array.isArray(step) ? step[f] : step)));
  const spoken = mostOf(cells.flatMap((line, f) => line.map((effect, t) => ({ effect, f, t }))));
  const told = ({ effect, text }) => {
    const item = document.createElement("li");
    const number = document.createElement("b");
    number.textContent = effectOf(effect);
    item.append(number, ` from ${text}`);
    return item;
  };
  $("reasons").replaceChildren(...spoken.map(({ effect, f, t }) => told({
    effect, text: `${features[f]} at ${step} ${first + t}: ${short(values[t][f])}${instead(f)}`,
  })));
  const sums = (found.by_feature ?? []).map((effect, f) => ({ effect, text: features[f] }));
  $("summed").hidden = sums.length < 2;
  $("sums").replaceChildren(...mostOf(sums).map(told));
  const [against, favour] = ends();
  legend($("why-legend"), [[favour, "speaks for it"], [against, "speaks against it"]]);
  const canvas = $("cells");
  const drawn = map(canvas, cells, { size: 22, names: features, first });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "A map of the effect of each value; the lists above have the largest");
  $("cell").textContent = "";
  canvas.onpointermove = (event) => {
    const [f, t] = drawn.cell(event.offsetX, event.offsetY);
    if (cells[f]?.[t] === undefined) return;
    $("cell").textContent = `${features[f]} at ${step} ${first + t}: ${short(values[t][f])}, effect ${effectOf(cells[f][t])}`;
  };
}
