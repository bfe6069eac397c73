"""The training loop: resumable at any moment, equal for equal seeds."""

import copy
import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.config import ModelConfig
from model.errors import FrameError, WeightsError
from model.network import LiveNetwork
from model.training.checkpoint import fill, read_checkpoint, read_weights
from model.training.clips import Patient, read_patients
from model.training.config import TrainConfig
from model.training.device import DeviceBatch, DeviceSynthesis
from model.training.distill import soften
from model.training.losses import total_loss
from model.training.synthesis import Batch, ClipPlan, draw_batch, make_batch

PREFETCH = 3


@dataclass(slots=True)
class Run:
    """Everything that a checkpoint holds."""

    network: LiveNetwork
    average: LiveNetwork
    optimizer: torch.optim.Optimizer
    step: int


def train(config: TrainConfig, model_config: ModelConfig, out: Path) -> Path:
    """Train until ``config.steps``, going on from the last checkpoint in ``out``.

    Args:
        config: the run's settings, saved as ``config.toml``.
        model_config: the network's shape, saved in every checkpoint; ``config.shape()`` is the one
            that the settings name.
        out: folder of the run; one that holds another run's settings is refused.

    Returns:
        The last checkpoint.

    Raises:
        WeightsError: ``out`` belongs to a run with other settings, a checkpoint or start is broken
            or of another shape, the machine has no such device, or the loss stopped being a number.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise WeightsError("the run asks for the device cuda; torch finds none here")
    _claim(out, config)
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
    side = 2 * model_config.network_size
    patients = read_patients(Path(config.data) / "train", side, config.workers)
    if config.folds > 1:
        patients = [p for k, p in enumerate(patients) if k % config.folds != config.fold]
    if config.soft_labels:
        patients = soften(patients, Path(config.soft_labels), config.soft_share)
    valid = read_patients(Path(config.data) / "valid", side, config.workers)
    negatives = read_negatives(config.negatives)
    with batches(patients, negatives, config) as ahead:
        run = resume(config, model_config, out)
        started = time.monotonic()
        for batch in ahead(run.step):
            loss = train_step(run, batch, config)
            run.step += 1
            if run.step % config.checkpoint_every == 0 or run.step == config.steps:
                save(run, model_config, out / "checkpoint.pt")
            if run.step % config.evaluate_every == 0 or run.step == config.steps:
                row = {"step": run.step, "loss": loss, "s": round(time.monotonic() - started)}
                row |= validation_dice(run.average, valid)
                with (out / "log.jsonl").open("a") as file:
                    file.write(json.dumps(row) + "\n")
    return out / "checkpoint.pt"


Ahead = Callable[[int], Iterator[Batch | DeviceBatch]]
Made = TypeVar("Made")


@contextmanager
def batches(
    patients: list[Patient], negatives: list[NDArray[np.uint8]], config: TrainConfig
) -> Iterator[Ahead]:
    """Prepare batches while the network trains on those before.

    Yields:
        A function from the step to go on from to its batch and all after it.
    """
    shared = patients, negatives, config
    # Forked before the device is first used: children share the patients and never touch it.
    pool: Executor = (
        ThreadPoolExecutor(1, initializer=_Shared.fill, initargs=shared)
        if config.workers == 1
        else ProcessPoolExecutor(
            config.workers, get_context("fork"), initializer=_Shared.fill, initargs=shared
        )
    )
    with pool:
        if config.device == "cpu":
            yield lambda step: _ahead(pool, _Shared.batch, config, step)
            return
        if config.workers > 1:
            pool.submit(_Shared.plans, 0).result()
        synthesis = DeviceSynthesis(patients, torch.device(config.device))
        yield lambda step: map(synthesis.batch, _ahead(pool, _Shared.plans, config, step))


class _Shared:
    """What the processes that prepare batches were given at their start."""

    given: tuple[list[Patient], list[NDArray[np.uint8]], TrainConfig]

    @classmethod
    def fill(cls, *given: Any) -> None:
        cls.given = given
        cv2.setNumThreads(1)

    @classmethod
    def batch(cls, step: int) -> Batch:
        return make_batch(*cls.given, step)

    @classmethod
    def plans(cls, step: int) -> list[ClipPlan]:
        return draw_batch(*cls.given, step)


def _ahead(
    pool: Executor, make: Callable[[int], Made], config: TrainConfig, step: int
) -> Iterator[Made]:
    """What ``make`` gives for every step from ``step`` on, made a little before it is asked for."""
    ahead = deque[Future[Made]]()
    try:
        for k in range(step, config.steps):
            while len(ahead) < PREFETCH * config.workers and k + len(ahead) < config.steps:
                ahead.append(pool.submit(make, k + len(ahead)))
            yield ahead.popleft().result()
    finally:
        for future in ahead:
            future.cancel()


def _claim(out: Path, config: TrainConfig) -> None:
    out.mkdir(parents=True, exist_ok=True)
    saved = out / "config.toml"
    if saved.exists() and saved.read_text() != config.to_toml():
        raise WeightsError(f"{out} holds a run with other settings; choose another folder")
    saved.write_text(config.to_toml())


def read_negatives(folder: str) -> list[NDArray[np.uint8]]:
    """Grey images of the folder, sorted by name; none where no folder is given.

    Raises:
        FrameError: the folder holds no PNG image, or unreadable ones; they are named.
    """
    if not folder:
        return []
    paths = sorted(Path(folder).glob("*.png"))
    found = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths]
    images = [np.asarray(image, np.uint8) for image in found if image is not None]
    if not images or len(images) < len(paths):
        broken = [path.name for path, image in zip(paths, found, strict=True) if image is None]
        raise FrameError(f"{folder}: no PNG images, or unreadable ones: {broken[:20] or 'all'}")
    return images


def resume(config: TrainConfig, model_config: ModelConfig, out: Path) -> Run:
    """The run's last checkpoint, or a fresh start.

    Raises:
        WeightsError: a checkpoint or start that is broken or of another shape.
    """
    network = LiveNetwork(model_config).to(config.device)
    average = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(parameter_groups(network, config.weight_decay), lr=0.0)
    fast = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    run = Run(fast, average.eval(), optimizer, 0)
    path = out / "checkpoint.pt"
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
    """Linear warm-up, then a half cosine down to a hundredth."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def train_step(run: Run, batch: Batch | DeviceBatch, config: TrainConfig) -> float:
    """One optimiser step; returns the loss.

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
    images, labels, presence = (
        torch.as_tensor(array, device=config.device)
        for array in (batch.images_BTHW, batch.labels_BTNHW, batch.presence_BT)
    )
    with torch.autocast(config.device, dtype=torch.bfloat16, enabled=config.bf16):
        state = run.network.initial_state(images.shape[0])
        logits_BTNHW, presence_BT, _ = run.network.clip(images, state)
    loss = total_loss(
        logits_BTNHW.flatten(0, 1),
        presence_BT.flatten(),
        labels.flatten(0, 1),
        presence.flatten(),
        config.negative_weight,
    )
    if not math.isfinite(loss.item()):
        raise WeightsError(
            f"the loss of step {run.step + 1} is {loss.item()}; the last checkpoint is from before"
        )
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(run.network.parameters(), config.clip_norm)
    run.optimizer.step()
    update_average(run, config.ema_decay)
    return loss.item()


@torch.no_grad()
def update_average(run: Run, decay: float) -> None:
    """Move the averaged weights a little towards the trained ones, faster in the first steps."""
    keep = min(decay, (1 + run.step) / (10 + run.step))
    trained = run.network.state_dict()
    for name, value in run.average.state_dict().items():
        if value.dtype.is_floating_point:
            value.lerp_(trained[name], 1 - keep)
        else:
            value.copy_(trained[name])


@torch.no_grad()
def validation_dice(network: LiveNetwork, patients: list[Patient]) -> dict[str, float]:
    """Mean Dice of each structure at end diastole and end systole on the network grid.

    Each still is fed twice, so that the state is not empty when it is scored. A structure that
    neither annotator nor network sees is left out.
    """
    scores: dict[str, list[Tensor]] = {}
    for patient in patients:
        for phase, still in (("ed", patient.ed), ("es", patient.es)):
            side = network.config.network_size
            image = cv2.resize(still.image_HW, (side, side), interpolation=cv2.INTER_AREA)
            labels = cv2.resize(still.labels_HWN, (side, side), interpolation=cv2.INTER_AREA)
            state = network.initial_state(1)
            clip = torch.from_numpy(image).to(state.memory_BMKV)[None, None] / 255.0
            logits = network.clip(clip.expand(1, 2, -1, -1), state)[0].cpu()
            guess, truth = logits[0, -1].argmax(0), torch.from_numpy(labels).argmax(-1)
            for label, name in ((1, "lv"), (2, "myocardium"), (3, "atrium")):
                both = ((guess == label) & (truth == label)).sum()
                size = (guess == label).sum() + (truth == label).sum()
                if size:
                    scores.setdefault(f"{name}_{phase}", []).append(2 * both / size)
    return {name: round(float(torch.stack(values).mean()), 4) for name, values in scores.items()}
