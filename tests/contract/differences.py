"""Where JetStream deviates from the contract. Tests listed here must fail; all others must pass.

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

PRIORITY = Rule("`priority` above 0", UNIMPLEMENTED, "A stream has only one order. Use one queue per priority.")
KEY = Rule(
    "`key`",
    UNIMPLEMENTED,
    "A JetStream consumer cannot skip the messages of one key while another of them is worked on. Use one queue per "
    "key, or a data file.",
)
UNIQUE_KEY = Rule(
    "`unique_key`",
    UNIMPLEMENTED,
    "Each unique key would need a subject of its own, and could have no delay, which JetStream does not check. Use a "
    "`request_id` where 5 minutes are enough.",
)
ACKS = Rule("`ack_lease_ids`", UNIMPLEMENTED, "JetStream cannot acknowledge and publish in one step.")
BATCH = Rule(
    "more than 1,000 `bodies`, or 999 with a `request_id`",
    UNIMPLEMENTED,
    "JetStream stores at most 1,000 messages atomically, and the request id is one of them.",
)
BOUNDED_DELAY = Rule(
    "`delay` on a queue with `--max-messages` or `--max-queue-bytes`",
    UNIMPLEMENTED,
    "A JetStream stream supports either a bound or schedules, not both.",
)
ALL_BYTES = Rule(
    "`--max-bytes`",
    "the server does not start",
    "JetStream has no bound on all queues together; limit the account in NATS instead.",
)
TTL_IN_DELAY = Rule(
    "`ttl` shorter than `delay` + 1 s", UNIMPLEMENTED, "JetStream applies the ttl of a delayed message later."
)
QUEUES = Rule(
    "empty and unused queues vanish",
    "",
    "Their streams stay, so that ids rise and request ids are remembered; they count against `--max-queues`. "
    "`Cnt` does not list them. A `Deq` on one queue too many ends with RESOURCE_EXHAUSTED after it was accepted.",
)
CLOCK = Rule(
    "`delay`, `ttl`, `resume_after` and the memory of request ids follow the cluster's clocks",
    "",
    "Counts may show a message up to 2 s after its ttl; it is never delivered late. Clocks of gateways and servers "
    "must agree.",
)
DELAYED_ID = Rule(
    "the id of a delayed message",
    "",
    "A message gets its id and its place when its delay is over; `Enq` returns the id of its schedule.",
)
BYTES = Rule(
    "`QueueCounts.bytes`, `--max-queue-bytes`",
    "",
    "Bytes as JetStream stores them, about 40 more per message. `bytes` includes about 180 for each request id of the "
    "last 10 minutes while the queue has messages.",
)
BOUNDED_REQUEST_ID = Rule(
    "`request_id` on a queue with `--max-messages` or `--max-queue-bytes`",
    "",
    "Remembered while its message is in the queue, and for 10 minutes by servers that are not restarted. A rolling "
    "restart forgets the ids of messages that are gone. The records that remember other ids would count against the"
    " bound.",
)
PREFETCH_BYTES = Rule(
    "`prefetch_bytes`",
    "",
    "Exceeded only by a single large message. Not always used up, because framing counts too.",
)
ATTEMPT = Rule(
    "`attempt` in `Peek`",
    "",
    "Known only while a message is leased; 0 otherwise. In `Deq` it is exact, or too high after faults.",
)
UNTOUCHED = Rule(
    "`DeqRequest.concurrency`, `AckRequest.untouched`",
    "",
    "The cluster counts every delivery as an attempt: with `--max-attempts`, a message that is repeatedly "
    "prefetched and given back becomes a dead letter. To avoid that, set `prefetch` to the number of messages that "
    "you work on at a time.",
)
EAGER = Rule(
    "a stream that settles receives the next message at once",
    "",
    "The gateway asks the cluster again once the stream has credit. Other streams may be faster, several messages "
    "may come together, and a message that was given back shows as ready until then.",
)
TIMES = Rule("`enqueue_time_ms`, ages", "", "They follow the clocks of the cluster's servers.")
OLD_PLACE = Rule(
    "a message that is given back returns to its old place",
    "",
    "It comes before all messages that were never delivered, in ascending order; messages that others gave back "
    "earlier come first.",
)
TOTALS = Rule(
    "totals in `QueueCounts`",
    "",
    "Only of running gateways. Messages that expire in the cluster are not counted.",
)

SOON = Rule(
    "changes are visible at once",
    "",
    "On several servers it takes a moment: `Cnt`, `Peek` and the bounds of a queue notice later that a message was "
    "settled, and consumers that one came. It is not redelivered meanwhile.",
)

IDS = Rule("`DeqRequest.ids`", UNIMPLEMENTED, "A JetStream consumer cannot be asked for single messages.")
FILE = Rule(
    "`--queues`",
    "the server does not start",
    "Each gateway would have a file of its own. The cluster keeps the settings of queues: set them with "
    "`stiqueue settings`, once.",
)
BOUND = Rule(
    "the settings `max_messages` and `max_bytes`",
    UNIMPLEMENTED,
    "JetStream cannot add a bound to a stream that has delays. Start all gateways with `--max-messages` or "
    "`--max-queue-bytes`.",
)
MAX_LEASED = Rule(
    "`max_leased`",
    "",
    "A message that was given back with a delay counts until it is delivered again, and one that a dead gateway held "
    "until 30 s later.",
)
DELAYS = Rule(
    "the state of a message that was given back with a delay",
    "",
    "Only the gateway that delivered it knows the delay. When that gateway has ended, `Cnt` and `Peek` show the "
    "message as ready, although it is delivered only when it is due; so they do with messages that a killed gateway "
    "held, until they come back after 30 s.",
)
FEWER_ATTEMPTS = Rule(
    "a lower `max_attempts` reaches messages that wait",
    "",
    "A message that was tried too often becomes a dead letter when it would be delivered next.",
)

RULES = [
    PRIORITY, KEY, UNIQUE_KEY, ACKS, IDS, BOUND, BATCH, BOUNDED_DELAY, TTL_IN_DELAY, ALL_BYTES, FILE,
    BOUNDED_REQUEST_ID, OLD_PLACE, DELAYED_ID, QUEUES, CLOCK, TIMES, BYTES, PREFETCH_BYTES, ATTEMPT, UNTOUCHED,
    FEWER_ATTEMPTS, MAX_LEASED, DELAYS, EAGER, SOON, TOTALS,
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
    # test_attempts
    "test_the_end_of_a_stream_counts_as_many_attempts_as_it_works_on": Difference(ATTEMPT),
    "test_a_message_is_begun_when_those_before_it_are_settled": Difference(ATTEMPT),
    "test_what_is_given_back_untouched_was_not_tried": Difference(UNTOUCHED),
    "test_a_client_that_leaves_gives_back_all_that_it_holds_as_untouched": Difference(UNTOUCHED),
    "test_a_client_that_leaves_may_give_back_with_a_delay": Difference(UNTOUCHED),
    "test_what_was_handed_to_a_stream_and_never_sent_was_not_tried": Difference(ATTEMPT),
    "test_only_what_was_begun_becomes_a_dead_letter": Difference(UNTOUCHED),
    "test_leases_that_run_out_count_as_many_attempts_as_were_worked_on": Difference(ATTEMPT),
    "test_what_ran_out_counts_against_the_credit_in_bytes_too": Difference(PREFETCH_BYTES, always=False),
    "test_a_lease_that_ran_out_can_close_its_stream": Difference(ATTEMPT),
    # test_consumers
    "test_every_outcome_frees_credit_but_extending_does_not": Difference(EAGER, always=False),
    "test_prefetch_bytes_is_exact": Difference(PREFETCH_BYTES),
    "test_prefetch_bytes_is_not_exceeded_by_a_message_that_does_not_fit": Difference(PREFETCH_BYTES),
    "test_settling_with_close_stream_ends_the_consumer": Difference(EAGER),
    "test_with_no_ack_a_message_is_forgotten_as_it_is_delivered": Difference(BYTES),
    # test_enqueueing
    "test_a_repeated_request_is_answered_although_it_acked_its_leases": Difference(ACKS),
    "test_a_repeated_request_acks_what_is_still_leased": Difference(ACKS),
    "test_requests_that_come_together_under_one_id_ack_the_leases_of_each": Difference(ACKS),
    "test_enqueueing_acks_leases_in_the_same_step": Difference(ACKS),
    "test_enqueueing_to_the_same_queue_acks_as_well": Difference(ACKS),
    "test_a_stale_lease_refuses_the_whole_step": Difference(ACKS),
    "test_a_full_queue_refuses_the_whole_step": Difference(ACKS),
    "test_a_message_may_take_the_place_of_another_in_a_full_queue": Difference(ALL_BYTES),
    "test_a_message_in_another_queue_may_take_the_place_of_one_where_all_together_are_full": Difference(ALL_BYTES),
    "test_what_dead_letters_take_counts_against_the_bound_of_all_queues": Difference(ALL_BYTES),
    "test_leased_and_delayed_messages_count_against_the_bound": Difference(BOUNDED_DELAY),
    "test_an_expired_message_makes_room": Difference(ALL_BYTES),
    "test_a_queue_takes_as_many_bytes_as_its_bound_and_no_more": Difference(BYTES),
    "test_all_queues_together_take_as_many_bytes_as_their_bound": Difference(ALL_BYTES),
    "test_there_are_as_many_queues_as_the_bound_and_no_more": Difference(QUEUES),
    "test_queues_that_are_empty_and_unused_make_room": Difference(QUEUES),
    "test_ids_rise_also_across_the_absence_of_a_queue": Difference(QUEUES),
    # test_ids
    "test_exactly_those_messages_are_delivered_in_the_order_asked_for": Difference(IDS),
    "test_messages_that_came_one_by_one_and_in_batches": Difference(IDS),
    "test_one_given_back_is_at_its_old_place": Difference(IDS),
    "test_delayed_messages_are_found_too": Difference(IDS),
    "test_a_delayed_message_that_nobody_settles_is_due_when_it_was": Difference(IDS),
    "test_a_delayed_message_that_is_given_back_without_a_delay_is_ready": Difference(IDS),
    "test_a_message_that_is_not_there_or_leased_is_left_out": Difference(IDS),
    "test_no_attempt_is_counted_however_it_ends": Difference(IDS),
    "test_credit_holds_for_these_streams_as_well": Difference(IDS),
    "test_a_large_message_comes_alone": Difference(IDS),
    "test_max_messages_and_finish_end_it_earlier": Difference(IDS),
    "test_with_no_ack_they_are_dropped": Difference(IDS),
    "test_neither_a_pause_nor_a_limit_keeps_them": Difference(IDS),
    "test_an_expired_message_is_not_there": Difference(IDS),
    "test_one_with_a_ttl_expires_once_it_was_given_back": Difference(IDS),
    "test_all_priorities_are_looked_through": Difference(IDS),
    "test_exchange_brings_what_is_next_of_these": Difference(IDS),
    "test_many_of_a_long_queue": Difference(IDS),
    # test_keys
    "test_messages_of_one_key_are_delivered_one_at_a_time": Difference(KEY),
    "test_a_message_that_was_given_back_is_still_the_head_of_its_key": Difference(KEY),
    "test_a_message_that_waits_for_its_delay_does_not_hold_up_its_key": Difference(KEY),
    "test_a_key_goes_by_priority_and_has_one_message_at_a_time_over_all": Difference(KEY),
    "test_after_a_dead_letter_the_next_of_its_key_follows": Difference(KEY),
    "test_after_a_lease_that_ran_out_the_same_message_comes_again": Difference(KEY),
    "test_an_expired_message_frees_its_key": Difference(KEY),
    "test_one_consumer_is_woken_when_a_key_is_free": Difference(KEY),
    "test_a_unique_key_enqueues_nothing_while_its_message_is_there": Difference(UNIQUE_KEY),
    "test_a_unique_key_is_free_when_its_message_has_expired": Difference(UNIQUE_KEY),
    "test_a_dead_letter_frees_its_unique_key": Difference(UNIQUE_KEY),
    "test_a_repeated_request_is_answered_as_at_first_whatever_became_of_the_unique_key": Difference(UNIQUE_KEY),
    "test_a_job_may_be_followed_by_one_with_its_own_unique_key": Difference(UNIQUE_KEY),
    "test_leases_are_acked_although_the_unique_key_is_taken": Difference(UNIQUE_KEY),
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
    "test_peek_pages_through_priorities": Difference(PRIORITY),
    "test_a_place_in_the_order_holds_for_every_state": Difference(PRIORITY),
    "test_peek_shows_a_rescheduled_message_once": Difference(IDS),
    "test_a_delayed_message_is_missed_by_no_peek": Difference(BATCH),
    "test_a_message_that_moves_while_peek_runs_harms_nothing": Difference(BATCH),
    # test_order
    "test_higher_priority_is_delivered_first_and_each_in_order": Difference(PRIORITY),
    "test_a_message_carries_what_it_was_enqueued_with": Difference(PRIORITY),
    "test_a_requeued_message_returns_to_its_old_place": Difference(EAGER),
    "test_a_requeued_message_returns_to_its_old_place_within_its_priority": Difference(PRIORITY),
    "test_each_message_wakes_one_consumer": Difference(EAGER, always=False),
    "test_a_message_that_nobody_may_take_yet_wakes_nobody": Difference(EAGER),
    "test_a_large_batch_is_delivered_whole_and_in_order": Difference(BATCH, {"number": (1001, 2500)}),
    # test_settings
    "test_a_pause_ends_by_itself": Difference(CLOCK),
    "test_a_paused_queue_that_is_not_in_use_is_counted_as_paused": Difference(CLOCK, always=False),
    "test_delays_and_ttls_go_on_in_a_paused_queue": Difference(CLOCK),
    "test_only_so_many_are_leased_by_all_consumers_together": Difference(MAX_LEASED),
    "test_a_dead_letter_comes_earlier_once_fewer_attempts_are_allowed": Difference(FEWER_ATTEMPTS),
    "test_delayed_messages_that_were_tried_too_often_are_dead_letters": Difference(FEWER_ATTEMPTS),
    "test_a_queue_has_bounds_of_its_own": Difference(BOUND),
    "test_messages_without_a_ttl_get_that_of_their_queue": Difference(CLOCK),
    "test_what_a_file_fixes_is_in_force_at_once_and_until_it_says_otherwise": Difference(FILE),
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
    "test_a_lease_that_runs_out_frees_its_consumer_once_that_settles_it": Difference(PRIORITY),
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
