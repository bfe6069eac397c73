import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import openjpeg
import pytest

from model.pictures import LIBRARIES, Stream, read_stream
from server.ingest import IngestError, IngestLimits
from server.ingest.sandbox import DecoderProcess, open_images
from tests.server.ingest.making import grey_cine

SCRIPT = Path(__file__).parents[3] / "server/ingest/decoder_process.py"


@pytest.fixture
def stream() -> Stream:
    return read_stream(openjpeg.utils.encode_array(grey_cine()[0]))


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> list["subprocess.Popen[bytes]"]:
    """Every process that is started, in order."""
    processes: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def remember(*args: object, **more: object) -> "subprocess.Popen[bytes]":
        process: subprocess.Popen[bytes] = start(*args, **more)  # type: ignore[call-overload]
        processes.append(process)
        return process

    monkeypatch.setattr(subprocess, "Popen", remember)
    return processes


def test_the_process_decodes_frame_after_frame_and_is_gone_at_the_end(
    stream: Stream, spawned: list["subprocess.Popen[bytes]"]
) -> None:
    with open_images(IngestLimits()) as process:
        for _ in range(3):
            assert np.array_equal(process.decode(stream), grey_cine()[0])
        assert spawned[0].poll() is None
    assert spawned[0].poll() is not None


def test_a_frame_it_cannot_decode_does_not_end_it(stream: Stream) -> None:
    broken = Stream(stream.coding, stream.payload[:60], stream.rows, stream.columns, 8, 1)
    with open_images(IngestLimits()) as process:
        with pytest.raises(IngestError) as refusal:
            process.decode(broken)
        assert refusal.value.code == "decode_failed"
        assert np.array_equal(process.decode(stream), grey_cine()[0])


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGSEGV])
def test_a_process_that_dies_is_a_refusal(
    stream: Stream, spawned: list["subprocess.Popen[bytes]"], death: signal.Signals
) -> None:
    with open_images(IngestLimits()) as process:
        process.decode(stream)
        os.kill(spawned[0].pid, death)
        with pytest.raises(IngestError) as refusal:
            process.decode(stream)
    assert refusal.value.code == "decode_failed"


def test_a_process_that_hangs_is_killed(
    stream: Stream, spawned: list["subprocess.Popen[bytes]"]
) -> None:
    with open_images(IngestLimits(decode_s=0.2)) as process:
        os.kill(spawned[0].pid, signal.SIGSTOP)
        with pytest.raises(IngestError) as refusal:
            process.decode(stream)
    assert refusal.value.code == "too_slow"
    assert spawned[0].returncode == -signal.SIGKILL


def answering(line: bytes) -> "subprocess.Popen[bytes]":
    """A process that answers nonsense."""
    script = f"import sys; sys.stdout.buffer.write({line!r}); sys.stdout.flush(); sys.stdin.read()"
    return subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


@pytest.mark.parametrize(
    "line",
    [
        b"no json\n",
        b"[]\n",
        b'{"planes": [["|u1", [99999, 99999]]]}\n',
        b'{"planes": [["|O8", [4, 4]]]}\n',
        b'{"planes": [["|u1", [-4, 4]]]}\n',
        b'{"planes": [["|u1", [4, 4]]]}\n' + b"\0" * 16,
        b"x" * 10_000,
    ],
)
def test_nothing_the_process_answers_is_believed_unchecked(stream: Stream, line: bytes) -> None:
    started = answering(line)
    process = DecoderProcess(started, max_plane_bytes=1 << 20, patience_s=30)
    with started, pytest.raises(IngestError) as refusal:
        process.decode(stream)
    assert refusal.value.code == "decode_failed"


def test_the_process_can_neither_write_a_file_nor_outgrow_its_memory(tmp_path: Path) -> None:
    probe = f"""
import runpy, sys
script = runpy.run_path({str(SCRIPT)!r})
script["_bound"](1 << 30, 10)
try:
    held = bytearray(2 << 30)
except MemoryError:
    print("no memory")
try:
    with open({str(tmp_path / "file")!r}, "wb") as file:
        file.write(b"x")
except OSError:
    print("no file")
"""
    ended = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=False
    )
    assert "no memory" in ended.stdout
    written = tmp_path / "file"
    assert not written.exists() or written.stat().st_size == 0


def test_the_process_loads_no_library_before_it_is_asked_to() -> None:
    ended = subprocess.run(
        [sys.executable, "-P", "-X", "importtime", str(SCRIPT),
         json.dumps({"kind": "images", "libraries": LIBRARIES,
                     "memory_bytes": 1 << 32, "cpu_s": 10})],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for library in ("numpy", "openjpeg", "gdcm", "av", "server", "model"):
        assert f" {library}\n" not in ended.stderr
