import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from model.errors import WeightsError
from model.predictor import load_predictor
from model.weights import WEIGHTS_DIR, load_info, model_names, read_manifest, sha256_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A weights folder with two models whose served files are a few bytes."""
    models = {}
    for name in ("small", "large"):
        (tmp_path / f"{name}.onnx").write_bytes(name.encode())
        models[name] = {
            "version": "1.2.3",
            "file": f"{name}.onnx",
            "sha256": hashlib.sha256(name.encode()).hexdigest(),
            "licence": "CC0",
            "config": {"network_size": 96, "widths": [8, 8, 8, 8]},
            "self_test": [[0.0, 0.5], [1.0, 0.25]],
        }
    write(tmp_path, {"default": "small", "models": models})
    return tmp_path


def write(folder: Path, manifest: Any) -> None:
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_the_default_model_is_loaded_where_none_is_named(folder: Path) -> None:
    info = load_info(folder=folder)
    assert (info.name, info.version, info.licence) == ("small", "1.2.3", "CC0")
    assert info.sha256 == hashlib.sha256(b"small").hexdigest()
    assert info.path == folder / "small.onnx"
    assert info.network_size == 96
    assert info.self_test == ((0.0, 0.5), (1.0, 0.25))
    assert load_info("large", folder).name == "large"


def test_a_manifest_that_was_edited_on_windows_is_read(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"small",', '"large",', 1), encoding="utf-8-sig")
    assert load_info(folder=folder).name == "large"


def test_the_default_model_is_named_first(folder: Path) -> None:
    assert model_names(folder) == ["small", "large"]


def test_a_checksum_is_that_of_the_standard(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    wanted = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(tmp_path / "abc") == wanted


def test_an_unknown_model_is_refused_and_the_known_are_named(folder: Path) -> None:
    with pytest.raises(WeightsError) as refusal:
        load_info("huge", folder)
    for name in ("huge", "small", "large"):
        assert name in refusal.value.message


def test_a_file_with_one_byte_changed_is_refused(folder: Path) -> None:
    (folder / "small.onnx").write_bytes(b"smalL")
    with pytest.raises(WeightsError, match=r"small\.onnx is damaged"):
        load_info("small", folder)
    assert load_info("large", folder).name == "large"


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "small.onnx").unlink()
    with pytest.raises(WeightsError, match=r"small\.onnx is missing"):
        load_info("small", folder)


def test_a_folder_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"manifest\.json"):
        load_info(folder=tmp_path)


@pytest.mark.parametrize("text", [b"{", b"", b"\xff\xfe\x00"])
def test_a_manifest_that_is_not_json_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(text)
    with pytest.raises(WeightsError, match="not JSON"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "manifest",
    [
        [],
        {},
        {"default": "a"},
        {"default": "a", "models": []},
        {"models": {"a": {}}},
        {"default": "b", "models": {"a": {}}},
    ],
)
def test_a_manifest_without_its_default_model_is_refused(tmp_path: Path, manifest: object) -> None:
    write(tmp_path, manifest)
    with pytest.raises(WeightsError, match="manifest"):
        model_names(tmp_path)


@pytest.mark.parametrize("missing", ["version", "file", "sha256", "licence", "config", "self_test"])
def test_an_incomplete_entry_is_refused_and_the_gap_is_named(folder: Path, missing: str) -> None:
    manifest = read_manifest(folder)
    del manifest["models"]["small"][missing]
    write(folder, manifest)
    with pytest.raises(WeightsError) as refusal:
        load_info("small", folder)
    assert missing in refusal.value.message


@pytest.mark.parametrize(
    ("key", "value"), [("config", 3), ("config", {"network_size": "96"}), ("self_test", [0.5])]
)
def test_an_entry_of_the_wrong_kind_is_refused(folder: Path, key: str, value: object) -> None:
    manifest = read_manifest(folder)
    manifest["models"]["small"][key] = value
    write(folder, manifest)
    with pytest.raises(WeightsError, match="small"):
        load_info("small", folder)


def test_an_entry_that_is_no_object_is_refused(folder: Path) -> None:
    write(folder, {"default": "small", "models": {"small": "small.onnx"}})
    with pytest.raises(WeightsError, match="small"):
        load_info("small", folder)


def test_the_shipped_weights_are_the_files_of_their_manifest() -> None:
    manifest = read_manifest()
    for name in model_names():
        info = load_info(name)
        assert info.path.parent == WEIGHTS_DIR
        entry = manifest["models"][name]
        parameters = WEIGHTS_DIR / entry["parameters"]
        assert sha256_of(parameters) == entry["parameters_sha256"]
        # trained on CAMUS, whose terms follow the weights
        assert info.licence == "CC BY-NC-SA 4.0"


def test_a_tampered_copy_of_the_shipped_weights_is_not_loaded(tmp_path: Path) -> None:
    copy = tmp_path / "weights"
    shutil.copytree(WEIGHTS_DIR, copy)
    path = load_info(folder=copy).path
    tampered = bytearray(path.read_bytes())
    tampered[len(tampered) // 2] ^= 1
    path.write_bytes(tampered)
    with pytest.raises(WeightsError, match="damaged"):
        load_predictor(folder=copy)
