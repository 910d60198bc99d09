// The page: what is shown, and what a click, a drag and a key do. Text from outside is only ever set as text.

import { curves, words } from "./answers.js";
import { axis, MOST_COLOURS } from "./chart.js";
import { showInside } from "./inside.js";
import * as live from "./live.js";
import { picture, saved } from "./picture.js";
import * as service from "./service.js";
import * as watch from "./watch.js";
import { showWhy } from "./why.js";

const $ = (id) => document.getElementById(id);
// Of the data that are dropped, and those that have their own: each has `show`, `hide`, and `parts` for the page's address.
const OWN = { live, watch };
const VIEWS = ["try", "why", "inside", ...Object.keys(OWN)];

// The model, what came of its data with the curves of that, and what is looked at: rows are counted from 1.
// Of several models `name` says which; of several units in the file {text, source, taken, units} `unit` does, "" for all as one.
export const shown = { name: null, model: null, file: null, unit: "", data: null, curves: null, row: null, first: 1, last: 1, view: "try" };
let again = null; // what a key was missing for
let opening = null; // the last file that was opened
let linked = true; // until there are data, the page's address says which rows of them to show

function tell(error) {
  $("problem").textContent = error ? error.message : "";
  $("problem").hidden = !error;
}

function wait(text) {
  $("busy").textContent = text ?? "";
  $("busy").hidden = !text;
}

// Do something of which a part may be refused: say so, or ask for the key and do it again.
async function attempt(what, saying) {
  tell(null);
  wait(saying);
  try {
    await what();
  } catch (error) {
    if (error.status === 401) {
      again = () => attempt(what, saying);
      if (service.keyed()) tell(new Error("The service does not know this key."));
      $("ask").hidden = false;
      $("key").focus();
    } else tell(error);
    if (!(error instanceof service.Refused)) throw error;
  } finally {
    wait(null);
  }
}

const timesteps = () => shown.model.input_shape[0];
// Of a model of ids a row is a sequence, of others a time step of one that ends there.
const ids = () => shown.model.input_shape.length < 2;
const length = () => (ids() ? 1 : timesteps() ?? shown.data.inputs.length);
const features = (count = shown.data?.inputs[0].length ?? shown.model.input_shape[1] ?? 1) => Array.from(
  { length: count },
  (_, k) => (ids() ? { name: `id ${k + 1}` } : shown.model.features?.[k] ?? { name: `feature ${k + 1}` }),
);
const withUnit = ({ name, unit }) => (unit ? `${name} (${unit})` : name);

// Show no model, and say why.
function refuse(why) {
  shown.model = null;
  turn(null);
  throw new service.Refused(422, why);
}

// Of a model: how many inputs and outputs it has, where it has more than one of each.
const several = ({ inputs, outputs }) => Object.entries({ inputs, outputs }).filter(([, each]) => each.length > 1)
  .map(([kind, each]) => `${each.length} ${kind} (${each.map(({ name }) => name).join(", ")})`).join(" and ");

async function begin() {
  const all = await service.models();
  const served = all.filter(({ version }) => version !== null);
  const wish = asked().get("model");
  const found = wish === null ? served.find((each) => each.default) ?? served[0] : served.find(({ name }) => name === wish);
  linked = true;
  empty();
  $("models").hidden = found && served.length < 2;
  $("chosen").replaceChildren(...served.map(({ name }) => new Option(name, name, false, name === found?.name)));
  if (!found) {
    $("chosen").selectedIndex = -1;
    $("name").textContent = wish;
    $("description").textContent = "";
    const reason = all.find(({ name }) => name === wish)?.refused;
    refuse(`${wish === null ? "No model is" : `The model “${wish}” is not`} served here${reason ? `: ${reason}` : "."}`);
  }
  shown.name = all.length > 1 ? found.name : null;
  service.look(shown.name);
  $("about").href = service.about();
  const model = await service.model();
  document.title = model.name;
  $("name").textContent = model.name;
  $("description").textContent = model.description ?? "";
  if (several(model)) refuse(`This page is of one input and one output, and the model has ${several(model)}.`);
  const [{ shape, ids: limit }] = model.inputs;
  if (shape.length > 2 || (shape.length < 2 && !limit)) {
    const takes = shape.map((size) => size ?? "any").join(" x ");
    refuse(`This page is of series, a row for each time step, and the model takes ${takes} numbers at once.`);
  }
  shown.model = model;
  const columns = model.features ? model.features.map((feature) => feature.name).join(", ") : `${model.input_shape[1] ?? 1} columns of numbers`;
  $("form").textContent = ids() ? "a sequence of ids in each row" : "a row for each time step and a column for each feature";
  $("expects").textContent = ids() ? `A row is a sequence of ${timesteps() ?? "any number of"} ids.`
    : `The model looks at ${timesteps() ?? "any number of"} rows at a time, of: ${columns}.`;
  $("example").hidden = !model.features;
  turn(wanted());
  if (asked().has("example")) await open(await example());
}

const example = async () => ({ text: await service.example(), source: "the example", taken: true });

// Take away what was shown of the data before: it would seem to be of those that come.
function empty(source = "") {
  opening = Symbol(source);
  Object.assign(shown, { data: null, row: null });
  $("source").textContent = source && `The data: ${source}`;
  $("note").textContent = "";
  $("found").hidden = true;
}

// Show a file {text, source, taken}, of several units one: that of the address, or the first, where none is given.
async function open(file, unit = linked ? asked().get("unit") : null) {
  await attempt(async () => {
    if (!shown.model) await begin();
    const { text, source } = file;
    empty(source);
    const mine = opening;
    // Only a column that is no feature may name units.
    const units = file.units ?? (shown.model.features && !ids() ? await service.units(text, timesteps()) : null);
    const keys = [...units?.texts.keys() ?? []];
    const one = keys.includes(unit) || unit === "" ? unit : keys[0] ?? "";
    const said = (share) => opening === mine && wait(`Answering … ${Math.round(100 * share)} %`);
    const data = await service.series(units?.texts.get(one) ?? text, ids() ? 1 : timesteps(), said);
    if (opening !== mine) return;
    Object.assign(shown, { file: { ...file, units }, unit: one, data, curves: curves(shown.model, data.predictions, MOST_COLOURS) });
    $("note").textContent = (data.notes ?? []).join("\n");
    $("units").hidden = !units;
    $("by").textContent = units?.by ?? "";
    $("unit").replaceChildren(...[...keys, ""].map((key) => new Option(key || "all, as one series", key, false, key === one)));
    $("found").hidden = false;
    const given = new URLSearchParams(linked ? asked() : "");
    given.set("view", shown.view);
    linked = false;
    show(given);
  }, "Answering …");
}

// Show what the page's address asks for now.
function follow() {
  const unit = asked().get("unit");
  if (!shown.file.units || unit === null || unit === shown.unit) return show(asked());
  linked = true;
  return open(shown.file);
}

// Show the rows that are asked for.
function show(given) {
  const number = (name, other) => Number(given.get(name)) || other;
  const { inputs, rows } = shown.data;
  shown.view = wanted(given);
  look(number("from", 1), number("to", inputs.length));
  choose(number("row", rows.at(-1)));
  turn(shown.view);
}

const asked = () => new URLSearchParams(location.hash.slice(1));
const wanted = (given = asked()) => (VIEWS.includes(given.get("view")) ? given.get("view") : "try");

// A link to this page shows the same row again, of the example at once, of another file once it is dropped.
function remember() {
  const { row, first, last, view, data, file, unit } = shown;
  const model = shown.name !== null && { model: shown.name };
  if (OWN[view]) {
    history.replaceState(null, "", `#${new URLSearchParams({ ...model, view, ...OWN[view].parts() })}`);
    return;
  }
  const parts = new URLSearchParams({ ...model, ...(file.taken && { example: "" }), ...(file.units && { unit }), row, view });
  if (first !== 1 || last !== data.inputs.length) { parts.set("from", first); parts.set("to", last); }
  history.replaceState(null, "", `#${parts}`);
}

const answer = () => shown.data.predictions[shown.data.rows.indexOf(shown.row)];
const sequence = () => (ids() ? shown.data.inputs[shown.row - 1] : shown.data.inputs.slice(shown.row - length(), shown.row));

function choose(row) {
  const { rows } = shown.data;
  const nearest = rows.reduce((best, each) => (Math.abs(each - row) < Math.abs(best - row) ? each : best), rows[0]);
  const other = shown.row !== null && nearest !== shown.row;
  shown.row = nearest;
  Object.assign($("row"), { value: nearest, min: rows[0], max: rows.at(-1) });
  $("row-range").textContent = `of ${rows[0]} to ${rows.at(-1)}`;
  $("readout").textContent = `Row ${nearest}${shown.unit && ` of ${shown.file.units.by} ${shown.unit}`}: ${words(shown.model, answer())}`;
  draw();
  remember();
  if (other && shown.view !== "try") return turn(shown.view);
  return null;
}

function look(first, last) {
  const most = shown.data.inputs.length;
  const from = Math.max(1, Math.min(first, last, most));
  shown.first = from;
  shown.last = Math.min(most, Math.max(first, last, from + 1));
  $("from").value = shown.first;
  $("to").value = shown.last;
  if (shown.row !== null) { draw(); remember(); }
}

function draw(brushed = null) {
  if (shown.view !== "try") return;
  const { model, data, curves: curve, row, first, last } = shown;
  picture({ title: $("answers-title"), legend: $("legend"), answers: $("answers"), channels: $("channels") }, {
    model, curve, row, first, last, brushed, rows: data.rows, numbers: data.inputs.map((_, k) => k + 1), inputs: data.inputs,
    features: features().map(withUnit), length: length(), said: $("readout").textContent, joined: !ids(),
  });
}

async function turn(view, focus = false) {
  if (view !== shown.view) tell(null); // what was told is of the other one
  shown.view = view;
  for (const each of VIEWS) {
    const here = each === view;
    $(each).hidden = !here;
    $(`tab-${each}`).setAttribute("aria-selected", here);
    $(`tab-${each}`).tabIndex = here ? 0 : -1;
    if (here && focus) $(`tab-${each}`).focus();
  }
  const own = OWN[view];
  for (const each of Object.values(OWN)) if (each !== own) each.hide();
  $("views").hidden = !shown.model;
  $("drop").hidden = own !== undefined || !shown.model;
  $("found").hidden = own !== undefined || !shown.data;
  $("nothing").hidden = $("drop").hidden || shown.data !== null || view === "try";
  own?.show({ model: shown.model, names: (count) => features(count).map(withUnit), attempt, remember }, asked());
  if (own || shown.row !== null) remember();
  if (own || !shown.data) return;
  $("range").hidden = view !== "try";
  draw();
  const { row, data } = shown;
  const still = () => shown.row === row && shown.data === data && shown.view === view;
  const about = {
    model: shown.model, row, sequence: sequence(), answer: answer(),
    ...(ids() ? { features: ["id"], first: 1, step: "place" } : { features: features().map(withUnit), first: row - length() + 1, step: "row" }),
  };
  const [ask, show, saying] = {
    why: [() => service.explain(about.sequence, ids() ? "step" : "cell"), showWhy, "Asking why …"],
    inside: [() => service.trace(about.sequence), showInside, "Looking inside …"],
  }[view] ?? [];
  if (!ask) return;
  const panel = $(`${view}-found`);
  panel.classList.add("stale"); // it is of another row
  await attempt(async () => {
    const found = await ask();
    if (!still()) return;
    panel.classList.remove("stale");
    show(found, about);
  }, saying);
}

function brush(canvas) {
  let from = null;
  const where = (event) => event.clientX - canvas.getBoundingClientRect().left;
  const x = () => axis(canvas.clientWidth, shown.first, shown.last);
  canvas.addEventListener("pointerdown", (event) => {
    from = where(event);
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (from !== null && Math.abs(where(event) - from) > 4) draw([from, where(event)]);
  });
  canvas.addEventListener("pointerup", (event) => {
    const to = where(event);
    if (from !== null && Math.abs(to - from) > 4) look(x().row(from), x().row(to));
    else if (from !== null) choose(x().row(to));
    from = null;
  });
  canvas.addEventListener("pointercancel", () => { from = null; draw(); });
  canvas.addEventListener("keydown", (event) => {
    const far = event.shiftKey ? 10 : 1;
    const doing = {
      ArrowLeft: () => choose(shown.row - far), ArrowRight: () => choose(shown.row + far),
      Home: () => choose(1), End: () => choose(shown.data.inputs.length),
      Enter: () => turn("why", true), Escape: () => look(1, shown.data.inputs.length),
    }[event.key];
    if (!doing) return;
    event.preventDefault();
    doing();
  });
}

function save() {
  saved($(shown.view), [$("name"), $("source"), $("readout")]).toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${shown.model.name}-row-${shown.row}-${shown.view}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
}

const read = ([file]) => file && attempt(async () => open({ text: await service.textOf(file), source: file.name }), "Reading …");

$("file").addEventListener("change", (event) => { read(event.target.files); event.target.value = ""; });
$("take").addEventListener("click", () => attempt(async () => open(await example()), "Reading …"));
$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  service.remember($("key").value.trim());
  $("ask").hidden = true;
  again?.();
});
for (const name of ["dragover", "dragleave", "drop"]) {
  addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", name === "dragover");
    if (name === "drop" && !$("drop").hidden) read(event.dataTransfer.files);
  });
}
for (const canvas of [$("answers"), $("channels")]) brush(canvas);
$("unit").addEventListener("change", ({ target }) => open(shown.file, target.value));
$("row").addEventListener("change", ({ target }) => choose(target.value ? Number(target.value) : shown.row));
for (const id of ["from", "to"]) $(id).addEventListener("change", () => look(Number($("from").value), Number($("to").value)));
$("all").addEventListener("click", () => look(1, shown.data.inputs.length));
$("save").addEventListener("click", save);
for (const view of VIEWS) {
  $(`tab-${view}`).addEventListener("click", () => turn(view));
  $(`tab-${view}`).addEventListener("keydown", (event) => {
    const way = { ArrowRight: 1, ArrowLeft: VIEWS.length - 1 }[event.key];
    if (way) turn(VIEWS[(VIEWS.indexOf(view) + way) % VIEWS.length], true);
  });
}
$("chosen").addEventListener("change", (event) => { location.hash = new URLSearchParams({ model: event.target.value }); });
addEventListener("hashchange", () => (
  shown.data && (shown.name === null || asked().get("model") === shown.name) ? follow() : attempt(begin, "Loading …")));
let resized;
addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(() => shown.model && turn(shown.view), 150); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => shown.model && turn(shown.view));
attempt(begin, "Loading …");
