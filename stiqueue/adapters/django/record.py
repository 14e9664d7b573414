"""A task as it travels, and its result as it is kept: JSON."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

from django.apps import apps
from django.conf import settings
from django.utils.module_loading import import_string

from stiqueue.adapters.django.framework import Status, Task, TaskError, TaskResult

TIMES = ("enqueued_at", "started_at", "finished_at", "last_attempted_at")


def written(result: Any) -> bytes:
    """Return `result`, with the task it is of, as JSON."""
    task = result.task
    return json.dumps(
        {
            "id": result.id,
            "task": task.module_path,
            "priority": task.priority,
            "queue": task.queue_name,
            "run_after": _text(task.run_after),
            "backend": result.backend,
            "args": result.args,
            "kwargs": result.kwargs,
            "status": str(result.status.value),
            "errors": [[error.exception_class_path, error.traceback] for error in result.errors],
            "workers": result.worker_ids,
            "value": result._return_value,
            **{name: _text(getattr(result, name)) for name in TIMES},
        }
    ).encode()


def read(body: bytes | str) -> Any:
    """Return the result that was `written`.

    Raises:
        ValueError: it was written by something else.
        ImportError: the task is not in this project.
    """
    try:
        record = json.loads(body)
        result = TaskResult(
            task=_task(record["task"]).using(
                priority=record["priority"],
                queue_name=record["queue"],
                run_after=_time(record["run_after"]),
                backend=record["backend"],
            ),
            id=record["id"],
            status=Status(record["status"]),
            args=record["args"],
            kwargs=record["kwargs"],
            backend=record["backend"],
            errors=[TaskError(exception_class_path=path, traceback=trace) for path, trace in record["errors"]],
            worker_ids=record["workers"],
            **{name: _time(record[name]) for name in TIMES},
        )
    except (ValueError, ImportError):
        raise
    except (Exception, SystemExit) as error:  # whatever another program wrote, and a module that ends at its import
        raise ValueError(f"not a task of Django: {error!r}") from error
    return changed(result, _return_value=record["value"])


def _task(path: Any) -> Any:
    """Return the task that a message names. It may name only what belongs to the project: an import runs a module."""
    module = str(path).rpartition(".")[0]
    project, dot, _ = str(settings.SETTINGS_MODULE or "").partition(".")
    parts = [app.name for app in apps.get_app_configs()] + [project] * bool(dot)
    if module not in sys.modules and not any(f"{module}.".startswith(f"{part}.") for part in parts):
        raise ImportError(
            f"module {module[:100]!r} belongs to no installed app: install it, or import it in ready() of an AppConfig"
        )
    task = import_string(path)
    if not isinstance(task, Task):
        raise ImportError(f"{path} is not a task")
    return task


def changed(result: Any, **values: Any) -> Any:
    """Set attributes of `result`, which is frozen for others; return it."""
    for name, value in values.items():
        object.__setattr__(result, name, value)
    return result


def _text(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
