"""Requests and answers: `call`, `reply` and what a `Worker` answers."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stiqueue import (
    AccessDenied,
    Closed,
    InvalidRequest,
    LocalSQClient,
    Message,
    NoAnswer,
    Reject,
    RemoteError,
    SQClient,
    SQServer,
    StiQueueError,
    Unavailable,
    Worker,
)
from stiqueue.aio import AsyncSQClient
from stiqueue.client.enqueue import enq_batch
from tests.support.waiting import PATIENCE, Call, soon, until


@contextmanager
def answering(server: SQServer, handler: Any, queue: str = "squares", **options: Any) -> Iterator[Worker]:
    """Have a worker meanwhile."""
    worker = Worker(handler, queue, port=server.port, **options)
    running = Call(worker.run)
    try:
        yield worker
    finally:
        worker.stop()
        running.result()


def square(message: Message) -> str:
    return str(int(message) ** 2)


def left(client: SQClient) -> dict[str, tuple[int, int, int]]:
    """Return the queues in which there is anything."""
    found = {name: (each.ready, each.leased, each.delayed) for name, each in client.queues().items()}
    return {name: counts for name, counts in found.items() if any(counts)}


def test_a_call_returns_what_the_handler_returns(server: SQServer, client: SQClient) -> None:
    with answering(server, square):
        answers = [client.call(str(number), queue="squares") for number in range(10)]
    assert answers == [str(number**2).encode() for number in range(10)]
    assert isinstance(answers[0], Message)
    until(lambda: left(client), {})


def test_calls_of_several_threads_get_their_own_answers(server: SQServer, client: SQClient) -> None:
    with answering(server, square):
        calls = [Call(client.call, str(number), queue="squares") for number in range(50)]
        assert [int(call.result()) for call in calls] == [number**2 for number in range(50)]
    until(lambda: left(client), {})


def test_a_handler_that_returns_nothing_answers_with_nothing(server: SQServer, client: SQClient) -> None:
    with answering(server, lambda message: None):
        assert client.call("7", queue="squares") == b""


def test_a_message_that_is_no_call_is_not_answered(server: SQServer, client: SQClient) -> None:
    done = threading.Event()
    with answering(server, lambda message: done.set()):
        client.enq("7", queue="squares")
        assert done.wait(PATIENCE)
        client.enq("7", queue="squares", headers={"stiqueue-reply-to": "other", "stiqueue-correlation-id": "x"})
        until(lambda: left(client), {})
    assert "other" not in client.queues()
    message = None
    client.enq("7")
    message = client.deq()
    assert not message.wants_reply
    with pytest.raises(InvalidRequest, match="nobody waits for an answer"):
        message.reply("49")
    message.ack()


def test_errors_travel(server: SQServer, client: SQClient) -> None:
    def fail(message: Message) -> None:
        raise {b"value": ValueError("no such number"), b"reject": Reject("never"), b"key": KeyError("a")}[message]

    with answering(server, fail):
        for body, kind, text in (("value", "ValueError", "no such number"), ("reject", "Reject", "never")):
            with pytest.raises(RemoteError) as caught:
                client.call(body, queue="squares")
            assert (caught.value.type, caught.value.text, str(caught.value)) == (kind, text, f"{kind}: {text}")
        again = pickle.loads(pickle.dumps(caught.value))
        assert (again.type, again.text, again.args) == (caught.value.type, caught.value.text, caught.value.args)
    until(lambda: left(client), {})


def test_an_answer_of_the_wrong_type_is_an_error(server: SQServer, client: SQClient) -> None:
    with answering(server, lambda message: {"a": 1}), pytest.raises(RemoteError, match=r"json.dumps\(msg\)"):
        client.call("7", queue="squares")


def test_an_answer_that_is_too_large_is_an_error(server: SQServer, client: SQClient) -> None:
    with answering(server, lambda message: b"x" * (8 << 20)), pytest.raises(RemoteError, match="InvalidRequest"):
        client.call("7", queue="squares")
    until(lambda: left(client), {})


def test_by_hand_with_headers(client: SQClient, server: SQServer) -> None:
    with SQClient(port=server.port) as other:
        calling = Call(client.call, "7", queue="squares", headers={"to": "ann"}, priority=3)
        message = other.deq(queue="squares")
        assert (message.headers["to"], message.priority, message.wants_reply) == ("ann", 3, True)
        message.reply("49", headers={"by": "hand"})
        assert calling.result().headers["by"] == "hand"
        calling = Call(client.call, "x", queue="squares")
        for message in other.consume(queue="squares"):
            message.reply_error(ValueError("no number"))
            break
        with pytest.raises(RemoteError, match="ValueError: no number"):
            calling.result()
        assert other.counts(queue="squares").leased == 0
    until(lambda: left(client), {})


def test_a_worker_without_acks_answers_too(client: SQClient, server: SQServer) -> None:
    with SQClient(port=server.port, ack_required=False) as other:
        for take in (lambda: other.deq(queue="squares"), lambda: next(iter(other.consume(queue="squares")))):
            calling = Call(client.call, "7", queue="squares")
            take().reply("49")
            assert calling.result() == b"49"


def test_a_caller_that_gives_up_leaves_nothing(server: SQServer, client: SQClient) -> None:
    client.cnt()  # connects
    with pytest.raises(NoAnswer) as caught:
        client.call("7", queue="squares", timeout=2.0)
    assert isinstance(caught.value, TimeoutError)
    until(lambda: left(client), {})


def test_a_late_answer_is_dropped_and_the_next_is_right(server: SQServer, client: SQClient) -> None:
    with SQClient(port=server.port) as other:
        client.cnt(), other.cnt()
        calling = Call(client.call, "late", queue="squares", timeout=3.0)
        message = other.deq(queue="squares")
        with pytest.raises(NoAnswer):
            calling.result()
        message.reply("too late")
        calling = Call(client.call, "next", queue="squares")
        other.deq(queue="squares").reply("right")
        assert calling.result() == b"right"
    until(lambda: left(client), {})


def test_a_worker_that_dies_lets_another_answer(server: SQServer, client: SQClient) -> None:
    calling = Call(client.call, "7", queue="squares")
    dying = SQClient(port=server.port)
    assert dying.deq(queue="squares") == b"7"
    dying.__exit__(ZeroDivisionError, None, None)
    with answering(server, square):
        assert calling.result() == b"49"


def test_a_call_that_is_worked_on_twice_is_answered_once(server: SQServer, client: SQClient) -> None:
    """The first worker's lease has expired when it answers, or its ack is lost on a cluster."""
    with SQClient(port=server.port, auto_ack=False) as other:
        calling = Call(client.call, "7", queue="squares")
        message = other.deq(queue="squares")
        reply_to, correlation_id = (message.headers[name] for name in ("stiqueue-reply-to", "stiqueue-correlation-id"))
        headers = {"stiqueue-correlation-id": correlation_id}
        for body in ("first", "second"):
            other.enq(body, queue=reply_to, headers=headers, request_id=correlation_id)
        assert calling.result() == b"first"
        message.reply("third")
    until(lambda: left(client), {})
    assert sum(each.enqueued for name, each in client.queues().items() if name == reply_to) <= 1


def test_a_call_repeated_under_its_id_is_done_once(
    server: SQServer, client: SQClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[bytes] = []
    go, asked = threading.Event(), threading.Semaphore(0)

    def handle(message: Message) -> bytes:
        done.append(bytes(message))
        assert go.wait(PATIENCE)
        return message

    async def counted(*arguments: Any) -> Any:
        receipt = await enq_batch(*arguments)
        asked.release()
        return receipt

    monkeypatch.setattr("stiqueue.client.calling.enq_batch", counted)
    with answering(server, handle):
        with pytest.raises(NoAnswer):
            client.call("7", queue="squares", request_id="seven", timeout=3.0)
        calls = [Call(client.call, "7", queue="squares", request_id="seven") for _ in range(2)]
        for _ in range(3):
            assert asked.acquire(timeout=PATIENCE)
        go.set()
        assert [call.result() for call in calls] == [b"7", b"7"]
    assert done == [b"7"]


@pytest.mark.parametrize("request_ids", [("seven", "seven"), ("", "")])
def test_calls_to_several_queues_under_one_name_get_answers_of_their_own(
    server: SQServer, client: SQClient, request_ids: tuple[str, str]
) -> None:
    queues = ("squares", "cubes")
    calls = [
        Call(client.call, "7", queue=queue, request_id=each) for queue, each in zip(queues, request_ids, strict=True)
    ]
    with SQClient(port=server.port) as worker:
        for queue in reversed(queues):
            request = worker.deq(PATIENCE, queue=queue)
            assert request is not None
            request.reply(queue)
        assert [call.result() for call in calls] == [b"squares", b"cubes"]


def test_calls_without_a_name_are_requests_of_their_own(server: SQServer, client: SQClient) -> None:
    calls = [Call(client.call, text, queue="echoes", request_id="") for text in "abc"]
    with SQClient(port=server.port) as worker:
        for _ in calls:
            request = worker.deq(PATIENCE, queue="echoes")
            assert request is not None
            request.reply(bytes(request))
        assert [call.result() for call in calls] == [b"a", b"b", b"c"]


def test_closing_ends_calls(server: SQServer) -> None:
    client = SQClient(port=server.port)
    calling = Call(client.call, "7", queue="squares")
    with SQClient(port=server.port) as other:
        assert other.deq(queue="squares")
        client.close()
        with pytest.raises(Closed):
            calling.result()
    with pytest.raises(Closed):
        client.call("7")


def test_disconnecting_ends_calls_and_the_next_one_works(server: SQServer, client: SQClient) -> None:
    calling = Call(client.call, "7", queue="squares")
    with SQClient(port=server.port) as other:
        assert other.deq(queue="squares") == b"7"
        client.disconnect()
        with pytest.raises(Unavailable, match="disconnected"):
            calling.result()
        other.ack()
    with answering(server, square):
        assert client.call("8", queue="squares") == b"64"


def test_an_absent_server_is_told(unused: int) -> None:
    with SQClient(port=unused, timeout=0.3) as client, pytest.raises(Unavailable):
        client.call("7")


@pytest.fixture
def unused() -> int:
    from tests.support.ports import free_port

    return free_port()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"timeout": 0}, "timeout"),
        ({"timeout": "5"}, "timeout"),
        ({"headers": "a"}, "headers"),
        ({"headers": {str(number): "" for number in range(63)}}, "headers"),
        ({"priority": 300}, "priority"),
        ({"queue": "a b"}, "queue"),
        ({"request_id": "x" * 129}, "request_id"),
    ],
)
def test_a_wrong_argument_is_refused(client: SQClient, options: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{told}"):
        client.call("7", **options)
    assert client.queues() == {}


def test_a_call_without_a_server() -> None:
    with LocalSQClient() as client:
        calling = Call(client.call, "7", queue="squares")
        message = client.deq(queue="squares")
        message.reply("49")
        assert calling.result() == b"49"


def test_a_client_that_makes_no_more_calls_reads_no_answers(
    server: SQServer, client: SQClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stiqueue.client.answers.IDLE_SECONDS", 0.1)
    with answering(server, square):
        assert client.call("7", queue="squares") == b"49"
        until(lambda: [name for name in client.queues() if name.startswith("stiqueue-answers.")], [])
        assert client.call("8", queue="squares") == b"64"


async def _calls_of_tasks(port: int) -> None:
    async with AsyncSQClient(port=port) as client, AsyncSQClient(port=port) as worker:

        async def work() -> None:
            async for message in worker.consume(prefetch=10, queue="squares"):
                assert message.wants_reply
                if message == b"x":
                    await message.reply_error(ValueError("no number"))
                else:
                    await message.reply(str(int(message) ** 2))

        working = asyncio.create_task(work())
        answers = await asyncio.gather(*(client.call(str(number), queue="squares") for number in range(50)))
        assert [int(answer) for answer in answers] == [number**2 for number in range(50)]
        with pytest.raises(RemoteError, match="ValueError: no number"):
            await client.call("x", queue="squares")
        with pytest.raises(NoAnswer):
            await client.call("x", queue="nobody", timeout=2.0)
        cancelled = asyncio.create_task(client.call("x", queue="nobody"))
        await soon(lambda: client.cnt(queue="nobody"), 1)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        closing = asyncio.create_task(client.call("x", queue="nobody"))
        await soon(lambda: client.cnt(queue="nobody"), 2)
        await client.close()
        with pytest.raises(StiQueueError):
            await closing
        working.cancel()


def test_calls_of_tasks(server: SQServer) -> None:
    asyncio.run(_calls_of_tasks(server.port))


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[SQServer]:
    """A server whose only token gives no right to read answers."""
    file = tmp_path / "tokens"
    file.write_text("caller-0123456789 enq,deq,peek squares\n")
    file.chmod(0o600)
    with SQServer(port=0, tokens=str(file)) as server:
        yield server


def test_a_caller_that_may_not_read_answers_is_told_at_once(guarded: SQServer) -> None:
    with SQClient(port=guarded.port, token="caller-0123456789", queue="squares") as client:
        for number in range(2):
            with pytest.raises(NoAnswer, match=r"cannot be read: .*no right to deq on stiqueue-answers") as failed:
                client.call("7", timeout=PATIENCE)
            assert isinstance(failed.value.__cause__, AccessDenied)
            assert client.cnt() == number + 1, "a worker may do it all the same"


def test_a_task_that_may_not_read_answers_is_told_at_once(guarded: SQServer) -> None:
    async def call() -> None:
        async with AsyncSQClient(port=guarded.port, token="caller-0123456789", queue="squares") as client:
            await client.call("7", timeout=PATIENCE)

    with pytest.raises(NoAnswer, match="cannot be read"):
        asyncio.run(call())
