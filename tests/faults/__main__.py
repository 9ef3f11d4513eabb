"""Check that the service holds under faults: `python -m tests.faults [--long] [ROW ...]`.

Prints each row with its bar, its figures and a verdict. The short form, which is part of the
ordinary tests, measures the row `fuzz`. Rows that are named are measured, or tested if there is
nothing to measure. `--long` runs everything, half an hour of soak included. Exit status 1 if a bar
is missed. Rows of latencies need an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from benchmarks.report import processor
from tests.faults.rows import ROWS, Row
from tests.processes import ROOT

HOLDS, PARTLY, MISSED, SKIPPED = "holds", "holds in part", "MISSED", "not run"
RESULTS: Final = ("tests", "failures", "errors", "skipped")


def run_tests(row: Row) -> tuple[str, str]:
    """The verdict of a row's tests, and how many passed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *row.tests]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        suites = list(ElementTree.parse(report).iter("testsuite")) if report.is_file() else []
    count = {name: sum(int(suite.get(name, 0)) for suite in suites) for name in RESULTS}
    failed = count["failures"] + count["errors"]
    passed = count["tests"] - failed - count["skipped"]
    if done.returncode:
        print(done.stdout[-4000:])
    figure = f"{passed} tests passed, {failed} failed, {count['skipped']} skipped"
    if done.returncode:
        return MISSED, figure
    if count["skipped"]:
        return (PARTLY if passed else SKIPPED), figure
    return (HOLDS if passed else SKIPPED), figure


def check(row: Row, *, long: bool, named: bool) -> tuple[str, list[str]]:
    """The verdict of a row and its figures; one that is named is measured, or tested, anyway."""
    verdicts, lines = [], []
    if row.tests and (long or (named and not row.measure)):
        verdict, line = run_tests(row)
        verdicts.append(verdict)
        lines.append(line)
    if row.measure and (long or row.short or named):
        figures = row.figures(long=long)
        verdicts.append(HOLDS if all(figure.holds for figure in figures) else MISSED)
        lines += map(str, figures)
    if long and row.command:
        done = subprocess.run([sys.executable, "-m", *row.command], cwd=ROOT, env=os.environ)
        verdicts.append(MISSED if done.returncode else HOLDS)
        lines.append(f"exit status {done.returncode} of {' '.join(row.command)}")
    if MISSED in verdicts:
        return MISSED, lines
    for verdict in (PARTLY, HOLDS):
        if verdict in verdicts:
            return verdict, lines
    return SKIPPED, lines


def main() -> None:
    """Print the rows."""
    made = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    names = [row.name for row in ROWS]
    made.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(names)}")
    made.add_argument("--long", action="store_true", help="tests, measurements and benchmarks")
    made.add_argument("--list", action="store_true", help="print the rows and check nothing")
    made.add_argument("--json", type=Path, help="write the verdicts to this file")
    options = made.parse_args()
    if unknown := set(options.rows) - set(names):
        made.error(f"no such row: {', '.join(sorted(unknown))}")
    if options.list:
        for row in ROWS:
            print(f"{row.name:12}{row.fault}: {row.bar}")
        return
    print(processor())
    verdicts = {}
    for row in ROWS:
        if options.rows and row.name not in options.rows:
            continue
        began = time.monotonic()
        verdict, lines = check(row, long=options.long, named=bool(options.rows))
        verdicts[row.name] = {"verdict": verdict, "figures": lines}
        print(f"\n{row.name}: {row.fault}\n  bar: {row.bar}", flush=True)
        for line in lines:
            print(f"  {line}")
        print(f"  {verdict}, {time.monotonic() - began:.0f} s", flush=True)
    if options.json:
        options.json.write_text(json.dumps(verdicts, indent=1) + "\n", "utf-8")
    if any(found["verdict"] == MISSED for found in verdicts.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
