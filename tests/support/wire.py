"""Errors as they travel: the status code and the reason of a failed call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from stiqueue.wire.status import DETAILS_KEY, DOMAIN


class Refusal:
    """Why a call failed."""

    code: grpc.StatusCode
    reason: str
    """The reason in its `ErrorInfo`; empty when there is none."""
    text: str


def reason_of(call: Any) -> str:
    """Return the reason in the `google.rpc.ErrorInfo` of a failed call, decoded as any foreign client would."""
    for key, value in call.trailing_metadata() or ():
        if key != DETAILS_KEY:
            continue
        status = status_pb2.Status.FromString(value)
        assert status.code == call.code().value[0], "the details contradict the status code"
        assert status.message == call.details(), "the details contradict the text"
        (detail,) = status.details
        info = error_details_pb2.ErrorInfo()
        assert detail.Unpack(info)
        assert info.domain == DOMAIN
        return info.reason
    return ""


@contextmanager
def refused(code: grpc.StatusCode, reason: str) -> Iterator[Refusal]:
    """Expect the calls inside to fail with exactly this status code and reason."""
    refusal = Refusal()
    with pytest.raises(grpc.RpcError) as caught:
        yield refusal
    call: Any = caught.value
    refusal.code, refusal.text, refusal.reason = call.code(), call.details(), reason_of(call)
    assert (refusal.code, refusal.reason) == (code, reason), refusal.text


def drain(responses: Iterable[Any]) -> list[Any]:
    """Return all messages of a stream that ends by itself."""
    return [message for response in responses for message in response.messages]
