"""Published checkpoints in, safetensors and a manifest entry out, and nothing in them ever runs."""

import hashlib
import io
import json
import os
import pickle
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor, nn

from model.base import AlphaRule, BaseConfig, import_checkpoint, load_base
from model.errors import WeightsError
from server.commands.terminal import Terminal
from server.commands.training import run_import
from tests.model.base import golden
from tests.model.base.conftest import GoldenNetwork

Entries = dict[str, Tensor]
AUXILIARY = "aux_computer.sensory_aux.projection.weight"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Gone right after the test, for the files are large."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def thin_entries() -> Entries:
    """Every published entry, each one number spread over its shape, so that the file is small."""
    return {
        name: torch.full((), number, dtype=getattr(torch, dtype)).expand(shape)
        for number, (name, shape, dtype) in enumerate(golden.read_index())
    }


def trainer_file(path: Path, **content: Any) -> Path:
    """A checkpoint as the published trainers write it, with the state of optimiser and schedule."""
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[1000, 2000])
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    rest = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    torch.save({"it": 3000, **rest, **content}, path)
    return path


def bare_file(path: Path, entries: Entries) -> Path:
    torch.save(entries, path)
    return path


def prefixed(prefix: str) -> Entries:
    return {prefix + name: value for name, value in thin_entries().items()}


def write_layout(layout: str, path: Path) -> Path:
    match layout:
        case "official":
            return trainer_file(path, weights=thin_entries())
        case "rerelease":
            scaler = {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 0}
            return trainer_file(path, model=thin_entries(), scaler=scaler)
        case "bare":
            return bare_file(path, thin_entries())
        case "distributed":
            return trainer_file(path, weights=prefixed("module."))
    return trainer_file(path, model=prefixed("_orig_mod.module."))


@pytest.mark.parametrize(
    ("layout", "key", "rule"),
    [
        ("official", "weights", AlphaRule.OFFICIAL),
        ("rerelease", "model", AlphaRule.RERELEASE),
        ("bare", "bare", AlphaRule.OFFICIAL),
        ("distributed", "weights", AlphaRule.OFFICIAL),
        ("compiled", "model", AlphaRule.RERELEASE),
    ],
)
def test_every_published_layout_is_read(
    layout: str, key: str, rule: AlphaRule, folder: Path
) -> None:
    path = write_layout(layout, folder / "published.pth")
    imported = import_checkpoint(path, folder / "out")
    with safe_open(imported.weights, "np") as file:
        assert set(file.keys()) == {name for name, _, _ in golden.read_index()}
        for number, (name, shape, dtype) in enumerate(golden.read_index()):
            array = file.get_tensor(name)
            assert (array.shape, str(array.dtype)) == (shape, dtype)
            assert bool((array == number).all())
    entry = json.loads(imported.manifest.read_text())
    assert entry == {
        "name": "gdkvm-base",
        "file": "gdkvm-base.safetensors",
        "bytes": imported.weights.stat().st_size,
        "sha256": sha256(imported.weights),
        "config": {"alpha_rule": rule.value, "auxiliary_head": True},
        "source": {
            "file": "published.pth",
            "sha256": sha256(path),
            "layout": key,
            "licence": None,
        },
    }
    assert sorted(os.listdir(folder / "out")) == ["gdkvm-base.json", "gdkvm-base.safetensors"]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_imported_network_is_the_published_one(
    folder: Path,
    golden_parameters: dict[str, NDArray[np.generic]],
    golden_network: GoldenNetwork,
) -> None:
    entries = {name: torch.from_numpy(value) for name, value in golden_parameters.items()}
    path = bare_file(folder / "published.pth", entries)
    imported = import_checkpoint(path, folder, sha256(path).upper(), AlphaRule.RERELEASE)
    network = load_base(imported.manifest)
    assert not network.training
    images_BTHW = golden.to_images(golden.cine(2, 64, 64), torch.float32)
    with torch.no_grad():
        outputs, _ = network.clip(images_BTHW)
    wanted, _ = golden_network(AlphaRule.RERELEASE, torch.float32).clip(images_BTHW)
    assert torch.equal(outputs[1].logits_BNHW, wanted[1].logits_BNHW)


def test_the_published_rerelease_is_known_by_its_hash(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bare_file(folder / "published.pth", thin_entries())
    monkeypatch.setattr("model.base.checkpoint.RERELEASE_SHA256", sha256(path))
    imported = import_checkpoint(path, folder)
    assert imported.config.alpha_rule is AlphaRule.RERELEASE
    assert json.loads(imported.manifest.read_text())["source"]["licence"] == "CC BY-NC-SA 4.0"


def test_weights_without_the_auxiliary_head_are_read(folder: Path) -> None:
    entries = {k: v for k, v in thin_entries().items() if not k.startswith("aux_computer.")}
    imported = import_checkpoint(bare_file(folder / "small.pth", entries), folder)
    assert imported.config == BaseConfig(AlphaRule.OFFICIAL, auxiliary_head=False)
    assert load_base(imported.manifest).aux_computer is None


def test_whoever_may_read_a_users_files_may_read_what_was_imported(folder: Path) -> None:
    published = bare_file(folder / "small.pth", thin_entries())
    imported = import_checkpoint(published, folder)
    for path in (imported.weights, imported.manifest):
        assert path.stat().st_mode == published.stat().st_mode


def test_entries_that_share_memory_are_read(folder: Path) -> None:
    entries = thin_entries()
    shared = torch.arange(8.0)
    entries |= {"A_log": shared, "dt_bias": shared}
    imported = import_checkpoint(bare_file(folder / "tied.pth", entries), folder)
    with safe_open(imported.weights, "np") as file:
        np.testing.assert_array_equal(file.get_tensor("A_log"), file.get_tensor("dt_bias"))


def test_a_wrong_checksum_is_refused_before_the_file_is_read(folder: Path) -> None:
    path = folder / "other.pth"
    path.write_bytes(b"not even a checkpoint")
    with pytest.raises(WeightsError, match=f"has SHA-256 {sha256(path)}, wanted {'0' * 64}"):
        import_checkpoint(path, folder / "out", "0" * 64)
    assert not (folder / "out").exists()


def test_an_import_through_the_command_says_what_it_wrote(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bare_file(folder / "bare.pth", thin_entries())
    imported = run_import(path, folder, sha256(path), "rerelease", Terminal())
    said = capsys.readouterr().out
    assert imported.sha256 in said
    assert "gdkvm-base.json, alpha rule rerelease" in said
    assert imported.config.alpha_rule is AlphaRule.RERELEASE


def without(name: str) -> Entries:
    return {k: v for k, v in thin_entries().items() if k != name}


BROKEN: dict[str, tuple[Any, str]] = {
    "missing": (without("A_log"), "lacks 'A_log', one of 1 missing"),
    "half auxiliary head": (without(AUXILIARY), f"lacks '{AUXILIARY}', one of 1 missing"),
    "unknown": ({**thin_entries(), "extra.bias": torch.ones(2)}, "has 'extra.bias', one of 1"),
    "shape": (
        {**thin_entries(), "dt_bias": torch.ones(9)},
        r"'dt_bias' has shape \(9,\), wanted \(8,\)",
    ),
    "type": (
        {**thin_entries(), "dt_bias": torch.ones(8, dtype=torch.float16)},
        "'dt_bias' is torch.float16 .*, wanted dense torch.float32",
    ),
    "sparse": ({**thin_entries(), "dt_bias": torch.ones(8).to_sparse()}, "'dt_bias' is .*sparse"),
    "not finite": (
        {**thin_entries(), "dt_bias": torch.full((8,), torch.nan)},
        "'dt_bias' has values that are not finite",
    ),
    "no tensor": ({**thin_entries(), "dt_bias": 8}, "'dt_bias' is a int, wanted a tensor"),
    "twice": ({**thin_entries(), "module.dt_bias": torch.ones(8)}, "holds 'dt_bias' twice"),
    "another network": (
        nn.Conv2d(1, 2, 3).state_dict(),
        "lacks 'A_log', one of 531 missing entries",
    ),
    "empty": ({}, "lacks 'A_log'"),
    "a list": ([torch.ones(8)], "holds a list, wanted a state dict"),
    "a number": (3, "holds a int, wanted a state dict"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_checkpoint_of_another_network_is_refused_with_its_first_difference(
    kind: str, folder: Path
) -> None:
    content, message = BROKEN[kind]
    path = folder / "broken.pth"
    torch.save(content, path)
    with pytest.raises(WeightsError, match=message):
        import_checkpoint(path, folder / "out")
    assert not (folder / "out").exists()


class Trap:
    """Makes a folder when a careless reader unpickles it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


class CodeTrap(Trap):
    """Runs source text when a careless reader unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"import os; os.mkdir({str(self.marker)!r})",)


def archive_of(pickled: bytes) -> bytes:
    """A PyTorch file around any pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


def write_trap(kind: str, trap: Trap, path: Path) -> None:
    match kind:
        case "whole":
            torch.save(trap, path)
        case "beside the weights":
            torch.save({"weights": thin_entries(), "it": trap}, path)
        case "among the weights":
            torch.save({"weights": {**thin_entries(), "dt_bias": trap}}, path)
        case "as a name":
            torch.save({("dt_bias", trap): torch.ones(8)}, path)
        case "without torch":
            path.write_bytes(archive_of(pickle.dumps(trap, protocol=2)))
        case "old format":
            torch.save({"weights": trap}, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("trap_kind", [Trap, CodeTrap])
@pytest.mark.parametrize(
    "place",
    [
        "whole",
        "beside the weights",
        "among the weights",
        "as a name",
        "without torch",
        "old format",
    ],
)
def test_nothing_in_a_checkpoint_is_ever_run(
    place: str, trap_kind: type[Trap], folder: Path
) -> None:
    path, marker = folder / "trap.pth", folder / "sprung"
    write_trap(place, trap_kind(marker), path)
    with pytest.raises(WeightsError, match=r"trap\.pth is (broken|not a PyTorch)"):
        import_checkpoint(path, folder / "out")
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists(), "the trap is not armed, so the test above proves nothing"


def test_a_bare_pickle_is_refused_unread(folder: Path) -> None:
    path, marker = folder / "trap.pth", folder / "sprung"
    path.write_bytes(pickle.dumps(Trap(marker)))
    with pytest.raises(WeightsError, match="not a PyTorch checkpoint"):
        import_checkpoint(path, folder / "out")
    assert not marker.exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(share: float, folder: Path) -> None:
    whole = bare_file(folder / "whole.pth", thin_entries()).read_bytes()
    path = folder / "cut.pth"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(WeightsError, match=r"cut\.pth is not a PyTorch checkpoint, or is cut"):
        import_checkpoint(path, folder / "out")


def test_a_damaged_file_is_refused_or_read_but_never_crashes(folder: Path) -> None:
    whole = bare_file(folder / "whole.pth", without("A_log")).read_bytes()
    random = np.random.default_rng(0)
    path = folder / "damaged.pth"
    for _ in range(60):
        damaged = bytearray(whole)
        # The pickle comes first and the table of contents last: that is where damage matters.
        near_end = random.integers(0, 2) * (len(damaged) - 20_000)
        for place in near_end + random.integers(0, 20_000, size=3):
            damaged[place] = random.integers(0, 256)
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match=r"^damaged\.pth"):
            import_checkpoint(path, folder / "out")


def test_a_missing_file_is_refused(folder: Path) -> None:
    with pytest.raises(WeightsError, match=r"cannot read absent\.pth: No such file"):
        import_checkpoint(folder / "absent.pth", folder)


def test_a_folder_that_cannot_be_is_refused(folder: Path) -> None:
    path = bare_file(folder / "bare.pth", thin_entries())
    with pytest.raises(WeightsError, match=r"cannot write to bare\.pth"):
        import_checkpoint(path, path)
    assert os.listdir(folder) == ["bare.pth"]
