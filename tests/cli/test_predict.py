"""`kronos-api predict` on the example candles and the bundled checkpoint."""

import csv
import json
import math
import re
from pathlib import Path

import pytest

from kronos_api.cli.predict_request import parse_levels
from kronos_api.errors import InvalidInput
from tests.cli.conftest import Command

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "candles.csv"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_forecast_as_table_csv_and_chart(command: Command, tmp_path: Path) -> None:
    output, plot = tmp_path / "out.csv", tmp_path / "out.png"
    options = ("--horizon", 5, "--samples", 4, "--quantiles", "0.9,0.1", "--seed", 7)
    result = command("predict", EXAMPLE, *options, "--output", output, "--plot", plot)
    assert result.exit_code == 0, result.output
    assert "seed 7" in result.stdout
    assert "close 10 %" in result.stdout
    assert "not for trading" in result.stderr
    table = rows(output)
    stamps = [f"2026-03-07T{time}Z" for time in ("05:00:00", "05:15:00", "05:30:00", "05:45:00")]
    assert [row["timestamps"] for row in table] == [*stamps, "2026-03-07T06:00:00Z"]
    for row in table:
        assert row["timestamps"] in result.stdout
        assert all(math.isfinite(float(row[name])) for name in row if name != "timestamps")
        assert float(row["close-q-0.1"]) <= float(row["close-q-0.9"])
        assert float(row["low"]) <= float(row["close"]) <= float(row["high"])
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_summary_is_printed_and_written(command: Command, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    options = ("--horizon", 2, "--history", 64, "--samples", 10, "--seed", 7, "--output", output)
    result = command("predict", EXAMPLE, *options, "--summary", "--levels", "1,146.79")
    assert result.exit_code == 0, result.output
    assert re.search(r"paths that reach 146\.79 +100\.00%", result.stdout)
    assert re.search(r"paths that reach 1 +0\.00%", result.stdout)
    assert "expected shortfall" in result.stdout
    assert "--top-p 1" in result.stderr
    for row in rows(output):
        assert 0 <= float(row["p_up"]) <= 1
        assert float(row["volatility"]) > 0


def test_seed_decides(command: Command, tmp_path: Path) -> None:
    def forecast(*options: object) -> list[dict[str, str]]:
        arguments = ("--horizon", 3, "--history", 64, "--output", tmp_path / "out.csv", *options)
        result = command("predict", EXAMPLE, *arguments)
        assert result.exit_code == 0, result.output
        return rows(tmp_path / "out.csv")

    first = forecast("--seed", 1)
    assert first == forecast("--seed", 1)
    assert first != forecast("--seed", 2)
    assert forecast("--temperature", 0) == forecast("--temperature", 0)


@pytest.mark.parametrize(
    ("options", "stamps"),
    [
        (("--history", "32", "--freq", "1h"), ["2026-03-07T05:45:00Z", "2026-03-07T06:45:00Z"]),
        # The 7th of March 2026 is a Saturday; New York opens on Monday in daylight saving time.
        (("--calendar", "xnys"), ["2026-03-09T13:30:00Z", "2026-03-09T13:45:00Z"]),
        (
            ("--calendar", "xnys", "--bar-label", "close"),
            ["2026-03-09T13:45:00Z", "2026-03-09T14:00:00Z"],
        ),
    ],
)
def test_future_timestamps(
    command: Command, tmp_path: Path, options: tuple[str, ...], stamps: list[str]
) -> None:
    output = tmp_path / "out.csv"
    arguments = ("--horizon", 2, "--output", output, *options)
    result = command("predict", EXAMPLE, *arguments)
    assert result.exit_code == 0, result.output
    assert [row["timestamps"] for row in rows(output)] == stamps


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--quantiles", "0.5,1"), "--quantiles must be levels between 0 and 1"),
        (("--quantiles", "high"), "--quantiles must be levels between 0 and 1"),
        (("--levels", "0", "--summary"), "--levels must be prices above 0"),
        (("--levels", "105"), "--levels need --summary"),
        (
            ("--summary", "--samples", "1"),
            "--samples must be 2 or more with",
        ),
        (("--samples", "65"), "--samples must be at most 64"),
        (("--top-p", "0"), "--top-p must be greater than 0"),
        (("--temperature", "0.0001"), "--temperature must be 0 or at least 0.001"),
        (("--freq", "sometimes"), "freq must be a step"),
        (("--calendar", "NOWHERE"), "calendar must be the code of a known exchange"),
        (("--history", "2"), "freq must be given"),
    ],
)
def test_error_is_one_line(command: Command, options: tuple[str, ...], message: str) -> None:
    result = command("predict", EXAMPLE, *options)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"kronos-api: {message}")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.parametrize("option", [("--horizon", 0), ("--horizon", 513), ("--history", 2049)])
def test_bounds_are_usage_errors(command: Command, option: tuple[str, int]) -> None:
    assert command("predict", EXAMPLE, *option).exit_code == 2


def test_bad_checkpoint_is_one_line(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KRONOS_MODEL_PATH", str(tmp_path / "nowhere"))
    result = command("predict", EXAMPLE)
    assert result.exit_code == 1
    assert "nowhere" in result.stderr
    assert result.stderr.count("\n") == 1


def test_levels_are_sorted_and_each_once() -> None:
    assert parse_levels(" 0.9, .1,0.10,") == (0.1, 0.9)
    assert parse_levels("") == ()
    with pytest.raises(InvalidInput):
        parse_levels("nan")


def lines(text: str) -> list[list[str]]:
    """The words of each line that begins with a time."""
    return [line.split() for line in text.splitlines() if line.startswith("2026-")]


def test_stream_prints_the_rows_of_the_forecast(command: Command) -> None:
    options = ("--horizon", 4, "--history", 64, "--samples", 10, "--quantiles", "0.1", "--seed", 7)
    whole = command("predict", EXAMPLE, *options, "--summary")
    streamed = command("predict", EXAMPLE, *options, "--summary", "--stream")
    assert streamed.exit_code == 0, streamed.output
    rows = lines(streamed.stdout)
    assert [row[0] for row in rows] == [
        f"2026-03-07T05:{minute:02}:00Z" for minute in range(0, 60, 15)
    ]
    table = [line.split() for line in whole.stdout.splitlines() if " 2026-" in line]
    for row, printed in zip(rows, table, strict=True):
        assert [float(one) for one in row[1:]] == pytest.approx(
            [float(one) for one in printed[1:7]], rel=1e-4
        )
    assert "expected shortfall" in streamed.stdout


def test_many_files_are_written_to_a_folder(command: Command, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.csv", "b.csv", "c.csv")]
    for file in files:
        file.write_bytes(EXAMPLE.read_bytes())
    folder, options = tmp_path / "out", ("--horizon", 2, "--history", 32, "--seed", 7)
    several = (*files, *options, "--output-dir", folder, "--output-format", "json")
    result = command("predict", *several)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    written = [(folder / f"{name}.json").read_text() for name in "abc"]
    assert written[0] == written[1] == written[2]
    assert len(json.loads(written[0])) == 2
    tables = command("predict", *files[:2], *options, "--stream")
    assert [row[0] for row in lines(tables.stdout)] == [
        "2026-03-07T05:00:00Z",
        "2026-03-07T05:15:00Z",
    ] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((EXAMPLE, "--output", "out.csv"), "--output is of one forecast"),
        ((EXAMPLE, "--output-dir", "{}"), "both be written to"),
        ((EXAMPLE, "--plot", "out.png"), "--plot is of one forecast"),
        (("--output-format", "json"), "--output-format needs --output or --output-dir"),
        (("--output-dir", str(EXAMPLE.parent)), "would be overwritten"),
        (("{}/none.csv",), "cannot be read"),
    ],
)
def test_wrong_outputs_are_one_line(
    command: Command, tmp_path: Path, options: tuple[object, ...], message: str
) -> None:
    filled = [str(option).format(tmp_path) for option in options]
    result = command("predict", EXAMPLE, *filled)
    assert result.exit_code == 1, result.output
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_parquet_without_its_library_names_the_extra(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("kronos_api.cli.outputs.find_spec", lambda _: None)
    result = command("predict", EXAMPLE, "--output", tmp_path / "out.parquet")
    assert result.stderr == ("kronos-api: Parquet needs pyarrow: pip install 'kronos-api[arrow]'\n")
