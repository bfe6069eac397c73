"""Colour Doppler that is switched on and off in the midst of a stream, or covers a small part."""

import json
import subprocess
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from model import load_predictor
from model.colours import HELD_LOOKS
from model.pictures import COLOUR_LOOK_FRAMES
from server.ingest import open_clip
from server.ingest.sample import sample_path
from server.protocol import Codec, FrameHeader, Hello
from server.session import Arrival, Session
from server.study import analyse_clip
from tests.server.ingest.making import save, tool, ultrasound
from tests.server.packets import VIDEO
from tests.server.phantom import (
    BEAT_FRAMES,
    EF_PERCENT,
    FRAME_MS,
    SIDE_PX,
    SPACING_MM,
    grey_predictor,
    picture,
    whole_image_region,
)

GREY_FRAMES, FLOW_FRAMES = 4 * BEAT_FRAMES + 5, 2 * BEAT_FRAMES


def scene(index: int) -> NDArray[np.uint8]:
    """The phantom, with flow through its mitral valve in the midst of the stream."""
    rgb = np.repeat(picture(index)[..., None], 3, axis=2)
    if GREY_FRAMES <= index < GREY_FRAMES + FLOW_FRAMES:
        rgb[80:110, 64:80] = (200, 60, 20)
    return rgb


def payloads(codec: Codec, scenes: list[NDArray[np.uint8]]) -> Iterator[bytes]:
    match codec:
        case "rgb24" | "gray8":
            yield from (rgb.tobytes() for rgb in scenes)
        case "jpeg" | "png":
            yield from (cv2.imencode(f".{codec}", rgb[..., ::-1])[1].tobytes() for rgb in scenes)
        case _:
            encoder, pixels, options = VIDEO[codec]
            context = av.CodecContext.create(encoder, "w")
            assert isinstance(context, av.VideoCodecContext)
            context.width, context.height, context.pix_fmt = SIDE_PX, SIDE_PX, pixels
            context.framerate, context.options = Fraction(25), options
            frames = [av.VideoFrame.from_ndarray(rgb, format="rgb24") for rgb in scenes]
            for frame in [*frames, None]:
                yield from (bytes(packet) for packet in context.encode(frame))


def results(session: Session, codec: Codec, scenes: list[NDArray[np.uint8]]) -> list[Any]:
    found = []
    for seq, payload in enumerate(payloads(codec, scenes)):
        header = FrameHeader(codec, seq, round(1000 * FRAME_MS * seq), len(payload))
        answer = session.answer(Arrival(header, memoryview(payload), time.perf_counter()))
        found.append([json.loads(message) for message in answer.messages])
    return found


def jet(luma: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The sample clip's picture with an orange jet at its mitral valve, 1.7 % of the picture."""
    rgb = np.repeat(luma[..., None], 3, axis=2)
    rows, columns = np.mgrid[: luma.shape[0], : luma.shape[1]] / np.array(luma.shape)[:, None, None]
    is_jet = np.hypot((rows - 0.62) / 0.10, (columns - 0.52) / 0.055) < 1
    rgb[is_jet] = (0.3 * rgb[is_jet] + 0.7 * np.array([230, 90, 10])).astype(np.uint8)
    return rgb


def test_a_jet_takes_the_ef_of_a_real_clip_elsewhere_and_is_noticed_where_colours_are_sent() -> (
    None
):
    with open_clip(sample_path()) as clip:
        lumas = [frame.pixels_HW for frame in clip.frames]
    predictor = load_predictor(threads=1)

    def told(codec: Codec, pictures: list[NDArray[np.uint8]]) -> Any:
        hello = Hello(size=(lumas[0].shape[0], lumas[0].shape[1]), codec=codec)
        return results(Session(hello, predictor), codec, pictures)[-1][0]["ef"]

    jets = [jet(luma) for luma in lumas]
    without = told("gray8", 3 * lumas)
    unseen = told(
        "gray8", 3 * [np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8) for rgb in jets]
    )
    assert without["state"] == unseen["state"] == "measured"
    assert abs(unseen["percent"] - without["percent"]) > 3
    seen = told("rgb24", 3 * jets)
    assert seen["state"] == "withheld"
    assert "colour_overlay" in seen["reasons"]
    assert told("rgb24", 3 * [np.repeat(luma[..., None], 3, axis=2) for luma in lumas]) == without


def new_session(codec: Codec) -> Session:
    hello = Hello(
        size=(SIDE_PX, SIDE_PX),
        codec=codec,
        region=(0, 0, SIDE_PX, SIDE_PX),
        spacing_mm=(SPACING_MM, SPACING_MM),
    )
    return Session(hello, grey_predictor())


@pytest.mark.parametrize("codec", ["rgb24", "jpeg", "png", "h264", "hevc", "mjpeg"])
def test_nothing_is_measured_under_colour_and_all_is_before_and_after(codec: Codec) -> None:
    held = HELD_LOOKS * COLOUR_LOOK_FRAMES
    last = GREY_FRAMES + FLOW_FRAMES + held + COLOUR_LOOK_FRAMES + 4 * BEAT_FRAMES
    answers = results(new_session(codec), codec, [scene(index) for index in range(last)])
    told = [answer[0]["quality"] for answer in answers]
    is_covered = ["colour_overlay" in each["reasons"] for each in told]
    first, after = is_covered.index(True), last - is_covered[::-1].index(True)
    assert GREY_FRAMES <= first < GREY_FRAMES + COLOUR_LOOK_FRAMES
    assert (
        GREY_FRAMES + FLOW_FRAMES <= after <= GREY_FRAMES + FLOW_FRAMES + held + COLOUR_LOOK_FRAMES
    )
    assert all(is_covered[first:after])
    assert all(each["state"] == "fail" for each in told[first:after])
    # Beats as they stand in the end: none rests on frames under colour.
    beats = {
        message["number"]: message
        for answer in answers
        for message in answer[1:]
        if message["type"] == "beat"
    }
    counted = [beat for beat in beats.values() if not beat["reasons"]]
    assert len(counted) >= 4
    for beat in counted:
        assert beat["ef_percent"] == pytest.approx(EF_PERCENT, abs=3)


def stored(path: Path, rgb: NDArray[np.uint8]) -> Path:
    """Write pictures (T H W 3) as the kind of file that the name asks for."""
    if path.suffix == ".dcm":
        regions = [whole_image_region()]
        times = {"FrameTime": str(FRAME_MS), "SequenceOfUltrasoundRegions": regions}
        return save(ultrasound(rgb, "RGB", **times), path)
    source = f"-f rawvideo -pix_fmt rgb24 -s {SIDE_PX}x{SIDE_PX} -r {1000 / FRAME_MS} -i -".split()
    command = [tool("ffmpeg"), "-v", "error", *source, "-crf", "10", str(path)]
    subprocess.run(command, input=rgb.tobytes(), check=True)
    return path


@pytest.mark.parametrize("name", ["clip.dcm", "clip.mp4"])
def test_flow_over_the_heart_alone_withholds_the_ef_of_a_file(tmp_path: Path, name: str) -> None:
    rgb = np.stack([np.repeat(picture(index)[..., None], 3, axis=2) for index in range(85)])
    grey = analyse_clip(stored(tmp_path / f"grey-{name}", rgb), grey_predictor()).document
    assert grey["ef"]["percent"] == pytest.approx(EF_PERCENT, abs=2)
    # 0.7 % of the picture, but more than 2 % of the heart, in the second half of each beat
    rgb[np.arange(85) % BEAT_FRAMES >= BEAT_FRAMES // 2, 80:92, 64:76] = (200, 60, 20)
    path = stored(tmp_path / name, rgb)
    with open_clip(path) as clip:
        looked_at = [frame.seq for frame in clip.frames if frame.colours_HW3 is not None]
        assert not clip.colour_overlay
    assert looked_at == list(range(0, 85, COLOUR_LOOK_FRAMES))
    ef = analyse_clip(path, grey_predictor()).document["ef"]
    assert ef["state"] == "withheld"
    assert "colour_overlay" in ef["reasons"]
