"""What stands against a stream's latest frames, as shares that forget."""

from dataclasses import dataclass, field
from typing import Any, Self

from model.measure.quality import FRAME_REASONS

FORGETTING = 0.98
"""Kept of the past per frame: half of the weight lies on the last 34 frames."""

COMMON_SHARE = 0.25
MOST_REASONS = 3


@dataclass(slots=True)
class FrameTally:
    """Counts frames, and what keeps them from being measured.

    Attributes:
        frames: how many were seen.
        of_view: how many of them since the last long pause.
        usable: how many of them may be measured.
        weight: of all frames, with forgetting; so are the next two.
        usable_weight: of those that may be measured.
        weights: of those that may not be measured, per name in FRAME_REASONS.
    """

    frames: int = 0
    of_view: int = 0
    usable: int = 0
    weight: float = 0.0
    usable_weight: float = 0.0
    weights: list[float] = field(default_factory=lambda: [0.0] * len(FRAME_REASONS))

    @classmethod
    def restored(cls, weights: list[float], **counts: Any) -> Self:
        """Take what was saved; an earlier release knew fewer reasons."""
        unknown = len(FRAME_REASONS) - len(weights)
        return cls(**counts, weights=[*weights, *unknown * [0.0]])

    def add(self, reasons: tuple[str, ...], is_usable: bool) -> None:
        """Count a frame."""
        self.frames += 1
        self.of_view += 1
        self.usable += is_usable
        self.weight = FORGETTING * self.weight + 1.0
        self.usable_weight = FORGETTING * self.usable_weight + is_usable
        against = () if is_usable else reasons
        self.weights = [
            FORGETTING * weight + (name in against)
            for name, weight in zip(FRAME_REASONS, self.weights, strict=True)
        ]

    def forget(self) -> None:
        """Forget all frames but the last, which may be measured: it begins another view."""
        self.of_view = 1
        self.weight = self.usable_weight = 1.0
        self.weights = [0.0] * len(FRAME_REASONS)

    @property
    def usable_share(self) -> float:
        """Share of the latest frames that may be measured."""
        return self.usable_weight / max(self.weight, 1.0)

    def common_reasons(self) -> tuple[str, ...]:
        """Name what most often keeps frames from being measured, the commonest first."""
        order = sorted(range(len(FRAME_REASONS)), key=lambda each: -self.weights[each])
        least = COMMON_SHARE * self.weight
        return tuple(
            FRAME_REASONS[each] for each in order[:MOST_REASONS] if self.weights[each] > least
        )
