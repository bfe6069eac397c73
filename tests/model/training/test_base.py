import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.base import BaseConfig, BaseNetwork, import_checkpoint, load_base
from model.errors import WeightsError
from model.training.base import (
    POINTS,
    BaseClip,
    begin,
    load_imagenet,
    make_base_batch,
    make_clip,
    point_loss,
    read_clips,
)
from model.training.config import TrainConfig
from model.training.loop import learning_rate, train
from model.training.sets import Recording, open_set
from tests.model.training.sets.writing import SIZES, heart, write_nifti_release

RECIPES = Path(__file__).resolve().parents[3] / "model" / "training" / "recipes"


@pytest.fixture
def config(data: Path) -> TrainConfig:
    recipe = TrainConfig.read(RECIPES / "gdkvm-base.toml", str(data))
    return replace(recipe, device="cpu", network_size=32, clip_frames=2, batch=1, steps=1)


def test_the_recipe_is_the_published_one() -> None:
    recipe = TrainConfig.read(RECIPES / "gdkvm-base.toml", "data")
    # The fact sheet's section 5: AdamW 1e-4, a tenth at 1000 and 2000 of 3000, clip 3, 10 by 10.
    rates = [learning_rate(step, recipe) for step in (0, 999, 1000, 1999, 2000, 2999)]
    assert rates == pytest.approx([1e-4, 1e-4, 1e-5, 1e-5, 1e-6, 1e-6])
    assert (recipe.steps, recipe.batch, recipe.clip_frames, recipe.network_size) == (
        3000,
        10,
        10,
        256,
    )
    assert (recipe.weight_decay, recipe.clip_norm, recipe.bf16) == (1e-3, 3.0, False)


def test_a_run_of_the_published_network_is_kept_goes_on_and_is_imported(
    config: TrainConfig, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    checkpoint = train(config, config.shape(), out)
    (row,) = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert math.isfinite(row["loss"])
    assert {"lv_ed", "lv_es"} <= set(row)
    before = (out / "log.jsonl").read_text()
    train(config, config.shape(), out)
    assert (out / "log.jsonl").read_text() == before
    imported = import_checkpoint(checkpoint, tmp_path / "weights")
    assert imported.config.alpha_rule == "rerelease"
    saved = torch.load(checkpoint, weights_only=True)
    for name, value in load_base(imported.manifest).state_dict().items():
        torch.testing.assert_close(value, saved["average"][name])
    checkpoint.unlink()  # half a gigabyte, which pytest would keep
    imported.weights.unlink()


def test_a_run_starts_from_an_imported_file_and_goes_on_from_no_broken_one(
    config: TrainConfig, tmp_path: Path
) -> None:
    weights = BaseNetwork(BaseConfig()).state_dict()
    published = tmp_path / "published.pth"
    torch.save({"model": weights}, published)
    imported = import_checkpoint(published, tmp_path / "weights").weights
    for start in (published, imported):
        run = begin(replace(config, start=str(start)), tmp_path / "run")
        torch.testing.assert_close(run.network.state_dict(), weights)
        torch.testing.assert_close(run.average.state_dict(), weights)
        start.unlink()
    with pytest.raises(WeightsError, match=r"published\.pth"):
        begin(replace(config, start=str(published)), tmp_path / "run")
    (tmp_path / "checkpoint.pt").write_bytes(b"PK cut short")
    with pytest.raises(WeightsError, match="is not a checkpoint of a training run"):
        begin(config, tmp_path)


def test_frames_are_taken_at_even_steps_and_squashed(tmp_path: Path, config: TrainConfig) -> None:
    found = open_set(write_nifti_release(tmp_path))
    (clip, _) = read_clips(
        found.of_split("train"), replace(config, network_size=112, clip_frames=2)
    )
    labels = heart(SIZES[-1], 3)[1]
    assert clip.images_THW.shape == (2, 112, 112)
    share = clip.cavity_2HW[1].mean() / (labels == 1).mean()
    assert share == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("size", [(112, 112), (389, 549)])
def test_a_mask_is_squashed_onto_its_image(config: TrainConfig, size: tuple[int, int]) -> None:
    rows, cols = np.mgrid[: size[0], : size[1]]
    centre_2, axes_2 = 0.5 * np.array(size), 0.3 * np.array(size)
    radius = np.hypot((rows - centre_2[0]) / axes_2[0], (cols - centre_2[1]) / axes_2[1])
    labels = (radius < 1).astype(np.uint8)
    clip = make_clip(
        Recording((200 * labels,) * 3, (labels,) * 3, (0, 1, 2)),
        replace(config, network_size=128, clip_frames=3),
    )
    # The image is the mask, so that they have one centre wherever pixels are taken to lie.
    wanted, found = (
        [np.average(axis, weights=plane) for axis in np.mgrid[:128, :128]]
        for plane in (clip.images_THW[0], clip.cavity_2HW[0])
    )
    assert found == pytest.approx(wanted, abs=0.1)


def test_stills_alone_are_moved_from_one_phase_to_the_other(config: TrainConfig) -> None:
    found = open_set(Path(config.data))
    (clip, *_) = read_clips(found.of_split("train"), replace(config, clip_frames=4))
    assert clip.images_THW.shape == (4, 32, 32)
    assert clip.cavity_2HW[0].sum() > clip.cavity_2HW[1].sum() > 0


def test_batches_follow_from_the_seed_and_the_step(config: TrainConfig) -> None:
    clip = BaseClip(np.full((2, 32, 32), 99, np.uint8), np.ones((2, 32, 32), bool))
    several = replace(config, batch=4)
    one, same, other = (make_base_batch([clip], several, step) for step in (5, 5, 6))
    np.testing.assert_array_equal(one.images_BTHW, same.images_BTHW)
    assert not np.array_equal(one.images_BTHW, other.images_BTHW)
    half = make_base_batch([clip], several, 5, slice(1, None, 2))
    np.testing.assert_array_equal(half.images_BTHW, one.images_BTHW[1::2])


def test_the_loss_on_points_of_an_even_image_has_a_closed_form() -> None:
    # everywhere cavity, everywhere probability 0.8: cross-entropy -log 0.8 and Dice of P points
    logits = torch.tensor([0.2, 0.8]).log().reshape(1, 2, 1, 1).expand(1, 2, 16, 16)
    truth = torch.ones(1, 1, 32, 32)
    dice = (2 * 0.8 * POINTS + 1) / (1.8 * POINTS + 1)
    loss = point_loss(logits, truth, torch.Generator().manual_seed(0))
    assert float(loss) == pytest.approx(-math.log(0.8) + 1 - dice, rel=1e-4)


def test_imagenet_files_fill_both_encoders(tmp_path: Path) -> None:
    source = BaseNetwork(BaseConfig())
    colour = torch.rand(64, 3, 7, 7)
    for name, encoder in (("resnet50", source.image_encoder), ("resnet18", source.mask_encoder)):
        entries = encoder.state_dict() | {"fc.weight": torch.zeros(3), "conv1.weight": colour}
        torch.save(entries, tmp_path / f"{name}-0123abcd.pth")
    network = BaseNetwork(BaseConfig())
    kept = network.mask_encoder.conv1.weight.clone()
    load_imagenet(network, tmp_path)
    torch.testing.assert_close(network.image_encoder.conv1.weight[:, 0], colour.mean(dim=1))
    torch.testing.assert_close(
        network.image_encoder.layer3.state_dict(), source.image_encoder.layer3.state_dict()
    )
    assert torch.equal(network.mask_encoder.conv1.weight, kept)
    with pytest.raises(WeightsError, match=r"resnet50-\*\.pth"):
        load_imagenet(network, tmp_path / "nothing")
    for entries in ({"conv1.weight": colour}, {"features.0.weight": colour}):
        torch.save(entries, tmp_path / "resnet50-0123abcd.pth")
        with pytest.raises(WeightsError, match="is no resnet50"):
            load_imagenet(network, tmp_path)
    (tmp_path / "resnet50-0123abcd.pth").write_bytes(b"PK cut short")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_imagenet(network, tmp_path)
