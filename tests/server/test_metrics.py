"""What Prometheus reads: names, units, and counts that agree with what happened."""

import shutil
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import get_args

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from model.measure.ejection import EF_REASONS
from model.measure.quality import FRAME_REASONS
from server.errors import WireCodes
from server.metrics import EF_STATES, STAGES, Metrics
from server.protocol import DropReason, EfMessage
from tests.server.live import Live, Talk, beating, live_server, packed, until


def families_of(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def values_of(families: dict[str, Metric], sample: str) -> dict[str, float]:
    """Values of one sample name, by their only label."""
    return {
        next(iter(each.labels.values()), ""): each.value
        for family in families.values()
        for each in family.samples
        if each.name == sample
    }


def counted(families: dict[str, Metric], sample: str) -> dict[str, float]:
    """Those of a sample's values that have begun to count."""
    return {label: value for label, value in values_of(families, sample).items() if value}


def test_every_name_is_ours_or_one_of_the_runtime() -> None:
    names = families_of(Metrics().to_text().decode())
    assert {name.split("_")[0] for name in names} == {"gdkvm", "python", "process"}


def test_every_metric_keeps_to_the_naming_rules_of_prometheus() -> None:
    for family in families_of(Metrics().to_text().decode()).values():
        assert family.documentation.strip()
        assert family.type != "unknown"
        assert not family.name.endswith(("_ms", "_milliseconds", "_kb", "_percent"))
        if family.type == "counter":
            assert all(each.name.endswith(("_total", "_created")) for each in family.samples)
        if family.type == "histogram":
            assert family.name.endswith("_seconds")


def test_two_servers_of_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.sessions_opened.labels("new").inc()
    assert other.registry.get_sample_value("gdkvm_sessions_opened_total", {"start": "new"}) == 0


async def test_whatever_may_be_counted_begins_at_zero(tmp_path: Path) -> None:
    """An increase from nothing is none to Prometheus: the first fault would raise no alert."""
    with live_server(tmp_path) as live:
        families = families_of((await live.get("/metrics")).text)
    assert set(values_of(families, "gdkvm_frames_dropped_total")) == set(get_args(DropReason))
    states = get_args(EfMessage.model_fields["state"].annotation)
    assert set(values_of(families, "gdkvm_ejection_fractions_total")) == set(states)
    codes = set(values_of(families, "gdkvm_errors_total"))
    assert {*WireCodes.HTTP, *WireCodes.CLOSE, "engine_failed"} <= codes
    assert codes == set(values_of(families, "gdkvm_clip_failures_total"))
    assert {*EF_REASONS, *FRAME_REASONS} <= set(values_of(families, "gdkvm_ef_withheld_total"))
    values = [v for f in families.values() for v in values_of(families, f"{f.name}_total").values()
              if f.name.startswith("gdkvm_")]  # fmt: skip
    assert set(values) == {0}


def test_stage_edges_hold_a_frame_period_of_30_and_60_hertz() -> None:
    metrics = Metrics()
    for stage in STAGES:
        metrics.observe_stage(stage, 1 / 60)
    edges = {
        float(sample.labels["le"])
        for sample in families_of(metrics.to_text().decode())["gdkvm_stage_seconds"].samples
        if sample.name.endswith("_bucket")
    }
    assert any(abs(edge - 1 / 60) < 1e-4 for edge in edges)
    assert any(abs(edge - 1 / 30) < 1e-4 for edge in edges)


async def test_what_happened_is_what_is_counted(tmp_path: Path) -> None:
    with live_server(tmp_path) as live:
        async with live.talk() as talk:
            for seq in (0, 1, 1, 0):
                await talk.say(beating(seq))
                await talk.hear()
            talk.abort()
        await live.until_parked(talk.ready["session"])
        async with live.talk(resume=talk.ready["resume"]) as talk:
            await talk.say(packed(2, b"too short"))
            await talk.hear_all()
        assert (await live.get("/v1/clips/none")).status_code == 404
        answer = await live.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = families_of(answer.text)
    assert counted(families, "gdkvm_frames_total") == {"result": 2, "repeated": 2}
    assert counted(families, "gdkvm_frames_dropped_total") == {}
    assert counted(families, "gdkvm_sessions_opened_total") == {"new": 1, "resumed": 1}
    assert counted(families, "gdkvm_errors_total") == {"wrong_size": 1, "not_found": 1}
    assert values_of(families, "gdkvm_stage_seconds_count") == dict.fromkeys(STAGES, 2)
    assert values_of(families, "gdkvm_ready") == {"": 1}
    assert values_of(families, "gdkvm_jobs_waiting")["frame"] == 0
    (build,) = families["gdkvm_build_info"].samples
    assert (build.labels["model"], build.value) == ("counting", 1)
    for label in ("session", "patient", "client"):
        assert all(label not in s.labels for f in families.values() for s in f.samples)


async def test_the_age_of_a_frame_shows_while_the_engine_hangs_and_not_after(
    tmp_path: Path,
) -> None:
    with live_server(tmp_path) as live:
        async with live.talk() as talk:
            live.backend.gate.clear()
            await talk.say(beating(0))
            await until(lambda: oldest_s(live) > 0)
            first_s = oldest_s(live)
            await until(lambda: oldest_s(live) > first_s)
            live.backend.gate.set()
            await talk.hear()
            ef = (await talk.end())[-1]["ef"]
            assert oldest_s(live) == 0
        # Whoever did not hear the summary may ask for it again.
        async with live.talk(resume=talk.ready["resume"]) as again:
            assert (await again.end())[-1]["ef"] == ef
        families = families_of((await live.get("/metrics")).text)
    assert counted(families, "gdkvm_ejection_fractions_total") == {ef["state"]: 1}
    assert counted(families, "gdkvm_ef_withheld_total") == dict.fromkeys(ef["reasons"], 1)
    assert ef["reasons"], "one frame is no beat, so there is a reason"


async def say_bye(talk: Talk) -> None:
    await talk.end()


async def leave(talk: Talk) -> None:
    await talk.connection.close(1000)


async def send_half_a_frame(talk: Talk) -> None:
    await talk.say(packed(1, b"too short"))
    await talk.hear_all()


async def vanish(talk: Talk) -> None:
    talk.abort()


@pytest.mark.parametrize("end", [say_bye, leave, send_half_a_frame, vanish])
@pytest.mark.parametrize("resume_s", [0, 0.2])
async def test_however_a_session_ends_its_ef_is_counted_once(
    tmp_path: Path, end: Callable[[Talk], Awaitable[None]], resume_s: float
) -> None:
    with live_server(tmp_path, resume_s=resume_s) as live:
        async with live.talk() as talk:
            await talk.say(beating(0))
            await talk.hear()
            await end(talk)
        await until(lambda: ended(live) > 0)
        await live.until_sessions(0)
        async with live.talk() as unused:
            await unused.end()
        assert ended(live) == 1


async def test_a_session_that_another_server_goes_on_with_has_not_ended_here(
    tmp_path: Path,
) -> None:
    store = str(tmp_path / "sessions.sqlite")
    with (
        live_server(tmp_path / "a", resume_s=0.5, snapshot_store=store) as first,
        live_server(tmp_path / "b", resume_s=600, snapshot_store=store) as second,
    ):
        async with first.talk() as talk:
            await talk.say(beating(0))
            await talk.hear()
            talk.abort()
        await first.until_parked(talk.ready["session"])
        async with second.talk(resume=talk.ready["resume"]) as talk:
            await first.until_sessions(0)
            await talk.end()
        assert (ended(first), ended(second)) == (0, 1)


def ended(live: Live) -> float:
    """Sessions whose EF was counted."""
    read = live.server.parts.metrics.registry.get_sample_value
    return sum(
        read("gdkvm_ejection_fractions_total", {"state": state}) or 0.0 for state in EF_STATES
    )


def oldest_s(live: Live) -> float:
    value = live.server.parts.metrics.registry.get_sample_value("gdkvm_oldest_frame_seconds")
    assert value is not None
    return value


def test_promtool_finds_nothing_to_complain_of(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    with live_server(tmp_path) as live:
        live.http.get("/none")
        text = live.http.get("/metrics").text
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
