"""The step on a GPU: frames a second by batch, and live sessions against the time they wait.

    python -m benchmarks.gpu OUT [--device cuda] [--quick]

For ``gdkvm-live`` (the shipped weights) and ``gdkvm-base`` (random ones, 256 x 256): a run of
``model.backends.slots`` at every batch size, with and without CUDA graphs, in float32 (without
TensorFloat-32) and bfloat16, beside the network in torch eager. Times hold everything that a
backend does: frames to the device, the step, masks back. Then sessions at 60 frames/s, their
arrivals spread evenly, through the server's own schedule and batching; a session whose frame comes
while the one before is still under way loses it. Writes OUT/gpu.json and OUT/gpu.md.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_load import Load, loads_of
from benchmarks.gpu_models import (
    Model,
    Precision,
    base_model,
    frames_of,
    live_model,
    slots_of,
    step_of,
)
from model.backends.slots import Slots
from model.state import MemoryState

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
SESSIONS = (1, 16, 32, 64, 96, 128, 192, 256)
TRIAL_S, LOAD_S = 0.12, 1.0
BASE_SIDE = 256
PEAK_SIDE = 8192


@dataclass(frozen=True, slots=True)
class Speed:
    """Runs of one batch size, timed.

    Attributes:
        mode: ``graph``, ``plain`` (the same run, not recorded) or ``eager`` (the network alone).
        run_ms: median of a run, everything in it.
        device_ms: median of the step alone, on the device's clock; None where it was not taken.
        peak_share: operations of the step a second of ``run_ms``, over the card's measured peak.
    """

    model: str
    precision: str
    mode: str
    batch: int
    run_ms: float
    fps: float
    device_ms: float | None
    peak_share: float


def median_ms(work: Callable[[], object], trial_s: float) -> float:
    """Median of as many calls as fit, at least five, after three that do not count."""
    for _ in range(3):
        work()
    times_s: list[float] = []
    ends_s = time.perf_counter() + trial_s
    while len(times_s) < 5 or time.perf_counter() < ends_s:
        began_s = time.perf_counter()
        work()
        times_s.append(time.perf_counter() - began_s)
    return 1000 * float(np.median(times_s))


def device_ms(work: Callable[[], object], count: int = 15) -> float:
    """Median time of work on the device's own clock."""
    times = []
    for _ in range(count):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        work()
        ended.record()
        ended.synchronize()
        times.append(began.elapsed_time(ended))
    return float(np.median(times))


def time_slots(slots: Slots, model: Model, batch: int, trial_s: float) -> tuple[float, float]:
    """Milliseconds of a run of ``batch`` sessions, and of its step alone on the device."""
    images = frames_of(model, batch)
    states = [MemoryState.zeros(model.spec)] * batch

    def run() -> None:
        states[:] = [step[2] for step in slots.run(list(zip(images, states, strict=True)))]

    run_ms = median_ms(run, trial_s)
    if not torch.cuda.is_available():
        return run_ms, run_ms
    with torch.inference_mode():
        return run_ms, device_ms(lambda: slots._replay(batch))


def time_eager(
    model: Model, device: torch.device, precision: Precision, batch: int, trial_s: float
) -> float:
    """Milliseconds of the network as somebody would call it who writes a loop."""
    step = step_of(model, device, precision, is_fast=False)
    image_B1HW = torch.from_numpy(np.concatenate(frames_of(model, batch)))
    state = [torch.zeros((batch, *shape[1:]), device=device) for shape in model.spec.shapes]

    def run() -> None:
        with torch.inference_mode():
            probabilities_BNHW, presence_B, *after = step(image_B1HW.to(device), *state)
            state[:] = [part.float() for part in after]
            probabilities_BNHW.cpu()
            presence_B.cpu()

    return median_ms(run, trial_s)


def flops_of(model: Model, device: torch.device) -> int:
    """Operations of one frame."""
    network = model.make().to(device)
    state = [torch.zeros(shape, device=device) for shape in model.spec.shapes]
    image = torch.zeros((1, 1, model.side_px, model.side_px), device=device)
    counter: Any = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model.step(network, image, *state)
    return int(counter.get_total_flops())


def peak_flops(device: torch.device, side: int) -> float:
    """Operations a second of a large bfloat16 product, the median of several."""
    left = torch.randn(side, side, device=device, dtype=torch.bfloat16)

    def product() -> None:
        left @ left
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return 2.0 * side**3 / (median_ms(product, 0.3) / 1000)


def speeds_of(
    model: Model,
    device: torch.device,
    precisions: Sequence[Precision],
    batches: Sequence[int],
    peak: float,
    trial_s: float,
) -> list[Speed]:
    """Every batch size in every mode."""
    flops = flops_of(model, device)
    modes = ("graph", "plain", "eager") if device.type == "cuda" else ("plain", "eager")
    found = []
    for precision in precisions:
        for mode in modes:
            uses_graph = mode == "graph"
            slots = None
            if mode != "eager":
                slots = slots_of(
                    model, device, precision, batches, max(batches), uses_graph=uses_graph
                )
            for batch in batches:
                on_device_ms = None
                if slots is None:
                    run_ms = time_eager(model, device, precision, batch, trial_s)
                else:
                    run_ms, on_device_ms = time_slots(slots, model, batch, trial_s)
                fps = 1000 * batch / run_ms
                share = flops * fps / peak
                found.append(
                    Speed(model.name, precision, mode, batch, run_ms, fps, on_device_ms, share)
                )
                print(found[-1], flush=True)
    return found


def table(rows: Sequence[Speed] | Sequence[Load]) -> str:
    """As Markdown."""
    values = [asdict(row) for row in rows]
    names = list(values[0])
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    for row in values:
        cells = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small sizes, to try the script")
    asked = parser.parse_args()
    began_s = time.perf_counter()
    device = torch.device(asked.device)
    quick = asked.quick
    batches, trial_s, load_s = ((1, 2), 0.01, 0.3) if quick else (BATCHES, TRIAL_S, LOAD_S)
    sessions = (1, 2) if quick else SESSIONS
    precisions: tuple[Precision, ...] = ("f32",) if quick else ("f32", "bf16")
    layouts = [(2,)] if quick else [(8,), (16,), (32,), (1, 2, 4, 8, 16, 32, 64)]
    live, base = live_model(), base_model(64 if quick else BASE_SIDE)
    is_cuda = device.type == "cuda"
    if not is_cuda:
        torch.set_num_threads(1)
    peak = peak_flops(device, 256 if quick else PEAK_SIDE)
    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if is_cuda else platform.processor(),
        "torch": torch.__version__,
        "peak_bf16_tflops": peak / 1e12,
        "gflop_a_frame": {m.name: flops_of(m, device) / 1e9 for m in (live, base)},
        "state_bytes": {m.name: 4 * m.spec.entries for m in (live, base)},
    }
    speeds: list[Speed] = []
    loads: list[Load] = []

    def write() -> None:
        asked.out.mkdir(parents=True, exist_ok=True)
        report["took_s"] = time.perf_counter() - began_s
        report["speeds"] = [asdict(each) for each in speeds]
        report["loads"] = [asdict(each) for each in loads]
        (asked.out / "gpu.json").write_text(json.dumps(report, indent=1) + "\n")
        head = "\n".join(f"- {k}: {v}" for k, v in report.items() if k not in ("speeds", "loads"))
        tables = [table(rows) for rows in (speeds, loads) if rows]
        (asked.out / "gpu.md").write_text("\n\n".join([head, *tables]))

    # What a small machine cuts off is written as far as it came.
    for layout in layouts:
        loads += loads_of(live, device, precisions[-1], layout, sessions, load_s)
        write()
    speeds += speeds_of(live, device, precisions, batches, peak, trial_s)
    write()
    loads += loads_of(base, device, precisions[-1], layouts[0], sessions, load_s)
    write()
    speeds += speeds_of(base, device, precisions, batches[:-1], peak, trial_s)
    write()


if __name__ == "__main__":
    main()
