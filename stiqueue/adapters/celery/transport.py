"""A connection of kombu: one client, the channels on it, and what they were delivered."""

from __future__ import annotations

import os
import ssl
import time
from queue import Empty
from typing import Any

from kombu.transport import virtual

from stiqueue import TLS, AccessDenied, Closed, Message, SQClient, StiQueueError, Unauthenticated, Unavailable
from stiqueue import __version__ as version
from stiqueue.adapters.celery.channel import Channel
from stiqueue.adapters.celery.inbox import Inbox
from stiqueue.adapters.celery.log import logger
from stiqueue.adapters.celery.settler import Settler
from stiqueue.adapters.celery.tap import Tap

OPTIONS = frozenset({"timeout", "token", "tls", "keepalive", "consumer", "ack_timeout"})
"""The options of `SQClient` that `transport_options` may name."""
KOMBUS_OPTIONS = frozenset(
    {"callback", "client_properties", "connect_retries_timeout", "errback", "interval_max", "interval_start"}
    | {"interval_step", "max_retries", "polling_interval"}
)
"""Those that kombu itself reads, or that mean the same here as nothing."""
CONNECT_SECONDS = 5.0
"""How long connecting may take where kombu does not say."""
SETTLE_SECONDS = 5.0
"""How long closing waits for what is being settled."""
JOIN_SECONDS = 5.0
"""How long closing waits for threads."""


class Transport(virtual.Transport):
    """``stiqueue://[:token@]host[:port][/prefix]``: queues of kombu are queues of a StiQueue server.

    The prefix, followed by a dot, is put before the name of each queue.
    """

    Channel = Channel
    default_port = 1234
    driver_type = "stiqueue"
    driver_name = "stiqueue"
    connection_errors = (*virtual.Transport.connection_errors, Unavailable, Closed)
    channel_errors = (*virtual.Transport.channel_errors, StiQueueError)
    recoverable_connection_errors = (Unavailable, Closed)
    recoverable_channel_errors = ()
    implements = virtual.Transport.implements.extend(
        asynchronous=True, exchange_type=frozenset({"direct", "topic"}), heartbeats=False
    )
    tls_by_default = False

    def __init__(self, client: Any, **options: Any) -> None:
        """Remember `client`, the `kombu.Connection`; nothing is opened."""
        super().__init__(client, **options)
        self.prefix = ""
        self._process = os.getpid()
        self._loop: Any = None
        self._sq_client: SQClient | None = None
        self._inbox: Inbox[tuple[Tap, Message] | Exception] = Inbox()
        self._has_failed = False
        self.settler = Settler()

    @property
    def sq_client(self) -> SQClient:
        """The client of the server."""
        if self._sq_client is None:
            raise Closed("the connection was closed")
        return self._sq_client

    def driver_version(self) -> str:
        """Return the version of StiQueue."""
        return version

    def establish_connection(self) -> Transport:
        """Connect.

        Raises:
            Unavailable: there is no server.
            Unauthenticated: it does not know the token.
        """
        parameters = self.client
        prefix = (parameters.virtual_host or "").strip("/")
        self.prefix = f"{prefix}." if prefix else ""
        for name in parameters.transport_options.keys() - OPTIONS - KOMBUS_OPTIONS:
            logger.warning("transport_options: %s means nothing here; known are %s", name, ", ".join(sorted(OPTIONS)))
        options = {name: value for name, value in parameters.transport_options.items() if name in OPTIONS}
        options.setdefault("token", parameters.password or None)
        options.setdefault("tls", tls_of(parameters.ssl or self.tls_by_default))
        self._sq_client = SQClient(
            parameters.hostname or "127.0.0.1", parameters.port or self.default_port, auto_ack=False, **options
        )
        self._inbox, self.settler = Inbox(), Settler()
        self._process, self._has_failed = os.getpid(), False
        try:
            self._check()
        except BaseException:
            self._disconnect()
            raise
        return super().establish_connection()  # type: ignore[no-any-return]

    def _check(self) -> None:
        """Ask the server for something, to see that it is there."""
        # Half of the time, because kombu allows that for all of several servers together.
        seconds = (self.client.connect_timeout or CONNECT_SECONDS) / 2
        try:
            self.sq_client.counts(queue=f"{self.prefix}celery", timeout=seconds)
        except Unauthenticated:
            raise
        except AccessDenied:
            pass  # it may do other things

    def verify_connection(self, connection: Any) -> bool:
        """Return whether no stream of the connection has been lost."""
        return not self._has_failed

    # What channels were delivered.

    def deliver(self, tap: Tap, message: Message) -> None:
        """Put a message where `drain_events` finds it; from any thread."""
        self._inbox.put((tap, message))

    def fail(self, error: Exception) -> None:
        """Let `drain_events` raise `error`, because a stream was lost, and all its messages with it."""
        self._has_failed = True
        self._inbox.put(error)

    def undelivered(self, tap: Tap) -> list[Message]:
        """Take what `drain_events` has not found yet."""
        return [item[1] for item in self._inbox.remove(lambda item: isinstance(item, tuple) and item[0] is tap)]  # type: ignore[index]

    def drain_events(self, connection: Any, timeout: float | None = None, **_: Any) -> None:
        """Wait for a message and give it to its consumer.

        One at a time, because Celery's pool "solo" runs the task before this returns, and may be told to stop then.

        Raises:
            TimeoutError: there was none within `timeout` seconds.
            Unavailable: the connection is lost; what was unsettled is delivered again.
        """
        try:
            item = self._inbox.get(timeout)
        except Empty:
            raise TimeoutError from None  # which is socket.timeout
        self._handle(item)

    def _handle(self, item: tuple[Tap, Message] | Exception) -> None:
        if isinstance(item, Exception):
            raise item
        tap, message = item
        tap.context(message)

    # Celery's event loop.

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Let `loop` call `on_readable` when there are messages."""
        self._loop = loop
        loop.add_reader(self._inbox.fileno(), self.on_readable, connection, loop)

    def unregister_from_event_loop(self, connection: Any, loop: Any) -> None:
        """Take that back."""
        if self._loop is not None:
            self._loop.remove_reader(self._inbox.fileno())
            self._loop = None

    def on_readable(self, connection: Any, loop: Any) -> None:
        """Give one message to its consumer; the event loop comes back at once if there are more."""
        self._inbox.hush()
        try:
            self._handle(self._inbox.get(0))
        except Empty:
            pass
        finally:
            self._inbox.remind()

    # The end.

    def close_connection(self, connection: Any) -> None:
        """Give back what is unsettled, wait until everything is settled, and disconnect."""
        channels = [*self._avail_channels, *self.channels]
        if self._has_failed and self._sq_client is not None:
            self._sq_client.close()  # so that nothing waits for the server
        super().close_connection(connection)
        self.settler.close(SETTLE_SECONDS)
        self._disconnect()
        deadline = time.monotonic() + JOIN_SECONDS
        for channel in channels:
            channel.join(deadline)

    def _collect(self, connection: Any) -> None:
        """Forget the connection: it was lost, or is the parent's of this forked process."""
        if self._process == os.getpid():
            if self._sq_client is not None:
                self._sq_client.close()
                self.close_connection(connection)
            return
        self.channels.clear()
        self._avail_channels.clear()
        self._sq_client = None

    def _disconnect(self) -> None:
        client, self._sq_client = self._sq_client, None
        if client is not None:
            client.close()
        if self._loop is not None:
            self.unregister_from_event_loop(self, self._loop)
        self._inbox.close()


class SSLTransport(Transport):
    """The same with TLS: ``stiqueues://``."""

    tls_by_default = True


def tls_of(given: Any) -> TLS | bool:
    """Return what `SQClient` takes for kombu's `ssl`, which is Celery's `broker_use_ssl`.

    Args:
        given: True, or a dictionary as it is for other brokers: ca_certs, certfile, keyfile, server_hostname, each also
            with the prefix ``ssl_``.

    Raises:
        ValueError: there is another name in it.
    """
    if not isinstance(given, dict):
        return bool(given)
    given = {name.removeprefix("ssl_"): value for name, value in given.items()}
    if given.pop("cert_reqs", ssl.CERT_REQUIRED) not in (ssl.CERT_REQUIRED, "required", "CERT_REQUIRED"):
        raise ValueError("ssl: cert_reqs: the server's certificate is always verified; leave cert_reqs out")
    names = {"ca_certs": "ca", "certfile": "cert", "keyfile": "key", "server_hostname": "server_name"}
    unknown = given.keys() - names.keys()
    if unknown:
        raise ValueError(f"ssl: {', '.join(sorted(unknown))}; known are {', '.join(names)}")
    return TLS(**{names[name]: value for name, value in given.items()})
