"""The `gdkvm` command and the Python client against a real server with the weights that ship."""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from gdkvm_client import Frame, Hello, Result, Summary, stream_blocking
from server.cli import app
from server.commands.local import local_server
from server.commands.streaming import websocket_url
from server.ingest import open_clip, sample_path
from tests.server.ingest.making import tool

SAMPLE = sample_path()
TEST_FILES = SAMPLE.parent
PATIENCE_S = 120
STRUCTURES = ("lv", "myocardium", "atrium")


def gdkvm(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "server.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=5 * PATIENCE_S)


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with local_server() as url, httpx.Client(base_url=url, timeout=PATIENCE_S) as http:
        yield http


@pytest.fixture(scope="module")
def uploaded(http: httpx.Client) -> tuple[str, dict[str, Any]]:
    """The sample clip at the server: where it is, and its result."""
    answer = http.post("/v1/clips", params={"wait_s": 100}, content=SAMPLE.read_bytes())
    assert answer.status_code == 200
    return answer.headers["Location"], answer.json()


@pytest.fixture(scope="module")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The sample clip on the command line: its document, and the folder of its files."""
    folder = tmp_path_factory.mktemp("sample [1]")
    copy = folder / "a clip (1) [bold].dcm"
    copy.write_bytes(SAMPLE.read_bytes())
    done = gdkvm("segment", copy, "--json", "--out", folder / "out")
    assert (done.returncode, done.stdout.count("\n")) == (0, 1), done.stderr
    return json.loads(done.stdout), folder / "out"


def labels_of(masks: Any) -> Any:
    with np.load(masks, allow_pickle=False) as archive:
        assert tuple(archive["structures"]) == STRUCTURES
        return archive["labels_THW"]


def test_the_command_line_and_the_server_give_the_same_document(
    uploaded: tuple[str, dict[str, Any]], segmented: tuple[dict[str, Any], Path]
) -> None:
    assert segmented[0] == uploaded[1]
    assert json.loads((segmented[1] / "result.json").read_text()) == uploaded[1]


def test_a_stream_of_its_frames_gives_the_same_masks_and_figures(
    http: httpx.Client,
    uploaded: tuple[str, dict[str, Any]],
    segmented: tuple[dict[str, Any], Path],
) -> None:
    place, document = uploaded
    labels_THW = labels_of(io.BytesIO(http.get(f"{place}/masks.npz").content))
    assert np.array_equal(labels_THW, labels_of(segmented[1] / "masks.npz"))
    with open_clip(SAMPLE) as clip:
        frames = [Frame.of_pixels(f.seq, f.time_us, clip.seen(f).pixels_HW) for f in clip.frames]
        box = clip.sight
        assert box is not None
        hello = Hello(size=clip.size, region=(box.top, box.left, box.height, box.width))
    events = list(stream_blocking(websocket_url(str(http.base_url)), frames, hello))
    results = [event for event in events if isinstance(event, Result)]
    assert len(results) == len(labels_THW) == 30
    for result, labels_HW, frame in zip(results, labels_THW, document["frames"], strict=True):
        assert result.mask is not None
        assert np.array_equal(result.mask.labels(STRUCTURES), labels_HW)  # type: ignore[union-attr]
        assert (result.lv is None) == (frame["lv"] is None)
        assert result.lv is None or result.lv.area_px == frame["lv"]["area_px"]
        assert result.quality.state == frame["quality"]["state"]
    assert (labels_THW == 1).any(axis=(1, 2)).all()
    summary = events[-1]
    assert isinstance(summary, Summary)
    assert summary.ef.percent == document["ef"]["percent"]
    assert summary.ef.interval == tuple(document["ef"]["interval"])


def test_the_sample_has_an_ef_and_says_what_to_mind(
    uploaded: tuple[str, dict[str, Any]],
) -> None:
    ef, clip = uploaded[1]["ef"], uploaded[1]["clip"]
    assert ef["state"] == "measured"
    assert ef["interval"][0] < ef["percent"] < ef["interval"][1]
    # about one beat, and the file's calibration is of another size of image
    assert {"single_beat", "no_spacing"} <= set(ef["reasons"])
    assert clip["spacing_mm"] is None
    assert clip["warnings"] == ["region_outside_image"]


def test_the_overlay_is_a_film_as_long_as_the_clip(
    http: httpx.Client,
    uploaded: tuple[str, dict[str, Any]],
    segmented: tuple[dict[str, Any], Path],
    tmp_path: Path,
) -> None:
    film = tmp_path / "overlay.mp4"
    film.write_bytes(http.get(f"{uploaded[0]}/overlay.mp4").content)
    for path in (film, segmented[1] / "overlay.mp4"):
        assert_film(path, frames=30, duration_s=30 * 0.033333)


def assert_film(path: Path, frames: int, duration_s: float) -> None:
    words = [
        "-v", "error", "-count_frames", "-show_entries",
        "stream=codec_name,pix_fmt,nb_read_frames:format=duration", "-of", "json",
    ]  # fmt: skip
    probed = subprocess.run([tool("ffprobe"), *words, path], check=True, capture_output=True)
    told = json.loads(probed.stdout)
    (stream,) = told["streams"]
    assert (stream["codec_name"], stream["pix_fmt"]) == ("h264", "yuv420p")
    assert int(stream["nb_read_frames"]) == frames
    assert float(told["format"]["duration"]) == pytest.approx(duration_s, abs=0.005)


def test_a_refusal_has_the_same_code_and_sentence_on_the_command_line_and_over_http(
    http: httpx.Client, tmp_path: Path
) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "cut [1].dcm").write_bytes(SAMPLE.read_bytes()[:3000])
    names = ("CT_small.dcm", "test-SR.dcm", "MR_truncated.dcm", "no_meta.dcm", "README.txt")
    paths = [*(TEST_FILES / name for name in names), tmp_path / "empty", tmp_path / "cut [1].dcm"]
    done = gdkvm("segment", *paths, "--json")
    assert done.returncode == 1
    for path, found in zip(paths, json.loads(done.stdout), strict=True):
        answer = http.post("/v1/clips", params={"wait_s": 60}, content=path.read_bytes())
        assert 400 <= answer.status_code < 500
        assert answer.headers["Content-Type"] == "application/problem+json"
        problem = answer.json()
        error = {"code": problem["code"], "message": problem["detail"]}
        assert found == {"path": str(path), "error": error}


NO_HEART = (
    "cornerstone3D/no-pixel-spacing.dcm",
    "cornerstone3D/US-YBR_FULL_422-EVRLE.dcm",
    "dcm4che/US-PAL-8-10x-echo",
    "dcm4che/YBR_FULL-RLE.dcm",
    "deid-data/GREYSCALE_CINE.zip",
    "dicomParser/IM00001.implicit_little_endian.dcm",
    "itkpocus/clarius-ocular-short.mp4",
    "itkpocus/sonoque_anechoic-3mm-3mm.dcm",
    "itkpocus/sonosite-anon-eye1-video.mp4",
    "pydicom-data/OBXXXX1A_rle_2frame.dcm",
    "pydicom/examples_jpeg2k.dcm",
    "pydicom/examples_palette.dcm",
    "pylibjpeg-data/JPEGLosslessP14SV1_3s_2f_u_08_08.dcm",
)
"""Eyes, a thyroid, phantoms, a probe in air, stills, and hearts under colour Doppler."""

COLOURED = ("dcm4che/US-PAL-8-10x-echo", "dicomParser/IM00001.implicit_little_endian.dcm")


def test_no_ef_is_given_where_there_is_no_heart_or_colour_covers_it(shared_dir: Path) -> None:
    folder = shared_dir / "data" / "ultrasound"
    done = gdkvm("segment", *(folder / name for name in NO_HEART), "--json")
    assert done.returncode == 0, done.stderr
    for name, document in zip(NO_HEART, json.loads(done.stdout), strict=True):
        ef = document["ef"]
        assert ef["state"] in ("withheld", "pending"), name
        assert ef["percent"] is ef["interval"] is None, name
        assert ef["reasons"], name
        assert ("colour_overlay" in ef["reasons"]) >= (name in COLOURED), name


def test_the_demo_says_every_beat_or_why_there_is_no_ef_and_writes_its_overlay(
    http: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server that runs already stands in for the demonstration's own.
    monkeypatch.setattr(
        "server.commands.demo.local_server", lambda: nullcontext(str(http.base_url))
    )
    done = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "demo [1]")])
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    beats = [line for line in lines if line.startswith("Beat ")]
    assert len({line.split(":")[0] for line in beats}) == len(beats)
    assert all(": EF " in line for line in beats)
    assert beats or any(line.startswith("No EF is given: ") for line in lines)
    assert any(line.startswith(("EF ", "No EF is given: ")) for line in lines)
    assert "30 frames answered, 0 dropped" in done.stdout
    assert "Research use only" in lines[-1]
    assert_film(tmp_path / "demo [1]" / "overlay.mp4", frames=30, duration_s=30 * 0.033333)
