"""Clients of a server: the arguments of `SQClient` and `AsyncSQClient`."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import ClassVar, NoReturn

from stiqueue.arguments import check_host, check_port, check_seconds, check_whole, no_such_argument
from stiqueue.client.base import SessionClient
from stiqueue.client.calls.endpoint import CONNECT_SECONDS, KEEPALIVE_SECONDS, Endpoint
from stiqueue.client.calls.grpc_transport import GrpcTransport
from stiqueue.client.calls.kinds import Calls
from stiqueue.client.calls.tls import TLS, as_tls
from stiqueue.client.options import BATCH_BYTES, LOGGER, Options
from stiqueue.client.session import M
from stiqueue.limits import MESSAGE_ROOM


class Remote(SessionClient[M]):
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
        prefetch: int = 1,
        window: int = 1_000,
        tls: TLS | bool | str | os.PathLike[str] | None = None,
        token: str | None = None,
        keepalive: float | None = KEEPALIVE_SECONDS,
        **unknown: NoReturn,
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
            prefetch: how many messages the server sends ahead to each thread or task that calls `deq`, 1 to 10,000.
                With more than 1 acks travel in the background, several together. Only with `ack_required` and
                `auto_ack`; otherwise 1.
            window: how many messages of `enq_soon` may be unconfirmed, 1 to 1,000,000.
            tls: how to encrypt: a `TLS`, the path of a PEM file with the server's authority, or True where its
                certificate is a public one. Default: not at all.
            token: shows the server who this is. Without `tls`, only for a server on this machine.
            keepalive: seconds of silence after which the client pings the server, 1 to 86,400. A server that does not
                answer within 3 s counts as gone. None: never, for a proxy that forbids pings.
            unknown: none; any other name is refused.

        Raises:
            InvalidRequest: an argument has the wrong type or is out of range, or the token would travel in the open.
            TypeError: there is no such argument.
        """
        if unknown:
            raise no_such_argument(type(self).__name__, unknown, ARGUMENTS)
        if host is not None:
            check_host(host)
        check_port(port)
        if buff_size is not None:
            check_whole("buff_size", buff_size, 1, 1 << 30, "BAD_OPTION")
        options = Options(
            queue=queue,
            ack_required=ack_required,
            auto_ack=auto_ack,
            timeout=timeout,
            ack_timeout=ack_timeout,
            retry_delay=retry_delay,
            consumer=consumer,
            prefetch=prefetch,
            window=window,
            batch_bytes=BATCH_BYTES if buff_size is None else max(1, min(BATCH_BYTES, buff_size - MESSAGE_ROOM)),
            logger=LOGGER if logger is None else logger,
        )
        if keepalive is not None:
            check_seconds("keepalive", keepalive, 86_400, least=1.0)
        self.host = socket.gethostname() if host is None else host
        self.port = port
        endpoint = Endpoint(self.host, port, as_tls(tls), token, min(timeout, CONNECT_SECONDS), keepalive)
        super().__init__(options, partial(GrpcTransport, endpoint, type(self)._make_calls))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.host!r}, {self.port}, queue={self._session.options.queue!r})"


ARGUMENTS = frozenset(signature(Remote.__init__).parameters) - {"self", "unknown"}
"""The names of the arguments of a client of a server."""
