"""The monitoring of compose as processes: Prometheus, Alertmanager, nginx and the exporters.

Configuration and rules are those of `monitoring/`, with targets on this machine, and with minutes
shortened to seconds.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml  # type: ignore[import-untyped]

from tests.monitoring.receivers import Receivers
from tests.processes import OPENER, ROOT, free_port

PROGRAMS = (
    *("prometheus", "prometheus-alertmanager", "prometheus-blackbox-exporter", "openssl"),
    *("prometheus-nginx-exporter", "prometheus-redis-exporter", "nginx", "redis-server"),
)
MISSING = [name for name in PROGRAMS if shutil.which(name) is None]
MONITORING = ROOT / "monitoring"

NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
worker_processes 1;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    server {{ listen 127.0.0.1:{status}; location = /stub_status {{ stub_status; }} }}
    server {{
        listen 127.0.0.1:{tls} ssl;
        ssl_certificate {folder}/fullchain.pem;
        ssl_certificate_key {folder}/privkey.pem;
        location / {{ proxy_pass http://127.0.0.1:{service}; }}
    }}
}}
"""
AUTHORITY = """
[ca]
default_ca = own
[own]
dir = {folder}
new_certs_dir = {folder}
database = {folder}/index.txt
serial = {folder}/serial
default_md = sha256
policy = any
[any]
commonName = supplied
"""


def certificate(folder: Path, begins: str, ends: str) -> None:
    """Write a self-signed certificate, valid between two times such as 20200101000000Z."""
    (folder / "ca.conf").write_text(AUTHORITY.format(folder=folder))
    (folder / "index.txt").write_text("")
    (folder / "index.txt.attr").write_text("unique_subject = no\n")
    (folder / "serial").write_text("01\n")
    key, request = folder / "privkey.pem", folder / "request.pem"
    make = ("openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost")
    sign = ("openssl", "ca", "-batch", "-notext", "-selfsign", "-config", folder / "ca.conf")
    times = ("-startdate", begins, "-enddate", ends)
    for command in (
        (*make, "-keyout", key, "-out", request),
        (*sign, *times, "-keyfile", key, "-in", request, "-out", folder / "fullchain.pem"),
    ):
        subprocess.run(command, check=True, capture_output=True)


def shortened(rules: str) -> str:
    """Rules with windows of seconds instead of minutes to days, and without a time to hold."""
    seconds = {"5m": "6s", "10m": "8s", "15m": "12s", "30m": "8s", "1h": "10s"}
    seconds |= {"2h": "8s", "6h": "8s", "1d": "10s", "3d": "10s"}
    rules = re.sub(r"\[(\d+[mhd])\]", lambda window: f"[{seconds[window[1]]}]", rules)
    rules = re.sub(r"\[10m:30s\]", "[4s:500ms]", rules)
    rules = re.sub(r"^( +)for: .*", r"\1for: 500ms", rules, flags=re.MULTILINE)
    return re.sub(r"^ +interval: .*\n", "", rules, flags=re.MULTILINE)


@dataclass
class Program:
    """A process that can be ended and started again."""

    command: list[str | Path]
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command, env=os.environ | self.environment, stdout=output, stderr=output
            )

    def reload(self) -> None:
        """Have it read its files again."""
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """End it, if it runs."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)
            self.process = None


class Stack:
    """Monitoring of the services on `ports`, the first of which is behind nginx."""

    def __init__(self, folder: Path, ports: list[int], redis: str, kept: Receivers) -> None:
        self.folder, self.services, self.kept = folder, ports, kept
        names = ("prometheus", "alertmanager", "blackbox", "redis", "nginx", "tls", "status")
        self.port = {name: free_port() for name in names}
        self.rules = folder / "rules"
        self.rules.mkdir()
        for path in (MONITORING / "prometheus" / "rules").glob("*.yml"):
            (self.rules / path.name).write_text(shortened(path.read_text("utf-8")))
        self._write_prometheus()
        self._write_alertmanager()
        (folder / "nginx.conf").write_text(
            NGINX.format(
                folder=folder,
                tls=self.port["tls"],
                status=self.port["status"],
                service=ports[0],
            )
        )
        status = f"http://127.0.0.1:{self.port['status']}/stub_status"
        self.programs = {
            name: Program([*command, f"--web.listen-address={self._at(name)}"], folder / name)
            for name, command in {
                "blackbox": [
                    "prometheus-blackbox-exporter",
                    "--timeout-offset=0.1",
                    f"--config.file={MONITORING / 'blackbox' / 'blackbox.yml'}",
                ],
                "redis": ["prometheus-redis-exporter", f"-redis.addr={redis}"],
                "nginx": [
                    "prometheus-nginx-exporter",
                    "-nginx.retries=30",
                    f"-nginx.scrape-uri={status}",
                ],
                "alertmanager": [
                    "prometheus-alertmanager",
                    f"--config.file={folder / 'alertmanager.yml'}",
                    f"--storage.path={folder / 'alertmanager-data'}",
                    "--cluster.listen-address=",
                ],
                "prometheus": [
                    "prometheus",
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'prometheus-data'}",
                    "--enable-feature=expand-external-labels",
                    "--web.enable-lifecycle",
                    "--rules.alert.resend-delay=1s",
                ],
            }.items()
        }
        self.programs["gateway"] = Program(
            ["nginx", "-p", folder, "-c", folder / "nginx.conf"], folder / "gateway"
        )
        self.programs["prometheus"].environment = {
            "GRAFANA_URL": "http://grafana.example",
            "RUNBOOKS_URL": "http://docs.example/runbooks",
        }

    def _at(self, name: str) -> str:
        return f"127.0.0.1:{self.port[name]}"

    def _write_prometheus(self) -> None:
        config = yaml.safe_load((MONITORING / "prometheus" / "prometheus.yml").read_text("utf-8"))
        config["global"] |= {"scrape_interval": "1s", "evaluation_interval": "500ms"}
        config["rule_files"] = [f"{self.rules}/*.yml"]
        config["alerting"]["alertmanagers"] = [
            {"static_configs": [{"targets": [self._at("alertmanager")]}]}
        ]
        target = {"nginx-exporter": "nginx", "redis-exporter": "redis", "blackbox": "blackbox"}
        for job in config["scrape_configs"]:
            name = job["job_name"]
            found = job.pop("dns_sd_configs", None)
            if name == "kronos-api":
                targets = [f"127.0.0.1:{port}" for port in self.services]
            else:
                known = target[found[0]["names"][0]] if found else name
                targets = [self._at(known)]
            job["static_configs"] = [{"targets": targets}]
            for rule in job.get("relabel_configs", []):
                if rule.get("replacement") == "blackbox:9115":
                    rule["replacement"] = self._at("blackbox")
            job["scrape_timeout"] = "1s"
            if name == "gateway":
                job["params"]["target"] = [f"https://{self._at('tls')}/v1/readyz"]
            if name == "service":
                job["params"]["target"] = [f"http://127.0.0.1:{self.services[0]}/v1/readyz"]
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(config))

    def _write_alertmanager(self) -> None:
        """As its container writes it; at once, and also what another alert names the cause of."""
        at = f"http://127.0.0.1:{self.kept.http_port}"
        settings = {
            "ALERT_EMAIL_TO": "operators@example.org",
            "ALERT_EMAIL_FROM": "kronos@example.org",
            "ALERT_SMTP_SERVER": f"127.0.0.1:{self.kept.smtp_port}",
            "ALERT_SMTP_TLS": "false",
            "ALERT_SLACK_URL": f"{at}/slack",
            "ALERT_SLACK_CHANNEL": "#operations",
            "ALERT_WEBHOOK_URL": f"{at}/hook",
            "ALERT_WATCHDOG_URL": f"{at}/watchdog",
        }
        start = MONITORING / "alertmanager" / "start"
        subprocess.run([start, "--render", self.folder], env=os.environ | settings, check=True)
        path = self.folder / "alertmanager.yml"
        config = yaml.safe_load(path.read_text("utf-8"))
        config["inhibit_rules"] = []
        for route in (config["route"], *config["route"]["routes"]):
            route |= {"group_wait": "100ms", "group_interval": "500ms", "repeat_interval": "1s"}
        path.write_text(yaml.safe_dump(config))

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query; empty while Prometheus does not answer."""
        url = f"http://{self._at('prometheus')}/api/v1/query?query={quote(expression)}"
        with suppress(OSError), OPENER.open(url, timeout=10) as answer:
            return list(json.load(answer)["data"]["result"])
        return []

    def reload(self) -> None:
        """Have Prometheus read its rules again."""
        OPENER.open(f"http://{self._at('prometheus')}/-/reload", data=b"", timeout=30).close()


@contextmanager
def monitoring(folder: Path, ports: list[int], redis: str, kept: Receivers) -> Iterator[Stack]:
    """The whole monitoring of the services on `ports`."""
    certificate(folder, "20200101000000Z", "20490101000000Z")
    stack = Stack(folder, ports, redis, kept)
    try:
        for program in stack.programs.values():
            program.start()
        yield stack
    finally:
        for program in reversed(stack.programs.values()):
            program.stop()
