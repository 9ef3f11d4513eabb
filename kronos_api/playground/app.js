// The page: a file becomes candles, the form becomes a request, its events become a chart.

import { draw } from "./chart.js";
import { showSummary, showTable, showWarnings } from "./results.js";
import { forecast, getFile, getJson, readFile } from "./service.js";
import { clientCode, curl } from "./snippets.js";

const at = (id) => document.getElementById(id);
const form = at("form");
const field = (name) => form.elements[name].value.trim();
const home = new URL(".", document.baseURI).href.replace(/\/$/, "");

let source = null; // {file, name}: read again when the options of reading change
let series = null; // {candles, timestamps, freq}
let shown = { history: [], forecast: [], levels: [], expected: 0 };
let request = null;
// AbortController of the latest reading and forecast: answers to older ones are dropped.
let reading = null;
let running = null;

// 1. Candles

/** Read `file`, a Blob or the promise of one; returns whether its candles are shown. */
async function read(file, name) {
  reading?.abort();
  const mine = (reading = new AbortController());
  leave();
  source = { file, name };
  series = null;
  at("go").disabled = true;
  const options = Object.fromEntries(
    ["columns", "sep", "decimal", "time_format"].map((one) => [one, field(one)]).filter(([, value]) => value),
  );
  if (form.elements.repair_input.checked) options.repair_input = "true";
  say(`Reading ${name} ...`);
  try {
    const found = await readFile(await file, name, options, mine.signal);
    if (mine !== reading) return false;
    series = found;
    say([`${name}: ${found.understood}`, ...found.notes].join(". "));
    form.elements.freq.placeholder = found.freq ?? "such as 15min";
    show({ history: rows(found.candles, found.timestamps), forecast: [], expected: 0 });
    clear(`${found.timestamps.length} candles, ${found.timestamps[0]} to ${found.timestamps.at(-1)}`);
  } catch (error) {
    if (mine !== reading) return false;
    say(error.message, true);
    show({ history: [], forecast: [] });
    clear("");
  }
  at("go").disabled = series === null;
  return series !== null;
}

function say(text, refused = false) {
  at("read").textContent = text;
  at("read").classList.toggle("refused", refused);
  if (refused) at("reading").open = true;
}

function rows(columns, timestamps) {
  const fields = Object.keys(columns);
  return timestamps.map((timestamp, row) =>
    Object.fromEntries([["timestamp", timestamp], ...fields.map((name) => [name, columns[name][row]])]));
}

// 2. Forecast

/** The numbers of a list such as "0.1, 0.9", ascending. */
const numbers = (name) =>
  [...new Set(field(name).split(/[,;\s]+/).filter(Boolean).map(Number))].sort((a, b) => a - b);

function composed() {
  const made = { candles: series.candles, timestamps: series.timestamps, horizon: Number(field("horizon")) };
  for (const name of ["freq", "calendar"]) if (field(name)) made[name] = field(name);
  if (numbers("quantiles").length) made.quantile_levels = numbers("quantiles");
  if (field("sample_count") !== "1") made.summary = true; // one path has no distribution
  if (numbers("levels").length) made.levels = numbers("levels");
  if (form.elements.repair_input.checked) made.repair_input = true;
  const overrides = {};
  for (const name of ["sample_count", "temperature", "top_p", "top_k", "seed"]) {
    if (field(name)) overrides[name] = Number(field(name));
  }
  if (Object.keys(overrides).length) made.overrides = overrides;
  return made;
}

/** Cancel the forecast of candles that are replaced. */
function leave() {
  if (running) busy(false, "");
  running?.abort();
  running = null;
}

async function run() {
  running?.abort();
  const mine = (running = new AbortController());
  request = composed();
  clear("");
  show({ forecast: [], levels: request.quantile_levels ?? [], expected: request.horizon });
  busy(true, "Forecasting ...");
  at("result").scrollIntoView({ block: "nearest" });
  try {
    const response = await forecast(request, (candle) => {
      if (mine !== running) return;
      shown.forecast.push(candle);
      redraw();
    }, mine.signal);
    if (mine === running) finish(response);
  } catch (error) {
    if (mine !== running) return;
    if (error.name === "AbortError") busy(false, "Cancelled.");
    else refuse(error.message);
  }
}

function finish(response) {
  const quantiles = Object.entries(response.quantiles ?? {});
  const made = response.prediction.map((row, step) => ({
    ...row,
    quantiles: Object.fromEntries(quantiles.map(([level, columns]) => [level, { close: columns.close[step] }])),
  }));
  show({ forecast: made });
  showWarnings(at("warnings"), response.warnings);
  showSummary(at("summary"), response, shown.history.at(-1));
  showTable(at("table"), made, shown.levels);
  // The seed makes the copied code repeat this forecast.
  request = { ...request, overrides: { ...request.overrides, seed: response.seed } };
  at("code").hidden = false;
  snippet("curl");
  busy(false, `Forecast of ${made.length} steps, ${made[0].timestamp} to ${made.at(-1).timestamp}.`);
  at("caption").textContent = `Last candles and the forecast, by ${response.model_version}`;
}

function refuse(message) {
  busy(false, "");
  at("error").textContent = message;
  at("error").hidden = false;
}

function busy(working, text) {
  at("status").textContent = text;
  at("cancel").disabled = !working;
  if (!working) show({ expected: 0 }); // an incomplete forecast reserves no space
  at("result").setAttribute("aria-busy", String(working));
}

function clear(caption) {
  at("error").hidden = true;
  for (const id of ["summary", "table", "code"]) at(id).hidden = true;
  at("warnings").replaceChildren();
  at("caption").textContent = caption;
  for (const id of ["status", "copied"]) at(id).textContent = "";
}

// Chart and code

function show(changes) {
  shown = { ...shown, ...changes };
  redraw();
}

let frame = 0;
function redraw() {
  cancelAnimationFrame(frame);
  frame = requestAnimationFrame(() => {
    if (shown.history.length) draw(at("chart"), shown.history, shown.forecast, shown.levels, shown.expected);
    else Plotly.purge(at("chart"));
  });
}

function snippet(kind) {
  at("snippet").value = (kind === "curl" ? curl : clientCode)(request, home);
}

async function copy(kind) {
  snippet(kind);
  try {
    await navigator.clipboard.writeText(at("snippet").value);
  } catch { // browsers have a clipboard for https and localhost alone
    at("snippet").select();
    document.execCommand("copy");
  }
  at("copied").textContent = `Copied as ${kind === "curl" ? "curl" : "Python"}.`;
}

// Events

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (form.reportValidity() && series) run();
});
at("cancel").addEventListener("click", () => running?.abort());
at("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) read(file, file.name);
  event.target.value = "";
});
at("paste").addEventListener("click", () => read(new Blob([at("text").value]), "the text"));
at("sample").addEventListener("click", async () => {
  if (await read(getFile("playground/sample.csv"), "sample.csv")) run();
});
at("reading").addEventListener("change", () => source && read(source.file, source.name));
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", () => copy(button.dataset.copy));
}
document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  const text = event.clipboardData.getData("text");
  if (event.target.matches?.("input, textarea") || !(file || text)) return;
  read(file ?? new Blob([text]), file?.name ?? "the clipboard");
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  at("drop").classList.add("over");
});
addEventListener("dragleave", (event) => event.relatedTarget || at("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) read(file, file.name);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
addEventListener("resize", redraw);

// What the service has

getJson("v1/models").then(
  (model) => { at("model").textContent = `${model.model.id}${model.demo ? ", a demonstration: not for trading" : ""}, on ${model.device}`; },
  (error) => { at("model").textContent = error.message; },
);
getJson("v1/calendars").then(({ calendars }) => {
  for (const one of calendars) form.elements.calendar.add(new Option(`${one.code}: ${one.name}`, one.code));
}, () => {});
