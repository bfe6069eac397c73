import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from model.config import ModelConfig
from model.errors import FrameError, WeightsError
from model.network import LiveNetwork
from model.training import feed, loop
from model.training.clips import Patient, Still, read_patients
from model.training.config import TrainConfig
from model.training.loop import (
    Run,
    go_back,
    learning_rate,
    parameter_groups,
    resume,
    save,
    train,
    train_step,
)
from model.training.synthesis import Batch, make_batch
from model.training.validation import validation_dice


@pytest.fixture
def config(data: Path) -> TrainConfig:
    return TrainConfig(
        str(data),
        steps=5,
        batch=2,
        clip_frames=3,
        warmup_steps=2,
        evaluate_every=2,
        checkpoint_every=2,
    )


def saved_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint under one name."""
    saved = torch.load(path, weights_only=True)
    tensors = {f"{part}.{k}": v for part in ("network", "average") for k, v in saved[part].items()}
    for number, moments in saved["optimizer"]["state"].items():
        tensors |= {f"optimizer.{number}.{key}": value for key, value in moments.items()}
    return tensors


def assert_equal_checkpoints(one: Path, other: Path) -> None:
    first, second = saved_tensors(one), saved_tensors(other)
    assert first.keys() == second.keys()
    differing = [name for name in first if not torch.equal(first[name], second[name])]
    assert differing == []


class PowerCutError(Exception):
    """The machine went down."""


def test_a_run_cut_off_at_any_step_ends_with_the_bits_of_one_that_was_not(
    config: TrainConfig, tiny_config: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(config, tiny_config, tmp_path / "whole")
    plain_step = loop.train_step

    def last_step(run: Run, *others: Any) -> float:
        if run.step == 3:
            raise PowerCutError
        return plain_step(run, *others)

    monkeypatch.setattr(loop, "train_step", last_step)
    with pytest.raises(PowerCutError):
        train(config, tiny_config, tmp_path / "cut")
    monkeypatch.setattr(loop, "train_step", plain_step)
    assert torch.load(tmp_path / "cut" / "checkpoint.pt", weights_only=True)["step"] == 2
    torch.manual_seed(99)  # what else the process did must not matter
    resumed = train(config, tiny_config, tmp_path / "cut")
    assert_equal_checkpoints(whole, resumed)


def test_a_run_writes_its_settings_its_scores_and_its_shape(
    config: TrainConfig, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "run"
    checkpoint = train(config, tiny_config, out)
    assert checkpoint == out / "checkpoint.pt"
    assert TrainConfig.read(out / "config.toml") == config
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 5]
    for row in rows:
        assert math.isfinite(row["loss"])
        assert {"lv_ed", "lv_es", "myocardium_ed", "atrium_es"} <= set(row)
    saved = torch.load(checkpoint, weights_only=True)
    assert ModelConfig.from_json(json.loads(saved["model_config"])) == tiny_config
    assert not list(out.glob("*.part"))


def test_a_finished_run_is_left_as_it_is(
    config: TrainConfig, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    short = replace(config, steps=2)
    checkpoint = train(short, tiny_config, tmp_path / "run")
    before = checkpoint.read_bytes(), (tmp_path / "run" / "log.jsonl").read_text()
    # Its patients are not read again.
    shutil.rmtree(config.data)
    train(short, tiny_config, tmp_path / "run")
    assert (checkpoint.read_bytes(), (tmp_path / "run" / "log.jsonl").read_text()) == before


def test_a_folder_of_a_run_with_other_settings_is_refused(
    config: TrainConfig, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    train(replace(config, steps=1), tiny_config, tmp_path)
    with pytest.raises(WeightsError, match="other settings"):
        train(replace(config, steps=1, seed=1), tiny_config, tmp_path)


def test_a_damaged_data_folder_stops_the_run_before_it_starts(
    config: TrainConfig, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    (Path(config.data) / "valid" / "patient0003_4CH_ES.png").write_bytes(b"")
    with pytest.raises(FrameError, match="patient0003_4CH_ES"):
        train(config, tiny_config, tmp_path)


def test_learning_lowers_the_loss(config: TrainConfig, tiny_config: ModelConfig) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    patients = read_patients(Path(config.data) / "train", 2 * tiny_config.network_size)
    still = replace(config, steps=100, warmup_steps=1, learning_rate=1e-2, burst_share=0.0)
    run = resume(still, tiny_config, Path("no-such-run"))
    batch = make_batch(patients, [], still, 0)
    losses = []
    for _ in range(25):
        losses.append(train_step(run, batch, still))
        run.step += 1
    assert losses[-1] < 0.5 * losses[0]


def test_frozen_norms_keep_their_statistics_and_others_move(
    config: TrainConfig, tiny_config: ModelConfig
) -> None:
    torch.manual_seed(0)
    patients = read_patients(Path(config.data) / "train", 2 * tiny_config.network_size)
    batch = make_batch(patients, [], config, 0)
    moved = []
    for freeze in (True, False):
        run = resume(config, tiny_config, Path("no-such-run"))
        train_step(run, batch, replace(config, freeze_norm=freeze))
        moved.append(any(v.any() for k, v in run.network.state_dict().items() if "_mean" in k))
    assert moved == [False, True]


def test_the_rate_warms_up_in_a_line_and_falls_by_half_a_cosine() -> None:
    config = TrainConfig("data", steps=1100, warmup_steps=100, learning_rate=0.01)
    assert learning_rate(0, config) == pytest.approx(0.0001)
    assert learning_rate(49, config) == pytest.approx(0.005)
    assert learning_rate(99, config) == pytest.approx(0.01)
    assert learning_rate(100, config) == pytest.approx(0.01)
    assert learning_rate(600, config) == pytest.approx(0.01 * (0.01 + 0.99 * 0.5))
    assert learning_rate(1100, config) == pytest.approx(0.0001)


def test_kernels_decay_and_biases_norms_and_gains_do_not(tiny_config: ModelConfig) -> None:
    network = LiveNetwork(tiny_config)
    decayed, free = parameter_groups(network, 0.05)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.05, 0.0)
    names = {id(p): name for name, p in network.named_parameters()}
    kept = [names[id(p)] for p in free["params"]]  # type: ignore[attr-defined]
    shrunk = [names[id(p)] for p in decayed["params"]]  # type: ignore[attr-defined]
    assert sorted(kept + shrunk) == sorted(names.values())
    assert "address.gain" in kept
    assert "encoder.down2.1.weight" in kept
    assert "encoder.down2.0.weight" in shrunk
    assert not any(name.endswith("bias") for name in shrunk)


def test_a_crash_while_saving_leaves_the_old_checkpoint(
    tiny_config: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = LiveNetwork(tiny_config)
    run = Run(network, network, torch.optim.AdamW(network.parameters()), 3)
    path = tmp_path / "checkpoint.pt"
    save(run, tiny_config, path)
    before = path.read_bytes()

    def half_written(_: object, part: Path) -> None:
        part.write_bytes(before[:100])
        raise PowerCutError

    monkeypatch.setattr(torch, "save", half_written)
    with pytest.raises(PowerCutError):
        save(run, tiny_config, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_run_may_start_from_a_checkpoint_or_from_shipped_weights(
    config: TrainConfig,
    tiny_config: ModelConfig,
    tiny_checkpoint: Path,
    tmp_path: Path,
    suffix: str,
) -> None:
    wanted = torch.load(tiny_checkpoint, weights_only=True)["average"]
    start = tiny_checkpoint
    if suffix == ".safetensors":
        start = tmp_path / "shipped.safetensors"
        save_file(wanted, start)
    run = resume(replace(config, start=str(start)), tiny_config, tmp_path)
    for network in (run.network, run.average):
        assert all(torch.equal(value, wanted[k]) for k, value in network.state_dict().items())
    assert run.step == 0


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_start_of_another_shape_is_refused_and_the_first_difference_is_named(
    config: TrainConfig,
    tiny_config: ModelConfig,
    tiny_checkpoint: Path,
    tmp_path: Path,
    suffix: str,
) -> None:
    start = tiny_checkpoint
    if suffix == ".safetensors":
        start = tmp_path / "shipped.safetensors"
        save_file(torch.load(tiny_checkpoint, weights_only=True)["average"], start)
    wider = replace(tiny_config, sensory_width=12)
    with pytest.raises(WeightsError, match=r"'address\.from_sensory\.weight' has shape"):
        resume(replace(config, start=str(start)), wider, tmp_path / "out")


@pytest.mark.parametrize("name", ["cut.pt", "cut.safetensors", "none.pt", "none.safetensors"])
def test_a_start_that_is_missing_or_cut_short_is_refused_and_named(
    config: TrainConfig, tiny_config: ModelConfig, tiny_checkpoint: Path, tmp_path: Path, name: str
) -> None:
    if name.startswith("cut"):
        (tmp_path / name).write_bytes(tiny_checkpoint.read_bytes()[:5000])
    with pytest.raises(WeightsError, match=name):
        resume(replace(config, start=str(tmp_path / name)), tiny_config, tmp_path / "out")


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_the_weights(
    config: TrainConfig, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    run = resume(config, tiny_config, tmp_path)
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    side = tiny_config.network_size
    images = np.full((1, 2, side, side), np.nan, np.float32)
    labels = np.zeros((1, 2, 4, side, side), np.float32)
    batch = Batch(images, labels, np.ones((1, 2), np.float32))
    with pytest.raises(WeightsError, match="loss of step 1 is nan"):
        train_step(run, batch, replace(config, freeze_norm=True))
    assert all(torch.equal(value, before[k]) for k, value in run.network.state_dict().items())


class Painter(LiveNetwork):
    """Answers with the label that each grey level stands for."""

    def clip(self, images_BTHW, state):  # type: ignore[no-untyped-def]
        labels = (images_BTHW * 255 / 60).round().long()
        logits = torch.nn.functional.one_hot(labels, 4).movedim(-1, 2).float()
        return logits, logits[:, :, 0, 0, 0], state


def test_validation_scores_each_structure_and_leaves_out_what_nobody_sees(
    config: TrainConfig, tiny_config: ModelConfig
) -> None:
    (patient,) = read_patients(Path(config.data) / "valid", 2 * tiny_config.network_size)
    labels = patient.ed.labels_HWN.argmax(axis=-1).astype(np.uint8)
    # the network paints what it sees: the ventricle right, atrium as wall, no wall elsewhere
    painted = np.select([labels == 1, labels == 3], [60, 120], 0).astype(np.uint8)
    without_atrium = patient.es.labels_HWN.copy()
    without_atrium[..., 3] = 0
    without_atrium[..., 0] = 255 - without_atrium[..., 1:].sum(axis=-1).clip(0, 255)
    black = np.zeros_like(patient.es.image_HW)
    scored = replace(
        patient, ed=Still(painted, patient.ed.labels_HWN), es=Still(black, without_atrium)
    )
    scores = validation_dice(Painter(tiny_config), [scored])
    assert scores["lv_ed"] > 0.9
    assert scores["myocardium_ed"] < 0.05
    assert scores["atrium_ed"] == 0.0
    assert scores["lv_es"] == scores["myocardium_es"] == 0.0
    assert "atrium_es" not in scores


def test_processes_prepare_the_same_batches_as_a_thread(
    config: TrainConfig, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    alone = train(config, tiny_config, tmp_path / "alone")
    together = train(replace(config, workers=2), tiny_config, tmp_path / "together")
    assert_equal_checkpoints(alone, together)


def test_a_fold_is_left_out(
    config: TrainConfig, tiny_config: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set[str]()

    def spy(patients: list[Patient], *others: Any) -> Batch:
        seen.update(patient.name for patient in patients)
        return make_batch(patients, *others)

    monkeypatch.setattr(feed, "make_batch", spy)
    train(replace(config, steps=1, folds=2, fold=0), tiny_config, tmp_path)
    assert seen == {"patient0002"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_named(
    config: TrainConfig, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match="cuda"):
        train(replace(config, device="cuda"), tiny_config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def gradients_of(run: Run, batch: Batch, config: TrainConfig) -> tuple[float, Tensor]:
    run.network.zero_grad()
    loss = go_back(run.network.eval(), batch, config)
    parts = [p.grad.flatten() for p in run.network.parameters() if p.grad is not None]
    return loss, torch.cat(parts)


def test_a_clip_taken_in_parts_has_the_same_loss_and_nearly_its_gradient(
    config: TrainConfig, tiny_config: ModelConfig
) -> None:
    torch.manual_seed(0)
    long = replace(config, clip_frames=6)
    patients = read_patients(Path(config.data) / "train", 2 * tiny_config.network_size)
    batch = make_batch(patients, [], long, 0)
    run = resume(long, tiny_config, Path("no-such-run"))
    whole, at_once = gradients_of(run, batch, long)
    for frames in (6, 7):  # no shorter than the clip: nothing is cut
        loss, same = gradients_of(run, batch, replace(long, truncate_frames=frames))
        assert loss == whole
        assert torch.equal(same, at_once)
    loss, cut = gradients_of(run, batch, replace(long, truncate_frames=4))
    assert loss == pytest.approx(whole, rel=1e-5)
    assert not torch.equal(cut, at_once)
    assert torch.cosine_similarity(cut, at_once, dim=0) > 0.9


def test_what_masks_do_not_tell_is_neither_learnt_nor_scored(
    config: TrainConfig, tiny_config: ModelConfig
) -> None:
    patients = read_patients(Path(config.data) / "train", 2 * tiny_config.network_size)
    lv_only = [replace(patient, known=(True, False, False)) for patient in patients]
    scores = validation_dice(LiveNetwork(tiny_config).eval(), lv_only)
    assert set(scores) == {"lv_ed", "lv_es"}


def test_a_set_without_a_split_or_view_stops_the_run_before_it_starts(
    config: TrainConfig, tiny_config: ModelConfig, tmp_path: Path
) -> None:
    with pytest.raises(FrameError, match="no train patient with 2CH"):
        train(replace(config, views=("2CH",)), tiny_config, tmp_path / "two")
    shutil.rmtree(Path(config.data) / "valid")
    with pytest.raises(FrameError, match="no valid patient"):
        train(config, tiny_config, tmp_path / "run")
