"""The bridge between a real OpenIGTLink server, as PLUS or 3D Slicer is one, and a live server."""

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyigtl
import pytest
from numpy.typing import NDArray
from pyigtl.messages import ImageMessage, MessageBase, StringMessage, TransformMessage

from gdkvm_client import Frame, Hello, InputError, Result, RleMask, stream
from gdkvm_client.igtl import EF_DEVICE, Bridge, Route, ef_text, parse_route
from gdkvm_client.igtl_wire import LABELS_DEVICE, Picture, spacing_of
from gdkvm_client.messages import EjectionFraction
from tests.e2e.link import bad_link
from tests.server.live import NAN, Live, live_server, until

ROWS, COLUMNS = 48, 64
STRUCTURES = ("lv", "myocardium", "atrium")
ROW_MM, COLUMN_MM = 0.4, 0.25
PATIENCE_S = 90.0
Labels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live_server(tmp_path_factory.mktemp("clips")) as live:
        yield live


class Scanner:
    """An OpenIGTLink server of pyigtl, which handles one client at a time."""

    def __init__(self, port: int = 0) -> None:
        kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        self.server = pyigtl.OpenIGTLinkServer(port=port)
        for number, handler in kept.items():
            signal.signal(number, handler)
        self.port: int = self.server.server_address[1]

    async def show(self, *messages: MessageBase) -> None:
        await until(self.server.is_connected)
        for message in messages:
            await asyncio.to_thread(self.server.send_message, message)

    async def hear(self, device: str) -> MessageBase:
        heard = await asyncio.to_thread(self.server.wait_for_message, device, PATIENCE_S)
        assert heard is not None, f"nothing came from {device}"
        return heard

    async def stop(self) -> None:
        await asyncio.to_thread(self.server.stop)


@pytest.fixture
async def scanner() -> AsyncIterator[Scanner]:
    scanner = Scanner()
    yield scanner
    await scanner.stop()


@asynccontextmanager
async def bridging(scanner: Scanner, live: Live, **others: object) -> AsyncIterator[None]:
    route = Route(("127.0.0.1", scanner.port), live.url, **others)  # type: ignore[arg-type]
    task = asyncio.create_task(Bridge(route).run())
    try:
        yield
    finally:
        assert not task.done(), task.exception()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await live.until_sessions(0)


def pose(row_mm: float = ROW_MM, column_mm: float = COLUMN_MM) -> NDArray[np.float64]:
    """A probe turned by 30 degrees about the vertical, somewhere in the room."""
    angle = np.pi / 6
    matrix = np.eye(4)
    matrix[:3, 0] = column_mm * np.array([np.cos(angle), np.sin(angle), 0])
    matrix[:3, 1] = row_mm * np.array([0, 0, -1.0])
    matrix[:3, 2] = np.array([-np.sin(angle), np.cos(angle), 0])
    matrix[:3, 3] = 12.5, -7.0, 140.0
    return matrix


def image(seq: int, size: tuple[int, ...] = (ROWS, COLUMNS), device: str = "Image") -> ImageMessage:
    pixels = np.random.default_rng(seq).integers(0, 200, (1, *size), np.uint8)
    return ImageMessage(pixels, pose(), timestamp=1000 + seq / 25, device_name=device)


async def masks_of_the_client(live: Live, images: list[ImageMessage]) -> list[Labels]:
    """What the Python client gets for the same pictures."""
    hello = Hello(images[0].image.shape[1:3], policy="every", spacing_mm=(ROW_MM, COLUMN_MM))
    frames = [
        Frame.of_pixels(seq, round(1e6 * each.timestamp), each.image[0])
        for seq, each in enumerate(images)
    ]
    events = [event async for event in stream(live.url, frames, hello)]
    masks = [event.mask for event in events if isinstance(event, Result)]
    return [mask.labels(STRUCTURES) for mask in masks if isinstance(mask, RleMask)]


async def test_label_maps_come_back_at_the_place_and_time_of_their_images(
    live: Live, scanner: Scanner
) -> None:
    images = [image(seq) for seq in range(6)]
    expected = await masks_of_the_client(live, images)
    async with bridging(scanner, live):
        for sent, labels_HW in zip(images, expected, strict=True):
            await scanner.show(sent)
            found = await scanner.hear(LABELS_DEVICE)
            assert isinstance(found, ImageMessage)
            np.testing.assert_array_equal(found.image, labels_HW[None])
            # Float32 on the wire, and the origin is computed from the middle of the image.
            np.testing.assert_allclose(found.ijk_to_world_matrix, pose(), atol=1e-4)
            assert found.timestamp == pytest.approx(sent.timestamp, abs=1e-6)
            assert found.world_coordinate_system == "lps"
        said = await scanner.hear(EF_DEVICE)
        assert isinstance(said, StringMessage)
        assert said.string.startswith("EF ")
    assert any(labels_HW.any() for labels_HW in expected), "there is something to compare"


async def test_other_messages_and_images_that_are_none_of_ours_are_passed_over(
    live: Live, scanner: Scanner
) -> None:
    volume = ImageMessage(np.zeros((3, ROWS, COLUMNS), np.uint8), device_name="Image")
    deep = ImageMessage(np.zeros((1, ROWS, COLUMNS), np.uint16), device_name="Image")
    async with bridging(scanner, live, device="Image"):
        await scanner.show(TransformMessage(np.eye(4), device_name="Probe"), volume, deep)
        await scanner.show(image(0, device="Other"), image(1))
        found = await scanner.hear(LABELS_DEVICE)
        assert found.timestamp == pytest.approx(image(1).timestamp, abs=1e-6)


async def test_a_change_of_size_or_colour_begins_a_new_session(
    live: Live, scanner: Scanner
) -> None:
    async with bridging(scanner, live):
        for seq, size in enumerate([(48, 64), (64, 48), (64, 48, 3)]):
            await scanner.show(image(seq, size))
            found = await scanner.hear(LABELS_DEVICE)
            assert isinstance(found, ImageMessage)
            assert found.image.shape == (1, *size[:2])
            assert [s["results"] for s in live.server.parts.roster.listing()] == [1]


async def test_after_a_cut_of_the_scanner_the_same_session_goes_on(live: Live) -> None:
    before = Scanner()
    async with bridging(before, live):
        await before.show(image(0))
        await before.hear(LABELS_DEVICE)
        await before.stop()
        after = Scanner(before.port)
        await after.show(image(1))
        await after.hear(LABELS_DEVICE)
        assert [s["results"] for s in live.server.parts.roster.listing()] == [2]
    await after.stop()


async def test_after_a_cut_of_the_servers_line_the_same_session_goes_on(
    live: Live, scanner: Scanner
) -> None:
    with bad_link(live.port) as link:
        async with bridging(scanner, replace(live, port=link.port)):
            await scanner.show(image(0))
            await scanner.hear(LABELS_DEVICE)
            link.cut()
            await scanner.show(image(1))
            await scanner.hear(LABELS_DEVICE)
            assert [s["results"] for s in live.server.parts.roster.listing()] == [2]


async def test_where_a_session_fails_another_one_begins(live: Live, scanner: Scanner) -> None:
    square, breaking = (ROWS, ROWS), image(1, (ROWS, ROWS))
    # Without spacing, and square, the picture is all that the network sees.
    breaking.image, breaking.ijk_to_world_matrix = np.full((1, *square), NAN, np.uint8), np.eye(4)
    async with bridging(scanner, live):
        await scanner.show(breaking)
        await until(lambda: "bad_state" in live.http.get("/metrics").text)
        found = None
        while found is None:
            await scanner.show(image(2, square))
            found = await asyncio.to_thread(scanner.server.wait_for_message, LABELS_DEVICE, 0.1)
        assert [s["results"] for s in live.server.parts.roster.listing()] == [1]


async def test_results_can_go_to_another_program(live: Live, scanner: Scanner) -> None:
    slicer = Scanner()
    async with bridging(scanner, live, target=("127.0.0.1", slicer.port)):
        await until(slicer.server.is_connected)
        await scanner.show(image(0))
        assert isinstance(await slicer.hear(LABELS_DEVICE), ImageMessage)
    await slicer.stop()


async def test_a_refusal_for_good_ends_the_bridge(live: Live, scanner: Scanner) -> None:
    route = Route(("127.0.0.1", scanner.port), "http://127.0.0.1/nothing")
    task = asyncio.create_task(Bridge(route).run())
    await scanner.show(image(0))
    with pytest.raises(InputError):
        await asyncio.wait_for(task, PATIENCE_S)


async def test_a_peer_that_speaks_something_else_is_left(live: Live) -> None:
    calls = asyncio.Event()

    async def chat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\xff" * 58 * 4)
        await writer.drain()
        await reader.read()
        writer.close()
        calls.set()

    async with await asyncio.start_server(chat, "127.0.0.1", 0) as server:
        route = Route(server.sockets[0].getsockname(), live.url)
        task = asyncio.create_task(Bridge(route).run())
        await asyncio.wait_for(calls.wait(), PATIENCE_S)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def test_spacing_is_the_length_of_a_step_and_unknown_without_a_calibration() -> None:
    assert spacing_of(pose()) == pytest.approx((ROW_MM, COLUMN_MM))
    assert spacing_of(np.eye(4)) is None
    assert spacing_of(pose(row_mm=20.0)) is None
    assert spacing_of(pose(row_mm=0.0)) is None
    assert spacing_of(pose(row_mm=1e-9)) is None


def test_a_matrix_that_moves_is_the_same_stream_and_another_depth_is_another_one() -> None:
    def picture(row_mm: float) -> Picture:
        message = image(0)
        message.ijk_to_world_matrix = pose(row_mm)
        return Picture.of(message, None)

    assert picture(0.4).continues(picture(0.40001))
    assert not picture(0.4).continues(picture(0.42))
    assert Picture.of(image(0), (0.1, 0.2)).spacing_mm == (0.1, 0.2)
    unknown = image(0)
    unknown.ijk_to_world_matrix = np.eye(4)
    assert not Picture.of(unknown, None).continues(picture(0.4))


@pytest.mark.parametrize(
    ("ef", "said"),
    [
        (("measured", 57.3, (52.0, 62.1), 3, ()), "EF 57 % (52 to 62), 3 beats; research use only"),
        (("measured", 57.3, (52.0, 62.1), 1, ()), "EF 57 % (52 to 62), 1 beat; research use only"),
        (("pending", None, None, 0, ("a", "b")), "EF pending: a, b; research use only"),
    ],
)
def test_the_ef_is_one_line(
    ef: tuple[str, float | None, tuple[float, float] | None, int, tuple[str, ...]], said: str
) -> None:
    state, percent, interval, beats, reasons = ef
    full = EjectionFraction(state, percent, interval, "m", beats, None, None, None, reasons)
    assert ef_text(full) == said


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_the_command_line_names_a_route(tmp_path: Path, encoding: str) -> None:
    key = tmp_path / "key"
    key.write_text("secret\n", encoding=encoding)
    words = "--source plus --server ws://s/v1/stream --target slicer:1 --device D --view A4C"
    route = parse_route([*words.split(), "--spacing", "0.3", "0.2", "--key-file", str(key)])
    assert route == Route(
        ("plus", 18944), "ws://s/v1/stream", ("slicer", 1), "D", "A4C", (0.3, 0.2), "secret"
    )


DOCUMENT = Path(__file__).parents[2] / "docs" / "openigtlink.md"


async def test_the_example_of_the_documentation_runs_as_it_stands(
    live: Live, tmp_path: Path
) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    (command,) = re.findall(r"^python (-m gdkvm_client.igtl .*)$", text, re.MULTILINE)
    (program,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    command = command.replace("127.0.0.1:8000", f"127.0.0.1:{live.port}")
    pictures = np.random.default_rng(1).integers(0, 200, (12, ROWS, COLUMNS), np.uint8)
    np.save(tmp_path / "pictures.npy", pictures)
    bridge = await run_python(tmp_path, *command.replace("18944", port).split())
    scanner = await run_python(tmp_path, "-c", program.replace("18944", port))
    said, _ = await asyncio.wait_for(scanner.communicate(), PATIENCE_S)
    bridge.send_signal(signal.SIGINT)  # to which a shell's background jobs are born deaf
    told, _ = await asyncio.wait_for(bridge.communicate(), PATIENCE_S)
    assert (scanner.returncode, bridge.returncode) == (0, 0), told.decode()
    lines = said.decode().splitlines()
    assert [line.partition(":")[0] for line in lines[:-1]] == [f"image {n}" for n in range(12)]
    assert lines[-1].startswith("EF ")


async def run_python(folder: Path, *words: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *words,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(DOCUMENT.parents[1] / "clients" / "python")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
