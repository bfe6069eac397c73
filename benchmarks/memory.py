"""What each part of the memory is worth: variants of ``gdkvm-live``, equally trained, two seeds.

    python -m benchmarks.memory DATA START OUT [--seeds 0 1] [--only NAME ...] [--bf16] [--table]

START is a checkpoint that was trained frame by frame (``benchmarks/frontier.py`` leaves one a
candidate). Every variant goes on from it with fresh recurrent parts, on the same beating clips of
48 frames with the same bursts of 2 to 10 bad frames, back-propagated in windows of 8 frames while
the state is carried on. It is then scored on beating streams of the validation patients, clean and
with bursts of 3 to 10 bad frames. Figures are kept in ``OUT``; ``--table`` prints those there.
"""

import argparse
import copy
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.memory_scores import KINDS, dice, ejection, jitter, masked_mean, table
from model.config import ModelConfig
from model.delta import delta_step, recall
from model.encoder import Features
from model.network import Address, LiveNetwork, NetworkState, StepOutput
from model.training.clips import Patient, read_patients, render
from model.training.config import TrainConfig
from model.training.look import apply_look, random_look
from model.training.loop import parameter_groups
from model.training.losses import total_loss
from model.training.synthesis import (
    LOST_CONTACT,
    contraction,
    corrupt,
    draw_clip,
    random_corruption,
    random_view,
    render_clip,
)

CLIP_FRAMES, WINDOW = 48, 8
CLIPS, BATCH = 300, 4
CLEAN = TrainConfig("", clip_frames=CLIP_FRAMES, negative_share=0.0, burst_share=0.0)
LEARNING_RATE, AVERAGE = 5e-4, 0.99
STREAM_FRAMES, AFTER = 56, 5
RECURRENT = ("from_memory", "from_sensory", "address", "gates", "value", "sensory")
RUNNING_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Variant:
    """Which parts of the memory a network has.

    Attributes:
        memory: the key-value memory is read.
        sensory: the sensory map is kept.
        place: keys and queries hold the position code.
        recall_by_state: the sensory map is added to the queries.
        by_frame: keys and queries see the frame; without it they are place and state alone.
        gram: erase and write are divided by the Gram matrix's norm, else by the positions.
        gates: alpha and beta see the frame and the state, else they are learned constants.
    """

    memory: bool = True
    sensory: bool = True
    place: bool = True
    recall_by_state: bool = True
    by_frame: bool = True
    gram: bool = True
    gates: bool = True


VARIANTS = {
    "framewise": Variant(memory=False, sensory=False),
    "sensory": Variant(memory=False),
    "full": Variant(),
    "full, keys of place and state": Variant(by_frame=False),
    "memory": Variant(sensory=False),
    "full, keys of the frame alone": Variant(place=False, recall_by_state=False),
    "full, divided by positions": Variant(gram=False),
    "full, constant gates": Variant(gates=False),
}


class VariantAddress(Address):
    """Keys and queries with the variant's terms."""

    def __init__(self, config: ModelConfig, variant: Variant) -> None:
        super().__init__(config)
        self.variant = variant

    def forward(self, f16_BCHW: Tensor, sensory_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """key_BKP and query_BKP."""
        variant = self.variant
        key_BKHW = self.global_key(f16_BCHW)
        mixed_BKHW = key_BKHW + key_BKHW.mean(dim=(2, 3), keepdim=True)
        gate_B1HW = torch.sigmoid(self.gate(mixed_BKHW))
        raw_BKHW = gate_B1HW * mixed_BKHW + (1 - gate_B1HW) * self.local_key(f16_BCHW)
        raw_BKHW = raw_BKHW * float(variant.by_frame)
        if variant.place:
            raw_BKHW = raw_BKHW + self.place(self.code_1CHW)
        moved_BKHW = raw_BKHW + self.from_sensory(sensory_BCHW)
        key_BKHW = raw_BKHW if variant.by_frame else moved_BKHW
        query_BKHW = moved_BKHW if variant.recall_by_state else raw_BKHW
        key_BKP = (self.gain * key_BKHW).flatten(2).softmax(dim=1)
        return key_BKP, (self.gain * query_BKHW).flatten(2).softmax(dim=1)


class VariantNetwork(LiveNetwork):
    """``gdkvm-live`` with parts of its memory left out."""

    def __init__(self, config: ModelConfig, variant: Variant) -> None:
        super().__init__(config)
        self.variant = variant
        self.address = VariantAddress(config, variant)
        self.constant_gates = nn.Parameter(self.gates.project.bias.detach().clone())

    def step_features(
        self, features: Features, state: NetworkState
    ) -> tuple[StepOutput, NetworkState]:
        """A step whose state holds only what the variant keeps."""
        output, after = super().step_features(features, state)
        memory = after.memory_BMKV * float(self.variant.memory)
        sensory = after.sensory_BCHW * float(self.variant.sensory)
        return output, NetworkState(memory, sensory)

    def _write(
        self, key_BKP: Tensor, seen_BCHW: Tensor, fused_BCHW: Tensor, state: NetworkState
    ) -> Tensor:
        config = self.config
        alpha_BM, beta_BM = self.gates(fused_BCHW, state.sensory_BCHW)
        if not self.variant.gates:
            constant = torch.sigmoid(self.constant_gates).expand(len(alpha_BM), -1)
            alpha_BM, beta_BM = constant.chunk(2, dim=1)
            alpha_BM = config.alpha_max * alpha_BM
        value_BMVP = torch.tanh(self.value(seen_BCHW)).flatten(2)
        value_BMVP = value_BMVP.unflatten(1, (config.heads, config.value_width))
        if self.variant.gram:
            return delta_step(state.memory_BMKV, key_BKP, value_BMVP, alpha_BM, beta_BM)
        alpha, beta = alpha_BM[..., None, None], beta_BM[..., None, None]
        change = beta * (value_BMVP - alpha * recall(state.memory_BMKV, key_BKP))
        change = change / key_BKP.shape[2]
        return alpha * state.memory_BMKV + key_BKP[:, None] @ change.transpose(2, 3)


def build(start: Path, variant: Variant) -> VariantNetwork:
    """The variant with the start's framewise parts and fresh recurrent ones."""
    saved = torch.load(start, weights_only=True)
    network = VariantNetwork(ModelConfig.from_json(json.loads(saved["model_config"])), variant)
    kept = {k: v for k, v in saved["average"].items() if k.split(".")[0] not in RECURRENT}
    network.load_state_dict(kept, strict=False)
    return network


@dataclass(slots=True, eq=False)
class Pool:
    """Clean beating clips, kept as bytes."""

    images_NTHW: NDArray[np.uint8]
    labels_NTCHW: NDArray[np.uint8]


def make_pool(patients: list[Patient], side: int) -> Pool:
    """``CLIPS`` clips of ``CLIP_FRAMES`` frames."""
    pool = Pool(
        np.empty((CLIPS, CLIP_FRAMES, side, side), np.uint8),
        np.empty((CLIPS, CLIP_FRAMES, 4, side, side), np.uint8),
    )
    for n in range(CLIPS):
        rng = np.random.default_rng((17, n))
        plan = draw_clip(patients, [], CLEAN, rng)
        images, labels = render_clip(patients[plan.patient], plan)
        pool.images_NTHW[n] = np.rint(255 * images)
        pool.labels_NTCHW[n] = np.rint(255 * labels)
    return pool


def add_bursts(
    images_THW: NDArray[np.float32], rng: Generator, shortest: int, gap: tuple[int, int]
) -> NDArray[np.int64]:
    """Spoil stretches of frames in place; returns the kind of each frame, -1 where it is clean."""
    kinds_T = np.full(len(images_THW), -1)
    t = int(rng.integers(*gap))
    while t < len(images_THW):
        # The last kind is left out: a memory is not asked to make up half a ventricle.
        kind, end = int(rng.integers(LOST_CONTACT)), t + int(rng.integers(shortest, 11))
        for k in range(t, min(end, len(images_THW))):
            dark = np.zeros_like(images_THW[k])
            bad = random_corruption(kind, rng)
            images_THW[k] = dark if kind == 0 else corrupt(images_THW[k], bad)
            kinds_T[k] = kind
        t = end + int(rng.integers(*gap))
    return kinds_T


def batches(pool: Pool, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """images_BTHW, labels_BTNHW and presence_BT of the whole pool, four clips at a time."""
    order = np.random.default_rng(seed).permutation(CLIPS)
    for first in range(0, CLIPS, BATCH):
        chosen = order[first : first + BATCH]
        images = pool.images_NTHW[chosen].astype(np.float32) / 255
        presence = np.ones(images.shape[:2], np.float32)
        for b, n in enumerate(chosen):
            rng = np.random.default_rng((seed, int(n)))
            if rng.random() < 0.8:
                presence[b] = add_bursts(images[b], rng, 2, (4, 16)) != 0
        labels = pool.labels_NTCHW[chosen].astype(np.float32) / 255
        yield torch.from_numpy(images), torch.from_numpy(labels), torch.from_numpy(presence)


def train(network: VariantNetwork, pool: Pool, seed: int, *, bf16: bool) -> VariantNetwork:
    """Windows with carried state; returns the averaged network."""
    average = copy.deepcopy(network).eval()
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(parameter_groups(network, 0.02), lr=LEARNING_RATE)
    steps, step = CLIPS // BATCH * (CLIP_FRAMES // WINDOW), 0
    for images, labels, presence in batches(pool, seed):
        state = network.initial_state(len(images))
        for t in range(0, CLIP_FRAMES, WINDOW):
            for group in optimizer.param_groups:
                share = min(1.0, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * step / steps))
                group["lr"] = LEARNING_RATE * max(share, 0.01)
            window = slice(t, t + WINDOW)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                logits, seen, state = network.clip(images[:, window], state)
            loss = total_loss(
                logits.float().flatten(0, 1),
                seen.float().flatten(),
                labels[:, window].flatten(0, 1),
                presence[:, window].flatten(),
                0.1,
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 3.0)
            optimizer.step()
            state = NetworkState(*(x.detach() for x in state))
            _average(average, network, step)
            step += 1
    return average


@torch.no_grad()
def _average(average: nn.Module, network: nn.Module, step: int) -> None:
    keep = min(AVERAGE, (1 + step) / (10 + step))
    trained = network.state_dict()
    for name, value in average.state_dict().items():
        if value.dtype.is_floating_point:
            value.lerp_(trained[name], 1 - keep)


@dataclass(slots=True, eq=False)
class Streams:
    """Beating streams of the validation patients."""

    clean_NTHW: NDArray[np.uint8]
    bad_NTHW: NDArray[np.uint8]
    labels_NTHW: NDArray[np.uint8]
    kinds_NT: NDArray[np.int64]


def make_streams(patients: list[Patient], side: int) -> Streams:
    """One stream a patient, without and with bursts."""
    shape = (len(patients), STREAM_FRAMES)
    streams = Streams(
        np.empty((*shape, side, side), np.uint8),
        np.empty((*shape, side, side), np.uint8),
        np.empty((*shape, side, side), np.uint8),
        np.empty(shape, np.int64),
    )
    for n, patient in enumerate(patients):
        rng = np.random.default_rng((29, n))
        grid, look = random_view(rng, 2 * side).grid(2 * side), random_look(rng)
        phase_T = contraction(rng.random() + rng.uniform(0.025, 0.06) * np.arange(STREAM_FRAMES))
        drift = rng.normal(0.0, 0.1, 2).astype(np.float32)
        images = np.empty((STREAM_FRAMES, side, side), np.float32)
        for t, phase in enumerate(phase_T):
            image, labels = render(patient, float(phase), grid + t * drift)
            images[t] = apply_look(image / 255.0, look)
            streams.labels_NTHW[n, t] = labels.argmax(axis=-1)
        streams.clean_NTHW[n] = np.rint(255 * images)
        streams.kinds_NT[n] = add_bursts(images, rng, 3, (7, 12))
        streams.bad_NTHW[n] = np.rint(255 * images)
    return streams


@torch.no_grad()
def segment(
    network: VariantNetwork, images_NTHW: NDArray[np.uint8], *, running: float = 0.0
) -> NDArray[np.bool_]:
    """LV masks of streams, with a running average of the probabilities where one is asked for."""
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    found = np.empty(images_NTHW.shape, np.bool_)
    for first in range(0, len(images_NTHW), 25):
        part = slice(first, first + 25)
        images = torch.from_numpy(images_NTHW[part]).float() / 255
        state, mean = network.initial_state(len(images)), None
        for t in range(images.shape[1]):
            output, state = network.step(images[:, t, None], state)
            now = output.logits_BNHW.softmax(dim=1)
            mean = now if mean is None else running * mean + (1 - running) * now
            found[part, t] = (mean.argmax(dim=1) == 1).numpy()
    return found


def score(network: VariantNetwork, streams: Streams, *, running: float = 0.0) -> dict[str, Any]:
    """Per patient: LV Dice clean, bad by kind and after a burst, jitter, EF and the truth's."""
    clean = segment(network, streams.clean_NTHW, running=running)
    bad = segment(network, streams.bad_NTHW, running=running)
    truth = streams.labels_NTHW == 1
    dice_clean, dice_bad = dice(clean, truth), dice(bad, truth)
    kinds = streams.kinds_NT
    after = (kinds < 0) & np.stack(
        [np.roll(kinds, k, axis=1) >= 0 for k in range(1, AFTER + 1)]
    ).any(axis=0)
    after[:, :AFTER] = False
    scores = {
        "clean": dice_clean[:, 10:].mean(axis=1),
        "bad": masked_mean(dice_bad, kinds >= 0),
        "after": masked_mean(dice_bad, after),
        "lost": masked_mean((dice_bad < 0.7).astype(float), kinds >= 0),
        "jitter": jitter(clean),
        "jitter_truth": jitter(truth),
        "ef": ejection(clean, truth),
        "ef_truth": ejection(truth, truth),
    }
    for index, kind in enumerate(KINDS):
        scores[kind] = masked_mean(dice_bad, kinds == index)
    return scores


def altered(network: VariantNetwork, **changes: bool) -> VariantNetwork:
    """The same trained weights with a part taken away."""
    other = copy.deepcopy(network)
    other.variant = replace(network.variant, **changes)
    return other


def run(name: str, arguments: argparse.Namespace, pool: Pool, streams: Streams, seed: int) -> None:
    """Train and score one variant unless it is there."""
    out: Path = arguments.out
    path = out / f"{seed}-{name}.npz"
    if path.exists():
        return
    started = time.monotonic()
    torch.manual_seed(seed)
    network = train(build(arguments.start, VARIANTS[name]), pool, seed, bf16=arguments.bf16)
    trained_s = time.monotonic() - started
    rows = {"": score(network, streams)}
    if name == "framewise":
        rows = {"": rows[""], " + running average": score(network, streams, running=RUNNING_SHARE)}
    if name == "full":
        rows[": forgets every frame"] = score(
            altered(network, memory=False, sensory=False), streams
        )
        rows[": memory not read"] = score(altered(network, memory=False), streams)
    torch.save(network.state_dict(), out / f"{seed}-{name}.pt")
    for suffix, scores in rows.items():
        np.savez(out / f"{seed}-{name}{suffix}.npz", **scores)
    print(f"{seed} {name}: {trained_s:.0f} s, {time.monotonic() - started:.0f} s", flush=True)


def main() -> None:
    """Train and score what is not there yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("start", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1])
    parser.add_argument("--only", nargs="*", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if not arguments.table:
        torch.set_num_threads(arguments.threads)
        side = json.loads(torch.load(arguments.start, weights_only=True)["model_config"])
        side = side["network_size"]
        pool = make_pool(read_patients(arguments.data / "train", 2 * side), side)
        streams = make_streams(read_patients(arguments.data / "valid", 2 * side), side)
        for seed in arguments.seeds:
            for name in arguments.only:
                run(name, arguments, pool, streams, seed)
    table(arguments.out)


if __name__ == "__main__":
    main()
