import asyncio
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from server.commands.bench import (
    backend_choice,
    base_figures,
    blocked_share,
    document,
    jpegs_of,
    size_of,
)
from server.commands.load import Load, run_load
from server.commands.terminal import Terminal
from server.ingest import open_clip, sample_path
from server.metrics import Metrics
from server.pace import Pace
from tests.server.live import SIDE, disc, live_server


def test_the_document_has_what_scripts_rely_on_and_null_where_nothing_was_measured() -> None:
    # stages: queue, decode, infer, measure, total
    stages_ms = np.tile([1.0, 2.0, 4.0, 0.5, 8.0], (100, 1))
    stages_ms[99] = [1.0, 2.0, 4.0, 0.5, 20.0]
    report = json.loads(json.dumps(document(151.26, stages_ms, 345.67), allow_nan=False))
    assert set(report) == {"base", "live", "clip", "machine"}
    assert set(report["base"]) == {"fps", "eager_fps", "ratio", "peak_fraction"}
    live = report["live"]
    assert {"fps", "infer_ms", "own_ms", "sessions_at_30", "p99_ms"} <= set(live)
    assert (live["fps"], live["infer_ms"], live["own_ms"]) == (151.3, 4.0, 4.0)
    # linear interpolation between the 99th and 100th of 100 values, at 98.01
    assert live["p99_ms"] == pytest.approx(8.0 + 0.01 * 12.0)
    assert report["clip"] == {"warm_ms": 345.7}
    assert report["machine"]["cores"] >= 1


def test_the_frames_sent_are_those_of_the_sample() -> None:
    with open_clip(sample_path()) as clip:
        first = next(clip.frames).pixels_HW
    sent = cv2.imdecode(np.frombuffer(jpegs_of(None)[0], np.uint8), cv2.IMREAD_GRAYSCALE)
    assert sent is not None
    assert np.abs(sent.astype(float) - first).mean() < 2


def test_a_load_counts_every_frame_once_and_sessions_that_are_not_admitted(tmp_path: Path) -> None:
    images = [cv2.imencode(".jpg", disc(seq))[1].tobytes() for seq in range(3)]
    with live_server(tmp_path) as live:
        url = live.url
        asked = Load(url, size_of(images), images, sessions=2, fps=20.0, seconds=0.5)
        assert asked.size == (SIDE, SIDE)
        live.server.parts.engine.pace = Pace(1, capacity_fps=1e6)
        answers = asyncio.run(run_load(asked))
        assert len(answers.times_ms) + answers.dropped == 20
        assert answers.refused == 0
        assert min(answers.times_ms) > 0.0
        live.server.parts.engine.pace = Pace(1, capacity_fps=30.0)
        assert asyncio.run(run_load(asked)).refusals == {"full": 1}


def test_late_wake_ups_of_the_event_loop_are_read_from_the_metrics() -> None:
    metrics = Metrics()
    for lag_s in (0.001, 0.001, 0.004, 0.2):
        metrics.loop_lag_s.observe(lag_s)
    assert blocked_share(metrics.to_text().decode()) == 0.25


def test_every_backend_of_the_machine_is_tried_and_the_choice_explained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    choice = backend_choice()
    assert {trial["backend"] for trial in choice["trials"]} == {"openvino", "onnxruntime", "torch"}
    assert choice["why"].startswith("openvino")


def test_the_choice_told_is_that_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    monkeypatch.setenv("GDKVM_BACKEND", "onnxruntime")
    monkeypatch.setenv("GDKVM_PRECISION", "int8")
    choice = backend_choice()
    assert choice["why"].startswith("onnxruntime, as set")
    assert choice["trials"][0]["precision"] == "int8"


def test_without_torch_the_published_network_has_no_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "server.commands.bench_base", raising=False)
    figures = base_figures(Terminal())
    assert figures == dict.fromkeys(("fps", "eager_fps", "ratio", "peak_fraction"))
    assert "torch is not installed" in capsys.readouterr().out
