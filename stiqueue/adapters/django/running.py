"""Running tasks: what the worker does with one message."""

from __future__ import annotations

import logging
from traceback import format_exception
from typing import Any

from django.db import close_old_connections
from django.utils import timezone

from stiqueue import Message, Reject
from stiqueue.adapters.django.framework import Status, TaskContext, TaskError, task_finished, task_started
from stiqueue.adapters.django.record import changed, read
from stiqueue.worker import reason_of

logger = logging.getLogger("stiqueue.django")


class Runner:
    """Runs the tasks of one backend, in any thread."""

    def __init__(self, backend: Any, worker_id: str) -> None:
        """Run tasks of `backend` in the name of `worker_id`."""
        self._backend = backend
        self._worker_id = worker_id

    def run(self, message: Message) -> None:
        """Run the task of `message`.

        Raises:
            Reject: it failed, or is not known here.
        """
        try:
            result = read(bytes(message))
        except (ValueError, ImportError) as error:
            logger.error("message %d of %s cannot be run: %s", message.id, message.queue, error)
            raise Reject(f"cannot be run: {error}") from error
        close_old_connections()
        try:
            self._run(result)
        finally:
            close_old_connections()

    def _run(self, result: Any) -> None:
        now = timezone.now()
        result.worker_ids.append(self._worker_id)
        changed(result, status=Status.RUNNING, started_at=result.started_at or now, last_attempted_at=now)
        self._keep(result)
        sender = type(self._backend)
        task_started.send_robust(sender, task_result=result)
        task = result.task
        context = [TaskContext(task_result=result)] if task.takes_context else []
        failure: BaseException | None = None
        try:
            value = _as_json(task.call(*context, *result.args, **result.kwargs))
            changed(result, status=Status.SUCCESSFUL, _return_value=value)
        except (Exception, SystemExit) as error:  # a task that exits has failed; the worker goes on
            failure = error
            path = f"{type(error).__module__}.{type(error).__qualname__}"
            trace = "".join(format_exception(error))
            result.errors.append(TaskError(exception_class_path=path, traceback=trace))
            changed(result, status=Status.FAILED)
        changed(result, finished_at=timezone.now())
        self._keep(result)
        task_finished.send_robust(sender, task_result=result)
        if failure is not None:
            raise Reject(reason_of(failure)) from failure

    def _keep(self, result: Any) -> None:
        """Keep how far a task is. A cache that is away is no reason to run the task again."""
        try:
            self._backend.keep(result)
        except Exception as error:
            logger.error("the result of task %s is not kept as %s: %r", result.id, result.status.value, error)


def _as_json(value: Any) -> Any:
    """Return what a task returned as a result has it.

    Raises:
        TypeError: it cannot be JSON.
    """
    import json

    return json.loads(json.dumps(value))
