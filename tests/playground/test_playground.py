"""The playground in a real browser: files, forecasts, refusals, code, and access for everyone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.browser import Browser, Tab, needs_chromium
from tests.processes import ROOT, Service, until

pytestmark = [pytest.mark.process, needs_chromium]

READ = "document.getElementById('read').textContent"
STATUS = "document.getElementById('status').textContent"
ERROR = "document.getElementById('error').textContent"
PRICES = [(100 + n % 7, 110, 95, 101 + n % 6) for n in range(40)]
DAYS = [f"2025-{1 + n // 28:02d}-{1 + n % 28:02d}" for n in range(40)]


def lines(separator: str, *, swap: bool = False, decimal: str = ".", time: str = "") -> list[str]:
    """A line a day; `swap` turns dates round, `time` is a column after the date."""
    found = []
    for day, prices in zip(DAYS, PRICES, strict=True):
        date = ".".join(reversed(day.split("-"))) if swap else day
        numbers = [f"{price:.2f}".replace(".", decimal) for price in prices]
        found.append(separator.join([date, *([time] if time else []), *numbers, "500"]))
    return found


FILES = {
    "yfinance.csv": (
        "\n".join(
            [
                "Price,Open,High,Low,Close,Volume",
                "Ticker,SPY,SPY,SPY,SPY,SPY",
                "Date,,,,,",
                *lines(","),
            ]
        ).encode(),
        "columns",
    ),
    "akshare.csv": (
        "\n".join(["日期,开盘,最高,最低,收盘,成交量", *lines(",")]).encode("gb18030"),
        "GB18030",
    ),
    "metatrader.csv": (
        "\n".join(
            [
                "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>",
                *[line.replace("-", ".", 2) for line in lines("\t", time="00:00:00")],
            ]
        ).encode(),
        "tab",
    ),
    "depot.csv": (
        "\n".join(
            [
                "Datum;Eröffnung;Hoch;Tief;Schluss;Stücke",
                *reversed(lines(";", swap=True, decimal=",")),
            ]
        ).encode("cp1252"),
        "newest first turned round",
    ),
}
"""Content by name, and a part of how it is understood."""


def start(page: Tab, service: Service) -> None:
    page.open(f"{service.url}/playground")
    page.until("document.getElementById('model').textContent.startsWith('kronos-demo')")


def click(page: Tab, selector: str) -> None:
    page.run(f"document.querySelector({json.dumps(selector)}).click()")


def fill(page: Tab, name: str, value: str) -> None:
    page.run(
        f"(() => {{ const field = document.getElementById('form').elements[{json.dumps(name)}];"
        f" field.value = {json.dumps(value)};"
        " field.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )


def drawn(page: Tab) -> list[dict[str, Any]]:
    """Name and number of candles of each trace in the chart."""
    script = "(document.getElementById('chart').data ?? [])"
    found = page.run(f"{script}.map((one) => ({{name: one.name ?? '', count: one.x.length}}))")
    return list(found)


def forecast_steps(page: Tab) -> int:
    """The candles of the forecast in the chart, once it is complete."""
    page.until(f"{STATUS}.startsWith('Forecast of') || {ERROR} !== ''")
    assert page.run(ERROR) == ""
    rows = int(page.run("document.querySelectorAll('#table tbody tr').length"))
    complete = f"one.name === 'forecast' && one.x.length === {rows}"
    page.until(f"(document.getElementById('chart').data ?? []).some((one) => {complete})")
    page.until("document.querySelectorAll('#chart .trace.boxes').length >= 2")
    return rows


def test_one_click_forecasts_the_sample(page: Tab, service: Service, browser: Browser) -> None:
    browser.allow("clipboardReadWrite", "clipboardSanitizedWrite")
    start(page, service)
    click(page, "#sample")
    assert forecast_steps(page) == 24
    assert {"history", "close, 10 to 90 %", "forecast"} <= {one["name"] for one in drawn(page)}
    assert "DEMO_MODEL" in page.run("document.getElementById('warnings').textContent")
    rows = page.run(
        "[...document.querySelectorAll('#table tbody tr')].map("
        "(row) => [...row.cells].map((cell) => cell.textContent))"
    )
    assert len(rows) == 24
    assert rows[0][0] == "2026-03-07T05:00:00Z"

    # The copied command and program repeat the forecast that is shown.
    click(page, "[data-copy=curl]")
    page.until("document.getElementById('copied').textContent === 'Copied as curl.'")
    command = page.run("navigator.clipboard.readText()")
    assert command == page.run("document.getElementById('snippet').value")
    if shutil.which("curl"):
        again = json.loads(run("bash", "-c", command))
        shown = [float(row[4]) for row in rows]
        assert [one["close"] for one in again["prediction"]] == pytest.approx(shown, rel=1e-5)
    click(page, "[data-copy=python]")
    page.until("document.getElementById('copied').textContent === 'Copied as Python.'")
    printed = run(sys.executable, "-c", page.run("navigator.clipboard.readText()"))
    assert "[24 rows x 28 columns]" in printed
    assert "2026-03-07T05:00:00Z" in printed


def run(*command: str) -> str:
    """The output of a command that must succeed, with the client's package."""
    source = str(ROOT / "clients" / "python" / "src")
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ) | {"PYTHONPATH": source, "no_proxy": "127.0.0.1"},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_files_of_many_sources_are_read_and_forecast(
    page: Tab, service: Service, tmp_path: Path
) -> None:
    start(page, service)
    fill(page, "horizon", "5")
    fill(page, "sample_count", "2")
    for number, (name, (content, understood)) in enumerate(FILES.items()):
        path = tmp_path / name
        path.write_bytes(content)
        if number % 2:
            page.drop(path)
        else:
            page.choose("#file", path)
        page.until(f"{READ}.startsWith('{name}: read 40 rows')")
        assert understood in page.run(READ)
        assert page.run("document.getElementById('form').elements.freq.placeholder") == "1D"
        click(page, "#go")
        assert forecast_steps(page) == 5


def test_refusals_are_shown_in_words_and_can_be_mended(page: Tab, service: Service) -> None:
    start(page, service)
    text = "When,Open,High,Low,Ending\n" + "\n".join(
        f"2025-01-0{day},10,12,9,11" for day in range(1, 8)
    )
    page.run(f"document.getElementById('text').value = {json.dumps(text)}")
    click(page, "#paste")
    page.until(f"{READ}.includes('has no column close')")
    assert "--columns close=NAME" in page.run(READ)
    assert page.run("document.getElementById('reading').open")
    assert page.run("document.getElementById('go').disabled")
    fill(page, "columns", "close=Ending")
    page.until(f"{READ}.includes('read 7 rows')")
    fill(page, "sample_count", "1")
    click(page, "#go")
    page.until(f"{ERROR} !== ''")
    assert "sample_count" in page.run(ERROR)
    # The browser itself logs a status of 400.
    page.complaints = [one for one in page.complaints if "status of 400" not in one]


HOLD = """
(() => {
  const send = window.fetch;
  window.held = [];
  window.fetch = async (path, options) => {
    const response = await send(path, options);
    if (!String(path).startsWith("playground/read")) return response;
    const text = await response.text();
    await new Promise((go) => held.push(go));
    const { ok, status } = response;
    return { ok, status, text: async () => text, json: async () => JSON.parse(text) };
  };
})()
"""
"""Responses to readings of files are held until `held[n]()`."""


def test_an_older_answer_does_not_replace_a_newer_one(page: Tab, service: Service) -> None:
    start(page, service)
    page.run(HOLD)
    rows = "\n".join(f"2025-01-0{day},10,12,9,11" for day in range(1, 8))
    text = "When,Open,High,Low,Ending\n" + rows
    page.run(f"document.getElementById('text').value = {json.dumps(text)}")
    for number, columns in enumerate(("close=Ending", "close=High", "close=Ending")):
        fill(page, "columns", columns)
        if number == 0:
            click(page, "#paste")
        page.until(f"held.length === {number + 1}")
    page.run("held[2]()")
    page.until(f"{READ}.includes('read 7 rows')")
    page.run("held[0](), held[1](), new Promise((handled) => setTimeout(handled))")
    assert "read 7 rows" in page.run(READ)
    assert not page.run("document.getElementById('go').disabled")

    # New candles end the forecast of the old ones.
    fill(page, "horizon", "512")
    fill(page, "sample_count", "8")
    click(page, "#go")
    page.until("!document.getElementById('cancel').disabled")
    click(page, "#paste")
    page.until("held.length === 4")
    page.run("held[3]()")
    page.until("!document.getElementById('go').disabled")
    assert page.run("document.getElementById('cancel').disabled")
    assert page.run(STATUS) == page.run(ERROR) == ""
    assert "forecast" not in {one["name"] for one in drawn(page)}
    until(lambda: service.get("/v1/healthz/detailed")["checks"]["queue"]["active"] == 0, 20)
    page.complaints = [one for one in page.complaints if "status of 400" not in one]


def test_a_cancelled_forecast_leaves_the_service(page: Tab, service: Service) -> None:
    start(page, service)
    fill(page, "horizon", "512")
    fill(page, "sample_count", "64")
    click(page, "#sample")
    page.until("!document.getElementById('cancel').disabled")
    click(page, "#cancel")
    page.until(f"{STATUS} === 'Cancelled.'")
    assert page.run("document.getElementById('cancel').disabled")
    until(lambda: service.get("/v1/healthz/detailed")["checks"]["queue"]["active"] == 0, 20)


def test_a_keyboard_and_a_screen_reader_reach_everything(page: Tab, service: Service) -> None:
    start(page, service)
    reached: list[str] = []
    while len(reached) < 40:
        page.press("Tab")
        at = page.run("document.activeElement.id || document.activeElement.name || 'other'")
        reached.append(at)
        if at == "sample":
            page.press("Enter")
            page.until("!document.getElementById('go').disabled")
        if at == "go":
            break
    order = ["sample", "file", "horizon", "freq", "sample_count", "quantiles", "calendar", "go"]
    assert [one for one in reached if one in order] == order
    assert forecast_steps(page) == 24
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "textbox", "combobox", "spinbutton", "checkbox", "link", "image", "status"}
    named = [
        (one["role"]["value"], one.get("name", {}).get("value", ""))
        for one in nodes
        if not one["ignored"] and one["role"]["value"] in roles - {"status"}
    ]
    assert len(named) > 12
    assert [one for one in named if not one[1]] == []
    assert sum(one["role"]["value"] == "status" for one in nodes if not one["ignored"]) >= 2


CONTRAST = """
(() => {
  const light = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).map((part) => {
      const one = part / 255;
      return one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const back = (node) => {
    for (; node; node = node.parentElement) {
      const found = getComputedStyle(node).backgroundColor;
      if (!/, 0\\)$/.test(found)) return found;
    }
    return "rgb(255, 255, 255)";
  };
  const poor = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((one) => one.nodeType === 3 && one.data.trim());
    if (!own || !node.checkVisibility() || node.closest("#chart, :disabled")) continue;
    const [a, b] = [light(getComputedStyle(node).color), light(back(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${node.tagName} ${node.textContent.slice(0, 30)}: ${ratio}`);
  }
  return poor;
})()
"""


def test_it_fits_a_phone_in_light_and_dark(page: Tab, service: Service) -> None:
    page.size(360, 740)
    page.scheme("dark")
    start(page, service)
    click(page, "#sample")
    assert forecast_steps(page) == 24
    assert page.run("document.documentElement.scrollWidth") == 360
    dark = page.run("getComputedStyle(document.body).backgroundColor")
    assert page.run(CONTRAST) == []
    page.scheme("light")
    assert page.run("getComputedStyle(document.body).backgroundColor") != dark
    assert page.run(CONTRAST) == []


def test_docs_send_an_example_and_show_its_answer(page: Tab, service: Service) -> None:
    page.open(f"{service.url}/docs")
    operation = "#operations-predict-predict_single"
    page.until(f"!!document.querySelector('{operation} .opblock-summary-control')")
    click(page, f"{operation} .opblock-summary-control")
    page.until(f"!!document.querySelector('{operation} .try-out__btn')")
    click(page, f"{operation} .try-out__btn")
    page.until(f"!!document.querySelector('{operation} .execute')")
    click(page, f"{operation} .execute")
    page.until(f"!!document.querySelector('{operation} .live-responses-table')")
    live = page.run(f"document.querySelector('{operation} .live-responses-table').textContent")
    assert "200" in live
    assert "kronos-demo" in live
    page.open(f"{service.url}/redoc")
    assert page.run("document.querySelectorAll('main section').length") > 20
