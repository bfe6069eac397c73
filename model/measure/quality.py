"""Gates: whether a frame may be measured, and what speaks against it.

Source: ef-and-measurement.md section 1.7. Limits marked "own" there, and the three that have no
entry there, were set so that the CAMUS references pass; docs/measurement.md tells the figures.
"""

from dataclasses import dataclass
from math import inf

from model.measure.reading import AxisMethod, Quality


@dataclass(frozen=True, slots=True)
class FrameFacts:
    """What the gates look at; NaN where it cannot be known.

    Attributes:
        presence: probability of an apical view with a left ventricle.
        component_share: area of the largest piece of the ventricle over all its pieces.
        hole_share: area of its holes over its own.
        region_share: its area over that of the image region.
        elongation: long axis over the widest diameter.
        solidity: area over that of its convex hull.
        elsewhere_share: part of its outline that borders neither on myocardium nor on atrium.
        myocardium_share: part of its outline that borders on myocardium.
        atrium_contact_share: part of the myocardium's outline that borders on the atrium.
        width_per_wall: mean diameter over mean wall thickness.
        soft_share: area where the ventricle has 40 to 60 % over its area.
        border_share: part of its outline within 2 px of the edge of the image region.
    """

    presence: float
    component_share: float
    hole_share: float
    region_share: float
    elongation: float
    solidity: float
    elsewhere_share: float
    myocardium_share: float
    atrium_contact_share: float
    width_per_wall: float
    soft_share: float
    border_share: float


@dataclass(frozen=True, slots=True)
class Gate:
    """Limits of one fact; a value beyond ``fail`` fails, one beyond ``warn`` warns."""

    fact: str
    reason: str
    warn: tuple[float, float]
    fail: tuple[float, float]


GATES = (
    Gate("presence", "view_uncertain", (0.8, inf), (0.5, inf)),
    Gate("component_share", "ventricle_in_pieces", (0.95, inf), (0.85, inf)),
    Gate("hole_share", "holes_in_ventricle", (-inf, 0.01), (-inf, 0.05)),
    Gate("region_share", "implausible_size", (0.015, 0.35), (0.01, 0.45)),
    Gate("elongation", "implausible_shape", (1.2, 3.2), (1.1, 3.6)),
    Gate("solidity", "ragged_outline", (0.87, inf), (0.8, inf)),
    Gate("elsewhere_share", "wall_missing", (-inf, 0.2), (-inf, 0.4)),
    Gate("myocardium_share", "wall_missing", (0.5, 0.97), (0.4, 1.0)),
    Gate("atrium_contact_share", "atrium_misplaced", (-inf, 0.11), (-inf, 0.2)),
    Gate("width_per_wall", "implausible_wall", (0.65, 6.0), (0.4, 10.0)),
    Gate("soft_share", "unsure_outline", (-inf, 0.25), (-inf, 0.5)),
    Gate("border_share", "ventricle_cut_off", (-inf, 0.05), (-inf, 0.15)),
)

AXIS_REASONS: dict[AxisMethod, str] = {
    "flat_base": "annulus_not_seen",
    "polar_peaks": "annulus_not_seen",
    "principal_axis": "axis_uncertain",
}
"""Every axis but that of the class interface warns."""


NO_VENTRICLE = "no_left_ventricle"
AXIS_FLIPPED = "axis_flipped"
COLOUR_OVERLAY = "colour_overlay"
SEVERAL_SECTORS = "several_sectors"
SCALE_CHANGED = "scale_changed"

FRAME_REASONS = tuple(
    dict.fromkeys(
        [
            NO_VENTRICLE,
            *(gate.reason for gate in GATES),
            AXIS_FLIPPED,
            *AXIS_REASONS.values(),
            COLOUR_OVERLAY,
            SEVERAL_SECTORS,
            SCALE_CHANGED,
        ]
    )
)
"""Every reason that a frame can have; saved sessions count on their places, so new ones go last."""


@dataclass(frozen=True, slots=True)
class BeatFacts:
    """What the gates of a beat look at; NaN where it cannot be known.

    Attributes:
        usable_share: frames that may be measured over all its frames.
        ef_percent: ejection fraction.
        ef_per_fac: EF over fractional area change; NaN where the latter is small.
        length_ratio: long axis at ES over that at ED.
        jumps_share: frames to which the area jumped over all its frames.
        stroke_per_noise: fall of the volume over the standard deviation of a single frame.
        frames_per_beat: frame rate over heart rate.
        bursts_per_beat: in which its frames are stamped; NaN where that is no more than in pairs.
        moves_per_beat: frames in which the curve moves; NaN where that is most of them.
        fps: frame rate.
        fps_when_fast: frame rate where the heart rate is above 120 a minute.
        heart_rate_bpm: of this beat.
    """

    usable_share: float
    ef_percent: float
    ef_per_fac: float
    length_ratio: float
    jumps_share: float
    stroke_per_noise: float
    frames_per_beat: float
    bursts_per_beat: float
    moves_per_beat: float
    fps: float
    fps_when_fast: float
    heart_rate_bpm: float


BEAT_GATES = (
    Gate("usable_share", "frames_rejected", (0.95, inf), (0.8, inf)),
    Gate("ef_percent", "ef_out_of_range", (5.0, 85.0), (5.0, 85.0)),
    # 0.02 above 1 allow for noise at a very low EF.
    Gate("length_ratio", "axis_changed_too_much", (0.70, 1.02), (0.70, 1.02)),
    Gate("ef_per_fac", "ef_unlike_area_change", (1.2, 1.75), (1.0, 2.2)),
    Gate("jumps_share", "area_jumps", (-inf, 0.1), (-inf, 0.2)),
    # Within a beat smoothed noise of SD 1 swings by about 3.
    Gate("stroke_per_noise", "noisy_curve", (6.0, inf), (4.0, inf)),
    Gate("frames_per_beat", "frame_rate_too_low", (10.0, inf), (10.0, inf)),
    Gate("bursts_per_beat", "frame_rate_too_low", (14.0, inf), (14.0, inf)),
    Gate("moves_per_beat", "frame_rate_too_low", (3.1, inf), (3.1, inf)),
    Gate("fps", "low_frame_rate", (19.5, inf), (8.0, inf)),
    # 29 and 19.5 allow for 29.97 frames a second and for rounded frame times.
    Gate("fps_when_fast", "frame_rate_too_low", (29.0, inf), (29.0, inf)),
    Gate("heart_rate_bpm", "heart_rate_out_of_range", (35.0, 180.0), (30.0, 190.0)),
)

COMMON_SHARE = 0.5
"""A reason that stands on more of a beat's frames than this is one of the beat."""


def judge(facts: FrameFacts, axis_method: AxisMethod) -> Quality:
    """Pass a frame through the gates.

    Returns:
        The gravest verdict; reasons for failing stand before mere warnings.
    """
    failed, warned = _apply(GATES, facts)
    if axis_method in AXIS_REASONS:
        warned.append(AXIS_REASONS[axis_method])
    reasons = tuple(dict.fromkeys(failed + warned))
    if failed:
        return Quality("fail", reasons)
    return Quality("warn" if warned else "pass", reasons)


def judge_beat(
    facts: BeatFacts, frame_reason_shares: dict[str, float]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Pass a beat through its gates.

    Args:
        facts: its figures.
        frame_reason_shares: of each reason of a frame, the share of the beat's frames it stood on.

    Returns:
        Why the beat does not count, empty when it does; and what to know of it.
    """
    failed, warned = _apply(BEAT_GATES, facts)
    common = [name for name, share in frame_reason_shares.items() if share > COMMON_SHARE]
    return tuple(dict.fromkeys(failed)), tuple(dict.fromkeys(warned + common))


def _apply(gates: tuple[Gate, ...], facts: FrameFacts | BeatFacts) -> tuple[list[str], list[str]]:
    """Collect the reasons of the gates that fail and of those that warn."""
    failed, warned = [], []
    for gate in gates:
        value = getattr(facts, gate.fact)
        if value < gate.fail[0] or value > gate.fail[1]:
            failed.append(gate.reason)
        elif value < gate.warn[0] or value > gate.warn[1]:
            warned.append(gate.reason)
    return failed, warned
