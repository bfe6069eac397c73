import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.errors import WeightsError
from model.training.config import TrainConfig
from model.training.loop import train
from model.training.parallel import Crew, share_norms

ROOT = Path(__file__).resolve().parents[3]


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]


def test_two_processes_learn_what_one_learns_from_the_whole_batch(
    data: Path, tmp_path: Path
) -> None:
    # A rate so small that the weights stay: Adam makes steps of rounding where a gradient is nil.
    config = TrainConfig(
        str(data),
        network_size=32,
        widths=(4, 4, 8, 8),
        steps=2,
        batch=4,
        clip_frames=2,
        warmup_steps=1,
        learning_rate=1e-7,
        evaluate_every=1,
    )
    alone, together = tmp_path / "alone", tmp_path / "together"
    train(config, config.shape(), alone)
    settings = tmp_path / "run.toml"
    settings.write_text(config.to_toml())
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [*torchrun, "-m", "model.training", str(settings), str(together)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=300,
    )
    assert len(losses(together)) == 2
    assert losses(together) == pytest.approx(losses(alone), rel=1e-5)
    one, two = (torch.load(run / "checkpoint.pt", weights_only=True) for run in (alone, together))
    assert one["network"].keys() == two["network"].keys()
    for name, value in one["network"].items():
        torch.testing.assert_close(two["network"][name], value, rtol=1e-4, atol=1e-5)
    gradients, others = (
        torch.cat(
            [moments["exp_avg"].flatten() for moments in saved["optimizer"]["state"].values()]
        )
        for saved in (one, two)
    )
    assert (gradients - others).norm() < 1e-2 * gradients.norm()


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(WeightsError, match="batch is 5, which 2 processes"):
        Crew(0, 2).check_batch(5)
    Crew(0, 2).check_batch(6)


def test_the_shares_of_a_crew_are_the_whole_batch() -> None:
    clips = list(range(12))
    shares = [clips[Crew(rank, 3).share] for rank in range(3)]
    assert sorted(clip for share in shares for clip in share) == clips
    assert {len(share) for share in shares} == {4}


def test_alone_nothing_changes() -> None:
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(3))
    share_norms(network, Crew())
    assert type(network[0]) is torch.nn.BatchNorm2d
    assert Crew().average(network, 0.25) == 0.25
    assert replace(Crew(), rank=1).leads is False
