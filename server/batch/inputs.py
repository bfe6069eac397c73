"""What to work on: a folder's files, the lines of a manifest, or what a DICOMweb server has."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from server.batch.dicomweb import search
from server.batch.errors import ListingError
from server.ingest.region import view_named

MANIFESTS = (".txt", ".csv")
_WEB = ("http://", "https://")
_PLACES = ("input", "path", "url")
"""Columns of a CSV manifest that may say where a clip is."""


@dataclass(frozen=True, slots=True)
class Input:
    """One clip to work on.

    Attributes:
        place: an absolute path, or a URL.
        view: what the manifest says it shows, None where it does not.
        is_dicomweb: the place is a DICOMweb instance.
    """

    place: str
    view: str | None = None
    is_dicomweb: bool = False

    @property
    def name(self) -> str:
        """Its place as text for tables: names of files may hold bytes that are none."""
        written = self.place.encode("utf-8", "surrogateescape")
        return written.decode("utf-8", "backslashreplace")

    @property
    def is_remote(self) -> bool:
        """Whether it must be brought here first."""
        return self.place.startswith(_WEB)


def list_inputs(told: str, out: str, key: str | None = None) -> list[Input]:
    """Everything that an INPUT of the command line means, each once, in a stable order.

    Args:
        told: a folder, a manifest (.txt or .csv), or the address of a DICOMweb server.
        out: the folder of results, or its address; what lies in a folder of results is no input.
        key: for the server, None where it needs none.

    Raises:
        ListingError: it means nothing.
    """
    path = Path(told)
    if told.startswith(_WEB):
        found: Iterable[Input] = (Input(url, None, True) for url in search(told, key))
    elif path.is_dir():
        found = _walk(path.resolve(), Path(out.removeprefix("file://")).resolve())
    elif path.is_file() and path.suffix.lower() in MANIFESTS:
        found = _read_manifest(path.resolve())
    else:
        raise ListingError(
            f"{told} is neither a folder, nor a manifest ({' or '.join(MANIFESTS)}), nor the "
            "http(s) address of a DICOMweb server"
        )
    return list({each.name: each for each in found}.values())


def _walk(folder: Path, out: Path) -> Iterator[Input]:
    """Every file below a folder but hidden ones, by name."""
    for path in sorted(folder.rglob("*")):
        is_hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not is_hidden and out not in path.parents and path.is_file():
            yield Input(str(path))


def _read_manifest(path: Path) -> Iterator[Input]:
    """One clip a line; in a CSV by its columns ``path`` and ``view``.

    Raises:
        ListingError: it cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            if path.suffix.lower() == ".csv":
                yield from _read_rows(csv.DictReader(file), path)
            else:
                lines = (line.strip() for line in file)
                yield from (_at(line, path) for line in lines if line and line[0] != "#")
    except (UnicodeDecodeError, csv.Error) as error:
        raise ListingError(f"{path.name} cannot be read as a manifest: {error}") from error


def _read_rows(rows: "csv.DictReader[str]", path: Path) -> Iterator[Input]:
    names = {name.strip().lower(): name for name in rows.fieldnames or ()}
    place = next((names[name] for name in _PLACES if name in names), None)
    if place is None:
        raise ListingError(f"{path.name} needs a column {', '.join(_PLACES)}")
    for row in rows:
        if told := (row[place] or "").strip():
            view = (row[names["view"]] or "").strip() if "view" in names else ""
            yield _at(told, path, (view_named(view) or view) or None)


def _at(told: str, manifest: Path, view: str | None = None) -> Input:
    """A place as a manifest names it: a URL, or a path that is relative to the manifest."""
    return Input(told if told.startswith(_WEB) else str(manifest.parent / told), view)
