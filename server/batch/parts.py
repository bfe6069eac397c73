"""The results: Parquet in parts that are there whole or not at all.

A part of beats is written before the part of its clips, and masks before both: what no clip's row
vouches for is left over from a run that was killed in between, and is made again.
"""

import io
import re
from collections import Counter
from functools import partial
from operator import methodcaller

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from model import ModelInfo
from server.batch.errors import ListingError
from server.batch.places import Place
from server.batch.rows import BEATS, CLIPS, Outcome, Row, masks_name

CLIPS_FOLDER, BEATS_FOLDER, MASKS_FOLDER = "clips.parquet", "beats.parquet", "masks"
_PART = "part-"
_NAME = re.compile(_PART + r"[0-9]{6,}\.parquet")


class _OtherTablesError(Exception):
    """What is there was not written here."""


class Parts:
    """One run's results."""

    def __init__(self, place: Place, *, again: bool = False) -> None:
        """See what is there.

        Args:
            place: of the results, for this run alone; closed with this.
            again: forget refusals, so that what was refused is worked on anew.

        Raises:
            ListingError: what is there is not ours.
            PlaceError: it cannot be reached.
        """
        self._place = place
        self._waiting_clips: list[Row] = []
        self._waiting_beats: list[Row] = []
        self.done: set[str] = set()
        self._models: dict[str, str] = {}
        self.refused: Counter[str] = Counter()
        try:
            parts, beats = self._parts(CLIPS_FOLDER), self._parts(BEATS_FOLDER)
            # What a killed run left half done.
            for name in set(beats) - set(parts):
                place.remove(BEATS_FOLDER, name)
            for name in parts:
                self._take_up(name, again)
        except (pa.ArrowException, _OtherTablesError) as error:
            place.close()
            raise ListingError("the results hold other tables than this command's") from error
        numbers = [int(name.removeprefix(_PART).partition(".")[0]) for name in parts]
        self._next = max(numbers, default=-1) + 1

    def _parts(self, folder: str) -> list[str]:
        """Our own files of a folder; other programs call theirs ``part-`` too."""
        names = [name for name in self._place.names(folder) if name.startswith(_PART)]
        if not all(_NAME.fullmatch(name) for name in names):
            raise _OtherTablesError
        return names

    def _take_up(self, name: str, again: bool) -> None:
        """Learn what a part holds."""
        written = io.BytesIO(self._place.read(CLIPS_FOLDER, name))
        if "input" not in pq.read_schema(written).names:
            raise _OtherTablesError
        rows = pq.read_table(written, schema=CLIPS)
        # Of parts that differ in their columns, readers see those of the first one alone.
        is_stale = not set(CLIPS.names) <= set(pq.read_schema(written).names)
        if again and rows["code"].null_count < len(rows):
            # A refused clip has no beats, so this part's are untouched.
            rows, is_stale = rows.filter(pc.is_null(rows["code"])), True
        if is_stale:
            self._place.write(CLIPS_FOLDER, name, partial(pq.write_table, rows))
        versions = rows.select(["model_sha256", "model_version"]).to_pylist()
        self._models |= {each["model_sha256"]: each["model_version"] for each in versions}
        self.done.update(rows["input"].to_pylist())
        self.refused.update(code for code in rows["code"].to_pylist() if code is not None)

    def check_model(self, model: ModelInfo) -> None:
        """See that no other weights found what is there: figures of both would be taken for alike.

        Raises:
            ListingError: others did.
        """
        other = next((each for each in self._models if each not in (None, model.sha256)), None)
        if other is not None:
            raise ListingError(
                f"the results were found with version {self._models[other]} of the network "
                f"(weights {other[:12]}), here is {model.version} ({model.sha256[:12]}): "
                "name another folder"
            )

    def add(self, outcome: Outcome) -> None:
        """Take one clip's rows; they last once ``flush`` returns."""
        place = outcome.clip["input"]
        assert place not in self.done, "one row a clip"
        if outcome.masks is not None:
            write = methodcaller("write", outcome.masks)
            self._place.write(MASKS_FOLDER, masks_name(place), write)
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
            PlaceError: the place cannot be reached, or another run writes there.
        """
        if not self._waiting_clips:
            return
        name = f"{_PART}{self._next:06d}.parquet"
        for folder, rows, schema in (
            (BEATS_FOLDER, self._waiting_beats, BEATS),
            (CLIPS_FOLDER, self._waiting_clips, CLIPS),
        ):
            table = pa.Table.from_pylist(rows, schema=schema)
            self._place.write(folder, name, partial(pq.write_table, table))
        self._next += 1
        self._waiting_clips, self._waiting_beats = [], []

    def close(self) -> None:
        """Let another run in."""
        self._place.close()
