"""The manifests of deploy/kubernetes: what the service needs of a cluster."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from kronos_api.checkpoints.registry import PUBLISHED
from kronos_api.config import Settings, load_settings
from kronos_api.telemetry.metrics import metrics
from kronos_api.version import __version__
from scripts import render_kubernetes
from scripts.render_kubernetes import CHART, NOT_IF_SCALED, RULES, SETS

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["gpu", "keda", "minimal", "production"]
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
UNITS = {"Mi": 2**20, "Gi": 2**30}

Manifest = dict[str, Any]


def load(path: Path) -> list[Manifest]:
    return [one for one in yaml.load_all(path.read_text("utf-8"), LOADER) if one]


MANIFESTS = {name: load(SETS / name / "manifests.yaml") for name in NAMES}


def of(name: str, kind: str) -> list[Manifest]:
    return [one for one in MANIFESTS[name] if one["kind"] == kind]


def deployment(name: str) -> Manifest:
    (found,) = (one for one in of(name, "Deployment") if one["metadata"]["name"] == "kronos-api")
    return found


def pod(name: str) -> Manifest:
    spec: Manifest = deployment(name)["spec"]["template"]["spec"]
    return spec


def service(name: str) -> Manifest:
    (container,) = pod(name)["containers"]
    return dict(container)


def environment(name: str) -> dict[str, str]:
    return {one["name"]: one["value"] for one in service(name)["env"] if "value" in one}


def size(quantity: str) -> int:
    return int(quantity[:-2]) * UNITS[quantity[-2:]]


def test_every_set_is_here() -> None:
    assert sorted(path.parent.name for path in SETS.glob("*/manifests.yaml")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_service_accepts_its_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in environment(name).items():
        monkeypatch.setenv(variable, value)
    notes: list[str] = []
    settings = load_settings(notes.append)
    assert notes == []
    replicas = of(name, "HorizontalPodAutoscaler") + of(name, "ScaledObject")
    most = deployment(name)["spec"].get("replicas") or next(
        one["spec"].get("maxReplicas") or one["spec"]["maxReplicaCount"] for one in replicas
    )
    assert settings.replicas == most


@pytest.mark.parametrize("name", NAMES)
def test_times_fit_into_each_other(name: str) -> None:
    settings = Settings()
    command = service(name)["lifecycle"]["preStop"]["exec"]["command"]
    grace = pod(name)["terminationGracePeriodSeconds"]
    assert grace >= int(command[1]) + settings.stop_timeout
    startup = service(name)["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] > settings.startup_timeout
    liveness = service(name)["livenessProbe"]
    assert liveness["httpGet"]["path"] == "/v1/healthz"
    assert service(name)["readinessProbe"]["httpGet"]["path"] == "/v1/readyz"
    assert {"/v1/healthz", "/v1/readyz"} <= set(settings.exempt_paths)


@pytest.mark.parametrize("name", NAMES)
def test_a_rollout_loses_no_replica_or_needs_no_spare_gpu(name: str) -> None:
    update = deployment(name)["spec"]["strategy"]["rollingUpdate"]
    assert (update["maxUnavailable"], update["maxSurge"]) == ((1, 0) if name == "gpu" else (0, 1))
    assert pod(name)["enableServiceLinks"] is False
    keys = [one["topologyKey"] for one in pod(name)["topologySpreadConstraints"]]
    assert keys == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    (budget,) = of(name, "PodDisruptionBudget")
    labels = deployment(name)["spec"]["template"]["metadata"]["labels"]
    assert budget["spec"]["selector"]["matchLabels"] == labels


@pytest.mark.parametrize("name", NAMES)
def test_pods_fit_the_restricted_standard(name: str) -> None:
    for one in of(name, "Deployment"):
        spec = one["spec"]["template"]["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in (*spec["containers"], *spec.get("initContainers", ())):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= set(container["resources"]["limits"])


@pytest.mark.parametrize("name", NAMES)
def test_resources_are_those_of_the_compose_file(name: str) -> None:
    resources = service(name)["resources"]
    assert resources["requests"] == {"cpu": "1", "memory": "2Gi"}
    assert resources["limits"]["cpu"] == "2"
    assert resources["limits"]["memory"] == ("8Gi" if name == "gpu" else "4Gi")
    volumes = {one["name"]: one for one in pod(name)["volumes"]}
    memory = volumes["shared-memory"]["emptyDir"]
    assert memory["medium"] == "Memory"
    assert size(memory["sizeLimit"]) >= 64 * 2**20
    mounts = {one["mountPath"]: one["name"] for one in service(name)["volumeMounts"]}
    assert mounts["/dev/shm"] == "shared-memory"
    assert "/tmp" in mounts


@pytest.mark.parametrize("name", NAMES)
def test_only_callers_scrapers_and_the_gateway_reach_the_pods(name: str) -> None:
    (policy,) = (one for one in of(name, "NetworkPolicy") if not _is_redis(one))
    allowed = [peer for rule in policy["spec"]["ingress"] for peer in rule["from"]]
    assert {"podSelector": {"matchLabels": {"kronos-api/caller": "true"}}} in allowed
    assert len(allowed) == {"production": 3, "keda": 2}.get(name, 1)
    for redis in filter(_is_redis, of(name, "NetworkPolicy")):
        (rule,) = redis["spec"]["ingress"]
        labels = deployment(name)["spec"]["template"]["metadata"]["labels"]
        assert rule["from"] == [{"podSelector": {"matchLabels": labels}}]


def _is_redis(manifest: Manifest) -> bool:
    return str(manifest["metadata"]["name"]).endswith("-redis")


def test_production_scales_on_the_processor() -> None:
    (scaler,) = of("production", "HorizontalPodAutoscaler")
    assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (2, 20)
    (metric,) = scaler["spec"]["metrics"]
    assert metric["resource"]["name"] == "cpu"
    assert metric["resource"]["target"]["averageUtilization"] == 70
    assert scaler["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 300


def test_keda_scales_on_metrics_that_exist() -> None:
    (scaled,) = of("keda", "ScaledObject")
    (trigger,) = scaled["spec"]["triggers"]
    known = {metric.name for metric in metrics.registry.collect()}
    named = re.findall(r"kronos_\w+", trigger["metadata"]["query"])
    assert named == ["kronos_queue_depth", "kronos_active_series"]
    assert set(named) <= known
    assert not of("keda", "HorizontalPodAutoscaler")


@pytest.mark.parametrize("name", ["production", "keda"])
def test_rules_and_dashboards_are_those_of_monitoring(name: str) -> None:
    (rule,) = of(name, "PrometheusRule")
    rules = ROOT / "monitoring" / "prometheus" / "rules"
    groups = [group for file in RULES for group in load(rules / f"{file}.yml")[0]["groups"]]
    for group in groups:  # both are scaled: fewer replicas than the most are no fault
        group["rules"] = [one for one in group["rules"] if one.get("alert") != NOT_IF_SCALED]
    assert rule["spec"]["groups"] == groups, "run scripts/render_kubernetes.py"
    (monitor,) = of(name, "PodMonitor")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert {"targetLabel": "job", "replacement": "kronos-api"} in endpoint["relabelings"]
    for one in of(name, "ConfigMap"):
        ((file, text),) = one["data"].items()
        dashboard = ROOT / "monitoring" / "grafana" / "dashboards" / file
        present = json.loads(dashboard.read_text("utf-8"))
        assert json.loads(text) == present, "run scripts/render_kubernetes.py"
    present_files = {file for one in of(name, "ConfigMap") for file in one["data"]}
    linked = set(re.findall(r"/d/(kronos-\w+)", json.dumps(groups)))
    assert {f"{uid}.json" for uid in linked} <= present_files


def test_production_accepts_the_token_of_the_example_caller() -> None:
    account, job = load(SETS / "caller.yaml")
    settings, template = environment("production"), job["spec"]["template"]
    name = f"serviceaccount:{account['metadata']['namespace']}/{account['metadata']['name']}"
    assert name in settings["KRONOS_CONTAINER_WHITELIST"].split(",")
    assert template["spec"]["serviceAccountName"] == account["metadata"]["name"]
    (volume,) = template["spec"]["volumes"]
    (source,) = volume["projected"]["sources"]
    token = source["serviceAccountToken"]
    assert token["audience"] == settings["KRONOS_SERVICE_ACCOUNT_AUDIENCE"]
    (container,) = template["spec"]["containers"]
    (mount,) = container["volumeMounts"]
    assert f"{mount['mountPath']}/{token['path']}" in container["command"][-1]
    policy = next(one for one in of("production", "NetworkPolicy") if not _is_redis(one))
    (peer,) = policy["spec"]["ingress"][0]["from"]
    assert peer["podSelector"]["matchLabels"] == template["metadata"]["labels"]


def test_the_service_has_what_it_asks_the_api_server_with() -> None:
    settings = environment("production")
    volume = next(one for one in pod("production")["volumes"] if one["name"] == "api-server")
    mounts = {one["name"]: one["mountPath"] for one in service("production")["volumeMounts"]}
    folder = mounts["api-server"]
    files = {
        item["path"]
        for source in volume["projected"]["sources"]
        for item in source.get("configMap", {}).get("items", [source.get("serviceAccountToken")])
    }
    for name in ("KRONOS_SERVICE_ACCOUNT_CA_FILE", "KRONOS_SERVICE_ACCOUNT_TOKEN_FILE"):
        assert settings[name].rpartition("/")[::2] in {(folder, file) for file in files}
    policy = next(one for one in of("production", "NetworkPolicy") if not _is_redis(one))
    ports = [[port["port"] for port in one["ports"]] for one in policy["spec"]["egress"]]
    assert [443, 6443] in ports
    assert "api-server" not in json.dumps(pod("minimal"))


def test_production_publishes_no_metrics() -> None:
    (ingress,) = of("production", "Ingress")
    (rule,) = ingress["spec"]["rules"]
    paths = [one["path"] for one in rule["http"]["paths"]]
    assert "/v1/predict" in paths
    assert not [path for path in paths if "metrics" in path or path in ("/", "/v1")]


def test_a_fetched_model_is_where_the_service_looks() -> None:
    (init,) = pod("production")["initContainers"]
    assert init["command"] == ["kronos-api", "fetch", environment("production")["KRONOS_MODEL_ID"]]
    assert {one["name"]: one["value"] for one in init["env"]}["HF_HOME"] == (
        environment("production")["HF_HOME"]
    )
    assert service("gpu")["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert environment("gpu")["KRONOS_MODEL_PATH"] == "/models"


def test_the_chart_has_the_version_of_the_package() -> None:
    (chart,) = load(CHART / "Chart.yaml")
    assert chart["version"] == chart["appVersion"] == __version__


def test_the_schema_covers_every_value() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))

    def check(values: Manifest, part: Manifest, place: str) -> None:
        for name, value in values.items():
            assert name in part["properties"], f"{place}{name}"
            if isinstance(value, dict) and "properties" in part["properties"][name]:
                check(value, part["properties"][name], f"{place}{name}.")

    (values,) = load(CHART / "values.yaml")
    check(values, schema, "")


@pytest.mark.process
@pytest.mark.skipif(not render_kubernetes.available(), reason="needs helm or helm-python-sdk")
@pytest.mark.parametrize("name", NAMES)
def test_manifests_are_those_of_the_chart(name: str) -> None:
    rendered = render_kubernetes.render(SETS / name / "values.yaml")
    file = SETS / name / "manifests.yaml"
    assert rendered == file.read_text("utf-8") == render_kubernetes.renewed(file)


@pytest.mark.process
@pytest.mark.skipif(not render_kubernetes.available(), reason="needs helm or helm-python-sdk")
@pytest.mark.parametrize(
    "values",
    [
        {"model": {"id": "NeoQuasar/Kronos-base"}},
        {"model": {"id": "NeoQuasar/Kronos-base", "fetch": True}},
        {"settings": {"KRONOS_MODEL_ID": "NeoQuasar/Kronos-base"}},
    ],
)
def test_a_downloaded_model_fits_its_volume(values: Manifest, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps(values), "utf-8")  # JSON is YAML too
    (found,) = (
        one["spec"]["template"]["spec"]
        for one in yaml.load_all(render_kubernetes.render(file), LOADER)
        if one["kind"] == "Deployment" and one["metadata"]["name"] == "kronos-api"
    )
    (container,) = found["containers"]
    home = {one["name"]: one.get("value") for one in container["env"]}["HF_HOME"]
    mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
    (volume,) = (one for one in found["volumes"] if one["name"] == mounts[str(Path(home).parent)])
    parts = ("NeoQuasar/Kronos-base", "NeoQuasar/Kronos-Tokenizer-base")
    needed = sum(PUBLISHED[part].megabytes for part in parts)
    assert size(volume["emptyDir"]["sizeLimit"]) >= 2 * needed * 2**20  # and a revision after it


@pytest.mark.process
@pytest.mark.skipif(not render_kubernetes.available(), reason="needs helm or helm-python-sdk")
def test_the_update_strategy_can_be_set(tmp_path: Path) -> None:
    strategy = {"type": "Recreate"}
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps({"gpu": {"count": 1}, "updateStrategy": strategy}), "utf-8")
    manifests = yaml.load_all(render_kubernetes.render(file), LOADER)
    found = {one["metadata"]["name"]: one for one in manifests if one["kind"] == "Deployment"}
    assert found["kronos-api"]["spec"]["strategy"] == strategy


@pytest.mark.process
@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl")
@pytest.mark.parametrize("name", NAMES)
def test_kustomize_builds_each_set(name: str) -> None:
    command = ["kubectl", "kustomize", str(SETS / name)]
    built = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = [one for one in yaml.load_all(built, LOADER) if one]
    assert len(found) == len(MANIFESTS[name])
    assert {one["metadata"]["namespace"] for one in found} == {"kronos"}
