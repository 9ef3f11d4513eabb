// Summary, warnings and table of a forecast: text for eyes and screen readers alike.

const number = (value) => (value === null ? "–" : Number(value.toPrecision(6)).toString());
const percent = (value) => `${(100 * value).toFixed(2)}\u00a0%`;

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

export function showWarnings(list, warnings) {
  list.replaceChildren(...warnings.map((one) => element("li", `${one.message} (${one.code})`)));
}

/** The facts of a response: its last close, and its summary if it has one. */
function facts(response, last) {
  const end = response.prediction.at(-1);
  const found = [
    [`Close after ${response.prediction.length} steps`, `${number(end.close)} (${percent(end.close / last.close - 1)})`],
  ];
  const band = Object.entries(response.quantiles ?? {}).sort(([a], [b]) => a - b);
  if (band.length > 1) {
    const [[low, from], [high, to]] = [band[0], band.at(-1)];
    found.push([`${100 * low} to ${100 * high} % of paths`, `${number(from.close.at(-1))} to ${number(to.close.at(-1))}`]);
  }
  if (response.summary) found.push(...risk(response.summary));
  found.push(["Seed", String(response.seed)]);
  found.push(["Time", `${Math.round(response.timings_ms.total)} ms`]);
  return found;
}

/** The summary at the last step, and over the whole horizon. */
function risk(summary) {
  return [
    ["Closes above the last close", percent(summary.p_up.at(-1))],
    ["Expected return", percent(summary.expected_return.at(-1))],
    ["Volatility of log returns", percent(summary.volatility.at(-1))],
    ["Value at risk, 95\u00a0%", percent(summary.var_95)],
    ["Expected shortfall, 95\u00a0%", percent(summary.es_95)],
    ["Maximum drawdown, median", percent(summary.max_drawdown.median)],
    ["Maximum drawdown, 95\u00a0%", percent(summary.max_drawdown.p95)],
    ...summary.p_touch.map(({ level, probability }) => [`Reaches ${number(level)}`, percent(probability)]),
  ];
}

export function showSummary(section, response, last) {
  const list = document.createElement("dl");
  for (const [name, value] of facts(response, last)) {
    const group = document.createElement("div");
    group.append(element("dt", name), element("dd", value));
    list.append(group);
  }
  section.replaceChildren(element("h2", "Summary"), list);
  section.hidden = false;
}

/** A table of `rows`: a line a candle, with the quantiles of its close. */
export function showTable(details, rows, levels) {
  const table = document.createElement("table");
  table.append(element("caption", "Forecast, mean of the sample paths", { class: "hint" }));
  const heads = ["Time", "Open", "High", "Low", "Close", ...levels.map((level) => `Close ${100 * level} %`), "Volume"];
  const header = table.createTHead().insertRow();
  for (const head of heads) header.append(element("th", head, { scope: "col" }));
  const body = table.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    line.append(element("th", row.timestamp, { scope: "row" }));
    const closes = levels.map((level) => row.quantiles?.[level]?.close ?? null);
    for (const value of [row.open, row.high, row.low, row.close, ...closes, row.volume]) {
      line.append(element("td", number(value)));
    }
  }
  details.querySelector(".scroll").replaceChildren(table);
  details.hidden = false;
}
