"""The weights that ship: a manifest with checksums, and the one place that reads it."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.config import ModelConfig
from model.errors import WeightsError

WEIGHTS_DIR = Path(__file__).resolve().parent.parent / "weights"
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the outside may know of a model.

    Attributes:
        sha256: of ``path``, hexadecimal; it names the weights in every result, whatever the
            precision that they are served in.
        path: the exported step.
        self_test: what the file must answer to the self-test clip, see ``model.predictor``.
        quantised: the same step in eight bits, None where there is none.
    """

    name: str
    version: str
    sha256: str
    licence: str
    config: ModelConfig
    path: Path
    self_test: tuple[tuple[float, ...], ...]
    quantised: Path | None = None

    @property
    def network_size(self) -> int:
        """Side of the square input in pixels."""
        return self.config.network_size


def sha256_of(path: Path) -> str:
    """Checksum of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder: Path = WEIGHTS_DIR) -> dict[str, Any]:
    """The manifest of a weights folder.

    Raises:
        WeightsError: no manifest, one that is not JSON, or one without a default and models.
    """
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise WeightsError(f"no weights manifest at {path}: {error.strerror}") from error
    except ValueError as error:
        raise WeightsError(f"the weights manifest is not JSON: {error}") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("models"), dict):
        raise WeightsError("the weights manifest must be an object with 'default' and 'models'")
    if manifest.get("default") not in manifest["models"]:
        raise WeightsError(
            f"the weights manifest's default is {manifest.get('default')!r}, "
            f"its models are: {', '.join(sorted(manifest['models']))}"
        )
    return manifest


def model_names(folder: Path = WEIGHTS_DIR) -> list[str]:
    """Names that ``load_info`` takes, the default one first."""
    manifest = read_manifest(folder)
    default = manifest["default"]
    return [default, *sorted(name for name in manifest["models"] if name != default)]


def load_info(name: str | None = None, folder: Path = WEIGHTS_DIR) -> ModelInfo:
    """One model of the manifest, its files' checksums verified.

    Args:
        name: a name of the manifest, None for the default.
        folder: where manifest and files are.

    Raises:
        WeightsError: unknown name, an incomplete entry, a missing file, or one whose bytes are
            not the manifest's.
    """
    manifest = read_manifest(folder)
    chosen = name or manifest["default"]
    entry = manifest["models"].get(chosen)
    if entry is None:
        raise WeightsError(
            f"no model {chosen!r}; there are: {', '.join(sorted(manifest['models']))}"
        )
    try:
        return _checked_info(chosen, entry, folder)
    except (KeyError, TypeError) as error:
        raise WeightsError(
            f"the manifest's entry of {chosen!r} is incomplete or wrong: {error}"
        ) from error


def parameters_of(model: ModelInfo) -> Path:
    """The file of a model's parameters, which lies beside the served one, its checksum verified.

    Raises:
        WeightsError: it is not there, or its bytes are not the manifest's.
    """
    entry = read_manifest(model.path.parent)["models"].get(model.name, {})
    path = model.path.parent / str(entry.get("parameters"))
    if not path.is_file():
        raise WeightsError(f"the parameters of {model.name} are missing")
    if sha256_of(path) != entry.get("parameters_sha256"):
        raise WeightsError(f"{path.name} is damaged: its SHA-256 is not the manifest's")
    return path


def _checked_info(name: str, entry: dict[str, Any], folder: Path) -> ModelInfo:
    path, found = _checked(folder, entry)
    return ModelInfo(
        name=name,
        version=entry["version"],
        sha256=found,
        licence=entry["licence"],
        config=ModelConfig.from_json(entry["config"]),
        path=path,
        self_test=tuple(tuple(row) for row in entry["self_test"]),
        quantised=_checked(folder, entry["int8"])[0] if "int8" in entry else None,
    )


def _checked(folder: Path, entry: dict[str, Any]) -> tuple[Path, str]:
    """The file that an entry names, and its checksum, which is the entry's."""
    path = folder / entry["file"]
    if not path.is_file():
        raise WeightsError(f"the weights file {path.name} is missing")
    found = sha256_of(path)
    if found != entry["sha256"]:
        raise WeightsError(
            f"{path.name} is damaged: its SHA-256 is {found}, the manifest says {entry['sha256']}"
        )
    return path, found
