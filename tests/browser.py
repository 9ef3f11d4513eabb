"""Headless Chromium for tests, by the DevTools protocol over a pipe; it reaches loopback alone."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from select import select
from typing import Any, Final

import pytest

PROGRAM: Final = shutil.which("chromium") or shutil.which("google-chrome")
needs_chromium: Final = pytest.mark.skipif(
    PROGRAM is None, reason="no chromium here (Debian: chromium, fonts-dejavu-core)"
)
OPTIONS: Final = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *(
        "--disable-default-apps",
        "--disable-extensions",
        "--disable-sync",
        "--metrics-recording-only",
    ),
    *("--hide-scrollbars", "--remote-debugging-pipe"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


class Tab:
    """A tab. Requests, messages of the console and exceptions are kept for assertions."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self.browser = browser
        self.session = session
        self.target = target
        self.requests: list[str] = []
        self.complaints: list[str] = []

    def close(self) -> None:
        """Close the tab."""
        self.browser.call("Target.closeTarget", {"targetId": self.target})

    def call(self, method: str, **params: Any) -> Any:
        """The result of a command."""
        return self.browser.call(method, params, self.session)

    def run(self, script: str) -> Any:
        """The value of an expression, which can be a promise."""
        found = self.call(
            "Runtime.evaluate",
            expression=script,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, script: str, seconds: float = 60) -> Any:
        """The value of an expression, which is JSON, once it is true."""
        deadline = time.monotonic() + seconds
        while not (value := self.run(script)):
            text = self.run("document.body.innerText")
            assert time.monotonic() < deadline, f"{script} never held:\n{text}"
            time.sleep(0.03)
        return value

    def open(self, url: str) -> None:
        """Load a page and everything that it names."""
        self.call("Page.navigate", url=url)
        self.until(f"document.readyState === 'complete' && location.href === {json.dumps(url)}")

    def size(self, width: int, height: int) -> None:
        """Set the size of the window."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def scheme(self, name: str) -> None:
        """Prefer `light` or `dark`."""
        feature = {"name": "prefers-color-scheme", "value": name}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def choose(self, selector: str, path: Path) -> None:
        """Choose a file in an input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def drop(self, path: Path) -> None:
        """Drop a file on the page."""
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=100, y=100, data=data)

    def press(self, key: str) -> None:
        """Press a key: Tab or Enter."""
        code, text = {"Tab": (9, ""), "Enter": (13, "\r")}[key]
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                **{
                    "type": kind,
                    "key": key,
                    "code": key,
                    "text": text if kind == "keyDown" else "",
                },
                windowsVirtualKeyCode=code,
            )

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """Write the page as PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def notice(self, method: str, params: dict[str, Any]) -> None:
        """Keep what an event says."""
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            entry = params["entry"]
            self.complaints.append(f"{entry['text']} {entry.get('url', '')}")
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.complaints.append(str([one.get("value") for one in params["args"]]))
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))


class Browser:
    """A process of Chromium."""

    def __init__(self, process: subprocess.Popen[bytes], commands: int, replies: int) -> None:
        self.process = process
        self._commands = commands
        self._replies = replies
        self._buffer = b""
        self._last = 0
        self._pages: dict[str, Tab] = {}

    def allow(self, *permissions: str) -> None:
        """Grant permissions to all pages."""
        self.call("Browser.grantPermissions", {"permissions": permissions})

    def page(self) -> Tab:
        """A new tab."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        attached = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})
        session = attached["sessionId"]
        page = self._pages[session] = Tab(self, session, target)
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.call(f"{domain}.enable")
        page.call("Emulation.setFocusEmulationEnabled", enabled=True)  # for the clipboard
        return page

    def call(self, method: str, params: dict[str, Any], session: str | None = None) -> Any:
        """Send a command and return its result; events that come before it are noticed."""
        self._last += 1
        number = self._last
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._next()
            if reply.get("id") == number:
                assert "error" not in reply, reply["error"]
                return reply["result"]
            page = self._pages.get(reply.get("sessionId", ""))
            if page is not None and "method" in reply:
                page.notice(reply["method"], reply["params"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select([self._replies], [], [], 60)
            assert ready, "chromium does not answer"
            piece = os.read(self._replies, 2**20)
            assert piece, "chromium has ended"
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\0")
        reply: dict[str, Any] = json.loads(line)
        return reply


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser with its profile in `folder`."""
    assert PROGRAM is not None
    reads, commands = os.pipe()
    replies, writes = os.pipe()
    command = [PROGRAM, *OPTIONS, f"--user-data-dir={folder}"]
    # It reads commands from descriptor 3 and writes replies to 4.
    script = f'exec "$@" 3<&{reads} 4>&{writes}'
    with (folder / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", script, "chromium", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(reads, writes),
        )
    os.close(reads)
    os.close(writes)
    try:
        yield Browser(process, commands, replies)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)
        os.close(commands)
        os.close(replies)
