"""A call that streams both ways, on gRPC's own call objects.

With its public objects each message passes two more threads: one that waits for requests, one that waits for events.
Here whoever has a message sends it, and the thread that reads waits for the events itself. The objects are private to
grpcio, so they are used only in this module, and only with releases in which they work; with all others, a pipe is a
public call. docs/benchmarks.md has the figures.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import grpc

from stiqueue.client.calls.kinds import ChannelClosed

OLDEST = (1, 80)
"""The first release of grpcio to use it with. With 1.71, calls made so may never get an answer."""


class CallFailed(grpc.RpcError):
    """How a call ended, as gRPC's own errors tell it."""

    def __init__(self, code: grpc.StatusCode, details: str, initial: Any, trailing: Any) -> None:
        """Make one of a status, and of the metadata that came first and last."""
        super().__init__(f"{code.name}: {details}")
        self._told = code, details, initial, trailing

    def code(self) -> grpc.StatusCode:
        """Return the status code."""
        return self._told[0]

    def details(self) -> str:
        """Return the text of the status."""
        return self._told[1]

    def initial_metadata(self) -> Any:
        """Return the metadata that the response began with."""
        return self._told[2]

    def trailing_metadata(self) -> Any:
        """Return the metadata that came with the status."""
        return self._told[3]


class DirectCall:
    """A call that streams bytes both ways. `receive` is for one thread, all else for any."""

    def __init__(self, channel: Any, method: str, metadata: Sequence[tuple[str, str]]) -> None:
        """Begin a call on `channel`.

        Raises:
            ChannelClosed: the channel is closed.
            NotImplementedError: this release of grpcio has no such calls.
        """
        self._operations, self._call = _begin(channel, method, tuple(metadata))
        self._lock = threading.Lock()
        """Protects the two below: gRPC frees the call with the last event, and it must not be used after that."""
        self._owed = 2
        """How many events gRPC owes: of the end, of the response's metadata, and of what is sent or received."""
        self._is_over = False
        self._room = threading.Lock()
        """Locked while there is no room: gRPC takes one message at a time. Protects nothing."""
        self._is_receiving = False
        self._initial_metadata: Any = ()
        self._end: CallFailed | None = None

    def reserve(self, wait: bool) -> bool:
        """Have room to `send`, or `release` it; return False if there is none and not to `wait` for some."""
        return self._room.acquire(blocking=wait)

    def release(self) -> None:
        """Give room back."""
        with suppress(RuntimeError):  # the end of the call gave it back
            self._room.release()

    def send(self, data: bytes) -> bool:
        """Send `data` in the room that was reserved; return False if the call is over."""
        if self._operate(self._operations.SendMessageOperation(data, 0), _SENT):
            return True
        self.release()
        return False

    def receive(self) -> bytes | None:
        """Wait for the next message; None when the call ended well.

        Raises:
            CallFailed: it ended otherwise.
        """
        while True:
            if not self._is_receiving:
                self._is_receiving = self._operate(self._operations.ReceiveMessageOperation(0), _RECEIVED)
            if not self._owed:
                break
            event = self._call.next_event()
            with self._lock:
                self._owed -= 1
                self._is_over = self._is_over or event.tag is _ENDED
            if event.tag is _RECEIVED:
                data: bytes | None = event.batch_operations[0].message()
                if data is not None:
                    # At once, so that the next message need not wait until this one was handled.
                    self._is_receiving = self._operate(self._operations.ReceiveMessageOperation(0), _RECEIVED)
                    return data
            else:
                self._note(event)
        self.release()  # an exception of a signal handler may have kept a thread from it
        if self._end is not None and self._end.code() is not grpc.StatusCode.OK:
            raise self._end
        return None

    def _note(self, event: Any) -> None:
        if event.tag is _SENT:
            self.release()
        elif event.tag is _HEADERS:
            self._initial_metadata = event.batch_operations[0].initial_metadata() or ()
        else:
            status = event.batch_operations[-1]
            code = next(code for code in grpc.StatusCode if code.value[0] == status.code())
            details = status.details() or b""
            text = details if isinstance(details, str) else details.decode("utf-8", "replace")
            self._end = CallFailed(code, text, self._initial_metadata, status.trailing_metadata() or ())

    def _operate(self, operation: Any, tag: str) -> bool:
        """Begin an operation; return False if the call is over."""
        with self._lock:
            if self._is_over or not self._call.operate((operation,), tag):
                return False
            self._owed += 1
            return True

    def cancel(self, code: grpc.StatusCode, details: str) -> None:
        """End the call with this status, if it goes on; whoever receives learns of it."""
        self._call.cancel(code.value[0], details)


_ENDED, _HEADERS, _SENT, _RECEIVED = "ended", "headers", "sent", "received"


def _begin(channel: Any, method: str, metadata: tuple[tuple[str, str], ...]) -> tuple[Any, Any]:
    """Return the operations of grpcio and a call begun with them."""
    release = tuple(int(part) for part in grpc.__version__.split(".")[:2])
    if release < OLDEST:
        raise NotImplementedError
    try:
        from grpc._cython import cygrpc  # type: ignore[attr-defined]

        begun = (
            ((cygrpc.SendInitialMetadataOperation(metadata, 0), cygrpc.ReceiveStatusOnClientOperation(0)), _ENDED),
            ((cygrpc.ReceiveInitialMetadataOperation(0),), _HEADERS),
        )
        flags = cygrpc.PropagationConstants.GRPC_PROPAGATE_DEFAULTS
        call = channel._channel.segregated_call(flags, method.encode(), None, None, metadata, None, begun, None)
    except ValueError as error:
        raise ChannelClosed from error
    except (ImportError, AttributeError, TypeError) as error:  # a later release may have other ones
        raise NotImplementedError from error
    return cygrpc, call
