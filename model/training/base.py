"""Training of ``gdkvm-base`` by the published recipe: clips from ED to ES, judged at both ends.

Source:
    Wang et al. 2025, arXiv:2512.10252, and its authors' code: clips of ten frames, cross-entropy
    and Dice on sampled points (Kirillov et al. 2020, arXiv:1912.08193) of the first and the last
    frame, and a hundredth of the same on the auxiliary outputs.
"""

import copy
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model.base import AlphaRule, BaseConfig, BaseNetwork
from model.base.checkpoint import read_checkpoint as read_published
from model.errors import FrameError, WeightsError
from model.training.checkpoint import fill, read_checkpoint, read_imagenet, read_weights
from model.training.clips import place_patient, render
from model.training.config import TrainConfig
from model.training.look import apply_look
from model.training.sets import Recording, Study
from model.training.sets.study import named

POINTS = 12_544
"""Points of a frame on which the loss is taken, 112 x 112."""

OVERSAMPLED, UNCERTAIN = 3, 0.75
"""So many times the points are drawn, and this share of the wanted ones is the least certain."""

AUXILIARY_WEIGHT = 0.01
DICE_SMOOTH = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class BaseClip:
    """A clip as the network sees it.

    Attributes:
        images_THW: grey values, uint8, from end diastole to end systole.
        cavity_2HW: the cavity in the first and the last of them, bool.
    """

    images_THW: NDArray[np.uint8]
    cavity_2HW: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class BaseBatch:
    """Clips of one step.

    Attributes:
        images_BTHW: grey values in [0, 1].
        cavity_B2HW: 1 in the cavity at the first and the last frame.
        seed: of the points.
    """

    images_BTHW: NDArray[np.float32]
    cavity_B2HW: NDArray[np.float32]
    seed: int


@dataclass(slots=True)
class BaseRun:
    """Everything that a checkpoint holds."""

    network: BaseNetwork
    average: BaseNetwork
    optimizer: torch.optim.Optimizer
    step: int


def read_clips(studies: Sequence[Study], config: TrainConfig) -> list[BaseClip]:
    """Read every study as a clip.

    Raises:
        FrameError: files are broken; all are named.
    """
    clips, problems = [], []
    for study in studies:
        try:
            clips.append(make_clip(study.read(True), config))
        except FrameError as error:
            problems.append(error.message)
    if problems:
        raise FrameError(named("the data set", problems))
    return clips


def make_clip(recording: Recording, config: TrainConfig) -> BaseClip:
    """Frames at even steps, squashed to a square; of stills alone, a motion between them."""
    side, frames = config.network_size, config.clip_frames
    if len(recording.images) == 2:
        return _moved(recording, side, frames)
    places = np.linspace(0, len(recording.images) - 1, frames).round().astype(int)
    images = [
        cv2.resize(recording.images[k], (side, side), interpolation=cv2.INTER_LINEAR)
        for k in places
    ]
    ends = [
        cv2.resize(recording.labels[k], (side, side), interpolation=cv2.INTER_NEAREST_EXACT) == 1
        for k in (0, -1)
    ]
    return BaseClip(np.stack(images).astype(np.uint8), np.stack(ends))


def _moved(recording: Recording, side: int, frames: int) -> BaseClip:
    ed, es = ((recording.images[k], recording.labels[k]) for k in (0, -1))
    patient = place_patient("", ed, es, 2 * side, recording.spacing_mm, recording.is_cropped)
    axis = np.arange(2 * side, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1)
    shown = [render(patient, float(phi), grid) for phi in np.linspace(0.0, 1.0, frames)]
    images = np.stack([image for image, _ in shown])
    ends = np.stack([shown[k][1][..., 1] > 0.5 for k in (0, -1)])
    return BaseClip(np.rint(images).astype(np.uint8), ends)


def make_base_batch(
    clips: Sequence[BaseClip], config: TrainConfig, step: int, share: slice = slice(None)
) -> BaseBatch:
    """The batch of one step: a function of the seed and the step alone."""
    rng = np.random.default_rng((config.seed, step))
    drawn = [varied(clips[int(rng.integers(len(clips)))], rng) for _ in range(config.batch)][share]
    images = np.stack([images for images, _ in drawn])
    return BaseBatch(images, np.stack([cavity for _, cavity in drawn]), int(rng.integers(2**31)))


def varied(clip: BaseClip, rng: Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A clip with another gamma, contrast, scale and rotation, each with probability a half."""
    gamma, contrast, zoom, degrees = (
        float(rng.uniform(low, high)) if rng.random() < 0.5 else nil
        for low, high, nil in ((0.7, 1.5, 1.0), (0.8, 1.2, 1.0), (0.9, 1.1, 1.0), (-15, 15, 0.0))
    )
    side = clip.images_THW.shape[-1]
    middle = (side - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), degrees, zoom)

    def turned(plane: NDArray[Any], how: int) -> NDArray[Any]:
        return cv2.warpAffine(plane, matrix, (side, side), flags=how)

    images = np.stack([turned(image, cv2.INTER_LINEAR) for image in clip.images_THW])
    cavity = [turned(plane.astype(np.uint8), cv2.INTER_NEAREST) for plane in clip.cavity_2HW]
    shown = apply_look(images.astype(np.float32) / 255.0, (gamma, contrast, 0.0))
    return shown.astype(np.float32), np.stack(cavity).astype(np.float32)


def begin(config: TrainConfig, out: Path) -> BaseRun:
    """The run's last checkpoint, or a fresh start.

    Raises:
        WeightsError: a checkpoint, start or ImageNet file that is broken or of another shape.
    """
    shape = BaseConfig(AlphaRule(config.alpha_rule))
    network = BaseNetwork(shape)
    if config.imagenet:
        load_imagenet(network, Path(config.imagenet))
    network = network.to(config.device)
    average = copy.deepcopy(network).eval()
    kept = [p for name, p in network.named_parameters() if ".query_" in name]
    others = [p for name, p in network.named_parameters() if ".query_" not in name]
    optimizer = torch.optim.AdamW(
        [
            {"params": others, "weight_decay": config.weight_decay},
            {"params": kept, "weight_decay": 0.0},
        ],
        lr=0.0,
    )
    run = BaseRun(network, average, optimizer, 0)
    path = out / "checkpoint.pt"
    if path.exists():
        saved = read_checkpoint(path)
        fill(network, saved["network"], path)
        fill(average, saved["average"], path)
        optimizer.load_state_dict(saved["optimizer"])
        run.step = saved["step"]
    elif config.start:
        start = _read_start(Path(config.start))
        fill(network, start, Path(config.start))
        fill(average, start, Path(config.start))
    return run


def _read_start(path: Path) -> dict[str, Tensor]:
    """Weights of a run, of a published checkpoint, or of one that was imported."""
    is_imported = path.suffix == ".safetensors"
    return read_weights(path) if is_imported else read_published(path).entries


def load_imagenet(network: BaseNetwork, folder: Path) -> None:
    """Start both encoders from torchvision's ResNet-50 and ResNet-18, grey in place of colour.

    Args:
        network: changed in place.
        folder: holds ``resnet50-*.pth`` and ``resnet18-*.pth``.

    Raises:
        WeightsError: one of the files is missing or not what its name says.
    """
    for encoder, name in ((network.image_encoder, "resnet50"), (network.mask_encoder, "resnet18")):
        found, entries = read_imagenet(folder, name)
        own = encoder.state_dict()
        taken = {key: value for key, value in entries.items() if key in own}
        # Grey for colour; the mask encoder's three channels are image, mask and other masks, and
        # were begun at random.
        colour = taken.pop("conv1.weight", None)
        if colour is not None and name == "resnet50":
            taken["conv1.weight"] = colour.mean(dim=1, keepdim=True)
        wrong = [key for key, value in taken.items() if value.shape != own[key].shape]
        if wrong or len(taken) < 60:
            raise WeightsError(f"{found} is no {name}: {wrong[:3] or 'entries are missing'}")
        encoder.load_state_dict(own | taken)


def keep_base(run: BaseRun, path: Path) -> None:
    """Write a checkpoint so that a crash leaves the old or the new one, never half of one."""
    part = path.with_suffix(".part")
    saved = {
        "network": run.network.state_dict(),
        "average": run.average.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "step": run.step,
        "model_config": json.dumps(run.network.config.to_json()),
        # What `gdkvm import-checkpoint` reads, by the rule that the weights were trained under.
        _entry_of(run.network.config): run.average.state_dict(),
    }
    torch.save(saved, part)
    os.replace(part, path)


def _entry_of(config: BaseConfig) -> str:
    return "model" if config.alpha_rule is AlphaRule.RERELEASE else "weights"


def go_back_base(run: BaseRun, batch: BaseBatch, config: TrainConfig) -> float:
    """Gradients of a batch; returns its loss."""
    network, device = run.network, config.device
    images_BTHW = torch.as_tensor(batch.images_BTHW, device=device)
    cavity_B2HW = torch.as_tensor(batch.cavity_B2HW, device=device)
    with torch.autocast(device, dtype=torch.bfloat16, enabled=config.bf16):
        outputs, _ = network.clip(images_BTHW)
    random = torch.Generator(device).manual_seed(batch.seed)
    loss = torch.zeros((), device=device)
    for place, output in enumerate((outputs[0], outputs[-1])):
        truth_B1HW = cavity_B2HW[:, place, None]
        auxiliary = network.auxiliary_logits(output)
        drafts = [
            auxiliary.query_BNLHW[:, :, level] for level in range(auxiliary.query_BNLHW.shape[2])
        ]
        loss = loss + point_loss(output.logits_BNHW, truth_B1HW, random)
        for logits in (auxiliary.sensory_BNHW, *drafts):
            loss = loss + AUXILIARY_WEIGHT * point_loss(logits, truth_B1HW, random)
    loss = loss / 2
    loss.backward()
    return loss.item()


def point_loss(logits_BNHW: Tensor, cavity_B1HW: Tensor, random: torch.Generator) -> Tensor:
    """Cross-entropy and Dice of the cavity on points, most of them where it is uncertain.

    Args:
        logits_BNHW: log-odds, background first, of any size.
        cavity_B1HW: the truth, of any size.
        random: draws the points.
    """
    logits_BNHW = logits_BNHW.float()
    with torch.no_grad():
        places_BP2 = _places(logits_BNHW, random)
    log_BNP = _at(logits_BNHW, places_BP2).log_softmax(dim=1)
    truth_BP = _at(cavity_B1HW, places_BP2)[:, 0]
    cross_entropy = -(truth_BP * log_BNP[:, 1] + (1 - truth_BP) * log_BNP[:, 0]).mean()
    guess_BP = log_BNP[:, 1].exp()
    overlap_B = 2 * (guess_BP * truth_BP).sum(dim=1) + DICE_SMOOTH
    size_B = guess_BP.sum(dim=1) + truth_BP.sum(dim=1) + DICE_SMOOTH
    return cross_entropy + (1 - overlap_B / size_B).mean()


def _places(logits_BNHW: Tensor, random: torch.Generator) -> Tensor:
    """places_BP2 in [-1, 1], columns before rows."""
    batch, device = logits_BNHW.shape[0], logits_BNHW.device
    drawn = torch.rand(batch, OVERSAMPLED * POINTS, 2, generator=random, device=device) * 2 - 1
    seen_BNP = _at(logits_BNHW, drawn)
    margin_BP = (seen_BNP[:, 1] - seen_BNP[:, 0]).abs()
    uncertain = int(UNCERTAIN * POINTS)
    index_BP = margin_BP.topk(uncertain, dim=1, largest=False).indices
    chosen = drawn.gather(1, index_BP[..., None].expand(-1, -1, 2))
    rest = torch.rand(batch, POINTS - uncertain, 2, generator=random, device=device) * 2 - 1
    return torch.cat([chosen, rest], dim=1)


def _at(maps_BNHW: Tensor, places_BP2: Tensor) -> Tensor:
    places_BP12 = places_BP2[:, :, None]
    return functional.grid_sample(
        maps_BNHW, places_BP12, padding_mode="border", align_corners=False
    )[..., 0]


@torch.no_grad()
def base_dice(network: BaseNetwork, clips: Sequence[BaseClip], device: str) -> dict[str, float]:
    """Mean Dice of the cavity in the first and the last frame of every clip."""
    scores: dict[str, list[float]] = {"lv_ed": [], "lv_es": []}
    for clip in clips:
        images = torch.from_numpy(clip.images_THW).to(device)[None] / 255.0
        outputs, _ = network.clip(images)
        for name, output, truth in zip(
            scores, (outputs[0], outputs[-1]), clip.cavity_2HW, strict=True
        ):
            guess = (output.masks_BNHW[0, 0] > 0.5).cpu().numpy()
            scores[name].append(
                2 * float((guess & truth).sum()) / max(1, guess.sum() + truth.sum())
            )
    return {name: round(float(np.mean(values)), 4) for name, values in scores.items()}


def base_batches(
    clips: Sequence[BaseClip], config: TrainConfig, step: int, share: slice
) -> Iterator[BaseBatch]:
    """This process's share of every batch from a step on."""
    for k in range(step, config.steps):
        yield make_base_batch(clips, config, k, share)
