"""The rule of how many replicas there should be, and its hysteresis."""

import pytest

from server.fleet.scaling import Load, Policy

POLICY = Policy(full=0.75, empty=0.5, late=0.05, calm=0.01, calm_s=120, step_s=30)
LONG = 1e9


def loads(*sessions: float, late: float = 0.0) -> list[Load]:
    """Replicas of eight places each."""
    return [Load(each, late, 8) for each in sessions]


@pytest.mark.parametrize(
    ("sessions", "wanted"),
    # Three quarters of eight places are six: the seventh session of a replica needs another.
    [((0,), 1), ((6,), 1), ((7,), 2), ((8, 4), 2), ((8, 5), 3), ((8, 8, 8), 4)],
)
def test_it_grows_before_the_places_are_all_taken(sessions: tuple[int, ...], wanted: int) -> None:
    found = POLICY.wanted(loads(*sessions), len(sessions), raised_s=LONG, quiet_s=0)
    assert found == wanted


def test_late_frames_ask_for_one_more_whatever_is_taken_and_not_twice_at_once() -> None:
    late = loads(2, 2, late=0.2)
    assert POLICY.wanted(late, 2, raised_s=LONG, quiet_s=LONG) == 3
    assert POLICY.wanted(late, 2, raised_s=10, quiet_s=0) == 2, "the last one must help first"
    assert POLICY.wanted(late, 3, raised_s=LONG, quiet_s=0) == 3, "one is still starting"


def test_it_shrinks_by_one_and_only_after_a_long_calm() -> None:
    idle = loads(1, 1, 1, 1)
    assert POLICY.wanted(idle, 4, raised_s=LONG, quiet_s=119) == 4
    assert POLICY.wanted(idle, 4, raised_s=LONG, quiet_s=120) == 3


def test_what_it_shrinks_to_is_no_reason_to_grow_again() -> None:
    for count in range(2, 40):
        for taken in range(8 * count + 1):
            spread = loads(*[taken / count] * count)
            after = POLICY.wanted(spread, count, raised_s=LONG, quiet_s=LONG)
            if after < count:
                fewer = loads(*[taken / after] * after)
                assert POLICY.wanted(fewer, after, raised_s=LONG, quiet_s=0) == after


def test_it_keeps_the_last_replica_and_shrinks_never_while_frames_are_late() -> None:
    assert POLICY.wanted(loads(0), 1, raised_s=LONG, quiet_s=LONG) == 1
    assert POLICY.wanted([], 1, raised_s=LONG, quiet_s=LONG) == 1
    assert not POLICY.suffices(loads(1, 1, late=0.02), 1)
