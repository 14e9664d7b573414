"""Answers that another thread gives to an event loop."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from support.waiting import Call

from stiqueue.rules.later import Later


def given(later: Later[int], result: int) -> None:
    Call(lambda: later.set_result(result)).result()


def test_an_answer_is_awaited_or_told_to_a_callback() -> None:
    async def ask() -> list[Any]:
        loop = asyncio.get_running_loop()
        awaited: Later[int] = Later(loop)
        given(awaited, 1)
        told: Later[int] = Later(loop)
        answers: list[Any] = []
        told.map(str).when_done(lambda *answer: answers.append((*answer, threading.get_ident())))
        given(told, 2)
        answers.append(await awaited)
        told.when_done(lambda *answer: answers.append(answer))  # at once
        return answers

    assert asyncio.run(ask()) == [("2", None, threading.get_ident()), 1, ("2", None)]


def test_a_failure_passes_a_map_and_an_error_in_a_map_is_one() -> None:
    async def ask() -> None:
        loop = asyncio.get_running_loop()
        failed: Later[int] = Later(loop)
        failed.set_exception(OSError("disk"))
        with pytest.raises(OSError, match="disk"):
            await failed.map(str)
        wrong: Later[str] = Later(loop)
        wrong.set_result("a")
        with pytest.raises(ValueError, match="invalid literal"):
            await wrong.map(int)

    asyncio.run(ask())


def test_a_cancelled_await_and_an_ended_loop_hurt_nobody() -> None:
    async def ask() -> Later[int]:
        later: Later[int] = Later(asyncio.get_running_loop())
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(later, 0)
        given(later, 1)
        await asyncio.sleep(0)
        return Later(asyncio.get_running_loop())

    given(asyncio.run(ask()), 2)
