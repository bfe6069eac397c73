"""Tables that are killed at every moment: a clip has one row or none, and its beats go with it."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from server.batch.errors import FetchError, ListingError, PlaceError
from server.batch.parts import Parts
from server.batch.places import Place, open_place
from server.batch.rows import BEATS, CLIPS, Outcome, masks_name, refused
from server.batch.work import Task
from server.commands.batch import BatchRequest, run_batch
from server.commands.terminal import Terminal


def outcome(place: str, beats: int = 2) -> Outcome:
    """A clip with so many beats."""
    clip: dict[str, Any] = dict.fromkeys(CLIPS.names) | {"input": place, "ef_beats": beats}
    rows = [dict.fromkeys(BEATS.names) | {"input": place, "number": n} for n in range(beats)]
    return Outcome(clip, tuple(rows), b"masks of " + place.encode())


@pytest.fixture(params=["{folder}", "file://{folder}", "memory://{folder}"])
def told(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What ``--out`` may be: a folder, and addresses that need no other machine."""
    return str(request.param).format(folder=tmp_path)


def open_parts(told: str, *, again: bool = False) -> Parts:
    return Parts(open_place(told), again=again)


@contextmanager
def files_at(told: str) -> Iterator[Place]:
    """A look at what is there, between two runs."""
    place = open_place(told)
    yield place
    place.close()


def column(told: str, table: str) -> list[str]:
    with files_at(told) as place:
        parts = [io.BytesIO(place.read(table, name)) for name in place.names(table)]
    return sorted(value for part in parts for value in pq.read_table(part)["input"].to_pylist())


def test_the_next_run_knows_what_was_flushed_and_nothing_else(told: str) -> None:
    first = open_parts(told)
    first.add(outcome("a"))
    first.flush()
    first.add(outcome("b"))
    first.close()
    second = open_parts(told)
    assert second.done == {"a"}
    second.add(outcome("b"))
    second.flush()
    second.close()
    assert column(told, "clips.parquet") == ["a", "b"]
    assert column(told, "beats.parquet") == ["a", "a", "b", "b"]
    with files_at(told) as place:
        assert place.read("masks", masks_name("b")) == b"masks of b"


def test_beats_that_no_clip_vouches_for_are_dropped(told: str) -> None:
    parts = open_parts(told)
    parts.add(outcome("a"))
    parts.flush()
    parts.add(outcome("b"))
    parts.flush()
    parts.close()
    # As if killed after the beats were in their place, with a third part half written.
    with files_at(told) as place:
        place.remove("clips.parquet", "part-000001.parquet")
        place.write(
            "clips.parquet", ".part-000002.parquet.tmp", methodcaller("write", b"PAR1 half")
        )
    again = open_parts(told)
    again.close()
    assert again.done == {"a"}
    assert column(told, "beats.parquet") == ["a", "a"]
    with files_at(told) as place, pytest.raises((FileNotFoundError, PlaceError)):
        place.read("clips.parquet", ".part-000002.parquet.tmp")


def test_refusals_are_worked_on_anew_where_wanted(told: str) -> None:
    parts = open_parts(told)
    parts.add(outcome("a"))
    parts.add(refused("b", FetchError("no answer")))
    parts.flush()
    parts.close()
    kept = open_parts(told)
    kept.close()
    assert kept.done == {"a", "b"}
    assert kept.refused == {"unreachable": 1}
    again = open_parts(told, again=True)
    assert again.done == {"a"}
    assert not again.refused
    again.add(outcome("b"))
    again.flush()
    again.close()
    assert column(told, "clips.parquet") == ["a", "b"]


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    parts = open_parts(str(tmp_path))
    with pytest.raises(ListingError, match="another run"):
        open_parts(str(tmp_path))
    parts.close()
    open_parts(str(tmp_path)).close()


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_elsewhere_the_last_run_that_began_goes_on_alone(tmp_path: Path, kind: str) -> None:
    told = f"{kind}://{tmp_path}"
    first = open_parts(told)
    first.add(outcome("a"))
    first.flush()
    first.add(outcome("b"))
    second = open_parts(told)
    with pytest.raises(PlaceError, match="another run"):
        first.flush()
    assert second.done == {"a"}
    second.add(outcome("b"))
    second.flush()
    assert column(told, "clips.parquet") == ["a", "b"]


@pytest.mark.parametrize(
    ("folder", "name", "table"),
    [
        ("clips.parquet", "part-000000.parquet", None),
        ("clips.parquet", "part-000000.parquet", {"patient": [1]}),
        ("clips.parquet", "part-00000-5f2c-c000.snappy.parquet", {"input": ["a"]}),
        ("beats.parquet", "part-00000-5f2c-c000.snappy.parquet", {"input": ["a"]}),
    ],
)
def test_other_peoples_tables_are_left_alone(
    told: str, folder: str, name: str, table: dict[str, list[object]] | None
) -> None:
    with files_at(told) as place:
        write: Callable[[BinaryIO], object] = methodcaller("write", b"not parquet at all")
        if table is not None:
            write = partial(pq.write_table, pa.table(table))
        place.write(folder, name, write)
    with pytest.raises(ListingError, match="other tables"):
        open_parts(told)
    with files_at(told) as place:
        assert place.names(folder) == [name]


@pytest.mark.parametrize("told", ["nosuch://bucket/out", "file:///proc/here"])
def test_an_address_that_cannot_be_written_to_is_told_in_words(told: str) -> None:
    with pytest.raises((ListingError, PlaceError), match=told):
        open_place(told)


def test_every_part_has_the_columns_of_this_version(told: str) -> None:
    first = open_parts(told)
    first.add(outcome("a"))
    first.flush()
    first.close()
    earlier = pa.table({"input": ["b"], "code": [None], "ef_percent": [61.5]})
    with files_at(told) as place:
        place.write("clips.parquet", "part-000001.parquet", partial(pq.write_table, earlier))
        place.write("beats.parquet", "part-000001.parquet", partial(pq.write_table, earlier))
    open_parts(told).close()
    with files_at(told) as place:
        parts = [place.read("clips.parquet", name) for name in place.names("clips.parquet")]
    tables = [pq.read_table(io.BytesIO(part)) for part in parts]
    assert [table.schema.names for table in tables] == [CLIPS.names] * 2
    assert [table["ef_percent"].to_pylist() for table in tables] == [[None], [61.5]]


def test_weights_add_nothing_to_what_others_found(tmp_path: Path) -> None:
    place, clips = str(tmp_path / "out"), tmp_path / "clips"
    clips.mkdir()
    done, waiting = clips / "a.dcm", clips / "b.dcm"
    done.touch()
    parts = open_parts(place)
    found = outcome(str(done))
    parts.add(Outcome(found.clip | {"model_sha256": "ab" * 32, "model_version": "0.1.0"}))
    parts.flush()
    parts.close()
    request = BatchRequest(str(clips), place, Task())
    run_batch(request, Terminal())  # nothing is to be done
    waiting.touch()
    with pytest.raises(
        ListingError, match=r"version 0\.1\.0 of the network \(weights abababababab"
    ):
        run_batch(request, Terminal())
    assert column(place, "clips.parquet") == [str(done)]
