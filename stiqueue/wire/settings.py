"""The settings of queues on the wire: written and read by both sides, without checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stiqueue.queue_settings import QueueSettings, SettingsReport
from stiqueue.v1 import admin_pb2 as pb
from stiqueue.wire.metadata import duration, seconds

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["AdminService"].full_name

_DURATIONS = frozenset(("resume_after", "ack_timeout", "ttl"))


def read_settings(settings: pb.QueueSettings) -> QueueSettings:
    """Read the settings of one name or pattern.

    Raises:
        InvalidRequest: a duration is not well-formed.
    """
    found: dict[str, Any] = {field.name: value for field, value in settings.ListFields() if field.name != "queue"}
    for name in found.keys() & _DURATIONS:
        found[name] = seconds(name, found[name])
    return QueueSettings(settings.queue, **found)


def write_settings(settings: QueueSettings) -> pb.QueueSettings:
    """Write the settings of one name or pattern."""
    written = pb.QueueSettings(queue=settings.queue)
    for name, value in (*settings.items(), ("resume_after", settings.resume_after)):
        if name in _DURATIONS and value is not None:
            getattr(written, name).CopyFrom(duration(value))
        elif value is not None:
            setattr(written, name, value)
    return written


def write_change(settings: QueueSettings, reset: Sequence[str]) -> pb.ConfigureRequest:
    """Write what a client asks to change."""
    return pb.ConfigureRequest(settings=write_settings(settings), reset=reset)


def read_report(response: pb.SettingsResponse) -> SettingsReport:
    """Read what a server answers about settings."""
    return SettingsReport(
        [read_settings(each) for each in response.settings],
        [read_settings(each) for each in response.fixed],
        read_settings(response.effective) if response.HasField("effective") else None,
    )


def write_report(report: SettingsReport) -> pb.SettingsResponse:
    """Write what a server answers about settings."""
    response = pb.SettingsResponse(
        settings=map(write_settings, report.settings), fixed=map(write_settings, report.fixed)
    )
    if report.effective is not None:
        response.effective.CopyFrom(write_settings(report.effective))
    return response
