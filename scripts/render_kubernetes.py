"""Write deploy/kubernetes/*/manifests.yaml: the Helm chart with the values beside them.

It needs the program `helm`, or the package helm-python-sdk (`pip install --target DIR
helm-python-sdk`, then PYTHONPATH=DIR), and no cluster. Without both it renews the alerts and
dashboards of monitoring/ in the manifests, and nothing else. With --check it writes nothing, and
exit status 1 says that a file is not up to date.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "deploy" / "helm" / "kronos-api"
SETS = ROOT / "deploy" / "kubernetes"
RELEASE, NAMESPACE = "kronos-api", "kronos"
MONITORING = ROOT / "monitoring"
RULES = ("callers", "service", "slo", "workers")
"""Files of rules that the chart contains."""
NOT_IF_SCALED = "KronosReplicaMissing"
"""An alert that knows a fixed number of replicas."""
HEAD = "# Written by scripts/render_kubernetes.py from values.yaml; do not edit.\n"


def available() -> bool:
    """Whether the chart can be rendered here."""
    return shutil.which("helm") is not None or _sdk() is not None


def render(values: Path) -> str:
    """The manifests of the chart with the file `values`, sorted by kind and name.

    Raises:
        RuntimeError: the values break the schema, or a template fails.
    """
    texts = _by_program(values) if shutil.which("helm") else _by_package(values)
    found = [one for text in texts for one in yaml.safe_load_all(text) if one]
    return written(found)


def renewed(manifests: Path) -> str:
    """The file `manifests` with the present alerts and dashboards."""
    found = list(yaml.safe_load_all(manifests.read_text("utf-8")))
    scaled = any(one["kind"] in ("HorizontalPodAutoscaler", "ScaledObject") for one in found)
    for one in found:
        if one["kind"] == "PrometheusRule":
            files = [MONITORING / "prometheus" / "rules" / f"{name}.yml" for name in RULES]
            texts = [file.read_text("utf-8") for file in files]
            groups = [group for text in texts for group in yaml.safe_load(text)["groups"]]
            for group in groups if scaled else ():
                kept = [rule for rule in group["rules"] if rule.get("alert") != NOT_IF_SCALED]
                group["rules"] = kept
            one["spec"]["groups"] = json.loads(json.dumps(groups, sort_keys=True))
        if one["kind"] == "ConfigMap":
            folder = MONITORING / "grafana" / "dashboards"
            one["data"] = {name: (folder / name).read_text("utf-8") for name in one["data"]}
    return written(found)


def written(manifests: list[dict[str, Any]]) -> str:
    """The text of a file, sorted by kind and name; dashboards in one form."""
    for one in manifests:
        if one["kind"] == "ConfigMap":
            for name, text in one["data"].items():
                one["data"][name] = json.dumps(json.loads(text), sort_keys=True)
    manifests.sort(key=lambda one: (one["kind"], one["metadata"]["name"]))
    documents = yaml.safe_dump_all(manifests, sort_keys=False, width=100, allow_unicode=True)
    return HEAD + str(documents)


def _by_program(values: Path) -> Iterator[str]:
    command = ["helm", "template", RELEASE, CHART, "--namespace", NAMESPACE, "--values", values]
    ended = subprocess.run([*map(str, command)], capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(ended.stderr)
    yield ended.stdout


def _by_package(values: Path) -> Iterator[str]:
    helm = _sdk()
    if helm is None:
        raise RuntimeError("neither the program helm nor the package helm-python-sdk is installed")
    given = json.loads(json.dumps(yaml.safe_load(values.read_text("utf-8"))))
    with helm.Chart.load(CHART) as chart:
        chart.validate_schema(given)
        rendered = chart.render(given, name=RELEASE, namespace=NAMESPACE)
    yield from (text for name, text in rendered.items() if name.endswith(".yaml"))


def _sdk() -> Any:
    try:
        import helm_python
    except ImportError:
        return None
    return helm_python


def main() -> int:
    """Write or check all sets."""
    stale = 0
    for values in sorted(SETS.glob("*/values.yaml")):
        file = values.with_name("manifests.yaml")
        text = render(values) if available() else renewed(file)
        if "--check" not in sys.argv:
            file.write_text(text, "utf-8")
        elif not file.exists() or file.read_text("utf-8") != text:
            print(f"{file.relative_to(ROOT)} is not up to date: run scripts/render_kubernetes.py")
            stale += 1
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
