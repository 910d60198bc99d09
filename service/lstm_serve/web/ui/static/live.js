// A series as it comes: its events, drawn. What a broken connection kept back is asked for by the number of the last row.

import { curves, words } from "./answers.js";
import { MOST_COLOURS } from "./chart.js";
import { picture } from "./picture.js";
import * as service from "./service.js";

const $ = (id) => document.getElementById(id);
const MOST = 600; // rows that are shown
const AGAIN = 1000; // ms until what was refused or has ended is asked for again
const SILENCE = 45000; // ms: the service says every 15 s at least that it lives
const ASK = 5; // s until it is asked again how old the last row is
const NO = [400, 401, 409, 422, 501]; // what asking again does not change

// The series, the number of its last row, its rows {number, row, answer}, of which one without values stands where some are
// missing, whether it has ended, and whether it is to be followed whenever it is looked at.
export const live = { series: "", last: null, rows: [], ended: false, on: false };
let came = null; // when the last row did, in ms, as far as that is known
let about = null; // of the page: the model, the names of its columns, and what asks for a key
let stop = null; // while it is followed, what lets go of the connection
let drawing = false;

// Another series, of which nothing has come yet.
function clear(series) {
  Object.assign(live, { series, last: null, rows: [], ended: false });
}

function say(text) {
  if ($("live-state").textContent !== text) $("live-state").textContent = text;
}

function label() {
  $("go").textContent = stop && $("series").value.trim() === live.series ? "Stop" : "Follow";
}

function take({ name, id, data }) {
  const newest = live.rows.at(-1);
  if (name === "end") {
    Object.assign(live, { last: null, ended: true });
    draw();
    say("The series has ended; another one is waited for.");
  } else if (name === "gap") {
    if (newest) live.rows.push({ number: newest.number + 0.5, row: [] });
  } else {
    const number = Number.parseInt(id, 10);
    if (live.ended || (newest && number <= newest.number)) live.rows = []; // another series
    live.ended = false;
    live.rows.push({ ...data, number, row: [data.row].flat(Infinity) });
    live.rows.splice(0, live.rows.length - MOST);
    live.last = id;
    if (came !== null) came = Date.now();
    if (!drawing) requestAnimationFrame(draw);
    drawing = true;
  }
}

const said = (model, { answer, problem, missing }) => (
  answer ? words(model, answer) : problem?.detail ?? (missing ? `${missing} more rows are needed for an answer` : "no answer"));

function draw() {
  drawing = false;
  const newest = live.rows.at(-1);
  $("live-found").hidden = !newest;
  if ($("live").hidden || !newest) return;
  const { model, names } = about;
  const told = said(model, newest);
  $("live-said").textContent = `${live.ended ? "Ended, the last was row" : "Row"} ${newest.number}: ${told}`;
  const answered = live.rows.map(({ answer }) => answer).filter(Boolean);
  const curve = answered.length ? curves(model, answered, MOST_COLOURS) : { names: [], values: [], stacked: true, low: 0, high: 1 };
  let count = 0;
  const places = live.rows.map(({ answer }) => (answer ? count++ : null));
  const numbers = live.rows.map(({ number }) => number);
  picture({ title: $("live-title"), legend: $("live-legend"), answers: $("live-answers"), channels: $("live-channels") }, {
    model, numbers, rows: numbers, features: names(newest.row.length), length: model.input_shape[0] ?? 1, said: told,
    curve: { ...curve, values: curve.values.map((values) => places.map((place) => values[place] ?? NaN)) },
    inputs: live.rows.map(({ row }) => newest.row.map((_, f) => row[f] ?? NaN)),
    row: newest.number, first: numbers[0], last: Math.max(newest.number, numbers[0] + 1),
  });
}

// Say how old the last row is, as the service knows it: of those that come at first all are older.
async function tellAge(asking) {
  if (!live.rows.length || live.ended) came = null;
  else if (asking || came === null) {
    const known = await service.known(live.series).catch(() => null);
    came = known && Date.now() - 1000 * known.age_seconds;
  }
  const seconds = Math.round((Date.now() - came) / 1000);
  const [size, unit] = [[86400, "days"], [3600, "h"], [60, "min"], [1, "s"]].find(([each]) => seconds >= 2 * each) ?? [1, "s"];
  $("live-age").textContent = stop && came !== null ? `It came ${Math.floor(seconds / size)} ${unit} ago.` : "";
}

// What comes of one connection, until that ends.
async function listen(ended) {
  came = null;
  const silent = new AbortController();
  let timer;
  const heard = (text) => {
    clearTimeout(timer);
    timer = setTimeout(() => silent.abort(), SILENCE);
    say(text);
  };
  heard("Connecting …");
  try {
    await service.events(live.series, live.last, AbortSignal.any([ended, silent.signal]), (event) => {
      if (ended.aborted) return;
      if (event) take(event);
      else heard("Each row is shown as it comes.");
    });
  } finally {
    clearTimeout(timer);
  }
}

async function follow() {
  stop?.();
  const ending = new AbortController();
  const ended = ending.signal;
  let seconds = 0;
  const timer = setInterval(() => tellAge((seconds += 1) % ASK === 0), 1000);
  stop = () => { clearInterval(timer); ending.abort(); };
  label();
  while (!ended.aborted) {
    try {
      await listen(ended);
    } catch (error) {
      if (ended.aborted) return;
      if (NO.includes(error.status)) {
        halt();
        say("It is not followed.");
        throw error;
      }
      const why = error instanceof service.Refused ? error.message : "The connection broke.";
      say(error.status === 404 ? "There is no such series yet; it is waited for." : `${why} It is tried again.`);
    }
    await new Promise((done) => { setTimeout(done, AGAIN); });
  }
}

function halt() {
  stop?.();
  stop = null;
  $("live-age").textContent = "";
  label();
}

// Begin with a series, or go on with the one that there is after its last row.
function begin(series) {
  if (series !== live.series) {
    clear(series);
    draw();
  }
  $("series").value = series;
  live.on = true;
  about.attempt(async () => {
    if (!$("series").checkValidity()) {
      halt();
      throw new service.Refused(422, `No series can have this id: it has ${$("series").title}.`);
    }
    await follow();
  });
}

export const parts = () => (live.series ? { series: live.series } : {});

// Show it; the page's address may say which series.
export function show(given, address) {
  if (about?.model !== given.model) {
    halt();
    clear("");
    live.on = false;
  }
  about = given;
  const series = address.get("series");
  if (series && series !== live.series) begin(series);
  else if (live.on && !stop) begin(live.series);
  draw();
}

// Let go of the connection while something else is looked at.
export const hide = halt;

$("series").addEventListener("input", label);
$("follow").addEventListener("submit", (event) => {
  event.preventDefault();
  const series = $("series").value.trim();
  if (stop && series === live.series) {
    live.on = false;
    halt();
    say("Stopped.");
  } else {
    begin(series);
    about.remember();
  }
});
