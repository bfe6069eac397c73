"""Training and what follows it, behind the extra `train`: it needs torch."""

from pathlib import Path

from model.base import AlphaRule, ImportedWeights, import_checkpoint
from model.training.config import TrainConfig
from model.training.export import ship
from model.training.loop import train
from server.commands.terminal import Terminal


def run_training(config: Path, out: Path, terminal: Terminal) -> Path:
    """Train, or go on with the run in ``out``, as a TOML file says."""
    terminal.say(f"Training as {config} says; log.jsonl and checkpoint.pt go to {out}")
    settings = TrainConfig.read(config)
    checkpoint = train(settings, settings.shape(), out)
    terminal.say(f"Done: {checkpoint}")
    return checkpoint


def run_export(
    checkpoint: Path,
    folder: Path,
    model: tuple[str, str],
    batches: tuple[int, ...],
    terminal: Terminal,
) -> None:
    """Turn a training checkpoint into weights that can be served as ``model``, (name, version)."""
    entry = ship(checkpoint, folder, *model, batches)
    for file in (entry, *entry.get("batches", {}).values()):
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
