// What the page asks of the service. Addresses are relative: a proxy may put the page anywhere.

let key = "";
export const remember = (given) => { key = given; };

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

// A CSV file as its header and its lines; a line break within quotes ends no line.
export function lines(text) {
  const found = [];
  let start = 0;
  let quoted = false;
  for (let k = 0; k < text.length; k += 1) {
    const code = text.charCodeAt(k);
    if (code === 34) quoted = !quoted;
    else if (code === 10 && !quoted) {
      found.push(text.slice(start, k + 1));
      start = k + 1;
    }
  }
  if (start < text.length) found.push(text.slice(start));
  return found.filter((line) => line.trim() !== "");
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
  // A file of numbers alone has no header.
  const [header, data] = /[a-z]/i.test(all[0]) ? [all[0], all.slice(1)] : ["", all];
  const whole = { rows: [], predictions: [], inputs: [], notes: [] };
  for (let at = 0; at < data.length - timesteps + 1 || at === 0;) {
    let part;
    try {
      part = await send([header, ...data.slice(at, at + most + timesteps - 1)].join(""));
    } catch (error) {
      if (error.status !== 413 || most < 2) throw error;
      most = Math.floor(most / 2);
      continue;
    }
    for (const row of part.rows) whole.rows.push(row + at);
    for (const found of part.predictions) whole.predictions.push(found);
    for (const row of part.inputs.slice(at ? timesteps - 1 : 0)) whole.inputs.push(row);
    if (!at) whole.notes = part.notes ?? [];
    at += most;
    tell(Math.min(1, at / data.length));
  }
  return whole;
}
