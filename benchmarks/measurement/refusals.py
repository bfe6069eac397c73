"""What becomes of every real file: an EF, the reasons why there is none, or why it is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from model import EchoError, Predictor
from server.study import Study, analyse_clip

NO_FILES = {".md", ".txt", ".csv", ".png", ".cfg", ".raw", ".mhd"}
NAMES = {"LICENSE"}


def files_of(folder: Path) -> list[Path]:
    """Every file that somebody might upload, in order."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path for path in found if path.suffix not in NO_FILES and path.name not in NAMES]


def run_files(
    folder: Path, predictor: Predictor, show: Callable[[int, int], None]
) -> tuple[list[dict[str, Any]], dict[str, Study]]:
    """Analyse every file; returns a row for each, and the studies of those with an EF."""
    rows: list[dict[str, Any]] = []
    studies: dict[str, Study] = {}
    paths = files_of(folder)
    for done, path in enumerate(paths):
        name = path.relative_to(folder).as_posix()
        try:
            study = analyse_clip(path, predictor)
        except EchoError as error:
            rows.append({"file": name, "refused": error.code, "why": error.message})
        else:
            ef = study.findings.ef
            readings = [frame.reading for frame in study.findings.frames]
            rows.append(
                {
                    "file": name,
                    "frames": len(readings),
                    "measurable": sum(r.quality.state != "fail" for r in readings) / len(readings),
                    "presence": sum(r.presence for r in readings) / len(readings),
                    "view": study.findings.view,
                    "state": ef.state,
                    "percent": ef.percent,
                    "interval": ef.interval,
                    "reasons": list(ef.reasons),
                }
            )
            if ef.state == "measured":
                studies[name] = study
        show(done + 1, len(paths))
    return rows, studies
