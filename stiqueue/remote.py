"""Where a client's server is: what `SQClient` and `AsyncSQClient` are made with."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import ClassVar

from stiqueue.calls import Calls
from stiqueue.client import Client
from stiqueue.endpoint import CONNECT_SECONDS, Endpoint
from stiqueue.errors import InvalidRequest
from stiqueue.grpc_transport import GrpcTransport
from stiqueue.limits import MESSAGE_ROOM
from stiqueue.options import BATCH_BYTES, LOGGER, Options
from stiqueue.session import M
from stiqueue.tls import TLS, as_tls


class Remote(Client[M]):
    """A client of a server."""

    _make_calls: ClassVar[Callable[[], Calls]]
    """How calls are made."""

    def __init__(
        self,
        host: str | None = "127.0.0.1",
        port: int = 1234,
        logger: logging.Logger | None = None,
        buff_size: int | None = None,
        ack_required: bool = True,
        *,
        queue: str = "default",
        auto_ack: bool = True,
        timeout: float = 30.0,
        ack_timeout: float | None = None,
        retry_delay: float = 0.0,
        consumer: str = "",
        tls: TLS | bool | str | os.PathLike[str] | None = None,
        token: str | None = None,
    ) -> None:
        """Remember where the server is; nothing is opened before the first call.

        Args:
            host: the server's address. None: this machine's host name.
            port: its port.
            logger: where it logs; default: the logger "stiqueue.client".
            buff_size: the server's largest request in bytes, if that is smaller than 1 MiB; batches of `enq_many` are
                kept below it.
            ack_required: False makes every delivery final: the server forgets a message as it sends it.
            queue: the queue of all calls that name none.
            auto_ack: False leaves settling to `Message.ack` and its kin: nothing is acked implicitly.
            timeout: seconds that a call waits for an absent server before it raises `Unavailable`.
            ack_timeout: seconds until an unsettled message is given back although this client lives; default: the
                server's.
            retry_delay: seconds that a requeued message waits after its first attempt; doubled after each
                further one, up to an hour. 0: not at all.
            consumer: a name for people to see; default: the server shows the address.
            tls: how to encrypt: a `TLS`, the path of a PEM file with the server's authority, or True where its
                certificate is a public one. Default: not at all.
            token: what shows the server who this is; it travels in the open only within this machine.

        Raises:
            InvalidRequest: an argument is out of range, or the token would travel in the open.
        """
        if not _is_port(port):
            raise InvalidRequest(f"port: {port!r} is not within 1 to 65535", "BAD_OPTION")
        options = Options(
            queue=queue,
            ack_required=ack_required,
            auto_ack=auto_ack,
            timeout=timeout,
            ack_timeout=ack_timeout,
            retry_delay=retry_delay,
            consumer=consumer,
            batch_bytes=BATCH_BYTES if buff_size is None else max(1, min(BATCH_BYTES, buff_size - MESSAGE_ROOM)),
            logger=logger or LOGGER,
        )
        self.host = socket.gethostname() if host is None else host
        self.port = port
        endpoint = Endpoint(self.host, port, as_tls(tls), token, min(timeout, CONNECT_SECONDS))
        super().__init__(options, partial(GrpcTransport, endpoint, type(self)._make_calls))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.host!r}, {self.port}, queue={self._session.options.queue!r})"


def _is_port(port: object) -> bool:
    """Whether a server can have it: gRPC takes 99999 for 34463."""
    try:
        return 0 < int(port) < 1 << 16  # type: ignore[call-overload, no-any-return]
    except (TypeError, ValueError):
        return False
