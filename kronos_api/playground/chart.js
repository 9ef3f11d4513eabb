// The chart: candles of the history, candles of the forecast, the band of its quantiles.

const SHOWN = 120; // candles of the history

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function candles(x, rows, name, rise, fall) {
  const column = (field) => rows.map((row) => row[field]);
  return {
    type: "candlestick", name, x, showlegend: true,
    open: column("open"), high: column("high"), low: column("low"), close: column("close"),
    increasing: { line: { color: rise, width: 1 }, fillcolor: rise },
    decreasing: { line: { color: fall, width: 1 }, fillcolor: fall },
  };
}

/** The outermost quantiles of the close as a filled band that starts at the last close. */
function band(last, rows, levels) {
  if (levels.length < 2 || !rows.length) return [];
  const x = [last.timestamp, ...rows.map((row) => row.timestamp)];
  const line = (level, more) => ({
    type: "scatter", mode: "lines", x, hoverinfo: "skip", line: { width: 0 },
    y: [last.close, ...rows.map((row) => row.quantiles[level].close)], ...more,
  });
  const [low, high] = [levels[0], levels.at(-1)];
  const name = `close, ${100 * low} to ${100 * high} %`;
  return [
    line(low, { showlegend: false }),
    line(high, { fill: "tonexty", fillcolor: colour("band"), name }),
  ];
}

/** Ticks that have room on an axis of `count` candles, with the date above the time of day. */
function ticks(timestamps, count, width) {
  const step = Math.ceil(count / Math.max(2, Math.floor(width / 120)));
  const tickvals = timestamps.filter((_, at) => at % step === Math.floor(step / 2));
  const clock = /^(\d{4}-\d{2}-\d{2})[T ](\d{2}:\d{2})/;
  const text = (one) => (clock.exec(one) ?? [null, one]).slice(1).join("<br>");
  return { tickvals, ticktext: tickvals.map(text) };
}

/** Draw `history` and `forecast`, rows of {timestamp, open, high, low, close, quantiles?}. */
export function draw(element, history, forecast, levels, expected) {
  const past = history.slice(-SHOWN);
  const x = (rows) => rows.map((row) => row.timestamp);
  const traces = [candles(x(past), past, "history", colour("rise"), colour("fall"))];
  if (forecast.length) {
    traces.push(...band(past.at(-1), forecast, levels));
    traces.push(candles(x(forecast), forecast, "forecast", colour("forecast"), colour("forecast")));
    traces.at(-1).decreasing.fillcolor = colour("panel");
  }
  const count = past.length + Math.max(expected, forecast.length);
  const axis = { gridcolor: colour("line"), zeroline: false, fixedrange: true };
  const layout = {
    width: element.clientWidth, height: element.clientHeight,
    margin: { l: 56, r: 8, t: 8, b: 48 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("text"), family: getComputedStyle(document.body).fontFamily, size: 12 },
    legend: { orientation: "h", traceorder: "normal", y: 1.02, yanchor: "bottom", x: 0 },
    // Consecutive candles stand side by side, however far apart their times are.
    xaxis: {
      ...axis, ...ticks([...x(past), ...x(forecast)], count, element.clientWidth), type: "category", tickangle: 0,
      rangeslider: { visible: false }, range: [-1, count],
    },
    yaxis: { ...axis, tickformat: "~g" },
    hovermode: "x",
    dragmode: false,
  };
  Plotly.react(element, traces, layout, { displayModeBar: false });
  // Plotly measures text in a drawing outside the page, which screen readers would announce.
  document.getElementById("js-plotly-tester")?.setAttribute("aria-hidden", "true");
}
