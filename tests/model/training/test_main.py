import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.training.__main__ import main
from model.training.config import TrainConfig
from model.training.loop import train

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def config(data: Path) -> TrainConfig:
    return TrainConfig(
        str(data),
        network_size=32,
        widths=(4, 4, 8, 8),
        steps=12,
        batch=2,
        warmup_steps=2,
        evaluate_every=4,
        checkpoint_every=1,
    )


def test_a_run_prints_its_log(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "run.toml"
    settings.write_text(replace(config, steps=2, evaluate_every=1).to_toml())
    assert main([str(settings), str(tmp_path / "run")]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["step"] for row in rows] == [1, 2]


@pytest.mark.parametrize(("words", "code"), [([], 2), (["nothing.toml", "out"], 1)])
def test_what_cannot_be_done_is_said(
    words: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == code
    assert capsys.readouterr().err


def test_a_killed_run_goes_on_to_the_bits_of_one_that_was_not(
    config: TrainConfig, tmp_path: Path
) -> None:
    whole = train(config, config.shape(), tmp_path / "whole")
    settings, out = tmp_path / "run.toml", tmp_path / "killed"
    settings.write_text(config.to_toml())
    words = [sys.executable, "-m", "model.training", str(settings), str(out)]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        while not (out / "checkpoint.pt").exists() and process.poll() is None:
            time.sleep(0.01)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    resumed = train(config, config.shape(), out)
    one, other = (torch.load(path, weights_only=True) for path in (whole, resumed))
    assert one["step"] == other["step"] == config.steps
    for part in ("network", "average"):
        for name, value in one[part].items():
            assert torch.equal(value, other[part][name]), name
    steps = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert steps == [4, 8, 12]
