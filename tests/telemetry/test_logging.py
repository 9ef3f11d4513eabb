"""Every line is one JSON object, with any value and from any logger."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import socket
import warnings
from pathlib import Path
from typing import Any

import pytest
import structlog
from gunicorn.config import Config

from kronos_api.server.worker import Logger
from kronos_api.telemetry.log_fields import LEADING, ORDER, PROCESS
from kronos_api.telemetry.logging import SERVER_LOGGERS, LineHandler, configure, set_level


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    printed = capsys.readouterr()
    assert printed.err == ""
    return [json.loads(line) for line in printed.out.splitlines()]


@pytest.mark.parametrize(
    "value",
    ["a\nb", "\r\n", '"}', "\u2028\u2029\x85", "\x00\x1b[31m", "\ud800", b"\xff", object, {1: 2}],
)
def test_no_value_breaks_a_line(capsys: pytest.CaptureFixture[str], value: Any) -> None:
    configure()
    structlog.get_logger("ours").info(str(value), value=value)
    logging.getLogger("theirs").info("%s", value)
    ours, theirs = lines(capsys)
    assert ours["event"] == theirs["event"] == str(value)
    assert (ours["logger"], theirs["logger"]) == ("ours", "theirs")
    assert ours["level"] == theirs["level"] == "info"
    assert ours["timestamp"].endswith("Z")


def test_numbers_that_json_lacks_are_written_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    structlog.get_logger().info("odd", value=float("nan"))
    assert lines(capsys)[0]["value"] == "nan"


def test_bound_values_are_in_the_lines_of_every_logger(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    with structlog.contextvars.bound_contextvars(request_id="r"):
        structlog.get_logger().info("ours")
        logging.getLogger("uvicorn.error").info("theirs %d", 1, extra={"color_message": "x"})
    ours, theirs = lines(capsys)
    assert ours["request_id"] == theirs["request_id"] == "r"
    assert theirs["event"] == "theirs 1"
    assert "color_message" not in theirs


def test_a_traceback_is_within_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    try:
        raise ValueError("why")
    except ValueError:
        structlog.get_logger().exception("ours")
        logging.getLogger("theirs").exception("theirs")
    for line in lines(capsys):
        assert "ValueError: why" in line["exception"]
        assert "exc_info" not in line


def test_warnings_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("beware", stacklevel=1)
    (line,) = lines(capsys)
    assert "beware" in line["event"]


def test_level_applies_and_no_line_is_logged_twice(capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO")
    configure("WARNING")
    structlog.get_logger().info("low")
    structlog.get_logger().warning("high")
    assert [line["event"] for line in lines(capsys)] == ["high"]


def test_the_servers_own_handlers_and_access_log_are_gone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in SERVER_LOGGERS:
        logging.getLogger(name).addHandler(logging.StreamHandler())
    configure()
    for server in ("uvicorn", "gunicorn"):
        logging.getLogger(f"{server}.access").info("GET /")
        logging.getLogger(f"{server}.error").info("started")
        assert not logging.getLogger(f"{server}.access").hasHandlers()
    assert [line["event"] for line in lines(capsys)] == ["started", "started"]


def test_gunicorns_logger_writes_into_the_stream(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    logger = Logger(Config())
    logger.info("Booting worker with pid: %s", 7)
    assert not logger.access_log_enabled
    assert [line["event"] for line in lines(capsys)] == ["Booting worker with pid: 7"]


def test_gunicorns_logger_writes_into_the_stream_with_any_setting(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure()
    config = Config()
    config.set("accesslog", "-")
    logger = Logger(config)
    logger.setup(config)
    logger.error("once")
    assert [line["event"] for line in lines(capsys)] == ["once"]


def test_a_line_that_cannot_be_formatted_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    logging.getLogger("theirs").info("%d candles", "many")
    (line,) = lines(capsys)
    assert (line["event"], line["level"]) == ("log_line_not_formatted", "error")
    assert (line["logger"], line["message"]) == ("theirs", "'%d candles'")
    assert "TypeError" in line["reason"]


def test_a_stream_that_is_closed_is_no_error(capfd: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    handler = LineHandler(stream)
    stream.close()
    handler.handle(logging.makeLogRecord({"msg": "late"}))
    assert capfd.readouterr() == ("", "")


def test_every_line_names_its_process_and_has_its_fields_in_one_order(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure(replica="kronos-2")
    structlog.get_logger("ours").info("done", zone="b", status=200, method="GET", reason="x")
    logging.getLogger("uvicorn.error").info("started")
    ours, theirs = lines(capsys)
    assert list(ours) == [*LEADING, *PROCESS, "method", "status", "zone", "reason"]
    for line in (ours, theirs):
        assert (line["hostname"], line["replica"]) == (socket.gethostname(), "kronos-2")
        assert line["pid"] == os.getpid()


def test_console_format_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure(style="console")
    structlog.get_logger("ours").warning("queue_full", waiting=64)
    printed = capsys.readouterr().out
    assert "queue_full" in printed
    assert "waiting=64" in printed
    assert not printed.startswith("{")


def test_level_changes_while_the_process_runs(capsys: pytest.CaptureFixture[str]) -> None:
    configure("WARNING")
    logger = structlog.get_logger("ours")
    for level in ("DEBUG", "ERROR"):
        set_level(level)
        logger.debug("low")
        logger.error("high")
    assert [line["event"] for line in lines(capsys)] == ["low", "high", "high"]


def test_page_on_logs_lists_the_fields_in_their_order() -> None:
    page = Path(__file__).parents[2] / "docs" / "logging.md"
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", page.read_text("utf-8"), re.M)
    listed = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert listed == list(ORDER)
