"""Which settings a queue has, and what settings there may be."""

import pytest

from stiqueue.errors import InvalidRequest, LimitReached, SettingFixed
from stiqueue.limits import check_settings
from stiqueue.queue_settings import QueueSettings
from stiqueue.rules import policies
from stiqueue.rules.policies import Policies, covers

DEFAULTS = QueueSettings("*", max_attempts=9)


def make(*settings: QueueSettings) -> Policies:
    made = Policies(DEFAULTS)
    for each in settings:
        made.put(made.changed(each, [], 0))
    return made


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("*", "", True),
        ("*", "anything", True),
        ("a*", "a", True),
        ("a*", "ba", False),
        ("*a", "aba", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("a*b*c", "a.b.c", True),
        ("a*b*c", "a.c.b", False),
        ("a*b*b", "ab", False),
        ("a.b", "axb", False),
        # Patterns in patterns: never more than the wider one matches.
        ("*", "a*", True),
        ("a*", "a.*", True),
        ("a.*", "a*", False),
        ("a*", "*", False),
        ("a", "*", False),
        ("a*b", "a*", False),
        ("a*b", "a*x*b", True),
        ("a*x*b", "a*b", False),
    ],
)
def test_which_names_a_pattern_covers(pattern: str, name: str, covered: bool) -> None:
    assert covers(pattern, name) is covered


def test_the_most_specific_wins_setting_by_setting() -> None:
    made = make(
        QueueSettings("*", max_attempts=1, max_leased=1, max_messages=1, ttl=1.0),
        QueueSettings("m*", max_attempts=2, max_leased=2, max_messages=2),
        QueueSettings("m*l", max_attempts=3, max_leased=3),
        QueueSettings("mail", max_attempts=4),
    )
    settings = made.policy("mail", 0).settings
    assert (settings.max_attempts, settings.max_leased, settings.max_messages, settings.ttl) == (4, 3, 2, 1.0)
    assert (settings.max_bytes, settings.paused, settings.dead_letter_queue) == (0, False, "")
    assert made.policy("other", 0).settings.max_attempts == 1


def test_of_patterns_alike_the_first_in_the_alphabet_wins() -> None:
    made = make(QueueSettings("*b", max_leased=2), QueueSettings("a*", max_leased=1))
    assert made.policy("ab", 0).settings.max_leased == 2


def test_without_settings_a_queue_has_the_defaults() -> None:
    assert make().policy("a", 0).settings.max_attempts == 9


def test_the_file_goes_before_what_was_made_however_specific() -> None:
    made = make(QueueSettings("mail", max_leased=1, max_attempts=1))
    made.fix([QueueSettings("m*", max_leased=5)])
    settings = made.policy("mail", 0).settings
    assert (settings.max_leased, settings.max_attempts) == (5, 1)


@pytest.mark.parametrize("name", ["mail", "ma*", "m*"])
def test_what_the_file_fixes_cannot_be_changed(name: str) -> None:
    made = make()
    made.fix([QueueSettings("m*", max_leased=5)])
    with pytest.raises(SettingFixed, match=r"max_leased: the server's settings file sets it for m\*"):
        made.changed(QueueSettings(name, max_leased=1), [], 0)
    with pytest.raises(SettingFixed):
        made.changed(QueueSettings(name), ["max_leased"], 0)
    made.changed(QueueSettings(name, max_attempts=1), ["*"], 0)  # the others can, and "*" means those that were made
    made.changed(QueueSettings("*", max_leased=1), [], 0)  # for queues of which the file says nothing


def test_a_change_keeps_what_it_does_not_name_and_resets_what_it_is_told() -> None:
    made = make(QueueSettings("a", max_leased=1, ttl=2.0, paused=True))
    made.put(made.changed(QueueSettings("a", max_leased=3), ["ttl"], 0))
    (settings,) = made.report("", 0).settings
    assert settings == QueueSettings("a", paused=True, max_leased=3)
    made.put(made.changed(QueueSettings("a", ttl=1.0), ["*"], 0))
    assert made.report("", 0).settings == [QueueSettings("a", ttl=1.0)]
    made.put(made.changed(QueueSettings("a"), ["*"], 0))
    assert made.report("", 0).settings == []


def test_a_pause_with_an_end_is_not_set_once_it_has_ended() -> None:
    made = make(QueueSettings("a", paused=True, resume_after=2.0, max_leased=1))
    policy = made.policy("a", 500)
    assert (policy.settings.paused, policy.paused_until_ms) == (True, 2000)
    assert made.report("a", 500).effective == policy.at(500)
    assert policy.at(500).resume_after == 1.5
    assert made.policy("a", 2000).settings.paused is False
    assert made.report("", 2000).settings == [QueueSettings("a", max_leased=1)]
    # A change of something else leaves the end, one of the pause does not.
    made.put(made.changed(QueueSettings("a", ttl=1.0), [], 500))
    assert made.policy("a", 500).paused_until_ms == 2000
    made.put(made.changed(QueueSettings("a", paused=True), [], 500))
    assert made.policy("a", 9000).settings.paused is True


def test_where_an_ended_pause_was_a_pattern_applies() -> None:
    made = make(QueueSettings("a", paused=True, resume_after=2.0), QueueSettings("*", paused=True))
    policy = made.policy("a", 2000)
    assert (policy.settings.paused, policy.paused_until_ms) == (True, 0)


def test_a_dead_letter_queue_sends_nothing_on() -> None:
    made = make(QueueSettings("*", max_attempts=3, dead_letter_queue="all.dead"))
    settings = made.policy("a.dead", 0).settings
    assert (settings.max_attempts, settings.dead_letter_queue) == (0, "")
    assert make().policy("a.dead", 0).settings.max_attempts == 0


def test_a_report_shows_what_matches_a_queue() -> None:
    made = make(QueueSettings("b*", ttl=1.0), QueueSettings("a", ttl=2.0), QueueSettings("bc", max_leased=1))
    made.fix([QueueSettings("*c", max_bytes=7)])
    settings, fixed, effective = made.report("bc", 0)
    assert [each.queue for each in settings] == ["b*", "bc"]
    assert [each.queue for each in fixed] == ["*c"]
    assert effective is not None
    assert (effective.queue, effective.ttl, effective.max_leased, effective.max_bytes) == ("bc", 1.0, 1, 7)
    settings, _, effective = made.report("", 0)
    assert [each.queue for each in settings] == ["a", "b*", "bc"]
    assert effective is None


def test_there_are_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "MAX_SETTINGS", 2)
    made = make(QueueSettings("a", ttl=1.0), QueueSettings("b", ttl=1.0))
    with pytest.raises(LimitReached) as caught:
        made.changed(QueueSettings("c", ttl=1.0), [], 0)
    assert caught.value.reason == "TOO_MANY_SETTINGS"
    made.changed(QueueSettings("a", ttl=2.0), [], 0)
    made.changed(QueueSettings("c"), ["ttl"], 0)  # which is nothing


@pytest.mark.parametrize(
    ("settings", "reset", "reason", "named"),
    [
        (QueueSettings("a b"), [], "BAD_QUEUE_NAME", "queue"),
        (QueueSettings("a?"), [], "BAD_QUEUE_NAME", "queue"),
        (QueueSettings("*" * 129), [], "BAD_QUEUE_NAME", "queue"),
        (QueueSettings(7), [], "BAD_QUEUE_NAME", "queue"),  # type: ignore[arg-type]
        (QueueSettings("a", resume_after=1.0), [], "BAD_SETTING", "resume_after"),
        (QueueSettings("a", paused=False, resume_after=1.0), [], "BAD_SETTING", "resume_after"),
        (QueueSettings("a", paused=True, resume_after=0.0), [], "BAD_DURATION", "resume_after"),
        (QueueSettings("a", paused=True, resume_after=367 * 86_400.0), [], "BAD_DURATION", "resume_after"),
        (QueueSettings("a", paused="yes"), [], "BAD_SETTING", "paused"),  # type: ignore[arg-type]
        (QueueSettings("a", max_attempts=-1), [], "BAD_SETTING", "max_attempts"),
        (QueueSettings("a", max_attempts=1_000_001), [], "BAD_SETTING", "max_attempts"),
        (QueueSettings("a", max_attempts=True), [], "BAD_SETTING", "max_attempts"),
        (QueueSettings("a", max_messages=-1), [], "BAD_SETTING", "max_messages"),
        (QueueSettings("a", max_messages=1.5), [], "BAD_SETTING", "max_messages"),  # type: ignore[arg-type]
        (QueueSettings("a", max_bytes=1 << 63), [], "BAD_SETTING", "max_bytes"),
        (QueueSettings("a", max_leased="5"), [], "BAD_SETTING", "max_leased"),  # type: ignore[arg-type]
        (QueueSettings("a", ack_timeout=0.001), [], "BAD_DURATION", "ack_timeout"),
        (QueueSettings("a", ack_timeout=-1.0), [], "BAD_DURATION", "ack_timeout"),
        (QueueSettings("a", ttl=-1.0), [], "BAD_DURATION", "ttl"),
        (QueueSettings("a", ttl=float("nan")), [], "BAD_DURATION", "ttl"),
        (QueueSettings("a", dead_letter_queue="b"), [], "BAD_SETTING", "dead_letter_queue"),
        (QueueSettings("a", dead_letter_queue="b c.dead"), [], "BAD_QUEUE_NAME", "queue"),
        (QueueSettings("a"), ["max_lease"], "BAD_SETTING", "reset"),
        (QueueSettings("a", ttl=1.0), ["ttl"], "BAD_SETTING", "reset"),
    ],
)
def test_what_is_out_of_range_is_refused(settings: QueueSettings, reset: list[str], reason: str, named: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{named}: ") as caught:
        check_settings(settings, reset)
    assert caught.value.reason == reason


def test_what_is_in_range_is_not() -> None:
    check_settings(QueueSettings("", paused=True, resume_after=0.001, max_attempts=0, ack_timeout=0, ttl=0))
    check_settings(QueueSettings("a*b", max_bytes=1 << 62, dead_letter_queue="all.dead"), ["paused", "*"])
