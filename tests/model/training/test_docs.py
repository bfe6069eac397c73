"""The page for scientists is true: its settings are read, its commands run, its names exist."""

import json
import re
import shlex
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

import server.commands.evaluation
from model import load_predictor
from model.training.config import TrainConfig
from server.cli import app
from tests.model.training.hearts import write_index, write_patient

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
SMALL = """
network_size = 32
widths = [4, 4, 8, 8]
steps = 1
batch = 2
clip_frames = {clip_frames}
folds = {folds}
"""


def commands() -> list[str]:
    """Every `gdkvm` command of the page, without its backticks."""
    return re.findall(r"`(gdkvm [^`]+)`", PAGE.replace("\n", " "))


def settings() -> dict[str, str]:
    """The settings of the page, by the name that a comment gives each file."""
    blocks = "\n".join(re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL))
    parts = re.split(r"^# (\w+\.toml)[^\n]*\n", blocks, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("line", commands())
def test_every_command_and_option_of_the_page_is_there(line: str) -> None:
    root: Any = typer.main.get_command(app)
    words = shlex.split(line)[1:]
    command = root.commands[words[0]]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:model|benchmarks)/[\w./-]+)`", PAGE)))
)
def test_every_file_of_the_page_is_there(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("name", settings())
def test_every_setting_of_the_page_is_one(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(settings()[name])
    assert TrainConfig.read(tmp_path / name).data == "/data/camus-a4c"


def test_the_way_from_data_to_scores_can_be_gone_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for split, number in (("train", 1), ("train", 2), ("valid", 3)):
        write_patient(tmp_path / "data" / split, f"patient000{number}", number)
    rows = [("valid", "patient0003", phase, "0.8") for phase in ("ED", "ES")]
    write_index(tmp_path / "data", rows)
    for name, clip_frames in (("frames.toml", 1), ("clips.toml", 2)):
        kept = [
            line
            for line in settings()[name].splitlines()
            if line.split(" ")[0] in ("data", "start", "freeze_norm")
        ]
        text = "\n".join(kept).replace("/data/camus-a4c", "data")
        (tmp_path / name).write_text(text + SMALL.format(clip_frames=clip_frames, folds=1))
    loaded = partial(load_predictor, folder=tmp_path / "weights")
    monkeypatch.setattr(server.commands.evaluation, "load_predictor", loaded)
    order = ("train frames", "train clips", "export runs/clips", "evaluate --data")
    for start in order:
        (line, *_) = [each for each in commands() if each.startswith(f"gdkvm {start}")]
        words = shlex.split(line.replace("/data/camus-a4c", "data"))[1:]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, f"{line}: {done.output}"
    assert json.loads(done.stdout)["weights"]["name"] == "mine"
    for name in ("config.toml", "data.json", "log.jsonl", "checkpoint.pt"):
        assert (tmp_path / "runs" / "clips" / name).is_file()
        assert f"`{name}`" in PAGE
