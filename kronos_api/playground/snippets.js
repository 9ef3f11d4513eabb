// The request as a command and as a program that can be run as they are.

/** A shell command; the body goes by a here-document, which has no limit of length or quotes. */
export function curl(request, origin) {
  const headers = "-H 'Content-Type: application/json'";
  return `curl -s ${origin}/v1/predict/single ${headers} --data-binary @- <<'JSON'
${JSON.stringify(request)}
JSON
`;
}

const python = (value) => {
  if (value === true) return "True";
  if (value === false) return "False";
  return JSON.stringify(value);
};

/** A program with the client package. */
export function clientCode(request, origin) {
  const { candles, timestamps, overrides = {}, horizon, ...others } = request;
  const columns = { timestamps, ...candles };
  const lines = Object.entries(columns).map(([name, values]) => `    "${name}": ${python(values)},`);
  const options = Object.entries({ horizon, ...others, ...overrides })
    .map(([name, value]) => `        ${name}=${python(value)},`);
  return `# pip install 'kronos-api-client[pandas]'
import pandas as pd
from kronos_api_client import KronosClient

candles = pd.DataFrame({
${lines.join("\n")}
})
with KronosClient("${origin}") as kronos:
    forecast = kronos.predict(
        candles,
${options.join("\n")}
    )
print(forecast)
`;
}
