"""Every option of the server: name, default, unit and range, in one place.

`SQServer` takes them as keyword arguments, the command as ``--option-name``, the environment as
``STIQUEUE_OPTION_NAME``. The command line wins over the environment, the environment over the default.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stiqueue.errors import InvalidRequest

ENVIRONMENT_PREFIX = "STIQUEUE_"

_Range = tuple[float, float]
_WORDS = {"sync": ("always", "off"), "log_format": ("text", "json")}
"""The options that are one of two words."""


def _option(default: Any, text: str, within: _Range | None = None, kind: type = str) -> Any:
    """Declare one option: its default, its help, the range of a number and how text becomes a value."""
    return dataclasses.field(default=default, metadata={"help": text, "within": within, "kind": kind})


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of one server, checked when built."""

    host: str = _option("127.0.0.1", "address to listen on; 0.0.0.0: all of IPv4")
    port: int = _option(1234, "port to listen on; 0: a free one", (0, 65_535), int)
    debug: bool = _option(False, "log every message in and out", kind=bool)
    buff_size: int = _option(4 << 20, "largest request, in bytes", (64 << 10, 1 << 30), int)
    log: str | None = _option(None, "log to this file instead of stderr; 10 files of 10 MB are kept")
    log_format: str = _option("text", "text, or json: one object a line")
    metrics_port: int | None = _option(
        None, "serve Prometheus's metrics on this port of the same address; 0: a free one", (0, 65_535), int
    )
    data: str = _option("stiqueue.db", "the data file; :memory: keeps messages in memory")
    sync: str = _option("always", "always: confirmed messages are on the disk; off: the operating system decides")
    accept_loss: bool = _option(False, "start on a damaged data file with what can be read of it", kind=bool)
    engine: str | None = _option(
        None,
        "nats://host[:port],...[?monitor=port,...] keeps messages in a NATS JetStream cluster instead of the data file",
    )
    replicas: int = _option(3, "on how many servers of the cluster each message is", (1, 5), int)
    unsafe: bool = _option(False, "use the cluster even if confirmed messages can be lost in a power cut", kind=bool)
    tls_cert: str | None = _option(None, "serve TLS with this certificate (PEM, with its chain); read again on change")
    tls_key: str | None = _option(None, "its key (PEM)")
    tls_client_ca: str | None = _option(None, "demand certificates of clients, signed by this authority (PEM)")
    tokens: str | None = _option(
        None, "demand tokens: a file with TOKEN RIGHTS [QUEUES] in each line; read again on change"
    )
    ack_required: bool = _option(True, "without it every delivery is final: at most once", kind=bool)
    ack_timeout: float | None = _option(
        None, "seconds until an unsettled message is given back although its consumer lives", (0.001, 604_800), float
    )
    max_attempts: int = _option(0, "deliveries before a message moves to <queue>.dead; 0: no limit", (0, 1 << 30), int)
    max_messages: int = _option(0, "most messages in one queue; 0: no limit", (0, 1 << 62), int)
    max_queue_bytes: int = _option(0, "most bytes in one queue; 0: no limit", (0, 1 << 62), int)
    max_bytes: int | None = _option(
        None,
        "most bytes in all queues; 0: no limit; default: half of the memory where messages are in memory",
        (0, 1 << 62),
        int,
    )
    max_queues: int = _option(10_000, "most queues in use", (1, 500_000), int)
    max_consumers: int = _option(10_000, "most open Deq streams", (1, 1 << 20), int)
    max_connections: int | None = _option(
        None, "most connections; default: 20,000, or what file descriptors allow", (1, 1 << 20), int
    )
    max_streams: int = _option(100, "most calls at a time on one connection", (1, 1 << 20), int)
    max_pending: int = _option(30_000, "most calls that wait to be accepted", (1, 1 << 20), int)
    grace: float = _option(10.0, "seconds that SIGTERM leaves consumers to settle what they hold", (0, 86_400), float)
    keepalive: float = _option(5.0, "seconds between pings to a silent client", (0.1, 86_400), float)
    keepalive_timeout: float = _option(3.0, "seconds until a ping without answer ends it", (0.1, 86_400), float)

    def __post_init__(self) -> None:
        """Check every number against its range.

        Raises:
            InvalidRequest: an option has the wrong type or is out of range; names the option and the range.
        """
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InvalidRequest("tls_cert, tls_key: given together or not at all", "BAD_OPTION")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise InvalidRequest("tls_client_ca: needs tls_cert and tls_key", "BAD_OPTION")
        for name, words in _WORDS.items():
            if getattr(self, name) not in words:
                raise InvalidRequest(f"{name}: {getattr(self, name)!r} is neither {' nor '.join(words)}", "BAD_OPTION")
        for field in dataclasses.fields(self):
            value, within = getattr(self, field.name), field.metadata["within"]
            if within is None or (value is None and field.default is None):
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not within[0] <= value <= within[1]:
                raise InvalidRequest(
                    f"{field.name}: {value!r} is not a number within {within[0]:g} to {within[1]:g}", "BAD_OPTION"
                )


def build_settings(**given: Any) -> Settings:
    """Return the settings with what is given; None stands for the default.

    Raises:
        InvalidRequest: an option is out of range.
        TypeError: there is no such option.
    """
    return Settings(**{name: value for name, value in given.items() if value is not None})


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give `parser` an option for each setting."""
    for field in dataclasses.fields(Settings):
        flag, text = "--" + field.name.replace("_", "-"), field.metadata["help"]
        if field.metadata["kind"] is bool:
            parser.add_argument(
                flag, action=argparse.BooleanOptionalAction, default=None, help=f"{text} (default: {field.default})"
            )
        else:
            parser.add_argument(flag, metavar="", help=f"{text} (default: {_shown(field.default)})")


def read_settings(parsed: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings of a parsed command line over those of the environment.

    Raises:
        InvalidRequest: a value is not of its option's kind or out of range.
    """
    given: dict[str, Any] = {}
    for field in dataclasses.fields(Settings):
        value = getattr(parsed, field.name, None)
        if value is None:
            value = environment.get(ENVIRONMENT_PREFIX + field.name.upper())
        if isinstance(value, str):
            value = _parse(field.name, value, field.metadata["kind"])
        if value is not None:
            given[field.name] = value
    return Settings(**given)


def parse_arguments(arguments: Sequence[str] | None = None) -> Settings:
    """Return the settings that a command line asks for (default: this process's); ends the process when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m stiqueue.sqserver",
        description="A message queue server.",
        epilog=f"Each option can be given as {ENVIRONMENT_PREFIX}<NAME> in the environment as well.",
    )
    add_options(parser)
    try:
        return read_settings(parser.parse_args(arguments))
    except InvalidRequest as error:
        parser.error(str(error))


def _parse(name: str, text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() in ("1", "true", "yes", "on"):
            return True
        if text.lower() in ("0", "false", "no", "off", ""):
            return False
        raise InvalidRequest(f"{name}: {text!r} is neither true nor false", "BAD_OPTION")
    try:
        return kind(text)
    except ValueError:
        raise InvalidRequest(f"{name}: {text!r} is not a number", "BAD_OPTION") from None


def _shown(default: Any) -> str:
    return (
        "none" if default is None else f"{default:,}" if isinstance(default, int) and default > 99_999 else str(default)
    )
