import hashlib
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import server.ingest
from model import WeightsError
from server.cli import app, installed
from server.commands.terminal import CommandError

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    "serve", "segment", "batch", "stream", "replay", "demo", "bench", "weights", "train",
    "evaluate", "export", "import-checkpoint",
)  # fmt: skip


def gdkvm(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("nothing-of-that-name",),
        ("segment",),
        ("segment", "a.dcm", "--view", "PLAX"),
        ("segment", "a.dcm", "--nothing"),
        ("stream", "a.dcm"),
        ("stream", "--url", "ws://h"),
        ("evaluate",),
        ("bench", "server"),
        ("bench", "server", "--url", "ws://h", "--sessions", "0"),
        ("train",),
        ("import-checkpoint",),
        ("export", "checkpoint.pt"),
        ("serve", "--port", "65536"),
        ("serve", "--port", "many"),
    ],
)
def test_wrong_usage_exits_with_2_and_nothing_on_standard_output(words: tuple[str, ...]) -> None:
    done = gdkvm(*words)
    assert done.exit_code == 2
    assert done.stdout == "" or words == ()


def test_help_names_every_command_and_what_this_is_not() -> None:
    said = gdkvm("--help")
    assert said.exit_code == 0
    assert "Research use only" in said.stdout.replace("\n ", " ").replace("  ", " ") or (
        "Research use" in said.stdout
    )
    for name in COMMANDS:
        assert name in said.stdout
        assert gdkvm(name, "--help").exit_code == 0


def test_the_version_is_said_before_anything_is_loaded() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    script = declared["scripts"]["gdkvm"]
    code = (
        f"import pkgutil, sys; sys.argv = ['gdkvm', '--version']; "
        f"pkgutil.resolve_name({script!r})(); print(*sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    line, loaded = said.stdout.splitlines()
    assert line == f"GDKVM Live {declared['version']}"
    assert not {"openvino", "torch", "numpy", "typer"} & set(loaded.split())
    told = gdkvm("--version", "weights")
    assert (told.exit_code, told.stdout) == (0, f"{line}\n")
    assert "--version" in gdkvm("--help").stdout


def test_every_command_is_described_in_the_docs() -> None:
    text = (ROOT / "docs" / "command-line.md").read_text()
    for name in COMMANDS:
        assert f"gdkvm {name}" in text, name
    declared = {command.name or command.callback.__name__ for command in app.registered_commands}  # type: ignore[union-attr]
    assert declared | {"bench"} == set(COMMANDS)
    assert {group.name for group in app.registered_groups} == {"bench", "keys"}


def test_weights_are_listed_with_their_checksums() -> None:
    shipped = ROOT / "weights" / "manifest.json"
    if not shipped.is_file():
        pytest.skip("no weights are shipped in this checkout")
    manifest = json.loads(shipped.read_text())
    done = gdkvm("weights", "--json")
    assert done.exit_code == 0
    listed = json.loads(done.stdout)
    assert listed[0]["name"] == manifest["default"]
    assert {each["name"]: each["sha256"] for each in listed} == {
        name: entry["sha256"] for name, entry in manifest["models"].items()
    }
    assert manifest["default"] in gdkvm("weights").stdout


def test_damaged_weights_are_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise WeightsError("gdkvm-live.onnx is damaged")

    monkeypatch.setattr("server.commands.segment.load_info", refuse)
    done = gdkvm("weights", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout) == {
        "error": {"code": "bad_weights", "message": "gdkvm-live.onnx is damaged"}
    }


def test_what_is_not_installed_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(CommandError, match=r"no_such_module.*pip install"),
        installed("pip install"),
    ):
        import no_such_module  # type: ignore[import-not-found]  # noqa: F401
    monkeypatch.setitem(sys.modules, "server.commands.training", None)
    done = gdkvm("train", "run.toml", "--out", "run")
    assert done.exit_code == 1
    assert "gdkvm-live[train]" in done.stderr
    assert "(not_installed)" in done.stderr


def test_a_setting_that_is_none_is_refused_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDKVM_MAX_SESIONS", "3")
    done = gdkvm("serve", "--port", "0")
    assert done.exit_code == 1
    assert "GDKVM_MAX_SESIONS" in done.stderr
    assert "(bad_settings)" in done.stderr


def test_data_that_is_not_there_is_a_refusal_under_json(tmp_path: Path) -> None:
    done = gdkvm("evaluate", "--data", str(tmp_path / "nothing"), "--json")
    assert done.exit_code == 1
    assert set(json.loads(done.stdout)) == {"error"}


def test_a_server_that_is_not_there_is_a_refusal(tmp_path: Path) -> None:
    done = gdkvm("stream", str(tmp_path / "missing"), "--url", "ws://127.0.0.1:9")
    assert (done.exit_code, "(not_found)" in done.stderr) == (1, True)
    done = gdkvm("stream", str(server.ingest.sample_path()), "--url", "ws://127.0.0.1:9")
    assert (done.exit_code, "(connection_lost)" in done.stderr) == (1, True)


@pytest.mark.parametrize("url", ["ws://127.0.0.1:99999", "ws://[::1", "nothing://h"])
@pytest.mark.parametrize("words", [("stream", "SAMPLE"), ("bench", "server", "--seconds", "1")])
def test_an_address_that_is_none_is_a_refusal(words: tuple[str, ...], url: str) -> None:
    sample = str(server.ingest.sample_path())
    done = gdkvm(*(sample if word == "SAMPLE" else word for word in words), "--url", url)
    assert (done.exit_code, done.exception.__class__) == (1, SystemExit)
    assert done.stderr.startswith("Not done: ")


@pytest.mark.parametrize("held", [b"", b"\xff\xfe\x00", b"gdkvm_a\nmore words\n"])
def test_a_file_without_a_key_is_a_refusal_that_tells_nothing_of_it(
    tmp_path: Path, held: bytes
) -> None:
    file = tmp_path / "key"
    file.write_bytes(held)
    sample = str(server.ingest.sample_path())
    done = gdkvm("stream", sample, "--url", "ws://127.0.0.1:9", "--key-file", str(file))
    assert (done.exit_code, "(bad_request)" in done.stderr) == (1, True)
    assert "gdkvm_a" not in done.stderr


def test_a_new_key_goes_into_a_file_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    done = gdkvm("keys", "add", "prometheus", "--scopes", "admin", "--file", str(file))
    assert done.stderr
    (key,) = done.stdout.splitlines()
    assert hashlib.sha256(key.encode()).hexdigest() in file.read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_a_new_key_that_nobody_is_told_is_not_kept(tmp_path: Path, as_json: tuple[str]) -> None:
    file = tmp_path / "keys"
    assert gdkvm("keys", "add", "a", "--file", str(file)).exit_code == 0
    before = file.read_text()
    words = [sys.executable, "-m", "server", "keys", "add", "b", "--file", str(file), *as_json]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, "(storage_full)" in done.stderr) == (1, True)
    assert file.read_text() == before


def test_a_name_that_the_terminal_cannot_show_is_told_all_the_same(tmp_path: Path) -> None:
    clip = tmp_path / "\u2603.dcm"
    clip.write_bytes(server.ingest.sample_path().read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "server.cli", "segment", clip, clip.with_name("none")],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert done.stdout.startswith(b"\\u2603.dcm: 30 frames")
