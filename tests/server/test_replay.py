"""A recorded session is gone through again, and the first answer that differs is named."""

import hashlib
import json
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

import server.cli
from model import Predictor, load_predictor
from server.commands.streaming import frames_of
from server.errors import RecordingError
from server.ingest import SampleClip, open_clip, read_sample, sample_path
from server.protocol import FrameHeader, Hello
from server.recording import ENTRY, MAGIC, Recorder
from server.replay import Difference, Log, Outcome, first_difference, replay
from server.session import Arrival, Session
from server.settings import Settings
from tests.server.live import CountingBackend, counting_predictor, disc
from tests.server.packets import encoded

SIDE = 48


@pytest.fixture(scope="module")
def real() -> Predictor:
    """The weights that are shipped."""
    return load_predictor(threads=1)


def arrival(seq: int, payload: bytes, hello: Hello) -> Arrival:
    header = FrameHeader(hello.codec, seq, 33_333 * seq, len(payload))
    return Arrival(header, memoryview(payload), time.perf_counter())


async def recorded(
    folder: Path, predictor: Predictor, hello: Hello, payloads: list[bytes], frames: str
) -> Path:
    """The log of a session of these frames, every fifth of them dropped."""
    settings = Settings(record_dir=folder, record_frames=frames)
    session = Session(hello, predictor)
    await Recorder(folder, settings).begin(session, predictor)
    for seq, payload in enumerate(payloads):
        frame = arrival(seq, payload, hello)
        if seq % 5 == 4:
            packet = frame.payload if hello.codec == "h264" else None
            session.drop(frame.header, "replaced", packet)
        else:
            session.answer(frame)
    session.summary()
    assert session.witness is not None
    session.witness.close()
    return only_file(folder)


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def written(folder: Path, payloads: Sequence[bytes]) -> Path:
    folder.mkdir()
    for number, payload in enumerate(payloads):
        (folder / str(number)).write_bytes(payload)
    return folder


def gdkvm(*words: object) -> Result:
    return CliRunner().invoke(server.cli.app, [str(word) for word in words])


@pytest.fixture(scope="module")
def clip() -> SampleClip:
    return read_sample()


async def test_the_shipped_network_says_the_same_again_on_the_command_line(
    tmp_path: Path, real: Predictor, clip: SampleClip
) -> None:
    hello = Hello(size=clip.size, codec="jpeg")
    path = await recorded(tmp_path / "logs", real, hello, list(clip.jpegs), "hashes")
    refused = gdkvm("replay", path)
    assert refused.exit_code == 1
    assert "--frames" in refused.stderr
    done = gdkvm("replay", path, "--frames", written(tmp_path / "jpegs", clip.jpegs), "--json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["first_difference"] is None
    assert (told["results"], told["dropped"], told["has_end"]) == (24, 6, True)
    assert told["model"]["sha256"] == real.model.sha256
    assert told["ef"]["state"] in ("measured", "withheld")


def counting() -> Predictor:
    return counting_predictor(CountingBackend())


HELLO = Hello(size=(SIDE, SIDE), region=(0, 0, SIDE, SIDE))


@pytest.fixture
async def log(tmp_path: Path) -> Path:
    frames = [disc(seq).tobytes() for seq in range(20)]
    return await recorded(tmp_path / "logs", counting(), HELLO, frames, "payloads")


def run(path: Path, predictor: Predictor) -> Outcome:
    with path.open("rb") as file:
        return replay(Log(file), predictor, lambda _: None)


@pytest.mark.parametrize("kept", ["payloads", "hashes"])
async def test_video_of_which_packets_were_replaced_comes_out_again(
    tmp_path: Path, kept: str
) -> None:
    packets = list(encoded("h264", [disc(seq) for seq in range(20)]))
    hello = HELLO.model_copy(update={"codec": "h264"})
    path = await recorded(tmp_path / "logs", counting(), hello, packets, kept)
    found = {hashlib.sha256(packet).hexdigest(): packet for packet in packets}
    with path.open("rb") as file:
        outcome = replay(Log(file), counting(), found.get)
    assert outcome.difference is None
    assert (outcome.results, outcome.dropped) == (16, 4)


class Forgetful(CountingBackend):
    """Another network under the same name: it forgets its seventh frame."""

    def step(self, image_11HW: NDArray[np.float32], state):  # type: ignore[no-untyped-def]
        answer = super().step(image_11HW, state)
        return (*answer[:2], state) if self.steps == 7 else answer


def test_the_first_mask_that_differs_is_named_and_nothing_after_it(log: Path) -> None:
    outcome = run(log, counting_predictor(Forgetful()))
    assert outcome.difference is not None
    # The seventh step is of frame 7, since frame 4 was dropped; what it forgot shows one later.
    assert (outcome.difference.seq, outcome.difference.what) == (8, "mask_sha256")
    assert outcome.results == 8, "it stops there"


def test_a_difference_is_exit_code_1_and_said_in_words(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "server.commands.replay.load_predictor", lambda *_, **__: counting_predictor(Forgetful())
    )
    done = gdkvm("replay", log, "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["first_difference"]["seq"] == 8
    assert "frame 8: mask_sha256 was" in done.stderr
    monkeypatch.setattr("server.commands.replay.load_predictor", lambda *_, **__: counting())
    done = gdkvm("replay", log)
    assert done.exit_code == 0
    assert "as recorded" in done.stdout


def test_a_difference_to_another_version_names_both(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "server.commands.replay.load_predictor", lambda *_, **__: counting_predictor(Forgetful())
    )
    assert "version" not in gdkvm("replay", log).stderr
    monkeypatch.setattr("server.commands.replay.version", lambda _: "99.1")
    said = gdkvm("replay", log).stderr
    assert f"version {version('gdkvm-live')} of the server recorded it, this is 99.1" in said


@pytest.mark.parametrize(
    ("then", "now", "what"),
    [
        ([{"ef": {"percent": 57.1}}], [{"ef": {"percent": 57.2}}], "ef.percent"),
        ([{"a": 1, "mask_sha256": "0"}], [{"a": 2, "mask_sha256": "1"}], "mask_sha256"),
        ([{"beats": [{"number": 0}]}], [{"beats": [{"number": 1}]}], "beats[0].number"),
        ([{"beats": [1]}], [{"beats": [1, 2]}], "beats"),
        ([{"type": "result"}], [{"type": "result"}, {"type": "beat"}], "messages"),
        ([{"code": "bad_state"}], [{"type": "result"}], "code"),
        ([{"lv": None}], [{"lv": None}], None),
        ([{"ef": {"percent": 57.1}}], [{"ef": {"percent": 57.1, "stage": "rest"}, "n": 1}], None),
        ([{"type": "result", "lv": None}], [{"code": "bad_state"}], "type"),
    ],
)
def test_a_difference_is_named_by_its_place(
    then: list[dict[str, object]], now: list[dict[str, object]], what: str | None
) -> None:
    found = first_difference(then, now, 3)
    assert (found and found.what) == what


def test_a_difference_in_the_end_is_one_of_the_summary() -> None:
    said = str(Difference(None, "ef.percent", 57.1, None))
    assert said == "the summary: ef.percent was 57.1, is null"


def test_other_weights_are_told_before_anything_is_compared(log: Path, real: Predictor) -> None:
    with pytest.raises(RecordingError, match=r"recorded with counting 1 .*gdkvm-live"):
        run(log, real)


def test_a_log_whose_writer_was_killed_is_gone_through_as_far_as_it_goes(log: Path) -> None:
    whole = log.read_bytes()
    for length in (len(whole) - 1, len(whole) // 2, len(whole) // 2 + 3):
        log.write_bytes(whole[:length])
        outcome = run(log, counting())
        assert outcome.difference is None
        assert not outcome.has_end
        assert 0 < outcome.results <= 16


@pytest.mark.parametrize("place", [0.01, 0.3, 0.7, 0.99])
def test_a_changed_byte_is_noticed(log: Path, place: float) -> None:
    blob = bytearray(log.read_bytes())
    blob[int(place * len(blob))] ^= 1
    log.write_bytes(blob)
    try:
        outcome = run(log, counting())
    except RecordingError:
        return
    # A length that was changed makes the rest one entry that does not end.
    assert not outcome.has_end


@pytest.mark.parametrize(
    ("written", "why"),
    [
        (b"", "no recorded session"),
        (b"\xff\xd8\xff" * 9, "no recorded session"),
        (MAGIC, "nothing was recorded"),
        (MAGIC + ENTRY.pack(2**31, 2**31, 0), "impossible length"),
        (MAGIC + ENTRY.pack(2, 0, 2745614147) + b"{}", "begin as a session"),
    ],
)
def test_what_is_no_log_is_refused_in_words(tmp_path: Path, written: bytes, why: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(written)
    with pytest.raises(RecordingError, match=why):
        run(path, counting())
    done = gdkvm("replay", path, "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["error"]["code"] == "bad_recording"


async def test_a_clip_that_was_streamed_gives_the_frames_of_a_log_of_hashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    payloads, size = pixels_of_the_sample()
    path = await recorded(tmp_path / "logs", counting(), Hello(size=size), payloads, "hashes")
    monkeypatch.setattr("server.commands.replay.load_predictor", lambda *_, **__: counting())
    done = gdkvm("replay", path, "--frames", sample_path())
    assert done.exit_code == 0, done.stderr


def pixels_of_the_sample() -> tuple[list[bytes], tuple[int, int]]:
    """What `gdkvm stream` sends of it."""
    with open_clip(sample_path()) as clip:
        return [frame.payload for frame in frames_of(clip)], clip.size
