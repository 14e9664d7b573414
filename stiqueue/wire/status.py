"""The one table between our errors and gRPC: status code and `google.rpc.ErrorInfo` reason, read by both sides."""

from __future__ import annotations

import re
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from stiqueue import errors

DOMAIN = "stiqueue"
"""The domain of every `ErrorInfo` of ours."""

DETAILS_KEY = "grpc-status-details-bin"
"""The trailing metadata in which gRPC libraries of all languages look for `google.rpc.Status`."""

_CODES: tuple[tuple[type[errors.StiQueueError], grpc.StatusCode], ...] = (
    (errors.Unavailable, grpc.StatusCode.UNAVAILABLE),
    (errors.InvalidRequest, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.QueueFull, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.TooManyConsumers, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.DiskFull, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.LimitReached, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.SettingFixed, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.LeaseStale, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.NotSupported, grpc.StatusCode.UNIMPLEMENTED),
    (errors.Unauthenticated, grpc.StatusCode.UNAUTHENTICATED),
    (errors.AccessDenied, grpc.StatusCode.PERMISSION_DENIED),
    (errors.StoreError, grpc.StatusCode.DATA_LOSS),
    (errors.ServerError, grpc.StatusCode.INTERNAL),
)
"""Error and code, the most specific error first; an error with several codes is sent with its first."""

_BY_REASON: dict[str, type[errors.StiQueueError]] = {kind.reason: kind for kind, _ in _CODES} | {
    "SERVER_FULL": errors.QueueFull
}
_BY_CODE: dict[grpc.StatusCode, type[errors.StiQueueError]] = {code: kind for kind, code in _CODES}

_HANDSHAKE = re.compile("(Ssl|Tls) handshake failed|Hostname Verification Check failed|is not in peer certificate")
_NO_CONNECTION = "failed to connect to all addresses"
"""What gRPC 1.71 to 1.85 say."""

_NO_TLS = "WRONG_VERSION_NUMBER"
"""In the above when the other side answers in plain text."""

Trailers = tuple[tuple[str, bytes], ...]


def to_wire(error: errors.StiQueueError) -> tuple[grpc.StatusCode, str, Trailers]:
    """Return the status code, the text and the trailing metadata that say `error`."""
    code = next((code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)
    status = status_pb2.Status(code=code.value[0], message=str(error))
    status.details.add().Pack(info)
    return code, str(error), ((DETAILS_KEY, status.SerializeToString()),)


def end(context: Any, code: grpc.StatusCode, details: str, trailing: Trailers) -> None:
    """Let the call of a servicer's `context` end with what `to_wire` returned, once its handler has returned.

    Not `context.abort`: the exception that it keeps ties the call into a cycle, see `delivery.py`.
    """
    context.set_code(code)
    context.set_details(details)
    context.set_trailing_metadata(trailing)


def from_wire(call: Any, detour: str = "") -> errors.StiQueueError:
    """Return the error that a failed call (a `grpc.RpcError` that is also a `grpc.Call`) says.

    Args:
        call: the failed call.
        detour: names the proxy on the way, for whose certificate the client may have taken the server's.
    """
    code, text = call.code(), call.details() or ""
    if handshake_failed(call):
        if _NO_TLS in text:
            text = f"the server seems to speak no TLS; leave out tls ({text})"
        return errors.Unauthenticated(f"the two sides do not trust each other{detour}: {text}")
    reason = _reason(call)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and not reason:
        # gRPC itself refuses a request above the receive limit, before our code sees it.
        return errors.InvalidRequest(text, "MESSAGE_TOO_LARGE")
    kind = _BY_REASON.get(reason) or _BY_CODE.get(code, errors.ServerError)
    if kind is errors.ServerError and not reason:
        text = f"{code.name}: {text}"
    return kind(text, reason)


def from_pipe(error: Any) -> errors.StiQueueError:
    """Return the error that a `PipeError` says."""
    code = next((code for code in grpc.StatusCode if code.value[0] == error.code), grpc.StatusCode.UNKNOWN)
    kind = _BY_REASON.get(error.reason) or _BY_CODE.get(code, errors.ServerError)
    return kind(error.message, error.reason)


def handshake_failed(call: Any) -> bool:
    """Return whether a call failed because client and server cannot agree on TLS, which no retry changes.

    gRPC says UNAVAILABLE then, as for a server that is away; only the text tells.
    """
    return call.code() is grpc.StatusCode.UNAVAILABLE and bool(_HANDSHAKE.search(call.details() or ""))


def never_sent(call: Any) -> bool:
    """Return whether a failed call found no connection, so that the server has certainly not seen the request."""
    return call.code() is grpc.StatusCode.UNAVAILABLE and _NO_CONNECTION in (call.details() or "")


def _reason(call: Any) -> str:
    """Return the reason in a failed call's `ErrorInfo`, or an empty string."""
    for key, value in call.trailing_metadata() or ():
        if key == DETAILS_KEY:
            status = status_pb2.Status.FromString(value)
            for detail in status.details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info) and info.domain == DOMAIN:
                    return info.reason
    return ""
