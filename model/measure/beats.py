"""Beats: from a volume curve to ED, ES and EF of each beat."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Beat:
    """One beat, from an end of diastole to the next.

    A beat is announced once and revised at most once: a later Beat of the same ``number`` takes
    its place.

    Attributes:
        number: counts the stream's beats from 0.
        revision: 0 when announced, 1 when revised.
        ed_seq: frame of the largest ventricle.
        es_seq: frame of the smallest ventricle.
        ed_time_ms: acquisition time; None where the time base is unknown.
        es_time_ms: as ed_time_ms.
        ed_volume_ml: None without calibrated pixels.
        es_volume_ml: None without calibrated pixels.
        ef_percent: from quadratic fits around ED and ES, not from single frames.
        fac_percent: fractional area change, likewise.
        is_complete: False for a beat cut off by an end of the clip.
        reasons: why the beat does not count towards the EF; empty when it does.
    """

    number: int
    revision: int
    ed_seq: int
    es_seq: int
    ed_time_ms: float | None
    es_time_ms: float | None
    ed_volume_ml: float | None
    es_volume_ml: float | None
    ef_percent: float
    fac_percent: float
    is_complete: bool
    reasons: tuple[str, ...]
