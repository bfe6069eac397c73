"""The folder of a run: settings, data, log; one run and one process at a time."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from model.errors import WeightsError
from model.training.config import TrainConfig
from model.training.sets import DataSet

SETTINGS, DATA, LOG = "config.toml", "data.json", "log.jsonl"


@contextmanager
def claim(out: Path, config: TrainConfig) -> Iterator[None]:
    """Hold a run's folder, and keep its settings there.

    Raises:
        WeightsError: it is held by another process, or belongs to a run with other settings.
    """
    out.mkdir(parents=True, exist_ok=True)
    saved = out / SETTINGS
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise WeightsError(f"another process is training into {out}") from error
        # Compared as settings: a file of an earlier version lacks what had not been invented.
        if saved.exists() and TrainConfig.read(saved) != config:
            raise WeightsError(f"{out} holds a run with other settings; choose another folder")
        _write(saved, config.to_toml())
        yield


def keep_data(out: Path, found: DataSet) -> None:
    """Write which data a run learns from, with the SHA-256 of every file.

    Raises:
        WeightsError: the run went on other data before.
    """
    told = {**found.summary(), "sha256": found.hashes()}
    saved = out / DATA
    if saved.exists():
        before = json.loads(saved.read_text(encoding="utf-8"))["sha256"]
        changed = sorted(set(before.items()) ^ set(told["sha256"].items()))
        if changed:
            names = ", ".join(sorted({name for name, _ in changed})[:20])
            raise WeightsError(f"the data of the run in {out} have changed: {names}")
    _write(saved, json.dumps(told, indent=1, ensure_ascii=False) + "\n")


def trim_log(out: Path, step: int) -> None:
    """Drop what a killed process logged after the checkpoint that the run goes on from."""
    log = out / LOG
    if log.exists():
        kept = [line for line in log.read_text().splitlines() if _step_of(line) <= step]
        _write(log, "".join(f"{line}\n" for line in kept))


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except ValueError:
        return float("inf")  # cut off by the kill


def add_to_log(out: Path, row: dict[str, Any]) -> None:
    """Append one line."""
    with (out / LOG).open("a") as file:
        file.write(json.dumps(row) + "\n")


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
