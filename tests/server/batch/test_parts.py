"""Tables that are killed at every moment: a clip has one row or none, and its beats go with it."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from server.batch.errors import FetchError, ListingError
from server.batch.parts import Parts
from server.batch.rows import BEATS, CLIPS, Outcome, masks_name, refused


def outcome(place: str, beats: int = 2) -> Outcome:
    """A clip with so many beats."""
    clip: dict[str, Any] = dict.fromkeys(CLIPS.names) | {"input": place, "ef_beats": beats}
    rows = [dict.fromkeys(BEATS.names) | {"input": place, "number": n} for n in range(beats)]
    return Outcome(clip, tuple(rows), b"masks of " + place.encode())


def column(folder: Path, table: str) -> list[str]:
    found: list[str] = pq.read_table(folder / table)["input"].to_pylist()
    return sorted(found)


def test_the_next_run_knows_what_was_flushed_and_nothing_else(tmp_path: Path) -> None:
    first = Parts(tmp_path)
    first.add(outcome("a"))
    first.flush()
    first.add(outcome("b"))
    first.close()
    second = Parts(tmp_path)
    assert second.done == {"a"}
    second.add(outcome("b"))
    second.flush()
    second.close()
    assert column(tmp_path, "clips.parquet") == ["a", "b"]
    assert column(tmp_path, "beats.parquet") == ["a", "a", "b", "b"]
    assert (tmp_path / "masks" / masks_name("b")).read_bytes() == b"masks of b"


def test_beats_that_no_clip_vouches_for_are_dropped(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    parts.add(outcome("a"))
    parts.flush()
    parts.add(outcome("b"))
    parts.flush()
    parts.close()
    # As if killed after the beats were in their place, with a third part half written.
    (tmp_path / "clips.parquet" / "part-000001.parquet").unlink()
    (tmp_path / "clips.parquet" / ".part-000002.parquet.tmp").write_bytes(b"PAR1 half")
    again = Parts(tmp_path)
    again.close()
    assert again.done == {"a"}
    assert column(tmp_path, "beats.parquet") == ["a", "a"]
    assert not list(tmp_path.rglob("*.tmp"))


def test_refusals_are_worked_on_anew_where_wanted(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    parts.add(outcome("a"))
    parts.add(refused("b", FetchError("no answer")))
    parts.flush()
    parts.close()
    kept = Parts(tmp_path)
    kept.close()
    assert kept.done == {"a", "b"}
    assert kept.refused == {"unreachable": 1}
    again = Parts(tmp_path, again=True)
    assert again.done == {"a"}
    assert not again.refused
    again.add(outcome("b"))
    again.flush()
    again.close()
    assert column(tmp_path, "clips.parquet") == ["a", "b"]


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    with pytest.raises(ListingError, match="another run"):
        Parts(tmp_path)
    parts.close()
    Parts(tmp_path).close()


def test_other_peoples_tables_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "clips.parquet").mkdir()
    (tmp_path / "clips.parquet" / "part-000000.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(ListingError, match="other tables"):
        Parts(tmp_path)
