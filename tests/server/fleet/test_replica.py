"""What a fleet must have before it serves, and what a replica says of itself."""

from types import SimpleNamespace
from typing import Any

import pytest

from server.errors import SettingsError
from server.fleet.autoscaler import FleetPolicy
from server.fleet.pressure import CAPACITY, LATE_SHARE, SESSIONS, Pressure
from server.fleet.shape import fleet_settings
from server.metrics import Metrics
from server.settings import Settings

SHARED = "redis://127.0.0.1:6379/0"


def test_replicas_take_the_processors_that_ray_gives_and_no_port_of_their_own() -> None:
    made = fleet_settings(Settings(snapshot_store=SHARED, dicom_port=11112), 3)
    assert (made.threads, made.dicom_port) == (3, None)
    assert fleet_settings(Settings(snapshot_store=SHARED, threads=2), 3).threads == 2


@pytest.mark.parametrize(
    ("told", "given", "share"),
    [
        ({}, None, None),
        ({}, "/mnt/given", "/mnt/given"),
        ({"clip_share": "s3://told"}, "/mnt/given", "s3://told"),
        ({"clips": False}, "/mnt/given", None),
    ],
)
def test_replicas_take_clips_where_they_can_keep_them_together(
    told: dict[str, Any], given: str | None, share: str | None
) -> None:
    made = fleet_settings(Settings(snapshot_store=SHARED, **told), None, given)
    assert made.clips == (share is not None)
    assert not made.clips or made.clip_share == share


@pytest.mark.parametrize("told", [{}, {"snapshot_store": SHARED, "resume_s": 0}])
def test_a_fleet_without_a_shared_store_is_refused(told: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="redis://"):
        fleet_settings(Settings(**told))


def test_pressure_is_the_share_of_late_frames_since_the_last_question() -> None:
    roster: Any = SimpleNamespace(live=3, places=8)
    metrics = Metrics()
    pressure = Pressure(roster, metrics)
    for _ in range(90):
        metrics.observe_stage("total", 0.010)
    for _ in range(10):
        metrics.observe_stage("total", 0.040)
    assert pressure.read() == {SESSIONS: 3, LATE_SHARE: pytest.approx(0.1), CAPACITY: 8}
    assert pressure.read()[LATE_SHARE] == 0
    metrics.observe_stage("total", 0.040)
    assert pressure.read()[LATE_SHARE] == 0, "one frame says nothing"


def context(sessions: list[float], target: int, now_s: float, kept: dict[str, Any]) -> Any:
    names = [f"r{number}" for number in range(len(sessions))]
    return SimpleNamespace(
        current_time=now_s,
        policy_state=kept,
        target_num_replicas=target,
        aggregated_metrics={
            SESSIONS: dict(zip(names, sessions, strict=True)),
            LATE_SHARE: dict.fromkeys(names, 0.0),
            CAPACITY: dict.fromkeys(names, 8.0),
        },
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=4,
    )


def test_the_autoscaler_is_answered_within_its_bounds_and_waits_before_it_shrinks() -> None:
    policy = FleetPolicy(calm_s=60)
    assert policy(context([8, 8, 8, 8], 4, 0, {}))[0] == 4, "five would be wanted, four may be"
    target, kept = policy(context([1, 1], 2, 100, {}))
    assert target == 2
    target, kept = policy(context([1, 1], 2, 150, kept))
    assert target == 2
    target, kept = policy(context([5, 5], 2, 155, kept))
    target, kept = policy(context([1, 1], 2, 170, kept))
    assert target == 2, "the calm was broken"
    assert policy(context([1, 1], 2, 216, kept))[0] == 1
