"""What an import wrote, read back: whole and unchanged, or refused."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from model.base import load_base
from model.errors import WeightsError


def write(folder: Path, weights: bytes, **changed: Any) -> Path:
    """A manifest entry beside its weights."""
    (folder / "w.safetensors").write_bytes(weights)
    entry = {
        "file": "w.safetensors",
        "sha256": hashlib.sha256(weights).hexdigest(),
        "config": {"alpha_rule": "official", "auxiliary_head": False},
    } | changed
    manifest = folder / "m.json"
    manifest.write_text(json.dumps({k: v for k, v in entry.items() if v is not None}))
    return manifest


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sha256": "0" * 64}, r"w\.safetensors has SHA-256 .*, wanted 0000"),
        ({"sha256": None}, r"m\.json has no 'sha256' of type str"),
        ({"file": 3}, r"m\.json has no 'file' of type str"),
        ({"config": []}, r"m\.json has no 'config' of type dict"),
        ({"config": {"alpha_rule": "paper", "auxiliary_head": True}}, "not a gdkvm-base config"),
        ({"file": "../w.safetensors"}, "names a file outside its folder"),
        ({"file": "other.safetensors"}, r"cannot read other\.safetensors"),
        ({}, r"w\.safetensors is not a safetensors file"),
    ],
)
def test_an_entry_that_does_not_fit_its_weights_is_refused(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=message):
        load_base(write(tmp_path, b"not safetensors", **changed))


def test_weights_of_another_network_are_refused_by_name(tmp_path: Path) -> None:
    save_file({"A_log": torch.zeros(8)}, tmp_path / "small")
    manifest = write(tmp_path, (tmp_path / "small").read_bytes())
    with pytest.raises(WeightsError, match=r"w\.safetensors lacks 'dt_bias', one of 530 missing"):
        load_base(manifest)


@pytest.mark.parametrize("text", [None, "", "[]", "{", "null"])
def test_a_manifest_that_is_none_is_refused(text: str | None, tmp_path: Path) -> None:
    manifest = tmp_path / "m.json"
    if text is not None:
        manifest.write_text(text)
    with pytest.raises(WeightsError, match=r"m\.json"):
        load_base(manifest)
