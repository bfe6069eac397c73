"""A load on a server: every session and every frame is accounted for."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from server.cli import app
from server.commands.load import Answers, Load, document, run_load
from tests.server.live import SIDE, Live, live_server


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live_server(tmp_path_factory.mktemp("clips"), capacity_fps=1e6, max_sessions=4) as live:
        yield live


def gdkvm(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_server_elsewhere_is_measured_and_told_of_as_json(live: Live) -> None:
    words = ("--sessions", 3, "--fps", 20, "--seconds", 0.5, "--json")
    done = gdkvm("bench", "server", "--url", live.url.removesuffix("/v1/stream"), *words)
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["url"] == live.url
    assert told["sessions"] == {"asked": 3, "refused": 0, "lost": 0, "codes": {}}
    frames, latency = told["frames"], told["latency_ms"]
    assert frames["results"] + frames["dropped"] == 30
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["p100"]
    assert set(told["stages_ms"]) == {"queue", "decode", "infer", "measure", "total"}


def test_people_get_a_table_and_sessions_beyond_the_limit_are_told_by_their_code(
    live: Live,
) -> None:
    done = gdkvm("bench", "server", "--url", live.url, "--sessions", 6, "--seconds", 0.2)
    assert done.exit_code == 0, done.stderr
    assert "full" in done.stdout
    assert "p99" in done.stdout


def test_where_nobody_is_admitted_it_could_not_be_done() -> None:
    done = gdkvm("bench", "server", "--url", "ws://127.0.0.1:1", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["error"]["code"] == "connection_lost"


def load(live: Live, **others: Any) -> Load:
    image = bytes(SIDE * SIDE)
    return Load(live.url, (SIDE, SIDE), [image], sessions=2, fps=50.0, seconds=0.2, **others)


def test_a_session_that_breaks_off_is_lost_and_the_others_are_not(live: Live) -> None:
    # Payloads that are no JPEG: each session ends with its first frame.
    answers = asyncio.run(run_load(load(live)))
    assert answers.losses == {"undecodable_frame": 2}
    assert (answers.refused, answers.times_ms) == (0, [])


def test_what_was_not_measured_is_null(live: Live) -> None:
    told = json.loads(json.dumps(document(load(live), Answers(elapsed_s=1.0)), allow_nan=False))
    assert set(told["latency_ms"].values()) == {None}
    assert told["frames"]["in_time_share"] is None
    assert told["stages_ms"] == {}


def test_in_time_is_within_a_frame_period_and_percentiles_are_linear(live: Live) -> None:
    answers = Answers(times_ms=[float(n) for n in range(101)], elapsed_s=1.0)
    answers.stages_ms = [(0.0, 1.0, 2.0, 3.0, 6.0)] * 101
    told = document(load(live), answers)
    # 50 frames a second: 0 to 20 ms are in time, 21 of 101
    assert told["frames"]["in_time_share"] == round(21 / 101, 5)
    assert told["latency_ms"] == {
        "p50": 50.0,
        "p90": 90.0,
        "p99": 99.0,
        "p999": 99.9,
        "p100": 100.0,
    }
    assert told["stages_ms"]["total"] == np.median([6.0])
