"""Accuracy against cost: encoders and input sizes for ``gdkvm-live``, equally trained.

    python benchmarks/frontier.py DATA OUT [--steps 800] [--bf16] [--only NAME ...]
                                         [--imagenet FOLDER]
    python benchmarks/frontier.py DATA OUT --times

Every candidate is the whole network with another encoder or input, trained frame by frame from the
same seed for the same number of steps, then scored by ``gdkvm evaluate``'s own code on the
validation patients and timed in the engine that serves. One JSON line a candidate is added to
``OUT/frontier.jsonl``; a candidate that has a line is not trained again. FOLDER
holds torchvision's MobileNetV2 (``mobilenet_v2-b0353104.pth``). ``--times`` exports what was
trained anew and times all of it by turns, in bfloat16 and in float32, as Markdown.
"""

import argparse
import copy
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from model.backends.openvino import OpenVinoBackend
from model.config import ModelConfig
from model.encoder import PlainEncoder, conv_norm
from model.network import LiveNetwork
from model.predictor import Predictor
from model.state import MemoryState
from model.training.checkpoint import fill, load_imagenet, read_weights
from model.training.clips import read_patients
from model.training.config import TrainConfig
from model.training.evaluate import evaluate
from model.training.export import export_step
from model.training.loop import Run, parameter_groups, save, train_step
from model.training.synthesis import make_batch
from model.weights import ModelInfo, sha256_of

SLIM = (16, 32, 64, 112)
FULL = (32, 64, 96, 160)
MOBILE = ModelConfig(144, FULL, encoder="mobilenet")
TIMED_STEPS = 200
TURNS = 5


class SeparableBlock(nn.Module):
    """A residual pair of depthwise separable convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_separable(width), nn.ReLU(), *_separable(width))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Same shape out as in."""
        return functional.relu(x_BCHW + self.layers(x_BCHW))


def _separable(width: int) -> list[nn.Module]:
    return [
        nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        conv_norm(width, width, 1),
    ]


class SeparableEncoder(PlainEncoder):
    """The plain encoder with depthwise separable blocks, one more of them a stage."""

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        super().__init__(widths)
        w2, w4, w8, w16 = widths
        self.block2 = SeparableBlock(w2)  # type: ignore[assignment]
        self.block4 = nn.Sequential(SeparableBlock(w4), SeparableBlock(w4))  # type: ignore[assignment]
        self.block8 = nn.Sequential(*(SeparableBlock(w8) for _ in range(3)))
        self.block16 = nn.Sequential(*(SeparableBlock(w16) for _ in range(3)))


@dataclass(frozen=True, slots=True)
class Candidate:
    """One point of the frontier."""

    config: ModelConfig
    is_separable: bool = False
    is_pretrained: bool = False

    def untrained(self) -> LiveNetwork:
        """The network from scratch."""
        network = LiveNetwork(self.config)
        if self.is_separable:
            network.encoder = SeparableEncoder(self.config.widths)
        return network

    def build(self, imagenet: Path | None) -> LiveNetwork:
        """The network, its encoder from ImageNet where the candidate asks for it."""
        network = self.untrained()
        if self.is_pretrained:
            assert imagenet is not None, "--imagenet FOLDER"
            load_imagenet(network, imagenet)
        return network


CANDIDATES = {
    "plain-slim-112": Candidate(ModelConfig(112, SLIM)),
    "plain-slim-144": Candidate(ModelConfig(144, SLIM)),
    "plain-slim-192": Candidate(ModelConfig(192, SLIM)),
    "plain-slim-256": Candidate(ModelConfig(256, SLIM)),
    "plain-144": Candidate(ModelConfig(144, FULL)),
    "separable-144": Candidate(ModelConfig(144, FULL), is_separable=True),
    "mobilenet-144": Candidate(MOBILE),
    "mobilenet-144-imagenet": Candidate(MOBILE, is_pretrained=True),
}


def train(name: str, network: LiveNetwork, config: TrainConfig, folder: Path) -> LiveNetwork:
    """Train frame by frame; returns the averaged network."""
    torch.set_num_threads(config.threads)
    patients = read_patients(Path(config.data) / "train", 2 * network.config.network_size)
    average = copy.deepcopy(network).eval()
    optimizer = torch.optim.AdamW(parameter_groups(network, config.weight_decay), lr=0.0)
    fast = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    run = Run(fast, average, optimizer, 0)
    while run.step < config.steps:
        loss = train_step(run, make_batch(patients, [], config, run.step), config)
        run.step += 1
        if run.step % 50 == 0:
            print(f"{name}: step {run.step}, loss {loss:.4f}", flush=True)
    save(run, network.config, folder / f"{name}.pt")
    return average


def infer_ms(backend: OpenVinoBackend, side: int) -> float:
    """Median time of one step in the engine."""
    image = np.random.default_rng(0).random((1, 1, side, side), np.float32)
    memory, took = MemoryState.zeros(backend.spec), []
    for _ in range(TIMED_STEPS):
        start = time.perf_counter()
        _, _, memory = backend.step(image, memory)
        took.append(1e3 * (time.perf_counter() - start))
    return median(took)


def times(folder: Path) -> Iterator[str]:
    """Median time of one step of every candidate that was trained, all by turns in one run."""
    yield "| candidate | bfloat16 | float32 |"
    yield "| --- | --- | --- |"
    took: dict[str, dict[str, list[float]]] = {}
    paths = [path for name in CANDIDATES if (path := folder / f"{name}.pt").exists()]
    for path in paths:
        network = CANDIDATES[path.stem].untrained()
        fill(network, read_weights(path), path)
        export_step(network, path.with_suffix(".onnx"))
    for precision in ("bf16", "f32"):
        steps = {
            path.stem: OpenVinoBackend(
                path.with_suffix(".onnx"), threads=2, streams=1, precision=precision
            )
            for path in paths
        }
        for _ in range(TURNS):
            for name, backend in steps.items():
                side = CANDIDATES[name].config.network_size
                took.setdefault(name, {}).setdefault(precision, []).append(infer_ms(backend, side))
    for name, found in took.items():
        yield f"| {name} | {median(found['bf16']):.1f} ms | {median(found['f32']):.1f} ms |"


def measure(name: str, network: LiveNetwork, data: Path, folder: Path) -> dict[str, Any]:
    """Scores and times of a trained candidate."""
    path = folder / f"{name}.onnx"
    export_step(network, path)
    info = ModelInfo(name, "0", sha256_of(path), "", network.config, path, self_test=())
    backend = OpenVinoBackend(path, threads=2, streams=1, precision=None)
    report = evaluate(data, predictor=Predictor(info, backend))
    lv = report["lv"]
    return {
        "name": name,
        "parameters": sum(p.numel() for p in network.parameters()),
        "dice_ed": lv["ed"]["dice"],
        "dice_es": lv["es"]["dice"],
        "dice_ci95": lv["all"]["ci95"]["dice"],
        "hd95_mm": lv["all"]["hd95_mm"],
        "ef_mae": report["ef"]["mae"],
        "infer_ms": round(infer_ms(backend, network.config.network_size), 2),
    }


def main() -> None:
    """Train, score and time what has no line yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16")
    parser.add_argument("--only", nargs="*", choices=CANDIDATES, default=list(CANDIDATES))
    parser.add_argument("--imagenet", type=Path)
    parser.add_argument("--times", action="store_true", help="only time what was trained before")
    arguments = parser.parse_args()
    if arguments.times:
        print("\n".join(times(arguments.out)))
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    table = arguments.out / "frontier.jsonl"
    for name in arguments.only:
        lines = table.read_text().splitlines() if table.exists() else []
        if any(json.loads(line)["name"] == name for line in lines):
            continue
        torch.manual_seed(0)
        config = TrainConfig(
            data=str(arguments.data),
            steps=arguments.steps,
            threads=arguments.threads,
            bf16=arguments.bf16,
        )
        network = CANDIDATES[name].build(arguments.imagenet)
        started = time.monotonic()
        average = train(name, network, config, arguments.out)
        row = measure(name, average, arguments.data, arguments.out)
        row |= {"steps": arguments.steps, "train_s": round(time.monotonic() - started)}
        with table.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
