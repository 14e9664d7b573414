"""Fault 50: each promise is broken in turn, and a named test must notice.

A mutant that nobody catches is a missing test.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TESTS = HERE.parent

CAUGHT = [
    ("sync_off", "faults/test_power.py::test_14_power_cut"),
    ("confirm_before_commit", "faults/test_crashes.py::test_13_sigkill_at_any_change"),
    ("no_crc", "engines/test_damage.py::test_a_damaged_file_is_refused_as_it_is_and_accepted_with_what_can_be_read"),
    ("no_crc", "faults/test_corruption.py::test_19_one_bit_anywhere"),
    ("no_mark", "faults/test_corruption.py::test_20_an_old_backup_is_refused"),
    ("no_lock", "faults/test_durable.py::test_24_two_servers_on_one_file"),
    ("no_lease_number", "contract/test_leases.py::test_the_lease_of_an_earlier_delivery_cannot_settle_a_later_one"),
    ("requeue_at_tail", "contract/test_order.py::test_closing_gives_everything_back_to_its_old_place"),
    ("ignore_cancel", "contract/test_order.py::test_closing_gives_everything_back_to_its_old_place"),
    ("no_credit", "contract/test_consumers.py::test_a_consumer_never_holds_more_than_its_prefetch"),
    ("keys_are_free", "contract/test_keys.py::test_messages_of_one_key_are_delivered_one_at_a_time"),
    ("delay_frees_key", "contract/test_keys.py::test_a_message_that_was_given_back_is_still_the_head_of_its_key"),
    ("key_is_free_unwritten", "engines/test_keys.py::test_the_next_of_a_key_waits_until_the_one_before_is_written"),
    ("never_unique", "contract/test_keys.py::test_a_unique_key_enqueues_nothing_while_its_message_is_there"),
    ("unique_for_ever", "contract/test_keys.py::test_a_unique_key_enqueues_nothing_while_its_message_is_there"),
    ("no_pause", "contract/test_settings.py::test_a_paused_queue_takes_messages_and_settlements_and_delivers_nothing"),
    ("no_max_leased", "contract/test_settings.py::test_only_so_many_are_leased_by_all_consumers_together"),
    (
        "no_attempts_of_queue",
        "contract/test_settings.py::test_a_dead_letter_comes_earlier_once_fewer_attempts_are_allowed",
    ),
    ("no_dead_letter_queue", "contract/test_settings.py::test_dead_letters_go_where_the_settings_say"),
    ("any_token", "security/test_tokens.py::test_42_without_a_valid_token_every_call_is_refused_and_changes_nothing"),
]
"""What is broken, and by which test it is noticed. Without anything broken all of them pass."""
CAUGHT_IN_SOAK = [
    ("ignore_cancel", "faults/test_consumers.py::test_01_consumer_sigkill_holding_leases"),
    ("no_scan", "faults/test_corruption.py::test_19_the_log_tells_of_its_damage_without_the_mark"),
    ("no_reserve", "faults/test_durable.py::test_21_disk_full"),
    ("close_after_failed_sync", "engines/test_damage.py::test_17_after_a_failed_sync_the_file_is_left_alone"),
    ("check_opened_for_writing", "faults/test_corruption.py::test_19_the_server_refuses"),
    ("no_ping_timeout", "faults/test_dead_peers.py::test_02_06_dead_peers_with_short_pings"),
    ("shared_port", "faults/test_server.py::test_25_the_port_is_not_shared"),
    ("no_handshake_timeout", "faults/test_garbage.py::test_37_garbage_on_the_port"),
    ("no_stream_limit", "test_server.py::test_one_connection_cannot_have_more_calls_than_max_streams"),
    ("no_dedup", "test_promises.py::test_a_lost_reply_never_enqueues_twice"),
    ("no_ttl_of_queue", "contract/test_settings.py::test_messages_without_a_ttl_get_that_of_their_queue"),
    ("any_right", "security/test_tokens.py::test_42_a_token_for_something_else_is_refused_and_changes_nothing"),
    (
        "revoked_streams_go_on",
        "security/test_tokens.py::test_a_token_that_is_taken_away_ends_its_streams_and_gives_back",
    ),
    ("drain_takes_new_work", "faults/test_server.py::test_26_sigterm_without_leases"),
    ("no_size_limit", "faults/test_oversize.py::test_36_oversize"),
]
"""The same, for those that take long."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mutant", "test"), [*CAUGHT, *(pytest.param(*each, marks=pytest.mark.soak) for each in CAUGHT_IN_SOAK)]
)
def test_50_a_broken_promise_is_noticed(mutant: str, test: str, tmp_path: Path) -> None:
    paths = [str(HERE / "mutants"), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "FAULT_MUTANT": mutant,
        "FAULT_EVERY_POINT": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'inner'}"]
    done = subprocess.run(
        [*command, str(TESTS / test)], env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    print(done.stdout[-3_000:])
    if " skipped" in done.stdout and " failed" not in done.stdout:
        pytest.skip("the test that would notice is skipped on this machine")
    assert done.returncode == 1, f"{mutant} was not noticed"
    assert " failed" in done.stdout
