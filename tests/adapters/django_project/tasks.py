"""Its tasks: they say in the queue "seen" what they do."""

from __future__ import annotations

import time
from typing import Any

from django.conf import settings

from stiqueue import SQClient
from stiqueue.adapters.django import framework

task = framework.task


def say(what: str) -> None:
    """Put `what` where the test reads it."""
    with SQClient(port=settings.PORT, queue="seen") as client:
        client.enq(what)


@task()
def mark(number: int) -> int:
    """Say `number`, and return it."""
    say(str(number))
    return number


@task()
async def double(number: int) -> int:
    """Return twice the number."""
    return 2 * number


@task(queue_name="mail")
def hold(name: str, seconds: float) -> None:
    """Say "begin NAME", take `seconds`, and say "end NAME"."""
    say(f"begin {name}")
    time.sleep(seconds)
    say(f"end {name}")


@task(takes_context=True)
def attempt(context: Any) -> int:
    """Return which attempt this is."""
    return int(context.attempt)


@task()
def fail() -> None:
    """Fail."""
    raise RuntimeError("broken")


class Odd(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@task()
def fail_oddly() -> None:
    """Fail by an exception that cannot be written."""
    raise Odd


@task(backend="committed")
def committed(number: int) -> None:
    """Be enqueued on commit."""
