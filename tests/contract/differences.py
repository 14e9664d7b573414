"""Where JetStream does not do what the contract says. What stands here must fail; all else must pass.

`docs/cluster.md` has the same table; a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """One rule of the protocol that the cluster does not keep as it stands."""

    name: str
    answer: str
    """The status that says so; empty: it is done, but otherwise."""
    text: str


UNIMPLEMENTED = "UNIMPLEMENTED"

PRIORITY = Rule("`priority` above 0", UNIMPLEMENTED, "One order only. Use a queue for each priority.")
ACKS = Rule("`ack_lease_ids`", UNIMPLEMENTED, "JetStream cannot acknowledge and publish in one step.")
BATCH = Rule("more than 1,000 `bodies`", UNIMPLEMENTED, "All or none of a batch is stored, up to JetStream's limit.")
BOUNDED_DELAY = Rule(
    "`delay` on a queue with `--max-messages` or `--max-queue-bytes`",
    UNIMPLEMENTED,
    "A JetStream stream refuses above a bound, or has schedules, not both.",
)
ALL_BYTES = Rule(
    "`--max-bytes`", "the server does not start", "No bound on all queues together; limit the account in NATS instead."
)
TTL_IN_DELAY = Rule(
    "`ttl` shorter than `delay` + 1 s", UNIMPLEMENTED, "The ttl of a delayed message begins to matter later."
)
QUEUES = Rule(
    "queues that are empty and unused vanish",
    "",
    "Their streams stay, so that ids rise and request ids are known; they count against `--max-queues`. "
    "`Cnt` does not list them. `Deq` on one queue too many ends with RESOURCE_EXHAUSTED after it was accepted.",
)
CLOCK = Rule(
    "`delay`, `ttl` and remembered request ids pass by the cluster's clocks",
    "",
    "A ttl ends up to 2 s late for counting, never for delivering. Clocks of gateways and servers must agree.",
)
DELAYED_ID = Rule(
    "the id of a delayed message",
    "",
    "A message gets its id and its place when its delay is over; `Enq` answers the id of its schedule.",
)
BYTES = Rule("`QueueCounts.bytes`, `--max-queue-bytes`", "", "Bytes as JetStream stores them, about 40 more a message.")
PREFETCH_BYTES = Rule(
    "`prefetch_bytes`", "", "Never exceeded but by one large message; not always used up, for framing counts as well."
)
ATTEMPT = Rule(
    "`attempt` in `Peek`",
    "",
    "Known while a message is leased; 0 otherwise. In `Deq` it is exact, or too high after faults.",
)
EAGER = Rule(
    "a stream that settles is served at once",
    "",
    "It asks the cluster anew when it is free. Others may be faster, several messages may come together, and one that "
    "was given back shows as ready until then.",
)
TIMES = Rule("`enqueue_time_ms`, ages", "", "By the clocks of the cluster's servers.")
OLD_PLACE = Rule(
    "what is given back returns to its old place",
    "",
    "It comes before all that was never delivered, in ascending order; what others gave back earlier comes first.",
)
TOTALS = Rule(
    "totals in `QueueCounts`", "", "Of the gateways that run. Messages that expire in the cluster are not counted."
)

SOON = Rule(
    "what happened is seen at once",
    "",
    "On several servers a moment later: `Cnt`, `Peek` and the bounds of a queue notice that a message was settled, and "
    "consumers that one came. It is not delivered again meanwhile.",
)

RULES = [
    PRIORITY, ACKS, BATCH, BOUNDED_DELAY, TTL_IN_DELAY, ALL_BYTES,
    OLD_PLACE, DELAYED_ID, QUEUES, CLOCK, TIMES, BYTES, PREFETCH_BYTES, ATTEMPT, EAGER, SOON, TOTALS,
]  # fmt: skip


def table() -> str:
    """Return the table as the documentation has it."""
    rows = [f"| {rule.name} | {rule.answer or 'is different'} | {rule.text} |" for rule in RULES]
    return "\n".join(["| rule | answer | |", "|---|---|---|", *rows])


class Difference(NamedTuple):
    """Why one test of the contract fails."""

    rule: Rule
    only: Mapping[str, tuple[Any, ...]] = {}
    """The parameters with which it fails; default: with all."""
    always: bool = True
    """False where it depends on who is faster."""

    @property
    def text(self) -> str:
        return f"{self.rule.name}: {self.rule.answer or self.rule.text}"

    def holds_for(self, params: Mapping[str, Any]) -> bool:
        """Whether a test with these parameters is to fail."""
        return all(params.get(name) in values for name, values in self.only.items())


DIFFERENCES: dict[str, Difference] = {
    # test_consumers
    "test_every_outcome_frees_credit_but_extending_does_not": Difference(EAGER, always=False),
    "test_prefetch_bytes_is_exact": Difference(PREFETCH_BYTES),
    "test_prefetch_bytes_is_not_exceeded_by_a_message_that_does_not_fit": Difference(PREFETCH_BYTES),
    "test_settling_with_close_stream_ends_the_consumer": Difference(EAGER),
    "test_with_no_ack_a_message_is_forgotten_as_it_is_delivered": Difference(BYTES),
    # test_enqueueing
    "test_a_repeated_request_is_answered_although_it_acked_its_leases": Difference(ACKS),
    "test_enqueueing_acks_leases_in_the_same_step": Difference(ACKS),
    "test_enqueueing_to_the_same_queue_acks_as_well": Difference(ACKS),
    "test_a_stale_lease_refuses_the_whole_step": Difference(ACKS),
    "test_a_full_queue_refuses_the_whole_step": Difference(ACKS),
    "test_leased_and_delayed_messages_count_against_the_bound": Difference(BOUNDED_DELAY),
    "test_an_expired_message_makes_room": Difference(ALL_BYTES),
    "test_a_queue_takes_as_many_bytes_as_its_bound_and_no_more": Difference(BYTES),
    "test_all_queues_together_take_as_many_bytes_as_their_bound": Difference(ALL_BYTES),
    "test_there_are_as_many_queues_as_the_bound_and_no_more": Difference(QUEUES),
    "test_queues_that_are_empty_and_unused_make_room": Difference(QUEUES),
    "test_ids_rise_also_across_the_absence_of_a_queue": Difference(QUEUES),
    # test_leases
    "test_the_attempt_is_counted_when_a_message_is_leased": Difference(ATTEMPT),
    "test_a_message_moves_to_the_dead_letter_queue_instead_of_one_delivery_too_many": Difference(PRIORITY),
    "test_a_dead_letter_says_where_it_came_from_why_and_after_how_many_attempts": Difference(TIMES),
    # test_looking
    "test_counts_tell_where_the_messages_are": Difference(BYTES),
    "test_ages_are_those_of_the_oldest": Difference(TIMES),
    "test_the_oldest_of_all_priorities_counts": Difference(PRIORITY),
    "test_totals_count_everything_that_happened": Difference(PRIORITY),
    "test_peek_shows_ready_messages_in_the_order_of_delivery": Difference(PRIORITY),
    "test_peek_tells_who_holds_a_message_since_when_and_until_when": Difference(TIMES),
    "test_peek_shows_all_of_many": Difference(BATCH, {"number": (1001, 2500)}),
    "test_peek_pages_by_id": Difference(BATCH, {"page": (1000, 1500)}),
    "test_a_message_that_moves_while_peek_runs_harms_nothing": Difference(BATCH),
    # test_order
    "test_higher_priority_is_delivered_first_and_each_in_order": Difference(PRIORITY),
    "test_a_message_carries_what_it_was_enqueued_with": Difference(PRIORITY),
    "test_a_requeued_message_returns_to_its_old_place": Difference(EAGER),
    "test_a_requeued_message_returns_to_its_old_place_within_its_priority": Difference(PRIORITY),
    "test_each_message_wakes_one_consumer": Difference(EAGER, always=False),
    "test_a_message_that_nobody_may_take_yet_wakes_nobody": Difference(EAGER),
    "test_a_large_batch_is_delivered_whole_and_in_order": Difference(BATCH, {"number": (1001, 2500)}),
    # test_time: these move the engine's clock, and the cluster has its own; test_jetstream has them in real time
    "test_a_delayed_message_is_not_delivered_before_its_time": Difference(CLOCK),
    "test_a_waiting_consumer_is_woken_when_a_delay_is_over": Difference(CLOCK),
    "test_a_delayed_message_comes_at_the_place_of_its_id": Difference(DELAYED_ID),
    "test_a_delayed_message_keeps_its_priority": Difference(PRIORITY),
    "test_many_delays_end_each_at_its_own_time": Difference(CLOCK),
    "test_a_message_is_dropped_when_its_ttl_is_over": Difference(CLOCK),
    "test_an_expired_message_is_not_delivered_even_before_anybody_noticed": Difference(CLOCK),
    "test_a_message_expires_in_the_middle_of_others": Difference(CLOCK),
    "test_a_delayed_message_is_dropped_when_its_ttl_is_over": Difference(TTL_IN_DELAY),
    "test_a_message_that_is_given_back_after_its_ttl_is_dropped": Difference(CLOCK),
    "test_a_message_that_is_given_back_before_its_ttl_expires_later": Difference(CLOCK),
    "test_a_message_requeued_beyond_its_ttl_expires_meanwhile": Difference(CLOCK),
    "test_a_lease_that_runs_out_frees_its_consumer_for_another_message": Difference(PRIORITY),
    "test_setting_the_wall_clock_changes_no_decision": Difference(CLOCK),
}

OF_SEVERAL_SERVERS = dict.fromkeys(
    [
        "test_a_message_that_comes_in_the_last_moment_is_delivered",
        "test_a_finished_consumer_still_gets_what_it_was_handed_before",
        "test_dead_letters_are_never_refused",
        "test_an_acked_message_is_gone",
        "test_every_way_of_giving_back_counts_against_the_most_attempts",
        "test_a_queue_vanishes_from_the_listing_when_it_is_empty_and_unused",
    ],
    Difference(SOON, always=False),
)
"""What else may fail where streams are on several servers."""
