"""`gdkvm batch` on real Ray: killed without a warning, it goes on, and every input has one row."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from model import load_predictor
from server.batch.rows import masks_name
from server.ingest import sample_path
from server.study import analyse_clip
from tests.e2e.serving import PATIENCE_S
from tests.server.phantom import phantom_clip

CLIPS = 18
FRAMES = 6


def archive(folder: Path) -> Path:
    """A manifest of small clips, a real one, and three that are refused."""
    folder.mkdir()
    places = [phantom_clip(folder / f"clip-{n:02d}.dcm", FRAMES).name for n in range(CLIPS)]
    (folder / "cut.dcm").write_bytes((folder / places[0]).read_bytes()[:400])
    (folder / "words.dcm").write_text("no clip")
    lines = ["path,view", f"{sample_path()},A4C", "cut.dcm,", "words.dcm,", "not-there.dcm,"]
    manifest = folder / "clips.csv"
    manifest.write_text("\n".join([*lines, *(f"{place}," for place in places)]))
    return manifest


def command(manifest: Path, out: str) -> list[str]:
    given = ["batch", str(manifest), "--out", out, "--workers", "1", "--masks", "--json"]
    return [sys.executable, "-m", "server.cli", *given]


def test_a_killed_run_goes_on_and_every_input_has_exactly_one_row(tmp_path: Path) -> None:
    manifest, out = archive(tmp_path / "archive"), tmp_path / "out"
    # By its address, as an object store would be named, then as the folder that it is.
    first = subprocess.Popen(command(manifest, f"file://{out}"), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 3 * PATIENCE_S
    # Masks are written as each clip is done, its row a little later: this is between the two.
    while len(list(out.glob("masks/*.npz"))) < 3:
        assert time.monotonic() < deadline
        assert first.poll() is None
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait()
    done = subprocess.run(command(manifest, str(out)), check=True, capture_output=True, text=True)
    told = json.loads(done.stdout)
    assert told["inputs"] == told["rows"] == CLIPS + 4
    assert told["refusals"] == {"truncated": 1, "not_a_clip": 1, "unreachable": 1}

    clips = pq.read_table(out / "clips.parquet").to_pylist()
    assert Counter(row["input"] for row in clips).most_common(1)[0][1] == 1
    refused = {Path(row["input"]).name: row["code"] for row in clips if row["code"]}
    assert refused == {
        "cut.dcm": "truncated", "words.dcm": "not_a_clip", "not-there.dcm": "unreachable",
    }  # fmt: skip
    assert all(row["reason"] for row in clips if row["code"])

    study = analyse_clip(sample_path(), load_predictor(), view="A4C")
    (row,) = (each for each in clips if each["input"] == str(sample_path()))
    ef = study.document["ef"]
    assert (row["ef_state"], row["ef_percent"], row["ef_beats"]) == (
        ef["state"], ef["percent"], ef["beats"],
    )  # fmt: skip
    assert row["frames"] == study.document["clip"]["frames"]
    beats = pq.read_table(out / "beats.parquet").to_pylist()
    of_sample = [each for each in beats if each["input"] == str(sample_path())]
    assert [(each["ed_seq"], each["es_seq"], each["ef_percent"]) for each in of_sample] == [
        (beat.ed_seq, beat.es_seq, beat.ef_percent) for beat in study.findings.beats
    ]
    assert len(list(out.glob("masks/*.npz"))) == CLIPS + 1
    with np.load(out / "masks" / masks_name(row["input"])) as masks:
        assert masks["labels_THW"].shape == (row["frames"], row["rows"], row["columns"])
