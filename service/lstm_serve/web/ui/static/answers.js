// What the model says, in words and as curves, by its kind.

import { reach, short } from "./chart.js";

export const named = (model, k) => model.classes?.[k] ?? `class ${k}`;
export const percent = (share) => `${(100 * share).toFixed(share > 0.9995 || share < 0.0005 ? 2 : 1)} %`;
const flat = (value) => (Array.isArray(value) ? deepest(value) : [value]);
// Whether a model answers each step of a window; what is shown is the answer of the last one.
export const ofSteps = ({ kind, output_shape: shape }) => kind === "steps" || (kind === "values" && shape.length > 1);
const deepest = (values) => (Array.isArray(values[0]) ? deepest(values.at(-1)) : values);
const last = (model, answer) => (model.kind === "steps" ? answer.steps.at(-1) : answer);

export function title(model) {
  const what = {
    classes: "How probable each class is",
    steps: "How probable each class is",
    binary: `How probable ${named(model, 1)} is`,
    labels: "How probable each label is",
    values: "What the model answers",
  }[model.kind];
  return what + (ofSteps(model) ? ", at the last step of each window" : "");
}

export function words(model, given) {
  const answer = last(model, given);
  if (model.kind === "values") {
    const numbers = flat(answer.values);
    return numbers.slice(0, 8).map((number) => short(number)).join(", ") + (numbers.length > 8 ? ` … (${numbers.length} numbers)` : "");
  }
  if (model.kind === "labels") {
    return answer.labels.length ? answer.labels.join(", ") : "none of the labels";
  }
  const { predicted_class: k, probability: ofOne } = answer;
  const share = model.kind === "binary" ? (k ? ofOne : 1 - ofOne) : answer.probabilities[k];
  return `${answer.label ?? named(model, k)} (${percent(share)})`;
}

// The numbers of an answer, in an order that is the same for all of them.
function numbers(model, given) {
  const answer = last(model, given);
  return model.kind === "values" ? flat(answer.values) : answer.probabilities ?? [answer.probability];
}

// {names, values: names.length arrays, stacked, low, high, threshold} of all answers; at most `most` curves.
export function curves(model, predictions, most) {
  const all = predictions.map((answer) => numbers(model, answer));
  const count = all[0].length;
  let values = Array.from({ length: count }, (_, k) => all.map((row) => row[k]));
  let names = values.map((_, k) => (model.kind === "values" ? `value ${k}` : named(model, model.kind === "binary" ? 1 : k)));
  const stacked = model.kind === "classes" || model.kind === "steps";
  if (count > most) {
    const sums = values.map((curve) => curve.reduce((sum, value) => sum + Math.abs(value), 0));
    const kept = sums.map((_, k) => k).sort((a, b) => sums[b] - sums[a]).slice(0, most - 1).sort((a, b) => a - b);
    const rest = all.map((row) => row.reduce((sum, value, k) => (kept.includes(k) ? sum : sum + value), 0));
    const more = `${count - kept.length} others`;
    names = [...kept.map((k) => names[k]), ...(stacked ? [more] : [])];
    values = [...kept.map((k) => values[k]), ...(stacked ? [rest] : [])];
  }
  const probable = model.kind !== "values";
  return { names, values, stacked, ...(probable ? { low: 0, high: 1 } : reach(values.flat())), threshold: model.threshold };
}
