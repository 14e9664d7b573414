"""Django's tasks on StiQueue, in one file: start a server (`stiqueue serve`) and run this file.

It enqueues three tasks, one of them for a second from now, and runs the worker until all are finished. In a project of
yours the worker is `python manage.py stiqueue_worker`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import django
from django.conf import settings
from django.utils import timezone

if not settings.configured:  # in a project: settings.py
    settings.configure(
        SECRET_KEY="example",
        USE_TZ=True,
        INSTALLED_APPS=["stiqueue.adapters.django"],
        CACHES={
            "default": {
                "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
                "LOCATION": os.environ.setdefault("EXAMPLE_CACHE", tempfile.mkdtemp()),
            }
        },
        TASKS={
            "default": {
                "BACKEND": "stiqueue.adapters.django.StiQueueBackend",
                "OPTIONS": {"port": int(os.environ.get("STIQUEUE_PORT", "1234")), "results": "default"},
            }
        },
    )
    django.setup()

try:
    from django.tasks import task
except ImportError:  # before Django 6
    from django_tasks import task


@task()
def square(number: int) -> int:
    """Return the square of a number."""
    return number**2


def main() -> None:
    """Run a worker, and three tasks."""
    results = [square.enqueue(3), square.enqueue(4)]
    results.append(square.using(run_after=timezone.now() + timedelta(seconds=1)).enqueue(5))
    work = "import django_app; from django.core.management import call_command; call_command('stiqueue_worker')"
    worker = subprocess.Popen([sys.executable, "-c", work], cwd=Path(__file__).parent)
    try:
        while not all(result.is_finished for result in results):
            time.sleep(0.05)
            for result in results:
                result.refresh()
        print("squares:", [result.return_value for result in results])
    finally:
        worker.terminate()
        worker.wait()


if __name__ == "__main__":
    import django_app  # so that tasks have the same names here and in the worker

    django_app.main()
