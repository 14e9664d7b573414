"""`deq`: waiting, and how a message is settled."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.waiting import Call, until

from stiqueue import Closed, InvalidRequest, Message, State
from stiqueue.client.base import BaseClient

from .conftest import Place


def take(client: BaseClient, timeout: float | None = 0) -> Message:
    """Take a message that must be there."""
    message = client.deq(timeout=timeout)
    assert message is not None
    return message


def test_deq_without_a_message_returns_none_after_its_timeout(client: BaseClient) -> None:
    assert client.deq(timeout=0) is None
    assert client.deq(timeout=0.05) is None


def test_deq_waits_for_a_message(client: BaseClient, other: BaseClient) -> None:
    waiting = Call(client.deq)
    until(lambda: other.counts().consumers, 1)
    assert not waiting.is_over(0.05)
    other.enq("a")
    assert waiting.result() == b"a"


def test_deq_with_a_timeout_returns_what_comes_meanwhile(client: BaseClient, other: BaseClient) -> None:
    waiting = Call(client.deq, timeout=20)
    until(lambda: other.counts().consumers, 1)
    other.enq("a")
    assert waiting.result() == b"a"


@pytest.mark.parametrize("timeout", [-1.0, float("nan")])
def test_deq_refuses_a_timeout_that_makes_no_sense(client: BaseClient, timeout: float) -> None:
    client.enq("a")
    with pytest.raises(InvalidRequest) as refused:
        client.deq(timeout=timeout)
    assert refused.value.reason == "BAD_DURATION"
    assert client.deq(timeout=0) == b"a"


def test_timeouts_may_change_from_call_to_call(client: BaseClient) -> None:
    client.enq_many(list("abcdef"))
    timeouts = (None, 0, 5, 0.5, None, 0)
    assert [client.deq(timeout=timeout) for timeout in timeouts] == [b"a", b"b", b"c", b"d", b"e", b"f"]
    assert client.deq(timeout=0) is None
    until(lambda: client.counts().acked, 6)


def test_deq_can_change_between_queues(client: BaseClient, other: BaseClient) -> None:
    for queue in "xy":
        client.enq_many([queue + "1", queue + "2"], queue=queue)
    assert [client.deq(queue=queue) for queue in "xyyx"] == [b"x1", b"y1", b"y2", b"x2"]
    client.close()
    assert [other.counts(queue=queue).acked for queue in "xy"] == [2, 2]


def test_a_message_is_bytes_and_knows_what_it_is(client: BaseClient) -> None:
    client.enq("Grüße", priority=3, headers={"k": "v"}, queue="q")
    message = client.deq(queue="q")
    assert message is not None
    assert message == "Grüße".encode()
    assert message.decode() == "Grüße"
    assert (message.id, message.attempt, message.priority, message.queue) == (1, 1, 3, "q")
    assert message.headers == {"k": "v"}
    assert message.enqueue_time_ms > 1_600_000_000_000


def test_a_message_pickles_as_its_body(client: BaseClient) -> None:
    client.enq("a")
    copied = pickle.loads(pickle.dumps(take(client)))
    assert copied == b"a"
    assert type(copied) is bytes


def test_changing_the_headers_of_a_message_changes_only_the_copy(client: BaseClient) -> None:
    client.enq("a", headers={"k": "v"})
    message = take(client)
    message.headers["k"] = "changed"
    assert message.headers == {"k": "v"}


# -- implicit acks ----------------------------------------------------------------------------------------------------


def test_a_message_is_leased_until_it_is_settled(client: BaseClient, other: BaseClient) -> None:
    client.enq_many(list("ab"))
    take(client)
    counts = other.counts()
    assert (counts.ready, counts.leased) == (1, 1)


def test_the_next_deq_acks_the_last_message(client: BaseClient, other: BaseClient) -> None:
    client.enq_many(list("ab"))
    take(client)
    take(client)
    until(lambda: other.counts().acked, 1)
    assert other.counts().leased == 1


def test_the_next_deq_acks_the_last_message_also_when_there_is_no_other(client: BaseClient, other: BaseClient) -> None:
    client.enq("a")
    take(client)
    assert client.deq(timeout=0) is None
    until(lambda: other.counts().acked, 1)
    assert other.queues() == {}


def test_the_next_deq_of_another_thread_acks_nothing(client: BaseClient, other: BaseClient) -> None:
    client.enq_many(list("ab"))
    take(client)
    theirs = Call(client.deq).result()  # as long as somebody has it, it stays leased when its thread has ended
    assert theirs == b"b"
    assert other.counts().leased == 2


def test_close_acks_the_last_message_of_every_thread(client: BaseClient, other: BaseClient) -> None:
    client.enq_many(list("abc"))
    take(client)
    theirs = Call(client.deq).result()
    client.close()
    assert theirs == b"b"
    assert other.counts().acked == 2
    assert other.peek() == b"c"


def test_a_clean_end_of_a_with_block_acks(place: Place, other: BaseClient) -> None:
    other.enq_many(list("ab"))
    with place.client() as client:
        take(client)
    assert other.counts().acked == 1
    assert other.peek() == b"b"


def test_an_exception_in_a_with_block_gives_the_message_back(place: Place, other: BaseClient) -> None:
    other.enq_many(list("ab"))

    def work() -> None:
        with place.client() as client:
            take(client)
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        work()
    until(other.peek, b"a,b")
    assert other.counts().acked == 0


def test_an_exception_in_a_with_block_keeps_what_was_settled_by_hand(place: Place, other: BaseClient) -> None:
    other.enq_many(list("ab"))

    def work() -> None:
        with place.client() as client:
            take(client).ack()
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        work()
    until(lambda: other.counts().consumers, 0)
    assert other.peek() == b"b"


def test_disconnect_acks_and_the_client_can_be_used_again(client: BaseClient, other: BaseClient) -> None:
    client.enq_many(list("abc"))
    take(client)
    client.disconnect()
    assert other.counts().acked == 1
    client.disconnect()
    assert take(client) == b"b"
    assert client.cnt() == 1


def test_a_deq_that_waits_goes_on_waiting_across_disconnect(client: BaseClient, other: BaseClient) -> None:
    waiting = Call(client.deq)
    until(lambda: other.counts().consumers, 1)
    client.disconnect()
    assert not waiting.is_over(0.1)
    other.enq("a")
    assert waiting.result() == b"a"


def test_a_deq_that_waits_ends_when_the_client_is_closed(client: BaseClient, other: BaseClient) -> None:
    waiting = Call(client.deq)
    until(lambda: other.counts().consumers, 1)
    client.close()
    with pytest.raises(Closed):
        waiting.result()
    until(lambda: other.counts().consumers, 0)


def test_every_call_on_a_closed_client_says_so(client: BaseClient) -> None:
    client.close()
    client.close()
    calls: list[Callable[[], object]] = [
        lambda: client.enq("a"),
        lambda: client.enq_many(["a"]),
        lambda: client.deq(timeout=0),
        lambda: next(iter(client.consume())),
        client.cnt,
        client.counts,
        client.queues,
        client.peek,
        client.peek_messages,
        client.purge,
        client.redrive,
    ]
    for call in calls:
        with pytest.raises(Closed):
            call()


def test_a_message_of_a_closed_client_cannot_be_settled(client: BaseClient) -> None:
    client.enq("a")
    message = take(client)
    client.close()
    with pytest.raises(Closed):
        message.ack()


# -- explicit ---------------------------------------------------------------------------------------------------------


def test_ack_settles_at_once(client: BaseClient, other: BaseClient) -> None:
    client.enq_many(list("ab"))
    message = take(client)
    assert message.ack() is True
    assert other.counts().acked == 1
    assert message.ack() is False
    assert take(client) == b"b"


def test_the_client_acks_the_last_message_of_this_thread(client: BaseClient, other: BaseClient) -> None:
    client.enq("a")
    take(client)
    assert Call(client.ack).result() is True, "another thread has nothing to ack"
    assert other.counts().leased == 1
    assert client.ack() is True
    assert other.counts().acked == 1
    assert client.ack() is True, "nothing is left to ack"


def test_the_client_acks_the_messages_it_is_given(place: Place) -> None:
    client = place.client(auto_ack=False)
    client.enq_many(list("abc"))
    a, b, c = take(client), take(client), take(client)
    assert client.ack(a, c) is True
    assert client.ack(b, c) is False
    assert client.counts().acked == 3


def test_requeue_gives_the_message_back_to_its_old_place(client: BaseClient, other: BaseClient) -> None:
    client.enq_many(list("abc"))
    assert take(client).requeue() is True
    assert other.peek() == b"a,b,c"
    assert take(client).attempt == 2


def test_requeue_with_a_delay_hides_the_message(client: BaseClient, other: BaseClient) -> None:
    client.enq_many(list("ab"))
    assert take(client).requeue(delay=3600) is True
    assert other.peek() == b"b"
    assert other.counts().delayed == 1


def test_dead_letter_moves_the_message_with_the_reason(client: BaseClient, other: BaseClient) -> None:
    client.enq("a")
    assert take(client).dead_letter("not a number") is True
    assert client.deq(timeout=0) is None
    (dead,) = other.peek_messages(queue="default.dead")
    assert dead == b"a"
    assert dead.headers["stiqueue-dead-reason"] == "not a number"


def test_extend_keeps_the_message_and_its_implicit_ack(place: Place, other: BaseClient) -> None:
    client = place.client(ack_timeout=60)
    other.enq_many(list("ab"))
    message = take(client)
    assert message.extend(3600) is True
    (held,) = other.peek_messages(state=State.LEASED)
    assert held.ready_time_ms - held.enqueue_time_ms > 3_500_000
    take(client)
    until(lambda: other.counts().acked, 1)


def test_what_was_settled_by_hand_is_not_acked_by_the_next_deq(client: BaseClient, other: BaseClient) -> None:
    client.enq_many(list("ab"))
    take(client).requeue(delay=3600)
    assert take(client) == b"b"
    client.close()
    counts = other.counts()
    assert (counts.acked, counts.delayed) == (1, 1)


def test_a_message_whose_lease_ran_out_says_so(place: Place, other: BaseClient) -> None:
    client = place.client(ack_timeout=0.5)
    other.enq("a")
    message = take(client)
    until(lambda: other.counts().requeued > 0)
    assert message.ack() is False


def test_a_server_that_needs_no_acks_forgets_a_message_as_it_sends_it(place: Place, other: BaseClient) -> None:
    client = place.client(ack_required=False)
    other.enq_many(list("ab"))
    message = take(client)
    assert other.counts().acked == 1
    assert other.counts().leased == 0
    assert message.ack() is False
    assert message.requeue() is False
    assert client.ack() is True
    client.close()
    assert other.peek() == b"b"


Settle = Callable[[Message], object]


@pytest.mark.parametrize(
    ("settle", "reason"),
    [
        (lambda message: message.requeue(delay=-1), "BAD_DURATION"),
        (lambda message: message.requeue(delay=float("nan")), "BAD_DURATION"),
        (lambda message: message.extend(0), "BAD_DURATION"),
        (lambda message: message.extend(8 * 86_400.0), "BAD_DURATION"),
        (lambda message: message.dead_letter("x" * 1025), "BAD_REASON"),
    ],
)
def test_bad_input_to_settling_is_refused_and_settles_nothing(
    client: BaseClient, other: BaseClient, settle: Settle, reason: str
) -> None:
    client.enq("a")
    message = take(client)
    with pytest.raises(InvalidRequest) as refused:
        settle(message)
    assert refused.value.reason == reason
    assert other.counts().leased == 1
    assert message.ack() is True


# -- by hand only, and many threads -----------------------------------------------------------------------------------


def test_without_auto_ack_a_thread_pool_settles(place: Place, other: BaseClient) -> None:
    client = place.client(auto_ack=False)
    other.enq_many(map(str, range(20)))
    messages = [take(client) for _ in range(20)]
    assert other.counts().leased == 20
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(Message.ack, messages))
    assert other.counts().acked == 20


def test_without_auto_ack_closing_gives_back_what_is_not_settled(place: Place, other: BaseClient) -> None:
    client = place.client(auto_ack=False)
    other.enq_many(list("abcd"))
    _, b, *_ = [take(client) for _ in range(3)]
    assert b.ack()
    client.close()
    until(other.peek, b"a,c,d")


@pytest.mark.slow
def test_200_threads_that_wait_on_one_client_get_a_message_each(client: BaseClient, other: BaseClient) -> None:
    threads = [Call(client.deq) for _ in range(200)]
    until(lambda: other.counts().consumers, 200)
    other.enq_many(map(str, range(200)))
    assert sorted(int(thread.result() or b"-1") for thread in threads) == list(range(200))
    assert other.counts().leased == 200
    client.close()
    assert other.counts().acked == 200


def test_threads_that_come_and_go_share_the_work(client: BaseClient, other: BaseClient) -> None:
    other.enq_many(map(str, range(400)))

    def work() -> list[int]:
        found = []
        while (message := client.deq(timeout=0.5)) is not None:
            found.append(int(message))
        return found

    workers = [Call(work) for _ in range(8)]
    assert sorted(number for worker in workers for number in worker.result()) == list(range(400))
    until(lambda: other.counts().acked, 400)
    assert other.queues() == {}
