// The service's routes. Paths are relative to the page, so it works below a prefix.

/** The result of a request or of a part of its response; `lost` is the message if the connection fails. */
async function received(promise, lost) {
  try {
    return await promise;
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error(lost);
  }
}

const UNREACHABLE = "The service cannot be reached. Does it still run?";
const CUT_OFF = "The connection ended before the response was complete.";

/** The message of a refusal: what was found, and what changes it. */
async function refusal(response) {
  const text = await received(response.text(), CUT_OFF);
  try {
    return JSON.parse(text).error.message;
  } catch {
    return `The service answered ${response.status}. ${text.slice(0, 200)}`;
  }
}

async function ask(path, options) {
  const response = await received(fetch(path, options), UNREACHABLE);
  if (!response.ok) throw new Error(await refusal(response));
  return response;
}

export const getJson = async (path, options) => received((await ask(path, options)).json(), CUT_OFF);
export const getFile = async (path) => received((await ask(path)).blob(), CUT_OFF);

/** Candles of a file as the columns of a request; `options` are those of the form. */
export async function readFile(file, name, options, signal) {
  const query = new URLSearchParams({ name, ...options });
  const headers = { "Content-Type": "text/csv" };
  return getJson(`playground/read?${query}`, { method: "POST", headers, body: file, signal });
}

/** Server-sent events of a response: {event, data}. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await received(reader.read(), CUT_OFF);
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
  throw new Error(CUT_OFF);
}
