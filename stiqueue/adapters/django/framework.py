"""The tasks of Django: its own from Django 6, those of the package django-tasks before."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def _of_tasks(module: str) -> Any:
    try:
        return import_module(f"django.tasks{module}")
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("django.tasks"):
            raise
        return import_module(f"django_tasks{module}")


_top, _base = _of_tasks(""), _of_tasks(".base")
_signals = _of_tasks(".signals")

BaseTaskBackend: Any = _of_tasks(".backends.base").BaseTaskBackend
TaskResultDoesNotExist: Any = getattr(_of_tasks(".exceptions"), "TaskResultDoesNotExist", None)
Task: Any = _base.Task
TaskContext: Any = _base.TaskContext
TaskError: Any = _base.TaskError
TaskResult: Any = _base.TaskResult
Status: Any = _base.TaskResultStatus
task: Any = _top.task
task_backends: Any = _top.task_backends
task_enqueued: Any = _signals.task_enqueued
task_started: Any = _signals.task_started
task_finished: Any = _signals.task_finished
