// The service's routes. Paths are relative to the page, so it works below a prefix.

/** The message of a refusal: what was found, and what changes it. */
async function refusal(response) {
  const text = await response.text();
  try {
    return JSON.parse(text).error.message;
  } catch {
    return `The service answered ${response.status}. ${text.slice(0, 200)}`;
  }
}

async function ask(path, options) {
  const response = await fetch(path, options).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new Error("The service cannot be reached. Does it still run?");
  });
  if (!response.ok) throw new Error(await refusal(response));
  return response;
}

export const getJson = async (path) => (await ask(path)).json();

/** Candles of a file as the columns of a request; `options` are those of the form. */
export async function readFile(file, name, options) {
  const query = new URLSearchParams({ name, ...options });
  const headers = { "Content-Type": "text/csv" };
  return (await ask(`playground/read?${query}`, { method: "POST", headers, body: file })).json();
}

/** Server-sent events of a response: {event, data}. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      let event = "message";
      const data = [];
      for (const line of block.split("\n")) {
        if (line.startsWith("event:")) event = line.slice(6).trim();
        if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
      }
      if (data.length) yield { event, data: JSON.parse(data.join("\n")) };
    }
  }
}

/** The whole response of a forecast; `onCandle` gets each candle as it is decoded. */
export async function forecast(request, onCandle, signal) {
  const options = {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(request),
    signal,
  };
  const response = await ask("v1/predict/stream", options);
  for await (const { event, data } of events(response)) {
    if (event === "candle") onCandle(data);
    if (event === "done") return data;
    if (event === "error") throw new Error(data.error.message);
  }
  throw new Error("The connection ended before the forecast was complete.");
}
