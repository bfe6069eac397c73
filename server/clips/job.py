"""One uploaded clip: its state, and where its files are."""

import asyncio
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from model import EchoError
from server.errors import EngineError, NotFinishedError, WireCodes

JobState = Literal["received", "queued", "running", "done", "failed"]

UPLOAD, RESULT = "upload", "result.json"
"""Names of a clip's files: what came, and what the network found in it."""

_REVISED = re.compile(rf"r([0-9]+)-{re.escape(RESULT)}")


@dataclass(slots=True, eq=False)
class Job:
    """One clip on its way.

    Attributes:
        folder: holds the upload and what was made of it; neither of these two files is ever
            changed once it is there.
        view: what the upload said, None where it is for the file to say.
        study: names the request that it came with, where that brought several.
        seen_view: what the file says, None unless done.
        progress: share done, 0 to 1, None where unknown.
        error: why it failed, None unless it did.
        sha256: of the upload, empty until all of it is there.
        maker: what worked on it: the program's version, the weights' checksum and the precision;
            empty where the next one like it is not to be answered with what that found.
        is_found_here: whether this server has found in it what its result tells.
        attempts: how often work on it was begun.
        size_bytes: of all its files.
        revision: how often its outlines were corrected.
        number: its place among the clips of several servers; 0 for those of one alone.
        finished: set once it is done or failed.
        making: files that are being made of it, by name.
    """

    id: str
    folder: Path
    view: str | None
    created_s: float
    study: str | None = None
    state: JobState = "received"
    seen_view: str | None = None
    progress: float | None = None
    error: EchoError | None = None
    sha256: str = ""
    maker: str = ""
    attempts: int = 0
    size_bytes: int = 0
    revision: int = 0
    number: int = 0
    finished_s: float | None = None
    is_deleted: bool = False
    is_found_here: bool = False
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    making: dict[str, "asyncio.Task[Path]"] = field(default_factory=dict)

    @property
    def upload(self) -> Path:
        """The file as it came."""
        return self.folder / UPLOAD

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be found in it."""
        return self.state in ("done", "failed")

    def result_file(self) -> Path:
        """The result document, as a file.

        Raises:
            NotFinishedError: not yet.
            EchoError: why it failed.
        """
        if self.error is not None:
            raise self.error
        if self.state != "done":
            raise NotFinishedError(f"the clip is {self.state}; ask again when it is done")
        return self.file(RESULT)

    def file(self, name: str, revision: int | None = None) -> Path:
        """Where a file that was made of the clip is; each revision has its own.

        Args:
            name: as clients know it.
            revision: None for the one of now.
        """
        number = self.revision if revision is None else revision
        return self.folder / (f"r{number}-{name}" if number else name)

    def find_revision(self) -> None:
        """Take up the last revision that is in the folder."""
        found = (_REVISED.fullmatch(path.name) for path in self.folder.glob(f"r*-{RESULT}"))
        self.revision = max((int(match[1]) for match in found if match), default=0)

    def drop_older(self) -> None:
        """Remove files of revisions before the last two; one may just be on its way to a client."""
        for path in self.folder.iterdir():
            if self.is_old(path.name):
                path.unlink(missing_ok=True)

    def size_to_keep(self) -> int:
        """Bytes of all its files but those that `drop_older` removes."""
        paths = (path for path in self.folder.iterdir() if not self.is_old(path.name))
        return sum(path.stat().st_size for path in paths)

    def is_old(self, name: str) -> bool:
        """Whether a file is of the revision before the last two, and no longer wanted."""
        gone = self.revision - 2
        if gone < 0 or name in (UPLOAD, RESULT):
            return False
        return name.startswith(f"r{gone}-") if gone else not _is_revised(name)

    def result(self) -> dict[str, Any]:
        """What was found.

        Raises:
            NotFinishedError: not yet.
            EchoError: why it failed.
        """
        return read_result(self.result_file())

    def to_json(self) -> dict[str, Any]:
        """What ``/v1/clips/{id}`` says."""
        refusal = self.error and {
            "code": self.error.code,
            "message": self.error.message,
            "status": WireCodes.http_status(self.error),
        }
        return {
            "id": self.id,
            "state": self.state,
            "progress": self.progress,
            "view": self.view or self.seen_view,
            "study": self.study,
            "error": refusal,
        }


def read_result(path: Path) -> dict[str, Any]:
    """What a result's file says.

    Raises:
        FileNotFoundError: it is not there.
        EngineError: it is not whole.
    """
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise EngineError("the result of this clip is damaged: upload it again") from error
    # A result that was stored before there were corrections tells of none.
    return {"revision": 0, "edits": [], **document}


def _is_revised(name: str) -> bool:
    return re.match("r[0-9]+-", name) is not None


def restored_error(code: str, message: str) -> EchoError:
    """An error as an earlier run wrote it down."""
    kind: type[EchoError] = type("RestoredError", (EchoError,), {"code": code})
    return kind(message)
