"""When each frame was taken, where the header knows it; unknown stays unknown.

Source:
    DICOM PS3.3 C.7.6.5 (cine) and C.8.5.3-C.8.5.5 (ultrasound image and multi-frame modules).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import median

from server.ingest.clip import TimeBase
from server.ingest.elements import Header
from server.ingest.tags import Tag

MIN_FPS, MAX_FPS = 5.0, 300.0
"""A rate outside is a writer's default, not a scanner's: some anonymisers write FrameTime 0.1."""

_DISAGREEMENT = 0.1


@dataclass(frozen=True, slots=True)
class FrameTimes:
    """Times of a clip's frames.

    Attributes:
        base: where they come from.
        starts_us: one per frame from 0, empty where unknown.
        warnings: what was strange about them.
    """

    base: TimeBase
    starts_us: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()

    def of(self, index: int) -> int | None:
        """Look up one frame's time, None where unknown."""
        return self.starts_us[index] if index < len(self.starts_us) else None


UNKNOWN = FrameTimes(TimeBase(None, None))


def frame_times(header: Header, declared: int, found: int) -> FrameTimes:
    """Choose the time base: the first attribute that is there and plausible.

    Args:
        header: the clip's header.
        declared: frames that the header claims.
        found: whole frames that the file holds.
    """
    if found < 2:
        return UNKNOWN
    if (times := _from_vector(header, declared, found)) is not None:
        return times
    for source, read in _PERIODS:
        period_ms = read(header, declared)
        if is_plausible_period(period_ms):
            return FrameTimes(
                TimeBase(source, found * period_ms),
                tuple(round(1000 * index * period_ms) for index in range(found)),
                _doubts(header, period_ms),
            )
    named = any(tag in header.values for tag in _TIME_TAGS)
    return FrameTimes(UNKNOWN.base, (), ("time_base_implausible",) if named else ())


def is_plausible_period(period_ms: float) -> bool:
    """Whether a frame period can be a scanner's; also false for NaN."""
    return 1000 / MAX_FPS <= period_ms <= 1000 / MIN_FPS


def _from_vector(header: Header, declared: int, found: int) -> FrameTimes | None:
    """Cumulate FrameTimeVector; the first increment leads nowhere, and some writers omit it."""
    vector = header.numbers(Tag.FrameTimeVector)
    if len(vector) not in (declared, found, declared - 1) or not any(vector):
        return None
    is_led = len(vector) in (declared, found)
    increments_ms = (vector[1:] if is_led else vector)[: found - 1]
    if min(increments_ms) <= 0 or not is_plausible_period(median(increments_ms)):
        return None
    starts_ms = tuple(accumulate(increments_ms, initial=0.0))
    duration_ms = starts_ms[-1] + median(increments_ms)
    starts_us = tuple(round(1000 * start_ms) for start_ms in starts_ms)
    return FrameTimes(TimeBase("FrameTimeVector", duration_ms), starts_us)


def _doubts(header: Header, period_ms: float) -> tuple[str, ...]:
    """Compare with CineRate, which may tell the rate of display where FrameTime tells another."""
    rate = header.number(Tag.CineRate)
    if rate is None or not MIN_FPS <= rate <= MAX_FPS:
        return ()
    return ("frame_rates_disagree",) if abs(rate * period_ms / 1000 - 1) > _DISAGREEMENT else ()


def _period_of(tag: Tag) -> Callable[[Header, int], float]:
    return lambda header, declared: header.number(tag) or 0.0


def _period_from_rate(tag: Tag) -> Callable[[Header, int], float]:
    return lambda header, declared: 1000 / (header.number(tag) or float("inf"))


def _period_from_duration(header: Header, declared: int) -> float:
    return 1000 * (header.number(Tag.EffectiveDuration) or 0.0) / declared


_PERIODS: tuple[tuple[str, Callable[[Header, int], float]], ...] = (
    ("FrameTime", _period_of(Tag.FrameTime)),
    ("CineRate", _period_from_rate(Tag.CineRate)),
    ("RecommendedDisplayFrameRate", _period_from_rate(Tag.RecommendedDisplayFrameRate)),
    ("EffectiveDuration", _period_from_duration),
    ("ActualFrameDuration", _period_of(Tag.ActualFrameDuration)),
)

_TIME_TAGS = (
    Tag.FrameTimeVector,
    Tag.FrameTime,
    Tag.CineRate,
    Tag.RecommendedDisplayFrameRate,
    Tag.EffectiveDuration,
    Tag.ActualFrameDuration,
)


def heart_rate_bpm(header: Header) -> float | None:
    """Read HeartRate; 0 is how scanners say that they do not know."""
    rate = header.number(Tag.HeartRate)
    return rate if rate is not None and 20 <= rate <= 300 else None


def r_wave_times_ms(header: Header) -> tuple[float, ...]:
    """Read RWaveTimeVector, milliseconds from the first frame, rising; empty where it is not."""
    times_ms = header.binary(Tag.RWaveTimeVector, "f")
    is_rising = all(a < b for a, b in pairwise(times_ms))
    return times_ms if is_rising and all(abs(time) < 1e7 for time in times_ms) else ()
