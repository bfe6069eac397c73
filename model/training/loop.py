"""The training loop: resumable at any moment, equal for equal seeds."""

import copy
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from model.config import ModelConfig
from model.errors import FrameError, WeightsError
from model.network import LiveNetwork, NetworkState
from model.training.average import follow, mix_in, weights_to_mix_in
from model.training.base import (
    BaseRun,
    base_batches,
    base_dice,
    begin,
    go_back_base,
    keep_base,
    read_clips,
)
from model.training.checkpoint import fill, load_imagenet, read_checkpoint, read_weights
from model.training.clips import Patient
from model.training.config import TrainConfig
from model.training.device import DeviceBatch
from model.training.distill import soften
from model.training.feed import batches
from model.training.folder import add_to_log, claim, keep_data, trim_log
from model.training.heap import keep_freed_memory
from model.training.losses import total_loss
from model.training.others import read_negatives
from model.training.parallel import Crew, join, share_norms
from model.training.patients import folds_of, read_studies
from model.training.sets import DataSet, Study, open_set
from model.training.synthesis import Batch
from model.training.validation import validation_dice
from model.training.watch import SILENT, Watch

ALONE = Crew()
CHECKPOINT = "checkpoint.pt"


@dataclass(slots=True)
class Run:
    """Everything that a checkpoint holds."""

    network: LiveNetwork
    average: LiveNetwork
    optimizer: torch.optim.Optimizer
    step: int


def train(config: TrainConfig, model_config: ModelConfig, out: Path, watch: Watch = SILENT) -> Path:
    """Train until ``config.steps``, going on from the last checkpoint in ``out``.

    Args:
        config: the run's settings, saved as ``config.toml``.
        model_config: the network's shape, saved in every checkpoint; ``config.shape()`` is the one
            that the settings name.
        out: folder of the run; one that holds another run's settings is refused.
        watch: who is told how it goes.

    Returns:
        The last checkpoint.

    Raises:
        FrameError: the data are incomplete; every broken file is named.
        WeightsError: ``out`` belongs to a run with other settings or data or is in use, a
            checkpoint or start is broken or of another shape, the machine has no such device, or
            the loss stopped being a number.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise WeightsError("the run asks for the device cuda; torch finds none here")
    with join(config.device) as crew, ExitStack() as held:
        crew.check_batch(config.batch)
        if crew.leads:
            held.enter_context(claim(out, config))
        _train(config, model_config, out, crew, watch if crew.leads else SILENT)
    return out / CHECKPOINT


def _train(
    config: TrainConfig, model_config: ModelConfig, out: Path, crew: Crew, watch: Watch
) -> None:
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    keep_freed_memory()
    if config.network == "base":
        _teach_base(config, out, crew, watch)
        return
    if _is_finished(out / CHECKPOINT, config.steps):
        return
    patients, valid = read_sides(config, out, 2 * model_config.network_size, crew, watch)
    negatives = read_negatives(config.negatives)
    with batches(patients, negatives, config, crew) as ahead:
        run = resume(config, model_config, out)
        others = weights_to_mix_in(run.average, config)
        share_norms(run.network, crew)

        def keep() -> None:
            if run.step == config.steps:
                mix_in(run.average, others, config.mean_share)
            save(run, model_config, out / CHECKPOINT)

        lesson = Lesson(
            run,
            ahead(run.step),
            learn=lambda batch: train_step(run, batch, config, crew),
            score=lambda: validation_dice(run.average, valid),
            keep=keep,
        )
        _go_on(lesson, config, out, crew, watch)


def _is_finished(checkpoint: Path, steps: int) -> bool:
    return checkpoint.exists() and read_checkpoint(checkpoint)["step"] == steps


def _teach_base(config: TrainConfig, out: Path, crew: Crew, watch: Watch) -> None:
    found, chosen = choose(config)
    sides = [read_clips(chosen[split], config) for split in ("train", "valid")]
    if crew.leads:
        keep_data(out, replace(found, studies=(*chosen["train"], *chosen["valid"])))
    run = begin(config, out)
    share_norms(run.network, crew)
    lesson = Lesson(
        run,
        base_batches(sides[0], config, run.step, crew.share),
        learn=lambda batch: take_step(run, partial(go_back_base, run, batch, config), config, crew),
        score=lambda: base_dice(run.average, sides[1], config.device),
        keep=lambda: keep_base(run, out / CHECKPOINT),
    )
    _go_on(lesson, config, out, crew, watch)


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a run does over and over.

    Attributes:
        run: what is trained.
        ahead: this process's share of every batch to come.
        learn: takes one step on a batch and returns the loss.
        score: what the log says beside the loss.
        keep: writes a checkpoint.
    """

    run: Run | BaseRun
    ahead: Iterator[Any]
    learn: Callable[[Any], float]
    score: Callable[[], dict[str, float]]
    keep: Callable[[], None]


def _go_on(lesson: Lesson, config: TrainConfig, out: Path, crew: Crew, watch: Watch) -> None:
    run = lesson.run
    crew.wait()
    if crew.leads:
        trim_log(out, run.step)
    started = time.monotonic()
    for batch in lesson.ahead:
        loss = lesson.learn(batch)
        run.step += 1
        watch.show(f"Training, loss {loss:.3f}", run.step, config.steps)
        if not crew.leads:
            continue
        is_last = run.step == config.steps
        if run.step % config.checkpoint_every == 0 or is_last:
            lesson.keep()
        if run.step % config.evaluate_every == 0 or is_last:
            row = {"step": run.step, "loss": loss, "s": round(time.monotonic() - started)}
            row |= lesson.score()
            add_to_log(out, row)
            watch.tell(row)


def choose(config: TrainConfig) -> tuple[DataSet, dict[str, list[Study]]]:
    """The data set, and its studies to train on and to validate.

    Raises:
        FrameError: the set is not whole, or a split is empty.
    """
    found = open_set(Path(config.data))
    found.check()
    chosen = {split: found.of_split(split, config.views) for split in ("train", "valid")}
    for split, studies in chosen.items():
        if not studies:
            raise FrameError(
                f"{config.data} has no {split} patient with {' or '.join(config.views)}"
            )
    return found, chosen


def read_sides(
    config: TrainConfig, out: Path, side: int, crew: Crew, watch: Watch
) -> tuple[list[Patient], list[Patient]]:
    """The patients to train on and those to validate, all files read before anything starts.

    Raises:
        FrameError: a split is empty, or files are broken; every one is named.
    """
    found, chosen = choose(config)
    both = [*chosen["train"], *chosen["valid"]]
    patients = read_studies(
        both,
        side,
        found.known,
        frames_between=config.frames_between,
        workers=config.workers,
        progress=lambda done: watch.show("Reading patients", done, len(both)),
    )
    if crew.leads:
        keep_data(out, replace(found, studies=tuple(both)))
    train, valid = patients[: len(chosen["train"])], patients[len(chosen["train"]) :]
    if config.folds > 1:
        fold_of = folds_of(found.of_split("train"), config.folds)
        pairs = zip(train, chosen["train"], strict=True)
        train = [made for made, study in pairs if fold_of[study.patient] != config.fold]
    if config.soft_labels:
        train = soften(train, Path(config.soft_labels), config.soft_share)
    return train, valid


def resume(config: TrainConfig, model_config: ModelConfig, out: Path) -> Run:
    """The run's last checkpoint, or a fresh start.

    Raises:
        WeightsError: a checkpoint or start that is broken or of another shape.
    """
    network = LiveNetwork(model_config)
    if config.imagenet:
        load_imagenet(network, Path(config.imagenet))
    network = network.to(config.device)
    average = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(parameter_groups(network, config.weight_decay), lr=0.0)
    fast = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    run = Run(fast, average.eval(), optimizer, 0)
    path = out / CHECKPOINT
    if path.exists():
        saved = read_checkpoint(path)
        fill(run.network, saved["network"], path)
        fill(run.average, saved["average"], path)
        run.optimizer.load_state_dict(saved["optimizer"])
        run.step = saved["step"]
    elif config.start:
        start = read_weights(Path(config.start))
        fill(run.network, start, Path(config.start))
        fill(run.average, start, Path(config.start))
    return run


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Matrices and kernels decay, biases, norms and gains do not."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    free = [p for p in network.parameters() if p.ndim <= 1]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]


def save(run: Run, model_config: ModelConfig, path: Path) -> None:
    """Write a checkpoint so that a crash leaves the old or the new one, never half of one."""
    part = path.with_suffix(".part")
    torch.save(
        {
            "network": run.network.state_dict(),
            "average": run.average.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "step": run.step,
            "model_config": json.dumps(model_config.to_json()),
        },
        part,
    )
    os.replace(part, path)


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then a half cosine down to a hundredth, or steps down to a tenth."""
    if config.rate_drops:
        return config.learning_rate * 0.1 ** sum(step >= drop for drop in config.rate_drops)
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def train_step(
    run: Run, batch: Batch | DeviceBatch, config: TrainConfig, crew: Crew = ALONE
) -> float:
    """One optimiser step; returns the loss, the mean of the crew's.

    Raises:
        WeightsError: the loss is no finite number; the weights are as they were.
    """
    return take_step(run, partial(go_back, run.network, batch, config), config, crew)


def take_step(
    run: Run | BaseRun, find_gradients: Callable[[], float], config: TrainConfig, crew: Crew
) -> float:
    """One optimiser step along gradients; returns the loss, the mean of the crew's.

    Raises:
        WeightsError: the loss is no finite number; the weights are as they were.
    """
    run.network.train()
    if config.freeze_norm:
        for module in run.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(run.step, config)
    run.optimizer.zero_grad(set_to_none=True)
    loss = crew.average(run.network, find_gradients())
    if not math.isfinite(loss):
        raise WeightsError(
            f"the loss of step {run.step + 1} is {loss}; the last checkpoint is from before"
        )
    nn.utils.clip_grad_norm_(run.network.parameters(), config.clip_norm)
    run.optimizer.step()
    follow(run.average, run.network, run.step, config.ema_decay)
    return loss


def go_back(network: LiveNetwork, batch: Batch | DeviceBatch, config: TrainConfig) -> float:
    """Gradients of a batch, added to those that are there; returns its loss.

    With ``truncate_frames`` the clip is taken in parts: the state goes on from part to part, the
    gradient does not.
    """
    images, labels, presence = (
        torch.as_tensor(array, device=config.device)
        for array in (batch.images_BTHW, batch.labels_BTNHW, batch.presence_BT)
    )
    frames = images.shape[1]
    known = None
    if batch.known_BN is not None:
        known = torch.as_tensor(batch.known_BN, device=config.device)
    state, total = network.initial_state(images.shape[0]), 0.0
    step = config.truncate_frames or frames
    for first in range(0, frames, step):
        part = slice(first, first + step)
        with torch.autocast(config.device, dtype=torch.bfloat16, enabled=config.bf16):
            logits_BTNHW, presence_BT, state = network.clip(images[:, part], state)
        seen = logits_BTNHW.shape[1]
        loss = total_loss(
            logits_BTNHW.flatten(0, 1),
            presence_BT.flatten(),
            labels[:, part].flatten(0, 1),
            presence[:, part].flatten(),
            config.negative_weight,
            None if known is None else known.repeat_interleave(seen, dim=0),
        )
        loss = loss * (seen / frames)
        loss.backward()
        total += loss.item()
        state = NetworkState(*(each.detach() for each in state))
    return total
