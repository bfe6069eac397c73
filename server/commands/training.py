"""Training and what follows it, behind the extra `train`: it needs torch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from rich.table import Table

from model.base import AlphaRule, ImportedWeights, import_checkpoint
from model.errors import WeightsError
from model.training.board import Board
from model.training.config import TrainConfig
from model.training.export import ship
from model.training.folder import SETTINGS
from model.training.loop import train
from model.training.processor import has_bfloat16
from model.training.sets import DataSet, open_set
from model.training.watch import Watch
from server.commands.terminal import Terminal

RUNS = Path("runs")
"""Where runs go that are given no folder."""


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What the command line asks for.

    Attributes:
        config: TOML file of settings; without one those of ``out``, or the defaults.
        data: folder of the data, before the setting of that name.
        out: folder of the run; without one a new one.
        only_check: say what the data are, and train nothing.
        tensorboard: also write the log for TensorBoard.
    """

    config: Path | None = None
    data: Path | None = None
    out: Path | None = None
    only_check: bool = False
    tensorboard: bool = False


def run_training(request: TrainRequest, terminal: Terminal) -> None:
    """Say what the data are, then train, or go on with the run in ``out``."""
    settings = _settings(request)
    found = open_set(Path(settings.data))
    _say_data(found, terminal)
    found.check()
    document: dict[str, Any] = {"data": found.summary()}
    if request.only_check:
        _read_all(found, terminal)
        terminal.say("Every file was read; nothing is broken.")
        terminal.give(document)
        return
    out = request.out or _new_folder()
    terminal.say(f"Training into {out}; if it is stopped: gdkvm train --out {out}")
    if settings.device == "cpu" and not settings.bf16 and has_bfloat16():
        terminal.say("This processor has bfloat16: with bf16 = true a step takes half as long.")
    with _watching(request, out, terminal) as watch:
        checkpoint = train(settings, settings.shape(), out, watch)
    terminal.say(f"Done: {checkpoint}")
    terminal.give({**document, "checkpoint": str(checkpoint)})


def _settings(request: TrainRequest) -> TrainConfig:
    saved = None if request.out is None else request.out / SETTINGS
    if request.config is not None:
        data = None if request.data is None else str(request.data)
        settings = TrainConfig.read(request.config, data)
    elif saved is not None and saved.is_file():
        settings = TrainConfig.read(saved)
    elif request.data is not None:
        settings = TrainConfig(str(request.data))
    else:
        raise WeightsError("say what to train on: --data PATH, a TOML file, or --out of a run")
    return settings if request.data is None else replace(settings, data=str(request.data))


def _new_folder() -> Path:
    """The first of ``runs/1``, ``runs/2``, ... that is not there."""
    return next(RUNS / str(k) for k in count(1) if not (RUNS / str(k)).exists())


def _say_data(found: DataSet, terminal: Terminal) -> None:
    summary = found.summary()
    terminal.say(f"{found.root}: {summary['layout']}, masks of {', '.join(summary['structures'])}")
    views = sorted({view for split in summary["splits"].values() for view in split["views"]})
    table = Table("split", "patients", *views[::-1], "labelled frames")
    for name, split in summary["splits"].items():
        counts = [split["views"][view] for view in views[::-1]]
        table.add_row(
            name, *(str(each) for each in (split["patients"], *counts, split["labelled_frames"]))
        )
    if not terminal.as_json:
        terminal.words.print(table)
    for note in found.notes:
        terminal.say(f"Note: {note}")


def _read_all(found: DataSet, terminal: Terminal) -> None:
    """Read every file once.

    Raises:
        FrameError: some are broken; all are named.
    """
    with terminal.progress("Reading every file") as bar:
        found.read_all(lambda done: bar.show(done, len(found.studies)))


@contextmanager
def _watching(request: TrainRequest, out: Path, terminal: Terminal) -> Iterator[Watch]:
    tellers: list[Callable[[dict[str, float]], None]] = [lambda row: terminal.say(_line(row))]
    if request.tensorboard:
        tellers.append(Board(out / "tensorboard").add)

    def tell(row: dict[str, float]) -> None:
        for teller in tellers:
            teller(row)

    with terminal.progress("Reading patients") as bar:

        def show(task: str, done: int, total: int) -> None:
            bar.show(done, total, task)

        yield Watch(show, tell)


def _line(row: dict[str, float]) -> str:
    scores = ", ".join(
        f"{name} {row[name]:.4f}" for name in row if name not in ("step", "loss", "s")
    )
    return f"step {row['step']:.0f}: loss {row['loss']:.4f}; validation Dice {scores}"


def run_export(
    checkpoint: Path,
    folder: Path,
    model: tuple[str, str],
    batches: tuple[int, ...],
    calibration: Path | None,
    terminal: Terminal,
) -> None:
    """Turn a training checkpoint into weights that can be served as ``model``, (name, version)."""
    entry = ship(checkpoint, folder, *model, batches=batches, calibration=calibration)
    more = [entry["int8"]] if "int8" in entry else []
    for file in (entry, *entry.get("batches", {}).values(), *more):
        terminal.say(f"{' '.join(model)}: {folder / file['file']}, SHA-256 {file['sha256']}")


def run_import(
    file: Path, out: Path, sha256: str | None, alpha_rule: str | None, terminal: Terminal
) -> ImportedWeights:
    """Turn a published checkpoint into safetensors and a manifest entry."""
    rule = None if alpha_rule is None else AlphaRule(alpha_rule)
    imported = import_checkpoint(file, out, sha256, rule)
    terminal.say(f"{imported.weights}, SHA-256 {imported.sha256}")
    terminal.say(f"{imported.manifest}, alpha rule {imported.config.alpha_rule}")
    return imported
