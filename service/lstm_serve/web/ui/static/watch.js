// Whether what comes in is still like the training: of each feature its state, its figures, and the shares of its bins.

import { bars, colour, legend, short } from "./chart.js";
import * as service from "./service.js";

const $ = (id) => document.getElementById(id);
const EVERY = 5000; // ms
const ORDER = ["drifted", "watch", "ok", "few"];
const WORDS = {
  few: "Too few rows have come in, so nothing is judged yet.",
  ok: "What comes in is like the training data.",
  watch: "Something is on its way: half of a limit is passed.",
  drifted: "What comes in is no longer like the training data.",
};
const percent = (share) => `${short(100 * share)} %`;

let timer = null; // while it is looked at
let drawn = null; // of which model
let looked = 0; // how often it was, so that an answer that comes too late is not shown

// How far off a feature is, as a share of its limits.
const off = ({ psi, psi_limit: psiLimit, wasserstein_sd: apart, wasserstein_sd_limit: most }) => (
  Math.max((psi ?? 0) / psiLimit, (apart ?? 0) / (most ?? 1)));

function told({ state, psi, psi_limit: psiLimit, wasserstein_sd: apart, wasserstein_sd_limit: most, out_of_range: out }) {
  if (state === "few") return "";
  const far = apart === null ? "" : `, distance ${short(apart)} sd of ${short(most)}`;
  return `PSI ${short(psi)} of ${short(psiLimit)}${far}, ${percent(out)} out of range`;
}

function part(text, kind) {
  const made = document.createElement(kind);
  made.append(text);
  return made;
}

function figure(name, of, state, names) {
  const made = document.createElement("figure");
  const caption = document.createElement("figcaption");
  const canvas = document.createElement("canvas");
  const word = part(state === "few" ? "" : state ?? "", "b");
  word.className = state ?? "";
  caption.append(part(name, "strong"), " ", word, state ? ` ${told(of)}` : of.psi === null ? "" : `PSI ${short(of.psi)}`);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Shares of the bins in the training: ${of.expected.map(percent).join(", ")}${
    of.seen ? `; in the last window: ${of.seen.map(percent).join(", ")}` : ""}${names ? `; of ${names.join(", ")}` : ""}`);
  made.append(caption, canvas);
  return [made, canvas, of, names];
}

function draw(found, names) {
  if ($("watch-said").textContent !== WORDS[found.state]) $("watch-said").textContent = WORDS[found.state];
  $("watch-said").className = `said ${found.state}`;
  $("watch-rows").textContent = `${found.rows} rows have come in. Each ${found.window} are judged together; of the next ${
    found.window} there are ${found.filled}. The training data had ${found.profile_rows}.`;
  const inks = [colour(7), colour(0)];
  legend($("watch-legend"), [[inks[0], "in the training"], [inks[1], `in the last ${found.window} rows that were judged`]]);
  const features = found.features.map((of, k) => ({ of, name: names[k] ?? of.name }))
    .sort((a, b) => ORDER.indexOf(a.of.state) - ORDER.indexOf(b.of.state) || off(b.of) - off(a.of));
  const figures = features.map(({ of, name }) => figure(name, of, of.state));
  const { classes } = found;
  const bins = classes?.labels ?? classes?.expected.map((_, k) => `class ${k}`);
  if (classes) figures.push(figure("Answers, by class", classes, null, bins));
  if (found.entropy) figures.push(figure("Answers, from certain to torn (entropy in tenths)", found.entropy));
  $("watched").replaceChildren(...figures.map(([made]) => made));
  for (const [, canvas, of, bins] of figures) bars(canvas, [of.expected, of.seen ?? []], inks, bins);
}

export const parts = () => ({});

// Show it, and again every few seconds until something else is looked at.
export function show(given) {
  hide();
  looked += 1;
  const mine = looked;
  const names = given.names();
  if (drawn !== given.model) $("watch-found").hidden = true;
  const look = async () => {
    const found = await service.drift();
    if (mine !== looked) return;
    drawn = given.model;
    $("watch-found").hidden = false;
    draw(found, names);
    timer = setTimeout(() => given.attempt(look), EVERY);
  };
  given.attempt(look);
}

export function hide() {
  clearTimeout(timer);
  looked += 1;
}
