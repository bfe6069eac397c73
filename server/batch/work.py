"""One worker: brings a clip here, segments and measures it, and says what became of it."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from model import EchoError, load_predictor
from server.batch.dicomweb import fetch, open_web
from server.batch.errors import FetchError
from server.batch.inputs import Input
from server.batch.rows import Outcome, found, refused
from server.study import analyse_clip, write_masks


@dataclass(frozen=True, slots=True)
class Task:
    """What every clip of a run has in common.

    Attributes:
        view: where neither file nor manifest says it.
        has_masks: whether masks are wanted.
        key: for servers that clips are fetched from, None where they need none.
    """

    model: str | None = None
    view: str | None = None
    has_masks: bool = False
    key: str | None = None


def bring(wanted: Input, task: Task) -> bytes | Outcome:
    """Fetch a clip from elsewhere, or say why it cannot be had."""
    with tempfile.TemporaryFile() as file, open_web(task.key) as web:
        try:
            fetch(web, wanted.place, file, is_dicomweb=wanted.is_dicomweb)
        except EchoError as error:
            return refused(wanted.name, error)
        file.seek(0)
        return file.read()


class Analyst:
    """Owns one copy of the network."""

    def __init__(self, task: Task, threads: int) -> None:
        """Load the weights.

        Raises:
            WeightsError: there are none.
        """
        self._task = task
        self._predictor = load_predictor(task.model, threads=threads)

    def work(self, wanted: Input, content: bytes | None = None) -> Outcome:
        """Work on one clip.

        Args:
            wanted: which.
            content: its bytes, None where its place is a path.
        """
        try:
            with tempfile.TemporaryDirectory(prefix="gdkvm-") as folder:
                path = Path(wanted.place)
                if content is not None:
                    path = Path(folder) / "clip"
                    path.write_bytes(content)
                return self._analyse(wanted, path, Path(folder) / "masks.npz")
        except EchoError as error:
            return refused(wanted.name, error)
        except OSError as error:
            return refused(wanted.name, FetchError(f"it cannot be read: {error.strerror}"))

    def _analyse(self, wanted: Input, path: Path, masks: Path) -> Outcome:
        labels: list[bytes] | None = [] if self._task.has_masks else None
        study = analyse_clip(
            path, self._predictor, view=wanted.view, assumed_view=self._task.view, labels=labels
        )
        if labels is None:
            return found(wanted.name, study)
        write_masks(masks, study, labels)
        return found(wanted.name, study, masks.read_bytes())
