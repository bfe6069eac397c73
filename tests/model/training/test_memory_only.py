from pathlib import Path

import torch
from torch import Tensor

from model.config import ModelConfig
from model.training.clips import read_patients
from model.training.config import TrainConfig
from model.training.loop import resume, train_step
from model.training.synthesis import make_batch


def test_learning_the_memory_alone_leaves_a_first_frame_as_it_was(
    data: Path, tiny_config: ModelConfig
) -> None:
    config = TrainConfig(
        str(data), batch=2, clip_frames=3, memory_only=True, freeze_norm=True, learning_rate=0.1
    )
    torch.manual_seed(0)
    run = resume(config, tiny_config, Path("no-such-run"))
    batch = make_batch(read_patients(data / "train", 2 * tiny_config.network_size), [], config, 0)
    images_BTHW = torch.as_tensor(batch.images_BTHW)

    @torch.no_grad()
    def answers() -> tuple[Tensor, Tensor]:
        network = run.network.eval()
        return network.clip(images_BTHW, network.initial_state(2))[:2]

    logits, presence_BT = answers()
    for _ in range(2):
        train_step(run, batch, config)
    learnt, other_BT = answers()
    assert torch.equal(learnt[:, 0], logits[:, 0])
    assert not torch.equal(learnt[:, 1], logits[:, 1])
    assert not torch.equal(other_BT[:, 0], presence_BT[:, 0])
