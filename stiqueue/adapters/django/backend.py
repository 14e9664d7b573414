"""The backend of Django's tasks: `StiQueueBackend`."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.utils import timezone
from django.utils.crypto import get_random_string

from stiqueue import SQClient, StiQueueError
from stiqueue.adapters.django.framework import (
    BaseTaskBackend,
    Status,
    TaskResult,
    TaskResultDoesNotExist,
    task_enqueued,
)
from stiqueue.adapters.django.record import changed, read, written

LOWEST_PRIORITY = -100
"""Django's, which is 0 in StiQueue."""
KEPT_SECONDS = 86_400
"""How long a result is kept by default."""
CACHE_KEY = "stiqueue-task-{}"


class StiQueueBackend(BaseTaskBackend):
    """Enqueues tasks in queues of a StiQueue server; `manage.py stiqueue_worker` runs them.

    ``OPTIONS`` are those of `SQClient`, such as host, port, tls and token, and:

    - ``on_commit`` (False): enqueue a task when the transaction that is under way is committed, and not at all if it
      is rolled back.
    - ``prefix`` (""): what the name of each queue begins with in the server.
    - ``results`` (None): the alias of a cache of Django in which results are kept, for `get_result`.
    - ``results_seconds`` (a day): for how long.
    """

    supports_defer = True
    supports_async_task = True
    supports_priority = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        """Remember where the server is; nothing is opened before the first task.

        Raises:
            ImproperlyConfigured: an option is unknown or out of range.
        """
        super().__init__(alias, params)
        options = dict(self.options)
        self.on_commit = bool(options.pop("on_commit", False))
        self._prefix = str(options.pop("prefix", ""))
        self._cache: str | None = options.pop("results", None)
        self._kept_seconds = options.pop("results_seconds", KEPT_SECONDS)
        self.supports_get_result = self._cache is not None
        self.connection: dict[str, Any] = options
        """The options of a client."""
        try:
            self._client = SQClient(**{**options, "auto_ack": False})
        except (StiQueueError, TypeError) as error:
            raise ImproperlyConfigured(f"TASKS[{alias!r}]['OPTIONS']: {error}") from error

    def queue(self, name: str) -> str:
        """Return the server's name for a queue of Django's."""
        return f"{self._prefix}{name}"

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Enqueue `task`; return once the server has it (with ``on_commit``: at once, in a transaction).

        Raises:
            InvalidTaskError: Django does not allow it.
            Unavailable: the server stayed away for the client's `timeout`.
        """
        self.validate_task(task)
        result = TaskResult(
            task=task,
            id=get_random_string(32),
            status=Status.READY,
            enqueued_at=timezone.now(),
            started_at=None,
            last_attempted_at=None,
            finished_at=None,
            args=list(args),
            kwargs=kwargs,
            backend=self.alias,
            errors=[],
            worker_ids=[],
        )
        if self.on_commit:
            transaction.on_commit(partial(self._send, result))
        else:
            self._send(result)
        return result

    def _send(self, result: Any) -> None:
        task = result.task
        delay = 0.0
        if task.run_after is not None:
            now = timezone.now() if timezone.is_aware(task.run_after) else timezone.make_naive(timezone.now())
            delay = max(0.0, (task.run_after - now).total_seconds())
        changed(result, enqueued_at=timezone.now())
        self.keep(result)
        self._client.enq(
            written(result),
            queue=self.queue(task.queue_name),
            priority=task.priority - LOWEST_PRIORITY,
            delay=delay,
            request_id=result.id,
        )
        task_enqueued.send(type(self), task_result=result)

    def keep(self, result: Any) -> None:
        """Keep how far a task is, if results are kept."""
        if self._cache is not None:
            _cache(self._cache).set(CACHE_KEY.format(result.id), written(result).decode(), self._kept_seconds)

    def get_result(self, result_id: str) -> Any:
        """Return how far a task is.

        Raises:
            TaskResultDoesNotExist: no such task was enqueued, or its result is kept no longer.
        """
        if self._cache is None:
            return super().get_result(result_id)
        record = _cache(self._cache).get(CACHE_KEY.format(result_id))
        if record is None:
            raise TaskResultDoesNotExist(result_id)
        return read(record)


def _cache(alias: str) -> Any:
    from django.core.cache import caches

    return caches[alias]
