"""One clip from its file to the result document; the command line and the server share it."""

import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from model import STRUCTURES, Beat, EjectionFraction, Frame, Predictor, to_source_labels
from server.analysis import Analysis, Correct
from server.edits import Edit
from server.errors import EngineError
from server.export.overlay import Findings, MeasuredFrame, write_overlay
from server.export.pictures import write_pictures
from server.ingest import Clip, IngestLimits, open_clip
from server.measures import measures_of
from server.protocol import EfMessage, LvMessage, QualityMessage

Progress = Callable[[int, int | None], None]

APICAL_VIEWS = ("A4C", "A2C")
"""Views whose volumes the method of disks is made for."""

MOST_RATE_RATIO = 1.3
"""Of the header's heart rate and the measured one. Own choice: a rate that is shown as another one
is off by 5/3 (50 frames a second for 30) or 2, single beats of an irregular rhythm by less."""


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """What was found in a clip.

    Attributes:
        document: the clip result of docs/clips-api.md.
        findings: the same for the overlay.
        size: rows and columns.
    """

    document: dict[str, Any]
    findings: Findings
    size: tuple[int, int]

    def with_edits(self, edits: Sequence[Edit]) -> "Study":
        """The same, telling of the corrections that it was made with."""
        findings = replace(self.findings, edits=edits)
        trail = [edit.to_json() for edit in edits]
        document = {**self.document, "revision": findings.revision, "edits": trail}
        return replace(self, document=document, findings=findings)


def analyse_clip(  # noqa: PLR0913 (all but two have a default)
    path: Path,
    predictor: Predictor,
    *,
    view: str | None = None,
    assumed_view: str | None = None,
    limits: IngestLimits | None = None,
    progress: Progress | None = None,
    labels: list[bytes] | None = None,
    correct: Correct | None = None,
) -> Study:
    """Segment and measure every frame of a clip as the live stream would.

    Args:
        path: the file.
        predictor: the network.
        view: where the caller knows better than the file.
        assumed_view: where neither the caller nor the file knows.
        limits: bounds of what is read.
        progress: told frames done and in all (None: unknown); may raise to stop.
        labels: filled with one deflated label map a frame, where given.
        correct: draws over the mask of a frame before it is measured.

    Raises:
        IngestError: what is wrong with the file.
        EchoError: what the network or the measurement refuses.
    """
    frames: list[MeasuredFrame] = []
    with open_clip(path, limits) as clip:
        analysis = Analysis(
            predictor, clip.sight, clip.spacing_mm, correct,
            is_one_of_several=clip.is_one_of_several,
        )  # fmt: skip
        for frame in clip.frames:
            finding = analysis.step(clip.seen(frame))
            frames.append(MeasuredFrame(frame.seq, frame.time_us, finding.reading))
            if labels is not None:
                labels.append(zlib.compress(to_source_labels(finding.mask).tobytes(), 1))
            if progress is not None:
                progress(len(frames), clip.frame_count)
        analysis.finish()
        chosen = view or clip.view or assumed_view
        ef = withhold(analysis.ef, clip, chosen)
        if rates_disagree(clip.heart_rate_bpm, ef.heart_rate_bpm):
            clip.notes.warn("heart_rates_disagree")
        findings = Findings(frames, analysis.beats, ef, chosen, spacing_mm=clip.spacing_mm)
        return Study(document_of(clip, findings, predictor), findings, clip.size)


def withhold(ef: EjectionFraction, clip: Clip, view: str | None) -> EjectionFraction:
    """Give no EF where the file itself speaks against one."""
    reasons = []
    if clip.colour_overlay:
        reasons.append("colour_overlay")
    if view is not None and view not in APICAL_VIEWS:
        reasons.append("view_not_apical")
    return ef.withheld_for(*reasons) if reasons else ef


def rates_disagree(declared_bpm: float | None, measured_bpm: float | None) -> bool:
    """Whether a header tells another heart rate than the frames do by their times."""
    if declared_bpm is None or measured_bpm is None:
        return False
    slower, faster = sorted((declared_bpm, measured_bpm))
    return faster > MOST_RATE_RATIO * slower


def document_of(clip: Clip, findings: Findings, predictor: Predictor) -> dict[str, Any]:
    """The clip result; what is unknown is null."""
    return {
        "clip": {
            "frames": len(findings.frames),
            "size": list(clip.size),
            "spacing_mm": clip.spacing_mm and list(clip.spacing_mm),
            "time_base": {
                "source": clip.time_base.source,
                "duration_ms": clip.time_base.duration_ms,
            },
            "view": findings.view,
            "warnings": list(clip.warnings),
        },
        "ef": EfMessage.of(findings.ef).model_dump(mode="json"),
        "beats": [_beat(beat) for beat in findings.beats],
        **measures_of(clip, findings),
        "frames": [_frame(frame) for frame in findings.frames],
        "revision": 0,
        "edits": [],
        "model": predictor.identity,
    }


def _beat(beat: Beat) -> dict[str, Any]:
    return {
        "ed_seq": beat.ed_seq,
        "es_seq": beat.es_seq,
        "ef_percent": round(beat.ef_percent, 1),
        "is_complete": beat.is_complete,
        "reasons": list(beat.reasons),
    }


def _frame(frame: MeasuredFrame) -> dict[str, Any]:
    lv = LvMessage.of(frame.reading.lv)
    return {
        "seq": frame.seq,
        "time_ms": None if frame.time_us is None else round(frame.time_us / 1000, 3),
        "lv": lv and lv.model_dump(mode="json"),
        "quality": QualityMessage.of(frame.reading.quality).model_dump(mode="json"),
    }


def write_masks(path: Path, study: Study, labels: list[bytes]) -> None:
    """Write ``masks.npz`` frame by frame: labels_THW, time_ms_T and the names of the labels.

    Args:
        path: where to write.
        study: of the same clip.
        labels: one deflated label map a frame.
    """
    rows, columns = study.size
    times = [np.nan if f.time_us is None else f.time_us / 1000 for f in study.findings.frames]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("labels_THW.npy", "w", force_zip64=True) as member:
            header = {
                "descr": "|u1",
                "fortran_order": False,
                "shape": (len(labels), rows, columns),
            }
            np.lib.format.write_array_header_1_0(member, header)
            for deflated in labels:
                member.write(zlib.decompress(deflated))
        for name, values in (("time_ms_T", times), ("structures", list(STRUCTURES))):
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, np.array(values), allow_pickle=False)


def write_study_overlay(
    path: Path, upload: Path, study: Study, limits: IngestLimits | None = None
) -> None:
    """Write the overlay video of a clip that was analysed before.

    Raises:
        EngineError: the file is not the one that was analysed.
    """
    with _open_again(upload, study, limits) as frames:
        write_overlay(path, frames, study.findings)


def write_study_pictures(
    path: Path, upload: Path, study: Study, limits: IngestLimits | None = None
) -> None:
    """Write the pictures and outlines of a clip that was analysed before.

    Raises:
        EngineError: the file is not the one that was analysed.
    """
    with _open_again(upload, study, limits) as frames:
        write_pictures(path, frames, study.findings)


@contextmanager
def _open_again(
    upload: Path, study: Study, limits: IngestLimits | None
) -> Iterator[Iterator[Frame]]:
    with open_clip(upload, limits) as clip:
        if clip.size != study.size:
            raise EngineError("the clip changed while it was worked on")
        yield clip.frames
