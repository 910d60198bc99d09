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

export const models = async () => (await (await ask("models")).json()).models;

// Of several models the paths have the name of the one that is looked at.
let prefix = "";
export const look = (name) => { prefix = name === null ? "" : `models/${encodeURIComponent(name)}/`; };
export const about = () => (prefix ? prefix.slice(0, -1) : "model");
export const model = async () => (await ask(about())).json();
export const drift = async () => (await ask(`${prefix}drift`)).json();
export const example = async () => (await ask(`${about()}/example`)).text();

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

// The answers to a whole CSV file, sent in parts that overlap by `timesteps` - 1 rows: `tell(share)` says how far it is.
// Gives {rows, predictions, inputs, notes}: inputs[n - 1] is row n as the model takes it.
export async function series(text, timesteps, tell) {
  const send = async (part) => (await ask(`${prefix}predict/series?inputs=true`, {
    method: "POST", headers: { "Content-Type": "text/csv", "X-Drift": "off" }, body: part,
  })).json();
  const all = lines(text);
  let most = timesteps ? 1000 : Infinity;
  if (all.length <= most) {
    try {
      return await send(text);
    } catch (error) {
      if (error.status !== 413 || !timesteps) throw error;
      most = Math.floor(all.length / 2);
    }
  }
  const hole = all.findIndex((line) => !holds(line));
  if (hole >= 0) throw new Refused(422, `An empty line comes after ${hole} lines, and more rows after it.`);
  // The lines of the first part that came back as no rows are the header; it goes before each further part.
  let header = "";
  let data = all;
  const whole = { rows: [], predictions: [], inputs: [], notes: [] };
  for (let at = 0; at < data.length - timesteps + 1 || at === 0;) {
    const sent = data.slice(at, at + most + timesteps - 1);
    let part;
    try {
      part = await send([header, ...sent].join(""));
    } catch (error) {
      if (error.status === 413 && most > 1) {
        most = Math.floor(most / 2);
        continue;
      }
      if (at) error.message = `Of the rows after row ${at}: ${error.message}`;
      throw error;
    }
    const more = sent.length - part.inputs.length;
    if (at && more) throw new Refused(422, `Row ${at + 1} holds what is no number.`);
    if (!at) [header, data] = [data.slice(0, more).join(""), data.slice(more)];
    for (const row of part.rows) whole.rows.push(row + at);
    for (const found of part.predictions) whole.predictions.push(found);
    for (const row of part.inputs.slice(at ? timesteps - 1 : 0)) whole.inputs.push(row);
    if (!at) whole.notes = part.notes ?? [];
    at += part.rows.length;
    tell(Math.min(1, at / data.length));
  }
  return whole;
}
