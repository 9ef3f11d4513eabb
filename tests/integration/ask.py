"""Requests from inside a container: a task as JSON on standard input, answers on standard output.

Run by bare Python, without anything of ours.
"""

from __future__ import annotations

import json
import ssl
import sys
import time
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit


def connect(base: str, timeout: float) -> HTTPConnection:
    """A connection; certificates are not verified, because the test gateway signs its own."""
    place = urlsplit(base)
    if place.scheme == "http":
        return HTTPConnection(place.netloc, timeout=timeout)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return HTTPSConnection(place.netloc, timeout=timeout, context=context)


def ask(link: HTTPConnection, request: dict[str, Any]) -> dict[str, Any]:
    """One request; status 0 with the reason where there is no answer."""
    body = None if request.get("body") is None else json.dumps(request["body"]).encode()
    if request.get("size"):
        body = b" " * request["size"]
    began = time.monotonic()
    try:
        link.putrequest(
            request.get("method") or ("GET" if body is None else "POST"), request["path"]
        )
        for name, value in (request.get("headers") or {}).items():
            link.putheader(name, value)
        if body is not None:
            link.putheader("Content-Type", "application/json")
            link.putheader("Content-Length", str(len(body)))
        link.endheaders()
        if body is not None:
            # A server that refuses a body need not read it; its response arrives nevertheless.
            with suppress(OSError):
                link.send(body)
        answer = link.getresponse()
        text = answer.read().decode()
        status, headers = (
            answer.status,
            {name.lower(): value for name, value in answer.getheaders()},
        )
    except (OSError, HTTPException) as error:
        link.close()
        status, headers, text = 0, {}, repr(error)
    with suppress(ValueError):
        text = json.loads(text)
    seconds = time.monotonic() - began
    return {"status": status, "headers": headers, "body": text, "seconds": seconds}


def ask_again(link: HTTPConnection, request: dict[str, Any], asks: int) -> dict[str, Any]:
    """One request, repeated while the caller cannot be identified within the 250 ms of DNS."""
    for _ in range(asks):
        answer = ask(link, request)
        if answer["status"] != 503 or answer["body"]["error"]["code"] != "CALLER_UNKNOWN":
            break
    return answer


def until_answered(base: str, timeout: float, request: dict[str, Any]) -> list[dict[str, Any]]:
    """Answers to a request that is made, over a new connection each time, until it gets its 200.

    Attempts without a connection are left out.
    """
    answers = []
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        answers.append(ask(connect(base, timeout), request))
        if answers[-1]["status"] == 200:
            break
        if answers[-1]["status"] == 0:
            answers.pop()
            time.sleep(0.01)
    return answers


task = json.load(sys.stdin)
if task.get("until_answered"):
    answers = until_answered(task["base"], task["timeout"], task["asked"][0])
else:
    link = connect(task["base"], task["timeout"])
    answers = [ask_again(link, request, task["asks"]) for request in task["asked"]]
json.dump(answers, sys.stdout)
