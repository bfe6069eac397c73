import json

import cv2
import numpy as np
import pytest

from server.commands.bench import document, sample_images
from server.ingest import open_clip, sample_path


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
    sent = cv2.imdecode(np.frombuffer(sample_images()[0], np.uint8), cv2.IMREAD_GRAYSCALE)
    assert sent is not None
    assert np.abs(sent.astype(float) - first).mean() < 2
