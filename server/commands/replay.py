"""A recorded session gone through again on this machine, and what came out of it."""

import hashlib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from model import counted, load_predictor
from server.commands.terminal import CommandError, Terminal
from server.ingest import open_clip
from server.replay import Frames, Log, Outcome, replay, wanted_hashes


def run_replay(path: Path, frames: Path | None, threads: int, terminal: Terminal) -> None:
    """Go through a log and say whether every answer comes again.

    Args:
        path: the log.
        frames: what was streamed, where the log has hashes alone: a folder of payloads, or a clip.
        threads: for inference.
        terminal: where it is said.

    Raises:
        EchoError: an answer differs, or the log cannot be gone through here.
    """
    find = found_frames(path, frames)
    with path.open("rb") as file:
        log = Log(file)
        begin = log.begin
        if begin.frames == "hashes" and frames is None:
            raise CommandError(
                "no_frames", "the log has hashes of frames alone: name what was streamed (--frames)"
            )
        predictor = load_predictor(
            begin.model.name,
            backend=begin.backend or "auto",
            threads=threads,
            precision=begin.precision,
        )
        with terminal.progress("Replaying") as bar:
            size = path.stat().st_size
            outcome = replay(log, predictor, find, lambda place: bar.show(place, size))
    terminal.give(document(log, outcome))
    if outcome.difference is not None:
        here = version("gdkvm-live")
        others = ""
        if begin.software not in (None, here):
            others = f"; version {begin.software} of the server recorded it, this is {here}"
        raise CommandError("differs", f"{outcome.difference}{others}")
    terminal.say(f"{counted(outcome.results, 'mask')} and the EF come out as recorded, bit for bit")
    terminal.say(f"{counted(outcome.dropped, 'frame')} dropped then and now")
    if not outcome.has_end:
        terminal.say("The log does not go to the session's end")


def document(log: Log, outcome: Outcome) -> dict[str, Any]:
    """Make the document of `gdkvm replay --json`."""
    difference = outcome.difference
    return {
        "session": log.begin.session,
        "model": log.begin.model.model_dump(),
        "results": outcome.results,
        "dropped": outcome.dropped,
        "has_end": outcome.has_end,
        "ef": outcome.ef,
        "first_difference": None
        if difference is None
        else {
            "seq": difference.seq,
            "what": difference.what,
            "recorded": difference.recorded,
            "found": difference.found,
        },
    }


def found_frames(log: Path, frames: Path | None) -> Frames:
    """Look for the frames that a log has the hashes of.

    Args:
        log: whose they are.
        frames: see ``run_replay``; None where the log must have them itself.
    """
    if frames is None:
        return lambda _: None
    wanted = wanted_hashes(log)
    found: dict[str, bytes] = {}
    for payload in _payloads(frames):
        digest = hashlib.sha256(payload).hexdigest()
        if digest in wanted:
            found[digest] = payload
    return found.get


def _payloads(place: Path) -> Iterator[bytes]:
    """Files of a folder as they are, or a clip's frames as `gdkvm stream` sends them."""
    if place.is_dir():
        yield from (each.read_bytes() for each in sorted(place.iterdir()) if each.is_file())
        return
    with open_clip(place) as clip:
        for frame in clip.frames:
            yield clip.seen(frame).pixels_HW.tobytes()
