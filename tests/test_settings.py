"""The options of the server: from the command line, the environment and the constructor."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest

from stiqueue import InvalidRequest, SQServer
from stiqueue.settings import Settings, build_settings, parse_arguments

OPTIONS = dataclasses.fields(Settings)


@pytest.fixture(autouse=True)
def _no_options_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for option in OPTIONS:
        monkeypatch.delenv(f"STIQUEUE_{option.name.upper()}", raising=False)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return what the command says about arguments that it refuses."""
    with pytest.raises(SystemExit) as ended:
        parse_arguments(arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_without_options_the_server_is_where_the_documentation_says() -> None:
    settings = parse_arguments([])
    assert (settings.host, settings.port, settings.data) == ("127.0.0.1", 1234, "stiqueue.db")
    assert (settings.debug, settings.ack_required, settings.ack_timeout) == (False, True, None)
    assert settings == Settings()


def test_the_command_line_sets_every_kind_of_option() -> None:
    arguments = "--host ::1 --port 0 --debug --buff-size 65536 --log x.log --ack-timeout 1.5 --no-ack-required"
    settings = parse_arguments(arguments.split())
    assert (settings.host, settings.port, settings.debug, settings.buff_size) == ("::1", 0, True, 65_536)
    assert (settings.log, settings.ack_timeout, settings.ack_required) == ("x.log", 1.5, False)


def test_the_environment_sets_every_kind_of_option(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"HOST": "::1", "PORT": "4321", "DEBUG": "yes", "ACK_REQUIRED": "off", "ACK_TIMEOUT": "2.5", "LOG": "x.log"}
    for name, value in given.items():
        monkeypatch.setenv(f"STIQUEUE_{name}", value)
    settings = parse_arguments([])
    assert (settings.host, settings.port, settings.debug) == ("::1", 4321, True)
    assert (settings.ack_required, settings.ack_timeout, settings.log) == (False, 2.5, "x.log")


def test_the_command_line_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STIQUEUE_PORT", "1")
    monkeypatch.setenv("STIQUEUE_DEBUG", "1")
    settings = parse_arguments(["--port", "2", "--no-debug"])
    assert (settings.port, settings.debug) == (2, False)


WORDS = {"sync": "off", "log_format": "json"}
"""A value of the options that take no other text."""
PARTNERS = {
    "tls_cert": ["--tls-key", "k"],
    "tls_key": ["--tls-cert", "c"],
    "tls_client_ca": ["--tls-cert", "c", "--tls-key", "k"],
}
"""What options need beside them."""


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_option_is_on_the_command_line_and_in_the_environment(
    option: dataclasses.Field[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, within = option.metadata["kind"], option.metadata["within"]
    value: Any = not option.default if kind is bool else kind(within[1]) if within else WORDS.get(option.name, "x")
    flag = option.name.replace("_", "-")
    given = [f"--{flag}" if value else f"--no-{flag}"] if kind is bool else [f"--{flag}", str(value)]
    others = PARTNERS.get(option.name, [])
    assert getattr(parse_arguments([*given, *others]), option.name) == value
    monkeypatch.setenv(f"STIQUEUE_{option.name.upper()}", str(value))
    assert getattr(parse_arguments(others), option.name) == value
    with pytest.raises(SystemExit) as ended:
        parse_arguments(["--help"])
    assert ended.value.code == 0
    assert f"--{flag}" in capsys.readouterr().out


NUMBERS = [option for option in OPTIONS if option.metadata["within"]]


@pytest.mark.parametrize("option", NUMBERS, ids=lambda option: option.name)
def test_a_number_out_of_its_range_is_refused_naming_the_option(
    option: dataclasses.Field[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    low, high = option.metadata["within"]
    for value in low, high:
        Settings(**{option.name: value})
    for value in low - 1, high * 2 + 1, float("nan"), float("inf"), "1", True:
        with pytest.raises(InvalidRequest, match=option.name) as refused:
            Settings(**{option.name: value})
        assert refused.value.reason == "BAD_OPTION"
    assert option.name in refusal(capsys, f"--{option.name.replace('_', '-')}={high * 2 + 1}")


@pytest.mark.parametrize("text", ["1", "true", "True", "YES", "on"])
def test_these_words_mean_yes(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("STIQUEUE_DEBUG", text)
    assert parse_arguments([]).debug is True


@pytest.mark.parametrize("text", ["0", "false", "False", "NO", "off", ""])
def test_these_words_mean_no(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("STIQUEUE_ACK_REQUIRED", text)
    assert parse_arguments([]).ack_required is False


def test_what_is_no_value_of_an_option_is_refused_naming_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "port: 'many'" in refusal(capsys, "--port", "many")
    assert "port" in refusal(capsys, "--port", "1.5")
    assert "sync" in refusal(capsys, "--sync", "sometimes")
    assert "--colour" in refusal(capsys, "--colour")
    monkeypatch.setenv("STIQUEUE_DEBUG", "perhaps")
    assert "debug: 'perhaps'" in refusal(capsys)


def test_none_stands_for_the_default() -> None:
    assert build_settings(port=None, ack_timeout=None, log=None) == Settings()


def test_the_class_takes_the_arguments_of_the_original_by_position_and_every_option_by_name() -> None:
    names = list(inspect.signature(SQServer).parameters)
    assert names[:7] == ["host", "port", "logger", "buff_size", "ack_required", "ack_timeout", "data"]
    server = SQServer("127.0.0.1", 0, None, 1 << 20, False, 5.0, max_consumers=7)
    settings = server.settings
    assert (settings.buff_size, settings.ack_required, settings.ack_timeout) == (1 << 20, False, 5.0)
    assert settings.max_consumers == 7


def test_the_class_keeps_messages_in_memory_unless_told_otherwise() -> None:
    assert SQServer().settings.data == ":memory:"


def test_the_class_refuses_what_is_no_option_or_out_of_range() -> None:
    with pytest.raises(TypeError, match="colour"):
        SQServer(colour="red")
    with pytest.raises(InvalidRequest, match="port"):
        SQServer(port=65_536)


@pytest.mark.parametrize("given", [{"data": "jobs.db"}, {"sync": "off"}, {"accept_loss": True}])
def test_an_option_of_the_data_file_is_refused_beside_a_cluster(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=f"{next(iter(given))}: a cluster has no data file") as refused:
        SQServer(engine="nats://127.0.0.1", **given)
    assert refused.value.reason == "BAD_OPTION"
    SQServer(engine="nats://127.0.0.1", replicas=1)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]
