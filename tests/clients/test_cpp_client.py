"""The example in C++ compiles with Debian's libraries, and sees what the Python client sees."""

import asyncio
import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gdkvm_client import Frame, Hello, Result, RleMask, stream
from tests.server.live import Live, live_server

SOURCE = Path(__file__).parents[2] / "clients" / "cpp" / "stream.cpp"
SIZE = (48, 64)
COUNT, FPS = 20, 50.0
OPTIONS = ("-std=c++17", "-Wall", "-Wextra", "-DASIO_STANDALONE", "-pthread")


@pytest.fixture(scope="module")
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example compiled; by the same compiler from the same lines it is the same program."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not on the path")
    version = run(compiler, "--version").stdout
    made_of = SOURCE.read_bytes() + version.encode() + " ".join(OPTIONS).encode()
    cache = getattr(request.config, "cache", None)  # pytest may be told to keep none
    folder = cache.mkdir("cpp_client") if cache else tmp_path_factory.mktemp("cpp_client")
    target = folder / hashlib.sha256(made_of).hexdigest()
    if not target.is_file():
        part = target.with_suffix(".part")
        done = run(compiler, *OPTIONS, SOURCE, "-o", part)
        assert done.returncode == 0, done.stderr
        assert SOURCE.name not in done.stderr, "no warning in our own lines"
        part.rename(target)
    return target


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live_server(tmp_path_factory.mktemp("clips")) as live:
        yield live


def run(program: str | Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=300)


def pictures() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 200, (COUNT, *SIZE), np.uint8)


async def test_its_masks_are_those_of_the_python_client(
    live: Live, program: Path, tmp_path: Path
) -> None:
    frames, masks = tmp_path / "frames.gray", tmp_path / "masks.labels"
    frames.write_bytes(pictures().tobytes())
    size = map(str, SIZE)
    done = await asyncio.to_thread(run, program, live.url, *size, str(FPS), frames, masks)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{COUNT} frames, EF" in done.stdout
    seen_THW = np.frombuffer(masks.read_bytes(), np.uint8).reshape(COUNT, *SIZE)
    ours = (Frame.of_pixels(seq, 20_000 * seq, image) for seq, image in enumerate(pictures()))
    hello = Hello(SIZE, policy="every", fps=FPS)
    expected = []
    async for event in stream(live.url, ours, hello):
        if isinstance(event, Result):
            assert isinstance(event.mask, RleMask)
            expected.append(event.mask.labels(("lv", "myocardium", "atrium")))
    np.testing.assert_array_equal(seen_THW, np.array(expected))
    assert len(np.unique(seen_THW)) > 1, "there is something to compare"


def test_one_frame_is_counted_as_one(live: Live, program: Path, tmp_path: Path) -> None:
    (tmp_path / "frames").write_bytes(pictures()[0].tobytes())
    size = map(str, SIZE)
    done = run(program, live.url, *size, "50", tmp_path / "frames", tmp_path / "masks")
    assert done.stdout.startswith("1 frame, EF "), done.stdout + done.stderr


def test_it_says_why_there_is_no_stream(live: Live, program: Path, tmp_path: Path) -> None:
    (tmp_path / "frames").write_bytes(bytes(16))
    for url in (live.url.replace("stream", "nothing"), "ws://127.0.0.1:1/v1/stream"):
        done = run(program, url, "4", "4", "30", tmp_path / "frames", tmp_path / "masks")
        assert done.returncode == 1
        assert done.stderr.startswith("no stream: ")
    done = run(program, live.url, "4", "4", "30", tmp_path / "frames", tmp_path / "masks")
    assert done.returncode == 1
    assert "size" in done.stderr, "the server's own sentence"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("0", "8", "30"), "ROWS is no number above 0: 0"),
        (("4", "x", "30"), "COLUMNS is no number above 0: x"),
        (("4", "-4", "30"), "COLUMNS is no number above 0: -4"),
        (("4", "4", "0"), "FPS is no number above 0: 0"),
        (("4", "5", "30"), "the frames are not of that size"),
    ],
)
def test_it_says_what_cannot_be_streamed(
    program: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    (tmp_path / "frames").write_bytes(bytes(16))
    nowhere = "ws://127.0.0.1:1/v1/stream"
    done = run(program, nowhere, *words, tmp_path / "frames", tmp_path / "masks")
    assert (done.returncode, done.stderr.startswith(said)) == (1, True), done.stderr


async def test_masks_that_cannot_be_written_are_no_success(
    live: Live, program: Path, tmp_path: Path
) -> None:
    (tmp_path / "frames").write_bytes(pictures().tobytes())
    masks = tmp_path / "no folder" / "masks"
    words = (*map(str, SIZE), str(FPS))
    done = await asyncio.to_thread(run, program, live.url, *words, tmp_path / "frames", masks)
    assert (done.returncode, "cannot write" in done.stderr) == (1, True)
