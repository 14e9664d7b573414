"""The files that start servers and watch them: read as their programs read them, and true of the server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from support.nats_servers import find_server
from support.services import missing

from stiqueue import SQServer
from stiqueue.settings import ENVIRONMENT_PREFIX, Settings, read_settings

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
CLUSTER = DEPLOY / "cluster"
SECONDS = 20.0
GRACE = Settings().grace

Yaml = dict[str, Any]


def documents(path: Path) -> list[Yaml]:
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


# -- NATS -------------------------------------------------------------------------------------------------------------


def configuration_in_kubernetes() -> str:
    """Return the NATS configuration that is inside of the Kubernetes file."""
    (config,) = (each for each in documents(CLUSTER / "kubernetes.yaml") if each["kind"] == "ConfigMap")
    text: str = config["data"]["nats.conf"]
    return text


@pytest.mark.parametrize("where", ["compose", "kubernetes"])
def test_nats_accepts_the_configuration(where: str) -> None:
    text = (CLUSTER / "nats.conf").read_text() if where == "compose" else configuration_in_kubernetes()
    assert "sync_interval: always" in text
    assert "max_payload: 8MB" in text
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "nats.conf"
        path.write_text(text)
        environment = {**os.environ, "NATS_NAME": "n1"}
        done = subprocess.run(
            [find_server(), "-t", "-c", str(path)], env=environment, capture_output=True, text=True, timeout=20
        )
        assert done.returncode == 0, done.stderr


# -- compose ----------------------------------------------------------------------------------------------------------

COMPOSE = [DEPLOY / "compose.yaml", CLUSTER / "compose.yaml"]
compose_files = pytest.mark.parametrize("path", COMPOSE, ids=lambda path: str(path.relative_to(DEPLOY)))


@compose_files
def test_a_compose_file_fits_its_schema(path: Path) -> None:
    """The schema is that of the Compose Specification, as github.com/compose-spec/compose-go 2.4.7 has it."""
    schema = json.loads((ROOT / "tests/schemas/compose-spec.json").read_text())
    (document,) = documents(path)
    jsonschema.Draft7Validator(schema).validate(document)


@compose_files
def test_a_container_has_time_to_stop_and_options_that_exist(path: Path) -> None:
    (document,) = documents(path)
    servers = [each for each in document["services"].values() if "STIQUEUE_HOST" in each.get("environment", {})]
    assert servers
    for service in servers:
        assert int(service["stop_grace_period"].removesuffix("s")) > GRACE
        assert_options(service["environment"])


# -- Kubernetes -------------------------------------------------------------------------------------------------------


def merged(base: Any, patch: Any) -> Any:
    """Return `base` with a strategic merge patch: null deletes, lists are merged by name or path of their elements."""
    if isinstance(base, dict) and isinstance(patch, dict):
        both = base | {key: merged(base.get(key), value) for key, value in patch.items()}
        return {key: value for key, value in both.items() if value is not None}
    if isinstance(base, list) and isinstance(patch, list):
        by_key = {_key(each): each for each in base}
        by_key |= {_key(each): merged(by_key.get(_key(each)), each) for each in patch}
        return list(by_key.values())
    return {key: value for key, value in patch.items() if value is not None} if isinstance(patch, dict) else patch


def _key(element: Any) -> Any:
    return element.get("mountPath", element.get("name")) if isinstance(element, dict) else element


def secured() -> list[Yaml]:
    """Return what is in Kubernetes once stiqueue.yaml is patched."""
    (patch,) = documents(DEPLOY / "kubernetes/secure.yaml")
    resources = documents(DEPLOY / "kubernetes/stiqueue.yaml")
    return [merged(each, patch) if each["kind"] == "StatefulSet" else each for each in resources]


KUBERNETES = {
    "one server": documents(DEPLOY / "kubernetes/stiqueue.yaml"),
    "secured": secured(),
    "cluster": documents(CLUSTER / "kubernetes.yaml"),
}
CRON = documents(DEPLOY / "kubernetes/cron.yaml")
kubernetes_files = pytest.mark.parametrize("resources", KUBERNETES.values(), ids=KUBERNETES.keys())


@kubernetes_files
def test_kubernetes_resources_fit_their_schemas(resources: list[Yaml]) -> None:
    for resource in resources:
        kubernetes_validate.validate(resource, "1.31", strict=True)


@kubernetes_files
def test_a_pod_has_time_to_stop_and_options_that_exist(resources: list[Yaml]) -> None:
    pods = [each["spec"]["template"]["spec"] for each in resources if each["kind"] in ("StatefulSet", "Deployment")]
    ours = [pod for pod in pods if pod["containers"][0]["image"].startswith("stiqueue")]
    assert len(ours) == 1
    for pod in ours:
        assert pod["terminationGracePeriodSeconds"] > GRACE
        # A service named stiqueue would give it STIQUEUE_PORT=tcp://..., which is not a port.
        assert pod["enableServiceLinks"] is False
        assert_options({each["name"]: each["value"] for each in pod["containers"][0]["env"]})


def test_the_jobs_in_kubernetes_are_run_as_they_are_written(tmp_path: Path) -> None:
    for resource in CRON:
        kubernetes_validate.validate(resource, "1.31", strict=True)
    config, deployment = CRON
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    path = tmp_path / "jobs.toml"
    path.write_text(config["data"][path.name])
    assert container["command"][2] == f"{container['volumeMounts'][0]['mountPath']}/{path.name}"
    assert_runs([*container["command"][:2], str(path), *container["args"]])
    assert pod["enableServiceLinks"] is False
    assert container["args"][-1] == str(container["livenessProbe"]["httpGet"]["port"])
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def assert_runs(command: list[str]) -> None:
    """Check that ``stiqueue`` takes a command line of `cron`, and the file in it."""
    done = subprocess.run(
        [sys.executable, "-m", *command, "--list"], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr


PROBES = {"startupProbe": "exec", "readinessProbe": "exec", "livenessProbe": "tcpSocket"}


@pytest.mark.parametrize("name", ["one server", "secured"])
def test_the_pod_is_confined(name: str) -> None:
    (stateful,) = (each for each in KUBERNETES[name] if each["kind"] == "StatefulSet")
    pod = stateful["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"]["memory"]
    probes = {each: container[each].keys() & {"exec", "grpc", "tcpSocket"} for each in PROBES}
    # The kubelet cannot speak TLS.
    assert probes == {each: {kind if name == "secured" else "grpc"} for each, kind in PROBES.items()}


def assert_options(environment: dict[str, str]) -> None:
    """Check that a server would start with this environment."""
    names = {ENVIRONMENT_PREFIX + name.upper() for name in Settings.__slots__}
    assert {name for name in environment if name.startswith(ENVIRONMENT_PREFIX)} <= names
    read_settings(type("Parsed", (), {})(), environment)  # type: ignore[arg-type]


# -- KEDA -------------------------------------------------------------------------------------------------------------

WORKER, SCALED = documents(DEPLOY / "kubernetes/autoscale.yaml")
TEXT, COUNT = {"type": "string"}, {"type": "integer", "minimum": 0}
NUMBER_IN_TEXT = {"type": "string", "pattern": r"^\d+(\.\d+)?$"}


def record(required: str, **fields: Any) -> Yaml:
    """Return the schema of an object with these fields and no others."""
    return {"type": "object", "properties": fields, "required": required.split(), "additionalProperties": False}


SCALED_OBJECT = record(
    "apiVersion kind metadata spec",
    apiVersion={"const": "keda.sh/v1alpha1"},
    kind={"const": "ScaledObject"},
    metadata=record("name", name=TEXT),
    spec=record(
        "scaleTargetRef triggers",
        scaleTargetRef=record("name", apiVersion=TEXT, kind=TEXT, name=TEXT, envSourceContainerName=TEXT),
        pollingInterval=COUNT,
        cooldownPeriod=COUNT,
        initialCooldownPeriod=COUNT,
        minReplicaCount=COUNT,
        maxReplicaCount=COUNT,
        triggers={
            "type": "array",
            "minItems": 1,
            "items": record(
                "type metadata",
                type={"const": "prometheus"},
                metadata=record(
                    "serverAddress query threshold",
                    serverAddress=TEXT,
                    query=TEXT,
                    threshold=NUMBER_IN_TEXT,
                    activationThreshold=NUMBER_IN_TEXT,
                    ignoreNullValues={"enum": ["true", "false"]},
                ),
            ),
        },
    ),
)
"""The part that we use of KEDA's documentation of ScaledObject and of its scaler for Prometheus, version 2.18."""


def test_the_scaled_object_is_one_and_scales_the_worker_beside_it() -> None:
    kubernetes_validate.validate(WORKER, "1.31", strict=True)
    jsonschema.Draft7Validator(SCALED_OBJECT).validate(SCALED)
    assert SCALED["spec"]["scaleTargetRef"]["name"] == WORKER["metadata"]["name"]
    assert "replicas" not in WORKER["spec"], "KEDA and kubectl would set them in turn"
    assert SCALED["spec"]["minReplicaCount"] < SCALED["spec"]["maxReplicaCount"]


# -- systemd ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stiqueue.service", "stiqueue-cron.service"])
def test_systemd_accepts_the_unit(tmp_path: Path, name: str) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        missing("systemd-analyze")
    text = (DEPLOY / name).read_text()
    unit = tmp_path / name
    unit.write_text(re.sub(r"/opt/stiqueue/bin/stiqueue(-server)?", sys.executable, text))
    done = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True, timeout=30)
    ours = [line for line in done.stderr.splitlines() if "stiqueue" in line]
    assert (done.returncode, ours) == (0, [])
    done = subprocess.run(
        [analyze, "security", "--offline=yes", "--threshold=20", str(unit)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stdout


def test_the_unit_leaves_time_to_stop_and_has_options_that_exist() -> None:
    text = (DEPLOY / "stiqueue.service").read_text()
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", text, re.M)
    assert int(seconds) > GRACE
    assert_options(dict(re.findall(r"\b(STIQUEUE_\w+)=(\w+)", "\n".join(re.findall(r"^Environment=.*$", text, re.M)))))


def test_the_unit_for_jobs_has_options_that_exist(tmp_path: Path) -> None:
    text = (DEPLOY / "stiqueue-cron.service").read_text()
    (arguments,) = re.findall(r"^ExecStart=/opt/stiqueue/bin/stiqueue cron /etc/stiqueue/jobs.toml (.*)$", text, re.M)
    path = tmp_path / "jobs.toml"
    path.write_text('[[entry]]\nname = "a"\nevery = 60\n')
    assert_runs(["stiqueue", "cron", str(path), *arguments.split()])


# -- metrics ----------------------------------------------------------------------------------------------------------

RULES = [rule for group in documents(DEPLOY / "alerts.yaml")[0]["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
GRAPHS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = {rule["alert"]: rule["expr"] for rule in RULES} | {
    f"{panel['title']} {target['refId']}": target["expr"] for panel in GRAPHS for target in panel["targets"]
}
EXPRESSIONS["autoscaling"] = SCALED["spec"]["triggers"][0]["metadata"]["query"]
OF_PROMETHEUS = {"job", "instance"}
"""Labels that Prometheus adds."""

Samples = dict[str, list[dict[str, str]]]
"""The labels of all samples, by the name of the metric."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """What a durable server with one message serves."""
    from stiqueue import SQClient

    data = tmp_path_factory.mktemp("metrics") / "queue.db"
    with SQServer(port=0, data=data, metrics_port=0) as server, SQClient(port=server.port) as client:
        client.enq("a")
        client.enq("a", queue="jobs")  # that of the file for KEDA
        with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=SECONDS) as answer:
            text = answer.read().decode()
    samples: Samples = {"up": [{}]}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append(sample.labels)
    return samples


def selectors(expression: str) -> list[Any]:
    """Return the selectors of series in a PromQL expression."""
    expression = expression.replace("$__rate_interval", "5m").replace("$instance", ".*").replace("$queue", ".*")
    found: list[Any] = []

    def visit(node: Any) -> bool:
        if isinstance(node, promql_parser.MatrixSelector):
            found.append(node.vector_selector)
        elif isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        return True

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS.keys())
def test_an_expression_asks_for_series_that_the_server_serves(expression: str, served: Samples) -> None:
    asked = selectors(expression)
    assert asked
    for selector in asked:
        assert selector.name in served
        matchers = [each for each in selector.matchers.matchers if each.name not in OF_PROMETHEUS]
        assert any(all(matches(each, labels) for each in matchers) for labels in served[selector.name]), expression


def matches(matcher: Any, labels: dict[str, str]) -> bool:
    """Whether labels are what a matcher asks for."""
    if matcher.name not in labels:
        return False
    value = labels[matcher.name]
    found = bool(re.fullmatch(matcher.value, value)) if "Re" in str(matcher.op) else matcher.value == value
    return found is not str(matcher.op).rpartition(".")[2].startswith("Not")


def test_alerts_are_named_once_and_say_how_bad_they_are() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    for rule in RULES:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"]["summary"]


def test_each_alert_is_explained() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    assert set(re.findall(r"^\| `(StiQueue\w+)` \|", text, re.M)) == {rule["alert"] for rule in RULES}


def test_each_metric_is_explained(served: Samples) -> None:
    text = (ROOT / "docs/metrics.md").read_text()
    explained = set(re.findall(r"`((?:stiqueue|process)_\w+)`", text))
    families = {re.sub(r"_(bucket|sum|count|created|total)$", "", name) for name in served if name != "up"}
    explained = {re.sub(r"_total$", "", name) for name in explained}
    assert {name for name in families if name.startswith("stiqueue")} <= explained
    assert explained <= families


def test_the_dashboard_can_be_drawn() -> None:
    identifiers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    covered: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not covered & cells
        covered |= cells
    for panel in GRAPHS:
        assert panel["description"]
