"""Gates of frames and of beats, each at its limits."""

from dataclasses import fields, replace
from math import inf, nan

import pytest

from model.measure.quality import (
    BEAT_GATES,
    FRAME_REASONS,
    GATES,
    BeatFacts,
    FrameFacts,
    Gate,
    judge,
    judge_beat,
)

GOOD_FRAME = FrameFacts(
    presence=0.99, component_share=1.0, hole_share=0.0, region_share=0.1, elongation=1.7,
    solidity=0.97, elsewhere_share=0.05, myocardium_share=0.75, atrium_contact_share=0.05,
    width_per_wall=2.0, soft_share=0.1, border_share=0.0,
)  # fmt: skip
GOOD_BEAT = BeatFacts(
    usable_share=1.0, ef_percent=60.0, ef_per_fac=1.45, length_ratio=0.85, jumps_share=0.0,
    stroke_per_noise=20.0, frames_per_beat=30.0, bursts_per_beat=nan, moves_per_beat=nan,
    fps=30.0, fps_when_fast=nan, heart_rate_bpm=65.0,
)  # fmt: skip


def beyond(limits: tuple[float, float]) -> list[float]:
    """A value just outside each limit."""
    low, high = limits
    return [low - 1e-6] * (low > -inf) + [high + 1e-6] * (high < inf)


def test_a_good_frame_and_a_good_beat_pass() -> None:
    quality = judge(GOOD_FRAME, "class_interface")
    assert (quality.state, quality.reasons) == ("pass", ())
    assert judge_beat(GOOD_BEAT, {}) == ((), ())


def test_what_cannot_be_known_stands_against_nothing() -> None:
    blind_frame = FrameFacts(*[nan] * len(fields(FrameFacts)))
    blind_beat = BeatFacts(*[nan] * len(fields(BeatFacts)))
    assert judge(blind_frame, "class_interface").state == "pass"
    assert judge_beat(blind_beat, {}) == ((), ())


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: f"{gate.fact}-{gate.reason}")
def test_a_frame_beyond_a_limit_warns_or_fails_with_the_reason(gate: Gate) -> None:
    for value in beyond(gate.fail):
        quality = judge(replace(GOOD_FRAME, **{gate.fact: value}), "class_interface")
        assert (quality.state, quality.reasons) == ("fail", (gate.reason,))
    for value in beyond(gate.warn):
        quality = judge(replace(GOOD_FRAME, **{gate.fact: value}), "class_interface")
        assert quality.state in ("warn", "fail")
        assert quality.reasons == (gate.reason,)


@pytest.mark.parametrize("gate", BEAT_GATES, ids=lambda gate: f"{gate.fact}-{gate.reason}")
def test_a_beat_beyond_a_limit_warns_or_does_not_count(gate: Gate) -> None:
    for value in beyond(gate.fail):
        against, _ = judge_beat(replace(GOOD_BEAT, **{gate.fact: value}), {})
        assert against == (gate.reason,)
    for value in beyond(gate.warn):
        against, warnings = judge_beat(replace(GOOD_BEAT, **{gate.fact: value}), {})
        assert (*against, *warnings) == (gate.reason,)


def test_what_fails_stands_before_what_warns() -> None:
    facts = replace(GOOD_FRAME, presence=0.7, border_share=0.5)
    quality = judge(facts, "flat_base")
    assert quality.reasons == ("ventricle_cut_off", "view_uncertain", "annulus_not_seen")


def test_a_reason_of_most_frames_is_one_of_the_beat() -> None:
    _, warnings = judge_beat(GOOD_BEAT, {"annulus_not_seen": 0.6, "ragged_outline": 0.4})
    assert warnings == ("annulus_not_seen",)


def test_every_reason_of_a_gate_is_among_those_of_a_frame() -> None:
    assert {gate.reason for gate in GATES} <= set(FRAME_REASONS)
    assert len(set(FRAME_REASONS)) == len(FRAME_REASONS) <= 52, "they are bits of a double"
