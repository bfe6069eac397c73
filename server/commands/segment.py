"""Files segmented in this process, without a server."""

import json
import os
from itertools import count
from pathlib import Path
from typing import Any

from rich.table import Table

from model import EchoError, Predictor, counted, load_info, load_predictor, model_names
from server.artefacts import Material, write_all
from server.commands.terminal import CommandError, Terminal, code_of, foreign_errors, refusal
from server.export.words import ef_headline, ef_lines
from server.study import Study, analyse_clip, write_masks


def run_segment(paths: list[Path], view: str | None, out: Path | None, terminal: Terminal) -> None:
    """Segment clips and say what was found in each.

    Under JSON one clip is one document, several are a list of documents in the order given.

    Raises:
        CommandError: some clips could not be read; the others were.
        EchoError: the only clip could not be read, or no weights.
    """
    predictor = load_predictor(threads=os.cpu_count() or 1)
    folders = [None] * len(paths) if out is None else folders_of(paths, out)
    documents: list[dict[str, Any]] = []
    failures: list[EchoError] = []
    for path, folder in zip(paths, folders, strict=True):
        try:
            with foreign_errors():
                document = segment_one(path, predictor, view, folder, terminal)
        except EchoError as error:
            if len(paths) == 1:
                raise
            failures.append(error)
            document = refusal(error)
            terminal.say(f"{path.name}: {error.message} ({code_of(error)})")
        documents.append(document)
    named = [{"path": str(path), **each} for path, each in zip(paths, documents, strict=True)]
    terminal.give(documents[0] if len(paths) == 1 else named)
    if failures:
        counts = f"{len(failures)} of {len(paths)}"
        raise CommandError(code_of(failures[0]), f"{counts} clips could not be worked on")


def folders_of(paths: list[Path], out: Path) -> list[Path]:
    """Where each clip's files go: one clip's to ``out``, several into folders of their own there.

    Files of the same name in different places are told apart by a number.
    """
    if len(paths) == 1:
        return [out]
    folders: list[Path] = []
    for path in paths:
        names = (path.stem if number == 1 else f"{path.stem}-{number}" for number in count(1))
        folders.append(next(out / name for name in names if out / name not in folders))
    return folders


def segment_one(
    path: Path, predictor: Predictor, view: str | None, folder: Path | None, terminal: Terminal
) -> dict[str, Any]:
    """Segment one clip, say what was found, and write it where a folder is given.

    Raises:
        EchoError: the clip could not be read.
    """
    labels: list[bytes] | None = None if folder is None else []
    with terminal.progress(path.name) as bar:
        study = analyse_clip(path, predictor, view=view, progress=bar.show, labels=labels)
    if folder is not None and labels is not None:
        missing = write_files(folder, Material(path, study, labels, predictor.model))
        for why, names in missing.items():
            terminal.note(f"{path.name}: no {' or '.join(names)}: {why}")
    for line in lines_of(path, study):
        terminal.say(line)
    return study.document


def write_files(folder: Path, material: Material) -> dict[str, list[str]]:
    """Write the result of one clip, its masks, and every file that the server would make of it.

    Returns:
        The names of those that it cannot have, by the reason.
    """
    folder.mkdir(parents=True, exist_ok=True)
    study = material.study
    (folder / "result.json").write_text(json.dumps(study.document, indent=1) + "\n")
    write_masks(folder / "masks.npz", study, list(material.labels))
    return write_all(folder, material)


def lines_of(path: Path, study: Study) -> list[str]:
    """Say what was found in one clip."""
    ef, clip = study.findings.ef, study.document["clip"]
    rows, columns = clip["size"]
    head = f"{path.name}: {counted(clip['frames'], 'frame')} of {columns} x {rows}"
    if ef.state == "measured":
        return [head, f"  EF {ef_headline(ef)}, {'; '.join(ef_lines(ef))}"]
    words = ef_lines(ef)[0]
    return [head, f"  No EF is given: {words[0].lower()}{words[1:]}"]


def list_weights(terminal: Terminal) -> None:
    """List the models that can be served, their checksums verified.

    Raises:
        WeightsError: a file is missing or damaged.
    """
    models = [load_info(name) for name in model_names()]
    terminal.give(
        [
            {"name": m.name, "version": m.version, "sha256": m.sha256, "licence": m.licence}
            for m in models
        ]
    )
    table = Table("model", "version", "SHA-256", "licence")
    for model in models:
        table.add_row(model.name, model.version, model.sha256[:16], model.licence)
    if not terminal.as_json:
        terminal.words.print(table)
