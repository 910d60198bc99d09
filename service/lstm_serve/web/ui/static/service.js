// What the page asks of the service. Addresses are relative: a proxy may put the page anywhere.

let key = "";
export const remember = (given) => { key = given; };
export const keyed = () => key !== "";

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Refused(0, "The service does not answer.");
  }
  if (response.ok) return response;
  const text = await response.text();
  let told = text;
  try {
    const body = JSON.parse(text);
    const errors = (body.errors ?? []).map((error) => (error.pointer && error.pointer !== "#" ? `${error.pointer}: ` : "") + error.detail);
    told = errors.length ? errors.join("\n") : body.detail ?? body.error ?? text;
  } catch { /* it is told as it is */ }
  throw new Refused(response.status, told);
}

// A text in UTF-8: with other letters replaced by one mark, two units would be one.
function decoded(bytes, name) {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new Refused(422, `${name} is not text in UTF-8: save it as a CSV file in UTF-8.`);
  }
}

export async function textOf(file) {
  let bytes;
  try {
    bytes = await file.arrayBuffer();
  } catch {
    throw new Refused(0, `${file.name} cannot be read: it is a folder, or not there any more.`);
  }
  return decoded(bytes, file.name);
}

export const models = async () => (await (await ask("models")).json()).models;

// Of several models the paths have the name of the one that is looked at.
let prefix = "";
export const look = (name) => { prefix = name === null ? "" : `models/${encodeURIComponent(name)}/`; };
export const about = () => (prefix ? prefix.slice(0, -1) : "model");
export const model = async () => (await ask(about())).json();
export const drift = async () => (await ask(`${prefix}drift`)).json();
export const example = async () => {
  try {
    return decoded(await (await ask(`${about()}/example`)).arrayBuffer(), "The example");
  } catch (error) {
    if (error.status !== 404) throw error;
    throw new Refused(404, "This model has no example: put one beside it, as my_model.example.csv beside my_model.h5.");
  }
};

const post = async (path, body) => (await ask(prefix + path, {
  method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
})).json();
export const explain = (sequence, grain) => post("explain", { sequence, grain });
export const trace = (sequence) => post("trace", { sequence });

// What is known of a series, of which `age_seconds` ago the last row came.
export const known = async (series) => (await ask(`${prefix}series/${encodeURIComponent(series)}`)).json();

// The events of a series as they come, after the row whose number is `last`: `tell({name, id, data})` of each, and before
// that `tell(null)`, as with whatever else comes.
export async function events(series, last, signal, tell) {
  const headers = last === null ? {} : { "Last-Event-ID": last };
  const response = await ask(`${prefix}series/${encodeURIComponent(series)}/events?inputs=true`, { headers, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    tell(null);
    const whole = (text + value).split("\n\n");
    text = whole.pop();
    for (const block of whole) {
      const fields = Object.fromEntries(block.split("\n").map((each) => each.split(/: ?(.*)/s)));
      if (fields.data) tell({ name: fields.event ?? "message", id: fields.id, data: JSON.parse(fields.data) });
    }
  }
}

const holds = (line) => /[^\s,;"]/.test(line);

// The lines of a CSV file; a line break within quotes ends no line.
function lines(text) {
  const found = [];
  let start = 0;
  let quoted = false;
  for (let k = 0; k < text.length; k += 1) {
    const code = text.charCodeAt(k);
    if (code === 34) quoted = !quoted;
    else if (!quoted && (code === 10 || (code === 13 && text.charCodeAt(k + 1) !== 10))) {
      found.push(text.slice(start, k + 1));
      start = k + 1;
    }
  }
  if (start < text.length) found.push(text.slice(start));
  return found.slice(found.findIndex(holds), found.findLastIndex(holds) + 1);
}

// The answer to as many lines below a header as are taken at once, from `at` on, `size` at most and `least` at least: [how
// many, answer].
async function asMany(header, data, at, size, least, query) {
  const sent = data.slice(at, at + size);
  try {
    return [sent.length, await (await ask(`${prefix}predict/series?${query}`, {
      method: "POST", headers: { "Content-Type": "text/csv", "X-Drift": "off" }, body: header + sent.join(""),
    })).json()];
  } catch (error) {
    if (error.status === 413 && sent.length > least) return asMany(header, data, at, Math.max(least, Math.floor(sent.length / 2)), least, query);
    if (at) error.message = `Of the rows after row ${at}: ${error.message}`;
    throw error;
  }
}

const LARGE = 2e6; // bytes of a request that may be taken

// Of a CSV file that seems to hold several units, one after the other, {by, texts}: the name of the column that says so, and
// the file of each by its key; else null. In parts that begin with the last two of the part before, so that none is cut.
export async function units(text, timesteps) {
  const query = timesteps ? `stride=${2 ** 31}` : ""; // a window of each part
  const ends = new Map();
  let [header, data, at, by] = ["", lines(text), 0, null];
  const size = Math.ceil(data.length * Math.min(1, LARGE / text.length));
  for (;;) {
    const [sent, { units: part }] = await asMany(header, data, at, timesteps ? size : Infinity, timesteps ?? Infinity, query);
    if (!part || (by !== null && part.by !== by) || part.keys.some((key, k) => k > 1 && ends.has(key))) return null;
    const { keys, last } = part;
    if (!at) [header, data] = split(data, sent - last.at(-1));
    by = part.by;
    keys.forEach((key, k) => ends.set(key, at + last[k]));
    if (at + last.at(-1) === data.length) break;
    if (keys.length < 3) return null;
    at += last.at(-3);
  }
  let first = 0;
  const texts = [...ends].map(([key, end]) => [key, header + data.slice(first, first = end).join("")]);
  return { by, texts: new Map(texts) };
}

const split = (all, count) => [all.slice(0, count).join(""), all.slice(count)];

// The answers to a whole CSV file, sent in parts that overlap by `timesteps` - 1 rows: `tell(share)` says how far it is.
// Gives {rows, predictions, inputs, notes}: inputs[n - 1] is row n as the model takes it.
export async function series(text, timesteps, tell) {
  const overlap = (timesteps ?? Infinity) - 1;
  const whole = { rows: [], predictions: [], inputs: [], notes: [] };
  let [header, data, at, size] = ["", lines(text), 0, 1000 + overlap];
  const hole = data.findIndex((line) => !holds(line));
  if (hole >= 0) throw new Refused(422, `Line ${hole + 1} is empty, and more rows come after it.`);
  do {
    const [sent, part] = await asMany(header, data, at, size, overlap + 1, "inputs=true");
    const more = sent - part.inputs.length;
    if (at && more) throw new Refused(422, `Row ${at + 1} holds what is no number.`);
    // The lines of the first part that came back as no rows are the header; it goes before each further part.
    if (!at) [header, data] = split(data, more);
    for (const row of part.rows) whole.rows.push(row + at);
    for (const found of part.predictions) whole.predictions.push(found);
    for (const row of part.inputs.slice(at ? overlap : 0)) whole.inputs.push(row);
    if (!at) whole.notes = part.notes ?? [];
    at += part.rows.length;
    size = Math.min(size, sent);
    tell(Math.min(1, at / data.length));
  } while (at + overlap < data.length);
  return whole;
}
