from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.training.clips import Patient, read_patients
from model.training.config import TrainConfig
from model.training.device import DeviceSynthesis
from model.training.synthesis import draw_batch, make_batch

CONFIG = TrainConfig("data", batch=12, clip_frames=5, seed=5, negative_share=0.2)


@pytest.fixture
def patients(data: Path) -> list[Patient]:
    return read_patients(data / "train", 96)


@pytest.mark.parametrize("clip_frames", [1, 5])
def test_torch_renders_what_the_processor_renders(
    patients: list[Patient], clip_frames: int
) -> None:
    synthesis = DeviceSynthesis(patients, torch.device("cpu"))
    for step in range(4):
        config = replace(CONFIG, clip_frames=clip_frames)
        reference = make_batch(patients, [], config, step)
        plans = draw_batch(patients, [], config, step)
        batch = synthesis.batch(plans)
        # speckle is drawn by another generator
        same = np.ones((len(plans), clip_frames), bool)
        for b, plan in enumerate(plans):
            same[b, [t for t, bad in plan.bad.items() if bad.kind == 3]] = False
        images_BTHW, labels_BTNHW = batch.images_BTHW.numpy(), batch.labels_BTNHW.numpy()
        error_BT = np.abs(images_BTHW - reference.images_BTHW).mean(axis=(2, 3))
        assert error_BT[same].max() < 0.02
        assert error_BT[same].mean() < 0.002
        # labels are sampled from half the side: softer by half a pixel along outlines
        assert np.abs(labels_BTNHW - reference.labels_BTNHW).mean() < 0.01
        sides = labels_BTNHW.argmax(axis=2) != reference.labels_BTNHW.argmax(axis=2)
        assert sides.mean() < 0.01
        np.testing.assert_array_equal(batch.presence_BT.numpy(), reference.presence_BT)
        np.testing.assert_allclose(labels_BTNHW.sum(axis=2), 1.0, atol=1e-5)
