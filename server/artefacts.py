"""Files made of an analysed clip: which there are, and who writes them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np

from model import Frame, ModelInfo
from server.errors import DeidentifyError, EngineError, NotAvailableError
from server.export.capture import write_capture
from server.export.deidentify import Deidentifier
from server.export.objects import Maker, write_object
from server.export.origin import Origin, read_origin
from server.export.overlay import Findings, picture_at, write_overlay
from server.export.segmentation import Masks, SegmentationType, make_segmentation
from server.export.structured import Template, chosen_beat, make_report
from server.export.summary import About, write_summary
from server.export.tables import write_coco, write_table
from server.ingest import IngestLimits, open_clip
from server.study import Study

MARK = ".anonymous"
"""What names of files without the patient hold before their ending."""


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """What the files of a clip are made of.

    Attributes:
        upload: the clip as it came.
        study: what was found in it.
        labels: one deflated label map a frame; needed by some files only.
        model: the weights.
        limits: bounds of what is read.
        deidentifier: takes the patient out, None to keep the patient.
    """

    upload: Path
    study: Study
    labels: Sequence[bytes]
    model: ModelInfo
    limits: IngestLimits | None = None
    deidentifier: Deidentifier | None = None

    @property
    def findings(self) -> Findings:
        """What was found; without who corrected it, and when, where the patient is taken out."""
        findings = self.study.findings
        return findings if self.deidentifier is None else findings.anonymous()

    def masks(self) -> Masks:
        """The label maps."""
        return Masks(self.labels, self.study.size)

    def origin(self) -> Origin | None:
        """The clip's DICOM header."""
        return read_origin(self.upload, self.limits)

    def maker(self) -> Maker:
        """What DICOM objects say of their making."""
        software = version("gdkvm-live")
        now, revision = datetime.now(UTC), self.study.findings.revision
        precision = self.study.document["model"].get("precision")
        return Maker(self.origin(), self.model, software, now, revision, precision)

    @contextmanager
    def frames(self) -> Iterator[Iterable[Frame]]:
        """The clip's frames once more; only the fan of each where the patient is taken out.

        Raises:
            EngineError: the file is not the one that was analysed.
            DeidentifyError: where the fan is cannot be told.
        """
        with open_clip(self.upload, self.limits) as clip:
            if clip.size != self.study.size:
                raise EngineError("the clip changed while it was worked on")
            if self.deidentifier is None:
                yield clip.frames
            elif clip.sector is None:
                raise DeidentifyError(
                    "no ultrasound fan can be told from what may be written around it, so that "
                    "no picture of this clip can be given without the patient; seg.dcm and sr.dcm "
                    "can"
                )
            else:
                yield map(clip.seen, clip.frames)


def write_segmentation(path: Path, material: Material, kind: SegmentationType) -> None:
    """Write the masks as a DICOM segmentation.

    Raises:
        NotAvailableError: the clip was no DICOM file, or has too many masks for this kind.
    """
    made, syntax = make_segmentation(material.masks(), material.maker(), kind)
    if material.deidentifier is not None:
        material.deidentifier.apply(made)
    write_object(path, made, syntax)


def write_structured(path: Path, material: Material, template: Template) -> None:
    """Write the figures as a DICOM structured report.

    Raises:
        NotAvailableError: the clip was no DICOM file.
    """
    made = make_report(material.findings, material.maker(), material.study.size, template)
    if material.deidentifier is not None:
        material.deidentifier.apply(made)
    write_object(path, made)


def write_secondary_capture(path: Path, material: Material) -> None:
    """Write the overlay as a DICOM secondary capture.

    Raises:
        DeidentifyError: where the fan is cannot be told.
    """
    with material.frames() as frames:
        findings = material.findings
        write_capture(path, frames, findings, material.maker(), material.deidentifier)


def write_film(path: Path, material: Material) -> None:
    """Write the overlay as MP4.

    Raises:
        DeidentifyError: where the fan is cannot be told.
    """
    with material.frames() as frames:
        write_overlay(path, frames, material.findings)


def write_still(path: Path, material: Material) -> None:
    """Write the overlay's picture at end diastole as PNG.

    Raises:
        DeidentifyError: where the fan is cannot be told.
    """
    findings = material.findings
    with material.frames() as frames:
        picture = picture_at(frames, findings, _instant(material.study))
    path.write_bytes(cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))[1].tobytes())


def _instant(study: Study) -> int:
    """End diastole of the beat that stands for the clip, else the first frame with a ventricle."""
    frames, beat = study.findings.frames, chosen_beat(study.findings)
    for index, frame in enumerate(frames):
        if frame.seq == beat.ed_seq if beat else frame.reading.lv is not None:
            return index
    return 0


def write_report(path: Path, material: Material) -> None:
    """Write the page for people.

    Raises:
        DeidentifyError: where the fan is cannot be told.
    """
    origin, masking = material.origin(), material.deidentifier
    uid = origin.sop_instance_uid if origin else None
    made = "" if masking else datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    about = About(
        document=material.study.document,
        software=version("gdkvm-live"),
        made=made,
        clip_uid=masking.uid(uid) if masking and uid else uid,
    )
    with material.frames() as frames:
        write_summary(path, frames, material.findings, about)


@dataclass(frozen=True, slots=True)
class Artefact:
    """One kind of file.

    Attributes:
        write: writes it.
        needs_labels: the material must hold label maps.
        names_patient: may show who the patient is, so that it is also made without.
    """

    write: Callable[[Path, Material], None]
    needs_labels: bool = False
    names_patient: bool = True


ARTEFACTS: dict[str, Artefact] = {
    "seg.dcm": Artefact(lambda path, it: write_segmentation(path, it, "binary"), True),
    "seg-labelmap.dcm": Artefact(lambda path, it: write_segmentation(path, it, "labelmap"), True),
    "sr.dcm": Artefact(lambda path, it: write_structured(path, it, "5300")),
    "sr-1500.dcm": Artefact(lambda path, it: write_structured(path, it, "1500")),
    "secondary-capture.dcm": Artefact(write_secondary_capture),
    "overlay.mp4": Artefact(write_film),
    "still.png": Artefact(write_still),
    "report.html": Artefact(write_report),
    "frames.csv": Artefact(lambda path, it: write_table(path, it.findings), names_patient=False),
    "masks.json": Artefact(lambda path, it: write_coco(path, it.masks(), it.findings), True, False),
}
"""By the name of the file; `anonymous_name` gives that of the one without the patient."""


def anonymous_name(name: str) -> str:
    """The name of the same file without the patient."""
    stem, _, ending = name.rpartition(".")
    return f"{stem}{MARK}.{ending}"


def write_all(folder: Path, material: Material) -> dict[str, list[str]]:
    """Write every file that this clip can have.

    Returns:
        The names of those that it cannot have, by the reason.
    """
    missing: dict[str, list[str]] = {}
    for name, artefact in ARTEFACTS.items():
        try:
            with _whole_or_none(folder / name) as path:
                artefact.write(path, material)
        except NotAvailableError as error:
            missing.setdefault(error.message, []).append(name)
    return missing


@contextmanager
def _whole_or_none(path: Path) -> Iterator[Path]:
    """Leave no file behind that was broken off: half a file would look like one."""
    try:
        yield path
    except BaseException:
        path.unlink(missing_ok=True)
        raise
