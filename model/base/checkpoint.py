"""Published checkpoints in, safetensors and a manifest entry out; nothing in them is executed."""

import hashlib
import json
import os
import pickle
import struct
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from model.base.config import AlphaRule, BaseConfig
from model.base.network import BaseNetwork
from model.errors import WeightsError

MODEL_NAME = "gdkvm-base"
AUXILIARY_PREFIX = "aux_computer."
WRAPPER_PREFIXES = ("module.", "_orig_mod.")
RERELEASE_SHA256 = "61b27142ab7ce88cd118e2f11f80c692c4f5696d1d57a399a6d8408fb82d7b57"
RERELEASE_LICENCE = "CC BY-NC-SA 4.0"
UNREADABLE = (
    pickle.UnpicklingError,
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class ImportedWeights:
    """What an import wrote.

    Attributes:
        weights: the safetensors file.
        manifest: its manifest entry, a JSON document beside it.
        sha256: of the safetensors file, lower-case hexadecimal.
        config: the network that the weights fit.
    """

    weights: Path
    manifest: Path
    sha256: str
    config: BaseConfig


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A state dict as found in a published file, names unwrapped."""

    layout: str
    entries: dict[str, Tensor]


def import_checkpoint(
    path: Path, out_dir: Path, sha256: str | None = None, alpha_rule: AlphaRule | None = None
) -> ImportedWeights:
    """Turn a published checkpoint into ``gdkvm-base.safetensors`` and ``gdkvm-base.json``.

    Args:
        path: a .pth file of the official trainer (state dict under ``weights``, or bare) or of the
            re-release (under ``model``).
        out_dir: where both files go; made if absent.
        sha256: what the file must hash to; None accepts any.
        alpha_rule: the memory law it was trained under; None takes the layout's, and official where
            the state dict is bare.

    Raises:
        WeightsError: the file is missing, broken, of another hash or of another network; the
            message names the first difference.
    """
    source_sha256 = file_sha256(path)
    if sha256 is not None and sha256.lower() != source_sha256:
        raise WeightsError(f"{path.name} has SHA-256 {source_sha256}, wanted {sha256.lower()}")
    found = read_checkpoint(path)
    is_rerelease = source_sha256 == RERELEASE_SHA256 or found.layout == "model"
    rule = alpha_rule or (AlphaRule.RERELEASE if is_rerelease else AlphaRule.OFFICIAL)
    has_auxiliary = any(name.startswith(AUXILIARY_PREFIX) for name in found.entries)
    config = BaseConfig(rule, has_auxiliary)
    check_entries(found.entries, BaseNetwork(config), path.name)
    source = {
        "file": path.name,
        "sha256": source_sha256,
        "layout": found.layout,
        "licence": RERELEASE_LICENCE if source_sha256 == RERELEASE_SHA256 else None,
    }
    return write_weights(found.entries, config, out_dir, source)


def load_base(manifest: Path) -> BaseNetwork:
    """The network of a manifest entry that ``import_checkpoint`` wrote, in evaluation mode.

    Raises:
        WeightsError: an entry or file that is missing, broken or not what the entry says.
    """
    entry = read_manifest(manifest)
    weights = manifest.parent / entry["file"]
    found_sha256 = file_sha256(weights)
    if found_sha256 != entry["sha256"]:
        raise WeightsError(f"{weights.name} has SHA-256 {found_sha256}, wanted {entry['sha256']}")
    config = BaseConfig.from_json(entry["config"])
    try:
        entries = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{weights.name} is not a safetensors file: {error}") from error
    network = BaseNetwork(config)
    check_entries(entries, network, weights.name)
    network.load_state_dict(entries)
    return network.eval()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, lower-case hexadecimal.

    Raises:
        WeightsError: a file that is not there or cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"cannot read {path.name}: {error.strerror}") from error


def read_checkpoint(path: Path) -> Checkpoint:
    """The state dict in a .pth file, read without executing anything in it.

    Raises:
        WeightsError: not a whole PyTorch checkpoint, or one that holds more than tensors and plain
            values.
    """
    if not zipfile.is_zipfile(path):
        raise WeightsError(f"{path.name} is not a PyTorch checkpoint, or is cut short")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"{path.name} is broken or holds more than tensors; nothing in it was run: {reason}"
        ) from error
    return unwrapped(content, path.name)


def unwrapped(content: object, file_name: str) -> Checkpoint:
    """Find the state dict in a loaded checkpoint and drop the prefixes of wrappers.

    Raises:
        WeightsError: no state dict where the published trainers put one.
    """
    layout = "bare"
    for key in ("model", "weights"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            layout, content = key, content[key]
            break
    if not isinstance(content, Mapping):
        raise WeightsError(f"{file_name} holds a {type(content).__name__}, wanted a state dict")
    entries: dict[str, Tensor] = {}
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise WeightsError(
                f"{file_name}: {name!r} is a {type(value).__name__}, wanted a tensor"
            )
        bare = without_wrappers(name)
        if bare in entries:
            raise WeightsError(f"{file_name} holds {bare!r} twice, with and without a prefix")
        entries[bare] = value
    return Checkpoint(layout, entries)


def without_wrappers(name: str) -> str:
    """A parameter's name without what DistributedDataParallel and torch.compile put in front."""
    for prefix in WRAPPER_PREFIXES:
        if name.startswith(prefix):
            return without_wrappers(name.removeprefix(prefix))
    return name


def check_entries(entries: Mapping[str, Tensor], network: nn.Module, file_name: str) -> None:
    """Compare a state dict with the network it should fill.

    Raises:
        WeightsError: names the first entry that is missing, of another shape or type, not finite,
            or not known.
    """
    expected = network.state_dict()
    for name, wanted in expected.items():
        if name not in entries:
            lacking = sum(other not in entries for other in expected)
            raise WeightsError(f"{file_name} lacks {name!r}, one of {lacking} missing entries")
        check_entry(name, entries[name], wanted, file_name)
    unknown = [name for name in entries if name not in expected]
    if unknown:
        raise WeightsError(f"{file_name} has {unknown[0]!r}, one of {len(unknown)} unknown entries")


def check_entry(name: str, found: Tensor, wanted: Tensor, file_name: str) -> None:
    """Compare one entry of a state dict.

    Raises:
        WeightsError: another shape, type or layout, or a value that is not finite.
    """
    if found.shape != wanted.shape:
        raise WeightsError(
            f"{file_name}: {name!r} has shape {tuple(found.shape)}, wanted {tuple(wanted.shape)}"
        )
    if found.dtype != wanted.dtype or found.layout != torch.strided or found.is_meta:
        raise WeightsError(
            f"{file_name}: {name!r} is {found.dtype} {found.layout}, wanted dense {wanted.dtype}"
        )
    if not bool(found.isfinite().all()):
        raise WeightsError(f"{file_name}: {name!r} has values that are not finite")


def write_weights(
    entries: Mapping[str, Tensor], config: BaseConfig, out_dir: Path, source: Mapping[str, Any]
) -> ImportedWeights:
    """Write weights and manifest entry, each whole or not at all.

    Raises:
        WeightsError: the folder cannot be written to.
    """
    weights, manifest = out_dir / f"{MODEL_NAME}.safetensors", out_dir / f"{MODEL_NAME}.json"
    entry: dict[str, Any] = {"name": MODEL_NAME, "file": weights.name}
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".importing-", dir=out_dir) as name:
            partial = Path(name) / weights.name
            # Copies, because safetensors refuses entries that share memory.
            dense = {k: v.clone(memory_format=torch.contiguous_format) for k, v in entries.items()}
            partial.write_bytes(save(dense))
            entry |= {"bytes": partial.stat().st_size, "sha256": file_sha256(partial)}
            entry |= {"config": config.to_json(), "source": dict(source)}
            described = partial.with_name(manifest.name)
            described.write_text(json.dumps(entry, indent=2) + "\n", encoding="utf-8")
            os.replace(partial, weights)
            os.replace(described, manifest)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot write to {out_dir.name}: {error}") from error
    return ImportedWeights(weights, manifest, entry["sha256"], config)


def read_manifest(manifest: Path) -> dict[str, Any]:
    """One manifest entry.

    Raises:
        WeightsError: not there, not JSON, or without the fields that loading needs.
    """
    try:
        entry = json.loads(manifest.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot read {manifest.name}: {error}") from error
    kinds = {"file": str, "sha256": str, "config": dict}
    for name, kind in kinds.items():
        if not isinstance(entry, dict) or not isinstance(entry.get(name), kind):
            raise WeightsError(f"{manifest.name} has no {name!r} of type {kind.__name__}")
    if Path(entry["file"]).name != entry["file"]:
        raise WeightsError(f"{manifest.name} names a file outside its folder: {entry['file']!r}")
    return dict(entry)
