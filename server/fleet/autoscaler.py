"""`Policy` as Ray Serve's autoscaler asks it."""

from typing import TYPE_CHECKING, Any

from server.fleet.pressure import CAPACITY, LATE_SHARE, SESSIONS
from server.fleet.scaling import Load, Policy

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext


class FleetPolicy:
    """Made once by Ray Serve, and called every fraction of a second."""

    def __init__(self, **knobs: float) -> None:
        self._policy = Policy(**knobs)

    def __call__(self, context: "AutoscalingContext") -> tuple[int, dict[str, Any]]:
        """The number of replicas wanted, and what to remember until the next question."""
        now_s = context.current_time or 0.0
        kept = dict(context.policy_state or {})
        loads = loads_of(context.aggregated_metrics or {})
        target = context.target_num_replicas
        if len(loads) < min(1, target) or not self._policy.suffices(loads, target - 1):
            kept["tight_s"] = now_s
        wanted = self._policy.wanted(
            loads,
            target,
            raised_s=now_s - kept.get("raised_s", float("-inf")),
            quiet_s=now_s - kept.setdefault("tight_s", now_s),
        )
        if wanted > target:
            kept["raised_s"] = now_s
        if wanted != target:
            kept["tight_s"] = now_s
        low, high = context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas
        return max(low, min(high, wanted)), kept


def loads_of(metrics: dict[str, dict[Any, float]]) -> list[Load]:
    """What replicas said, one Load each; those that have said nothing yet are left out."""
    sessions, late = metrics.get(SESSIONS, {}), metrics.get(LATE_SHARE, {})
    places = metrics.get(CAPACITY, {})
    return [Load(sessions[each], late.get(each, 0.0), places.get(each, 1.0)) for each in sessions]
