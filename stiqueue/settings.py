"""Every option of the server: name, default, unit and range.

`SQServer` takes them as keyword arguments, the command as ``--option-name``, the environment as
``STIQUEUE_OPTION_NAME``. The command line overrides the environment, which overrides the default.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from stiqueue.arguments import check_flag, check_host, check_kind, shown
from stiqueue.errors import InvalidRequest

ENVIRONMENT_PREFIX = "STIQUEUE_"
IN_MEMORY = ":memory:"
"""The data file of a server that keeps messages in memory."""
MAX_GRACE = 86_400.0

_Range = tuple[float, float]
_WORDS = {"sync": ("always", "off"), "log_format": ("text", "json")}
"""Options with two possible values."""


def _option(default: Any, text: str, within: _Range | None = None, kind: type = str) -> Any:
    """Declare an option: its default, its help text, the range of a number, and the type of its value."""
    return dataclasses.field(default=default, metadata={"help": text, "within": within, "kind": kind})


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of one server, validated by the constructor."""

    host: str = _option("127.0.0.1", "address to listen on; 0.0.0.0: all of IPv4")
    port: int = _option(1234, "port to listen on; 0: a free one", (0, 65_535), int)
    debug: bool = _option(False, "log every message in and out", kind=bool)
    buff_size: int = _option(4 << 20, "largest request, in bytes", (64 << 10, 1 << 30), int)
    log: str | None = _option(None, "log to this file instead of stderr; keeps 10 files of 10 MB")
    log_format: str = _option("text", "text, or json: one object per line")
    metrics_port: int | None = _option(
        None, "serve Prometheus metrics on this port of the same address; 0: a free one", (0, 65_535), int
    )
    data: str = _option("stiqueue.db", "the data file; :memory: keeps messages in memory")
    sync: str = _option("always", "always: confirmed messages are on the disk; off: the operating system decides")
    accept_loss: bool = _option(False, "start on a damaged data file with its readable part", kind=bool)
    engine: str | None = _option(
        None,
        "nats://host[:port],...[?monitor=port,...] keeps messages in a NATS JetStream cluster instead of the data file",
    )
    replicas: int = _option(3, "how many servers of the cluster keep each message", (1, 5), int)
    unsafe: bool = _option(False, "use the cluster even if confirmed messages can be lost in a power cut", kind=bool)
    tls_cert: str | None = _option(None, "serve TLS with this certificate (PEM, with its chain); reloaded on change")
    tls_key: str | None = _option(None, "the certificate's key (PEM)")
    tls_client_ca: str | None = _option(None, "require client certificates signed by this authority (PEM)")
    tokens: str | None = _option(
        None, "require tokens: a file with TOKEN RIGHTS [QUEUES] on each line; reloaded on change"
    )
    ack_required: bool = _option(True, "without it every delivery is final: at most once", kind=bool)
    ack_timeout: float | None = _option(
        None,
        "seconds until an unsettled message is given back although its consumer is connected",
        (0.01, 604_800),
        float,
    )
    max_attempts: int = _option(0, "deliveries before a message moves to <queue>.dead; 0: no limit", (0, 1 << 30), int)
    max_messages: int = _option(0, "most messages in one queue; 0: no limit", (0, 1 << 62), int)
    max_queue_bytes: int = _option(0, "most bytes in one queue; 0: no limit", (0, 1 << 62), int)
    max_bytes: int | None = _option(
        None,
        "most bytes in all queues; 0: no limit; default: half of the memory if messages are in memory",
        (0, 1 << 62),
        int,
    )
    queues: str | None = _option(
        None, "settings of queues: a TOML file with a table for each queue or pattern; reloaded on change"
    )
    max_queues: int = _option(10_000, "most queues in use", (1, 500_000), int)
    max_consumers: int = _option(10_000, "most open Deq streams, and most pipes", (1, 1 << 20), int)
    max_connections: int | None = _option(
        None, "most connections; default: 20,000, or as many as file descriptors allow", (1, 1 << 20), int
    )
    max_streams: int = _option(100, "most concurrent calls on one connection", (1, 1 << 20), int)
    max_pending: int = _option(30_000, "most calls waiting to be accepted", (1, 1 << 20), int)
    grace: float = _option(
        10.0, "seconds after SIGTERM in which consumers may settle their messages", (0, MAX_GRACE), float
    )
    keepalive: float = _option(5.0, "seconds between pings to a silent client", (0.1, 86_400), float)
    keepalive_timeout: float = _option(
        3.0, "seconds until an unanswered ping closes the connection", (0.1, 86_400), float
    )

    def __post_init__(self) -> None:
        """Check the type of every option and the range of every number.

        Raises:
            InvalidRequest: an option has the wrong type or is out of range; the text names option and range.
        """
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InvalidRequest("tls_cert, tls_key: set both or neither", "BAD_OPTION")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise InvalidRequest("tls_client_ca: needs tls_cert and tls_key", "BAD_OPTION")
        if self.engine:
            self._check_no_file()
        for name, words in _WORDS.items():
            if getattr(self, name) not in words:
                raise InvalidRequest(f"{name}: {getattr(self, name)!r} is neither {' nor '.join(words)}", "BAD_OPTION")
        check_host(self.host)
        for field in dataclasses.fields(self):
            name, value, within = field.name, getattr(self, field.name), field.metadata["within"]
            if value is None and field.default is None:
                continue
            if field.metadata["kind"] is bool:
                check_flag(name, value)
            elif within is None:
                check_kind(name, value, (str, os.PathLike), "text")
            elif (
                isinstance(value, bool)
                or not isinstance(value, int if field.metadata["kind"] is int else (int, float))
                or not within[0] <= value <= within[1]
            ):
                kind = "whole number" if isinstance(value, float) and field.metadata["kind"] is int else "number"
                raise InvalidRequest(
                    f"{name}: {shown(value)} is not a {kind} within {within[0]:g} to {within[1]:g}", "BAD_OPTION"
                )

    def _check_no_file(self) -> None:
        """Refuse an option of the data file beside a cluster, which has none."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name in ("data", "sync", "accept_loss"):
            if getattr(self, name) not in (defaults[name], IN_MEMORY):
                raise InvalidRequest(
                    f"{name}: a cluster has no data file; leave out {name} or engine. `stiqueue move` moves the "
                    "messages of a file to a cluster",
                    "BAD_OPTION",
                )


def build_settings(**given: Any) -> Settings:
    """Return settings from keyword arguments; None means the default.

    Raises:
        InvalidRequest: an option has the wrong type or is out of range.
        TypeError: an option does not exist.
    """
    return Settings(**{name: value for name, value in given.items() if value is not None})


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add an option to `parser` for each setting."""
    for field in dataclasses.fields(Settings):
        flag, text = "--" + field.name.replace("_", "-"), field.metadata["help"]
        if field.metadata["kind"] is bool:
            parser.add_argument(
                flag,
                action=argparse.BooleanOptionalAction,
                default=None,
                help=f"{text} (default: {_shown(field.default)})",
            )
        else:
            words = _WORDS.get(field.name)
            parser.add_argument(
                flag,
                choices=words,
                metavar=None if words else field.name.rpartition("_")[2].upper(),
                help=f"{text} (default: {_shown(field.default)})",
            )


def read_settings(parsed: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings of a parsed command line, which override those of the environment.

    Raises:
        InvalidRequest: a value has the wrong type or is out of range.
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


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as the command ``stiqueue`` does, instead of listing every option."""

    def error(self, message: str) -> NoReturn:
        """End the process with 2."""
        self.exit(2, f"stiqueue: {message} (see `{self.prog} --help`)\n")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Return what is given; name the option that was perhaps meant by an unknown one."""
        given, unknown = self.parse_known_args(args, namespace)
        if unknown:
            meant = difflib.get_close_matches(unknown[0].partition("=")[0], self._option_string_actions, 1)
            self.error(f"no such option: {unknown[0]}" + (f"; did you mean {meant[0]}?" if meant else ""))
        return given


def parse_arguments(arguments: Sequence[str] | None = None) -> Settings:
    """Return the settings of a command line (default: this process's); exit with 2 if it is wrong."""
    name = os.path.basename(sys.argv[0])
    parser = _Parser(
        prog=name if name == "stiqueue-server" else "python -m stiqueue.sqserver",
        usage="%(prog)s [OPTIONS]",
        description="Run a server until SIGTERM or Ctrl-C. `stiqueue serve` does the same.",
        epilog=f"You can also set each option as {ENVIRONMENT_PREFIX}<NAME> in the environment.",
        allow_abbrev=False,
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
    if isinstance(default, bool):
        return "on" if default else "off"
    return (
        "none" if default is None else f"{default:,}" if isinstance(default, int) and default > 99_999 else str(default)
    )
