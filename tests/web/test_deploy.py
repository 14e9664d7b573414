"""The files that start a console: read as their programs read them, with options that exist."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from stiqueue.cli.web import web

ROOT = Path(__file__).parents[2]
COMPOSE, KUBERNETES = ROOT / "deploy/console.compose.yaml", ROOT / "deploy/kubernetes/console.yaml"


def start(container: dict[str, Any], environment: dict[str, str], tmp_path: Path) -> dict[str, Any]:
    """Return the arguments with which a container's command would run."""
    assert container["command"] == ["stiqueue", "web"]
    (tmp_path / "ca.pem").write_text("x")
    environment = {name: value.replace("/run/ca", str(tmp_path)) for name, value in environment.items()}
    known = {str(name) for option in web.params for name in [option.envvar] if name}
    assert set(environment) <= known
    with web.make_context("web", [], auto_envvar_prefix=None, obj=None) as context:
        for option in web.params:
            if option.envvar in environment:
                context.params[str(option.name)] = option.type_cast_value(context, environment[str(option.envvar)])
    return dict(context.params)


def test_compose_starts_it_beside_the_server(tmp_path: Path) -> None:
    document = yaml.safe_load(COMPOSE.read_text())
    schema = json.loads((ROOT / "tests/schemas/compose-spec.json").read_text())
    jsonschema.Draft7Validator(schema).validate(document)
    beside = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    console = document["services"]["console"]
    assert document["name"] == beside["name"]
    assert console["depends_on"] == list(beside["services"])
    given = start(console, console["environment"], tmp_path)
    assert (given["host"], given["web_host"], given["web_open"]) == ("server", "0.0.0.0", True)
    # Everybody who reaches it may act.
    assert all(port.startswith("127.0.0.1:") for port in console["ports"])


def test_kubernetes_starts_it_for_those_with_a_token(tmp_path: Path) -> None:
    deployment, service, ingress = yaml.safe_load_all(KUBERNETES.read_text())
    for resource in (deployment, service, ingress):
        kubernetes_validate.validate(resource, "1.31", strict=True)
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    given = start(container, {each["name"]: each["value"] for each in container["env"]}, tmp_path)
    (rule,) = ingress["spec"]["rules"]
    assert given["web_origin"] == f"https://{rule['host']}"
    assert given["web_open"] is False
    assert given["host"] == "stiqueue"
    assert pod["enableServiceLinks"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert rule["http"]["paths"][0]["backend"]["service"]["name"] == service["metadata"]["name"]
