"""`manage.py stiqueue_worker`: runs the tasks that `StiQueueBackend` enqueues."""

from __future__ import annotations

import os
import signal
import socket
import threading
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.utils.autoreload import run_with_reloader

from stiqueue import Closed, StiQueueError, Worker
from stiqueue.adapters.django.backend import StiQueueBackend
from stiqueue.adapters.django.framework import task_backends
from stiqueue.adapters.django.running import Runner


class Command(BaseCommand):
    """Runs until SIGTERM or Ctrl-C, and then finishes the tasks that it has begun."""

    help = "Runs the tasks of a backend until SIGTERM or Ctrl-C, then finishes those that it has begun."

    def add_arguments(self, parser: Any) -> None:
        """Describe the options."""
        parser.add_argument("--backend", default="default", help="the alias in TASKS (default: %(default)s)")
        parser.add_argument(
            "--queue",
            action="append",
            dest="queues",
            help="a queue to work on; repeat for more (default: all of TASKS)",
        )
        parser.add_argument(
            "--threads", type=int, default=1, help="tasks at a time, for each queue (default: %(default)s)"
        )
        parser.add_argument(
            "--reload", action="store_true", default=None, help="start again when code changes (default: if DEBUG)"
        )
        parser.add_argument("--no-reload", action="store_false", dest="reload", help="never do that")

    def handle(self, **options: Any) -> None:
        """Work.

        Raises:
            CommandError: an option is wrong, or the server does not let this worker in.
        """
        try:
            backend = task_backends[options["backend"]]
        except ImproperlyConfigured as error:
            raise CommandError(f"--backend {options['backend']}: {error}") from error
        if not isinstance(backend, StiQueueBackend):
            raise CommandError(f"TASKS[{options['backend']!r}] is not a backend of StiQueue")
        queues = options["queues"] or sorted(backend.queues)
        if not queues:
            raise CommandError("TASKS names no queues for this backend: name them with --queue")
        if settings.DEBUG if options["reload"] is None else options["reload"]:
            run_with_reloader(self._work, backend, queues, options["threads"])
        else:
            self._work(backend, queues, options["threads"])

    def _work(self, backend: Any, queues: list[str], threads: int) -> None:
        runner = Runner(backend, f"{socket.gethostname()}-{os.getpid()}")
        try:
            workers = [Worker(runner.run, backend.queue(name), threads, **backend.connection) for name in queues]
        except StiQueueError as error:
            raise CommandError(str(error)) from error
        failures: list[BaseException] = []

        def run(worker: Worker) -> None:
            try:
                worker.run()
            except Closed:  # at the end of a process that reloads
                pass
            except BaseException as error:
                failures.append(error)
            for each in workers:
                each.stop()

        self._stop_by_signal(workers)
        # Daemons, because a process that reloads ends while they work.
        running = [threading.Thread(target=run, args=[each], name="stiqueue-django", daemon=True) for each in workers]
        for thread in running:
            thread.start()
        self.stdout.write(f"working on {', '.join(queues)}")
        self.stdout.flush()
        for thread in running:
            while thread.is_alive():
                thread.join(0.1)  # a signal that comes just before a wait does not end it
        if failures:
            raise CommandError(str(failures[0])) from failures[0]

    def _stop_by_signal(self, workers: list[Worker]) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # of the process that reloads, which ends at once: unfinished tasks go back to their queues

        def stop(number: int, _: Any) -> None:
            signal.signal(number, signal.SIG_DFL)  # a second one ends it
            for worker in workers:
                worker.stop()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
