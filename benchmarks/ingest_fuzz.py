"""Broken files by the thousand: each must give frames or a refusal with a code, and leave nothing.

    python benchmarks/ingest_fuzz.py ../shared/data/ultrasound --cases 10000

Every case is one file of the folder, damaged: cut at a kibibyte, some bits turned, a named field
overwritten, a stretch taken out or doubled. A case depends on its number and the seed alone, so
that ``--first N --cases 1`` repeats one. The cases run in a process that plays the server; it may
neither die, nor raise anything but an IngestError, nor keep a file, a process or a descriptor.
"""

import argparse
import contextlib
import multiprocessing
import os
import random
import resource
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

from server.ingest import IngestError, IngestLimits, open_clip

NOT_CLIPS = {".md", ".txt", ""}
LIMITS = IngestLimits(
    file_bytes=64 << 20, frames=400, frame_pixels=4 << 20, decoded_bytes=1 << 30, decode_s=60
)
SLOW_S = 90.0
"""A case that takes longer is reported: the limits above promise less."""

EXTREMES = [0, 1, 2, 3, 7, 8, 16, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000]
EXTREMES += [0xFFFFFFFE, 0xFFFFFFFF]
TEXTS = [b"", b"0", b"-1", b"1e308", b"nan", b"99999999", b"\\\\\\", b"1\\2\\3", b"\xff" * 8]

TAGS = [
    (0x0002, 0x0000), (0x0002, 0x0010), (0x0008, 0x0005), (0x0008, 0x0016), (0x0008, 0x0060),
    (0x0018, 0x0040), (0x0018, 0x1063), (0x0018, 0x1065), (0x0018, 0x6011), (0x0018, 0x6012),
    (0x0018, 0x6014), (0x0018, 0x6018), (0x0018, 0x601A), (0x0018, 0x601C), (0x0018, 0x601E),
    (0x0018, 0x6024), (0x0018, 0x602C), (0x0018, 0x602E), (0x0018, 0x6060), (0x0028, 0x0002),
    (0x0028, 0x0004), (0x0028, 0x0006), (0x0028, 0x0008), (0x0028, 0x0009), (0x0028, 0x0010),
    (0x0028, 0x0011), (0x0028, 0x0100), (0x0028, 0x0101), (0x0028, 0x0102), (0x0028, 0x0103),
    (0x0028, 0x1101), (0x0028, 0x1102), (0x0028, 0x1103), (0x0028, 0x1201), (0x0028, 0x1221),
    (0x0028, 0x1222), (0x7FE0, 0x0010), (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD),
]  # fmt: skip
MARKERS = [
    b"ftyp", b"moov", b"mvhd", b"trak", b"mdhd", b"stsd", b"stts", b"stsc", b"stsz", b"stco",
    b"avcC", b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"\xff\xd8", b"\xff\xc0", b"\xff\xc3",
    b"\xff\xc4", b"\xff\xda", b"\xff\xd9", b"\xff\x4f", b"\xff\x51", b"\xff\x52", b"\xff\x90",
]  # fmt: skip
"""Boxes, records and markers that the other formats hang on."""


def cut(whole: bytes, rng: random.Random) -> bytes:
    """End a file at one of its kibibytes."""
    return whole[: 1024 * rng.randrange(max(1, len(whole) // 1024)) or rng.randrange(1024)]


def turn_bits(whole: bytes, rng: random.Random) -> bytes:
    """Turn up to eight bits, anywhere or near the beginning."""
    broken = bytearray(whole)
    reach = rng.choice([len(broken), min(len(broken), 4096)])
    for _ in range(rng.randrange(1, 9)):
        broken[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    return bytes(broken)


def overwrite_a_field(whole: bytes, rng: random.Random) -> bytes:
    """Give a named element, box or marker another length or value."""
    order: Literal["little", "big"] = rng.choice(["little", "little", "big"])
    tag = b"".join(part.to_bytes(2, order) for part in rng.choice(TAGS))
    name = rng.choice([tag, tag, rng.choice(MARKERS)])
    places = _places(whole, name)
    if not places:
        return turn_bits(whole, rng)
    at = rng.choice(places) + len(name) + rng.choice([-8, -4, 0, 0, 2, 4, 4, 4, 8, 12])
    value = rng.choice(EXTREMES)
    size = rng.choice([1, 2, 4, 8])
    patch = rng.choice([(value % (1 << 8 * size)).to_bytes(size, order), rng.choice(TEXTS)])
    return whole[: max(0, at)] + patch + whole[max(0, at) + len(patch) :]


def _places(whole: bytes, name: bytes) -> list[int]:
    places: list[int] = []
    at = whole.find(name)
    while at >= 0 and len(places) < 64:
        places.append(at)
        at = whole.find(name, at + 1)
    return places


def take_out(whole: bytes, rng: random.Random) -> bytes:
    """Lose a stretch."""
    at = rng.randrange(len(whole))
    return whole[:at] + whole[at + rng.choice([1, 2, 3, 8, 100, 5000]) :]


def double(whole: bytes, rng: random.Random) -> bytes:
    """Write a stretch twice."""
    at = rng.randrange(len(whole))
    return whole[: at + rng.choice([1, 2, 3, 8, 100, 5000])] + whole[at:]


def append(whole: bytes, rng: random.Random) -> bytes:
    """Let bytes follow that belong to nothing."""
    return whole + rng.randbytes(rng.choice([1, 2, 7, 130, 3000]))


KINDS: list[Callable[[bytes, random.Random], bytes]] = [
    cut, cut, turn_bits, turn_bits, overwrite_a_field, overwrite_a_field, overwrite_a_field,
    take_out, double, append,
]  # fmt: skip


def case_of(number: int, seed: int, files: list[Path]) -> tuple[Path, str, bytes]:
    """Make a case: which file, damaged how, and its bytes."""
    rng = random.Random(f"{seed}/{number}")
    path = files[number % len(files)]
    kind = rng.choice(KINDS)
    return path, kind.__name__, kind(path.read_bytes(), rng)


@dataclass
class Tally:
    """What came of the cases so far."""

    answers: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest_s: float = 0.0


def answer_of(path: Path) -> str:
    """Read one file as the server would; returns the kind of answer.

    Raises:
        AssertionError: a refusal without a code, or a frame that is not of the clip's size.
    """
    try:
        with open_clip(path, LIMITS) as clip:
            for frame in clip.frames:
                assert frame.pixels_HW.shape == clip.size
            return "frames, with warnings" if clip.warnings else "frames"
    except IngestError as refusal:
        code = refusal.code if refusal.message else IngestError.code
    assert code != IngestError.code
    return code


def left_behind(folder: Path) -> list[str]:
    """Name files, child processes and descriptors that outlive their case."""
    left = [f"the file {path.name}" for path in folder.iterdir()]
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return left + [f"the process {child}" for child in children]


def play_server(
    pipe: Connection, files: list[Path], seed: int, numbers: range, folder: Path
) -> None:
    """Answer case after case; tells number, file, kind, answer, fault, seconds and memory."""
    tempfile.tempdir = str(folder)
    case = folder.parent / "case"
    for number in numbers:
        path, kind, broken = case_of(number, seed, files)
        case.write_bytes(broken)
        pipe.send((number, path.name, kind, "", "", 0.0, 0))
        started = time.perf_counter()
        answer, fault = "", ""
        try:
            answer = answer_of(case)
        except Exception:  # noqa: BLE001  # whatever it is, it is the finding
            fault = traceback.format_exc(limit=-3)
        took_s = time.perf_counter() - started
        fault = fault or "; ".join(left_behind(folder))
        if took_s > SLOW_S:
            fault = fault or f"it took {took_s:.0f} s"
        pipe.send((number, path.name, kind, answer, fault, took_s, _rss_mib()))


def _rss_mib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() >> 20


def run(files: list[Path], seed: int, numbers: range, deadline_s: float) -> Tally:
    """Run the cases, in a new process wherever one has died; prints a line every 250."""
    tally = Tally()
    next_number = numbers.start
    while next_number < numbers.stop and time.monotonic() < deadline_s:
        with tempfile.TemporaryDirectory() as room:
            folder = Path(room, "left")
            folder.mkdir()
            next_number = _watch(
                tally, files, seed, range(next_number, numbers.stop), folder, deadline_s
            )
    return tally


def _watch(
    tally: Tally, files: list[Path], seed: int, numbers: range, folder: Path, deadline_s: float
) -> int:
    """Follow one playing server until it ends; returns the number of the next case."""
    here, there = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("fork")
    server = context.Process(target=play_server, args=(there, files, seed, numbers, folder))
    server.start()
    there.close()
    number, told = numbers.start, ""
    with contextlib.suppress(EOFError):
        while True:
            number, name, kind, answer, fault, took_s, rss_mib = here.recv()
            told = f"case {number} ({kind}, {name})"
            if not answer and not fault:
                continue
            tally.answers[answer or "FAULT"] += 1
            tally.slowest_s = max(tally.slowest_s, took_s)
            if fault:
                _note(tally, f"{told}: {fault}")
            told = ""
            if (number + 1) % 250 == 0:
                done = sum(tally.answers.values())
                print(f"{done} cases, {len(tally.faults)} faults, {rss_mib} MiB held", flush=True)
            if time.monotonic() > deadline_s:
                server.kill()
                break
    server.join()
    if told and server.exitcode:
        tally.answers["FAULT"] += 1
        _note(tally, f"{told}: the process died, {server.exitcode}")
    return number + 1


def _note(tally: Tally, fault: str) -> None:
    tally.faults.append(fault)
    print(fault, flush=True)


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=600, help="stop after so long")
    asked = parser.parse_args()
    files = sorted(
        path
        for path in asked.folder.rglob("*")
        if path.is_file()
        and (path.suffix not in NOT_CLIPS or path.name.startswith("US-"))
        and "camus" not in path.parts
    )
    deadline_s = time.monotonic() + 60 * asked.minutes
    tally = run(files, asked.seed, range(asked.first, asked.first + asked.cases), deadline_s)
    print(f"{sum(tally.answers.values())} cases of {len(files)} files:")
    for answer, count in tally.answers.most_common():
        print(f"  {count:6d}  {answer}")
    print(f"{len(tally.faults)} faults; the slowest case took {tally.slowest_s:.1f} s")
    raise SystemExit(bool(tally.faults))


if __name__ == "__main__":
    main()
