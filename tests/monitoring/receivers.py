"""Receivers of alerts: a webhook, Slack's incoming webhook, a heartbeat, and a mail server."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receivers:
    """What was received; `slack_fails` makes Slack answer 500."""

    def __init__(self) -> None:
        self.alerts: dict[str, dict[str, Any]] = {}
        """The latest state of each alert that the webhook got, by its fingerprint."""
        self.fired: dict[str, dict[str, Any]] = {}
        """By name: an alert as it was when it fired."""
        self.resolved: set[str] = set()
        self.unread: set[str] = set()
        """Names of alerts that have fired since a test asked for them."""
        self.slack: list[dict[str, Any]] = []
        self.heartbeats = 0
        self.mails: list[str] = []
        self.slack_fails = False
        self.http_port = self.smtp_port = 0

    def firing(self) -> set[str]:
        """Names of alerts that fired and were not resolved yet."""
        alerts = list(self.alerts.values())
        return {one["labels"]["alertname"] for one in alerts if one["status"] == "firing"}

    def take(self, path: str, content: dict[str, Any]) -> int:
        """Keep one notification; returns the status to answer with."""
        if path == "/slack":
            if self.slack_fails:
                return 500
            self.slack.append(content)
        elif path == "/watchdog":
            self.heartbeats += 1
        else:
            for alert in content["alerts"]:
                self.alerts[alert["fingerprint"]] = alert
                name = alert["labels"]["alertname"]
                if alert["status"] == "firing":
                    self.fired[name] = alert
                    self.unread.add(name)
                else:
                    self.resolved.add(name)
        return 200


@contextmanager
def receivers() -> Iterator[Receivers]:
    """Receivers on ports of their own."""
    kept = Receivers()

    class Webhooks(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            self.send_response(kept.take(self.path, json.loads(self.rfile.read(length))))
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            """Nothing."""

    class Mail(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self._say("220 ready")
            while line := self.rfile.readline():
                match line.split()[0].upper():
                    case b"DATA":
                        self._say("354 go on")
                        lines = iter(self.rfile.readline, b".\r\n")
                        kept.mails.append(b"".join(lines).decode())
                        self._say("250 kept")
                    case b"QUIT":
                        return self._say("221 bye")
                    case _:
                        self._say("250 fine")

        def _say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

    servers = [
        ThreadingHTTPServer(("127.0.0.1", 0), Webhooks),
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mail),
    ]
    kept.http_port, kept.smtp_port = (server.server_address[1] for server in servers)
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield kept
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
