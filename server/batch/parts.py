"""The folder of results: Parquet in parts that are there whole or not at all.

A part of beats is written before the part of its clips, and masks before both: what no clip's row
vouches for is left over from a run that was killed in between, and is made again.
"""

import fcntl
import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from server.batch.errors import ListingError
from server.batch.rows import BEATS, CLIPS, Outcome, Row, masks_name
from server.errors import storage_errors

CLIPS_FOLDER, BEATS_FOLDER, MASKS_FOLDER = "clips.parquet", "beats.parquet", "masks"
_PART = "part-*.parquet"


class Parts:
    """One run's results; locked, since two runs would work on everything twice."""

    def __init__(self, folder: Path, *, again: bool = False) -> None:
        """Open the folder, or make it, and see what is there.

        Args:
            folder: of the results.
            again: forget refusals, so that what was refused is worked on anew.

        Raises:
            ListingError: another run works here, or what is there is not ours.
        """
        self._clips, self._beats = folder / CLIPS_FOLDER, folder / BEATS_FOLDER
        self._masks = folder / MASKS_FOLDER
        for each in (self._clips, self._beats):
            each.mkdir(parents=True, exist_ok=True)
        self._lock = (folder / ".lock").open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise ListingError(f"another run writes to {folder}") from error
        self._waiting_clips: list[Row] = []
        self._waiting_beats: list[Row] = []
        self.done: set[str] = set()
        self.refused: Counter[str] = Counter()
        try:
            self._clean()
            for part in sorted(self._clips.glob(_PART)):
                self._take_up(part, again)
        except pa.ArrowException as error:
            self._lock.close()
            raise ListingError(f"{folder} holds other tables than this command's") from error
        numbers = [int(part.stem.removeprefix("part-")) for part in self._clips.glob(_PART)]
        self._next = max(numbers, default=-1) + 1

    def _clean(self) -> None:
        """Remove what a killed run left half done."""
        for leftover in (*self._clips.glob(".*.tmp"), *self._beats.glob(".*.tmp")):
            leftover.unlink()
        vouched = {part.name for part in self._clips.glob(_PART)}
        for part in self._beats.glob(_PART):
            if part.name not in vouched:
                part.unlink()

    def _take_up(self, part: Path, again: bool) -> None:
        """Learn what a part holds."""
        rows = pq.read_table(part, schema=CLIPS, partitioning=None)
        if again and rows["code"].null_count < len(rows):
            # A refused clip has no beats, so this part's are untouched.
            rows = rows.filter(pc.is_null(rows["code"]))
            _write(part, partial(pq.write_table, rows))
        self.done.update(rows["input"].to_pylist())
        self.refused.update(code for code in rows["code"].to_pylist() if code is not None)

    def add(self, outcome: Outcome) -> None:
        """Take one clip's rows; they last once ``flush`` returns."""
        place = outcome.clip["input"]
        assert place not in self.done, "one row a clip"
        if outcome.masks is not None:
            self._masks.mkdir(exist_ok=True)
            _write(self._masks / masks_name(place), methodcaller("write", outcome.masks))
        self._waiting_clips.append(outcome.clip)
        self._waiting_beats.extend(outcome.beats)
        self.done.add(place)
        if outcome.clip["code"] is not None:
            self.refused[outcome.clip["code"]] += 1

    @property
    def waiting(self) -> int:
        """Clips that a kill would lose."""
        return len(self._waiting_clips)

    def flush(self) -> None:
        """Write what waits as one part of each table.

        Raises:
            StorageError: the disk is full.
        """
        if not self._waiting_clips:
            return
        name = f"part-{self._next:06d}.parquet"
        with storage_errors():
            for folder, rows, schema in (
                (self._beats, self._waiting_beats, BEATS),
                (self._clips, self._waiting_clips, CLIPS),
            ):
                table = pa.Table.from_pylist(rows, schema=schema)
                _write(folder / name, partial(pq.write_table, table))
        self._next += 1
        self._waiting_clips, self._waiting_beats = [], []

    def close(self) -> None:
        """Let another run in."""
        self._lock.close()


def _write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Put a file in its place at once, after its bytes are on the disk."""
    hidden = path.with_name(f".{path.name}.tmp")
    with hidden.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    hidden.replace(path)
