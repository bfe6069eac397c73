"""Files made from a clip when somebody first asks for them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model import Predictor
from server.analysis import Correct
from server.artefacts import ARTEFACTS, Material, anonymous_name
from server.clips.job import Job
from server.edits import Corrections, edits_of
from server.errors import NotAvailableError
from server.export.deidentify import Deidentifier
from server.ingest import IngestLimits
from server.study import (
    Progress,
    Study,
    analyse_clip,
    write_masks,
    write_study_pictures,
)


class OtherFindingsError(NotAvailableError):
    """A clip's result tells other figures than this server finds; what is made would too."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a file is made from.

    Attributes:
        upload: the clip as it came.
        document: its result, as clients see it.
        limits: bounds of what is read.
        deidentifier: takes the patient out of the files that are to be without.
    """

    upload: Path
    document: dict[str, Any]
    limits: IngestLimits
    deidentifier: Deidentifier
    view: str | None
    predictor: Predictor
    progress: Progress

    def analyse(self, labels: list[bytes] | None = None) -> Study:
        """Find all of it again as it was corrected, since results keep no pixel and no mask.

        Args:
            labels: filled with one deflated label map a frame, where given.

        Raises:
            NotAvailableError: the weights that found it are no longer here.
            OtherFindingsError: something else is found now.
        """
        edits = edits_of(self.document)
        study = self.analyse_with(Corrections(edits).apply, labels).with_edits(edits)
        check_findings(self.document, study.document)
        return study

    def analyse_with(self, correct: Correct, labels: list[bytes] | None = None) -> Study:
        """Find all of it again with other corrections, of which the answer does not tell.

        Raises:
            NotAvailableError: the weights that found it are no longer here.
        """
        if self.predictor.model.sha256 != self.document["model"]["sha256"]:
            raise NotAvailableError(
                "other weights are served now than this clip was measured with: upload it again"
            )
        return analyse_clip(
            self.upload, self.predictor, view=self.view, limits=self.limits,
            progress=self.progress, labels=labels, correct=correct,
        )  # fmt: skip


def check_findings(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to tell other figures of a clip than its result does.

    Args:
        then: the result as it was told; what it does not say, an older version did not know.
        now: the same clip's result by this server.

    Raises:
        OtherFindingsError: EF, beats, number or size of frames differ.
    """
    if all(_agree(then[part], now[part]) for part in ("ef", "beats")) and all(
        _agree(then["clip"][part], now["clip"][part]) for part in ("frames", "size")
    ):
        return
    was, here = (each["model"].get("precision") for each in (then, now))
    if was is not None and was != here:
        raise OtherFindingsError(
            f"this clip was measured in {was}, and in {here} the figures are others: set "
            f"GDKVM_PRECISION={was}, or upload it again"
        )
    raise OtherFindingsError(
        "this clip was measured by another version of the server, and this one finds other "
        "figures in it: upload it again"
    )


def _agree(then: Any, now: Any) -> bool:
    if isinstance(then, dict):
        return all(name in now and _agree(value, now[name]) for name, value in then.items())
    if isinstance(then, list):
        return len(then) == len(now) and all(map(_agree, then, now))
    return bool(then == now)


Maker = Callable[[Path, Source], None]
"""Writes one file; it may be asked again after an error."""


def make_masks(path: Path, source: Source) -> None:
    """Write ``masks.npz``."""
    labels: list[bytes] = []
    study = source.analyse(labels)
    write_masks(path, study, labels)


def make_pictures(path: Path, source: Source) -> None:
    """Write ``pictures.zip``."""
    write_study_pictures(path, source.upload, source.analyse(), source.limits)


def _maker_of(name: str, *, is_anonymous: bool) -> Maker:
    """What writes one of ARTEFACTS, with the patient or without."""
    artefact = ARTEFACTS[name]

    def make(path: Path, source: Source) -> None:
        labels: list[bytes] = []
        study = source.analyse(labels if artefact.needs_labels else None)
        deidentifier = source.deidentifier if is_anonymous else None
        model = source.predictor.model
        artefact.write(
            path, Material(source.upload, study, labels, model, source.limits, deidentifier)
        )

    return make


MAKERS: dict[str, Maker] = {
    "masks.npz": make_masks,
    "pictures.zip": make_pictures,
    **{name: _maker_of(name, is_anonymous=False) for name in ARTEFACTS},
    **{
        anonymous_name(name): _maker_of(name, is_anonymous=True)
        for name, artefact in ARTEFACTS.items()
        if artefact.names_patient
    },
}
"""Every file that can be made from a clip, by its name in ``/v1/clips/{id}/``."""


def source_of(
    job: Job,
    predictor: Predictor,
    limits: IngestLimits,
    deidentifier: Deidentifier,
    progress: Progress,
) -> Source:
    """What files are made from.

    Raises:
        NotFinishedError: there is no result yet.
        EchoError: why there will be none.
    """
    return Source(job.upload, job.result(), limits, deidentifier, job.view, predictor, progress)
