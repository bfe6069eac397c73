"""Accuracy against cost: encoders and input sizes for ``gdkvm-live``, equally trained.

    python benchmarks/frontier.py DATA OUT [--steps 800] [--bf16] [--only NAME ...]
                                         [--imagenet FILE.pth]

Every candidate is the whole network with another encoder or input, trained frame by frame from the
same seed for the same number of steps, then scored by ``gdkvm evaluate``'s own code on the
validation patients and timed in the engine that serves. One JSON line a candidate is added to
``OUT/frontier.jsonl``; a candidate that has a line is not trained again. FILE is torchvision's
MobileNetV2 (``mobilenet_v2-b0353104.pth``).
"""

import argparse
import copy
import json
import time
from collections.abc import Callable
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
from model.network import Encoder, Features, LiveNetwork, conv_norm
from model.predictor import Predictor
from model.state import MemoryState
from model.training.clips import read_patients
from model.training.config import TrainConfig
from model.training.evaluate import evaluate
from model.training.export import export_step
from model.training.loop import Run, parameter_groups, save, train_step
from model.training.synthesis import make_batch
from model.weights import ModelInfo, sha256_of

SLIM = (16, 32, 64, 112)
FULL = (32, 64, 96, 160)
TIMED_STEPS = 200
IMAGENET_MEAN, IMAGENET_SD = 0.449, 0.226


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


class SeparableEncoder(Encoder):
    """The plain encoder with depthwise separable blocks, one more of them a stage."""

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        super().__init__(widths)
        w2, w4, w8, w16 = widths
        self.block2 = SeparableBlock(w2)  # type: ignore[assignment]
        self.block4 = nn.Sequential(SeparableBlock(w4), SeparableBlock(w4))  # type: ignore[assignment]
        self.block8 = nn.Sequential(*(SeparableBlock(w8) for _ in range(3)))
        self.block16 = nn.Sequential(*(SeparableBlock(w16) for _ in range(3)))


class Inverted(nn.Module):
    """MobileNetV2's block, with torchvision's names of parameters.

    Source:
        Sandler et al. 2018, arXiv:1801.04381, table 2.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = inputs * expand
        layers: list[nn.Module] = [] if expand == 1 else [_conv_norm6(inputs, wide, 1, 1, 1)]
        layers += [_conv_norm6(wide, wide, 3, stride, wide)]
        layers += [nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*layers)
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Features of the next block."""
        y_BCHW: Tensor = self.conv(x_BCHW)
        return x_BCHW + y_BCHW if self.is_residual else y_BCHW


def _conv_norm6(inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())


class MobileEncoder(nn.Module):
    """MobileNetV2 to stride 16, its outputs mapped to the network's widths."""

    TAPS = (1, 3, 6, 13)

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        blocks: list[nn.Module] = [_conv_norm6(3, 32, 3, 2, 1)]
        inputs = 32
        for expand, outputs, count, stride in (
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
        ):
            for k in range(count):
                blocks.append(Inverted(inputs, outputs, stride if k == 0 else 1, expand))
                inputs = outputs
        self.features = nn.Sequential(*blocks)
        self.adapt = nn.ModuleList(
            conv_norm(inputs, outputs, 1)
            for inputs, outputs in zip((16, 24, 32, 96), widths, strict=True)
        )

    def load_imagenet(self, path: Path) -> None:
        """Take torchvision's weights up to stride 16."""
        saved = torch.load(path, weights_only=True)
        wanted = self.features.state_dict()
        self.features.load_state_dict({name: saved[f"features.{name}"] for name in wanted})

    def forward(self, image_B1HW: Tensor) -> Features:
        """Grey values in [0, 1] in, features out."""
        x = ((image_B1HW - IMAGENET_MEAN) / IMAGENET_SD).expand(-1, 3, -1, -1)
        found: list[Tensor] = []
        for index, block in enumerate(self.features):
            x = block(x)
            if index in self.TAPS:
                found.append(functional.relu(self.adapt[len(found)](x)))
        return Features(*found)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One point of the frontier."""

    config: ModelConfig
    encoder: Callable[[tuple[int, int, int, int]], nn.Module] = Encoder
    is_pretrained: bool = False

    def build(self, imagenet: Path | None) -> LiveNetwork:
        """The network, its encoder from ImageNet where the candidate asks for it."""
        network = LiveNetwork(self.config)
        network.encoder = self.encoder(self.config.widths)  # type: ignore[assignment]
        if self.is_pretrained:
            assert imagenet is not None
            network.encoder.load_imagenet(imagenet)  # type: ignore[operator]
        return network


CANDIDATES = {
    "plain-slim-112": Candidate(ModelConfig(112, SLIM)),
    "plain-slim-144": Candidate(ModelConfig(144, SLIM)),
    "plain-slim-192": Candidate(ModelConfig(192, SLIM)),
    "plain-slim-256": Candidate(ModelConfig(256, SLIM)),
    "plain-144": Candidate(ModelConfig(144, FULL)),
    "separable-144": Candidate(ModelConfig(144, FULL), SeparableEncoder),
    "mobilenet-144": Candidate(ModelConfig(144, FULL), MobileEncoder),
    "mobilenet-144-imagenet": Candidate(ModelConfig(144, FULL), MobileEncoder, is_pretrained=True),
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
    arguments = parser.parse_args()
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
