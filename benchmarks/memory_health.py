"""What the memory's own signals tell of a frame: which of them would find masks that are wrong.

    python -m benchmarks.memory_health DATA [--weights FILE.safetensors] [--patients 50]

Beating streams of the validation patients, with bursts of bad frames, run through the network. Of
every frame with a memory it prints how well each signal ranks frames whose LV Dice is under 0.80
above the others (area under the ROC curve, AUC; 0.5 tells nothing) beside the signals that the
quality gates use, and what a signal adds to those: the AUC among the frames that pass the gates'
limits on presence and on the outline's soft share.

- ``norm``: Frobenius norm of the memory over its proven bound; ``norm change``: of one step.
- ``keep``, ``write``: means of the gates alpha and beta.
- ``surprise``: mean square of what is written less what the memory recalls under the same keys.
- ``sensory change``: mean size of the sensory map's step.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.memory import make_streams
from benchmarks.memory_scores import dice
from model.config import ModelConfig
from model.delta import memory_bound, recall
from model.network import LiveNetwork, NetworkState
from model.training.checkpoint import fill, read_weights
from model.training.clips import read_patients
from model.weights import load_info, parameters_of

WRONG_DICE = 0.80
FIRST = 10
SOFT = (0.4, 0.6)
PRESENT, SOFT_SHARE = 0.5, 0.5


def auc(signal: NDArray[np.float64], is_wrong: NDArray[np.bool_]) -> float:
    """Area under the ROC curve, by ranks; ties count half.

    Source:
        Mann and Whitney 1947, doi:10.1214/aoms/1177730491.
    """
    _, inverse, counts = np.unique(signal, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    wrong, right = int(is_wrong.sum()), int((~is_wrong).sum())
    return float((ranks[is_wrong].sum() - wrong * (wrong + 1) / 2) / (wrong * right))


class Wiretap:
    """Keeps what parts of a network answered in its last step."""

    def __init__(self, network: LiveNetwork) -> None:
        self.heard: dict[str, Any] = {}
        for name in ("address", "gates", "value"):
            network.get_submodule(name).register_forward_hook(self._listen(name))

    def _listen(self, name: str) -> Any:
        def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], answer: Any) -> None:
            self.heard[name] = answer

        return keep


@torch.no_grad()
def follow(network: LiveNetwork, images_THW: NDArray[np.uint8]) -> dict[str, list[Any]]:
    """Every signal of every frame, larger where something is wrong, and the LV masks."""
    config = network.config
    bound = memory_bound(config.key_width, config.value_width, config.alpha_max)
    tap, state = Wiretap(network), network.initial_state(1)
    found: dict[str, list[Any]] = {}
    for image_HW in images_THW:
        image_B1HW = torch.from_numpy(image_HW)[None, None].float() / 255
        output, after = network.step(image_B1HW, state)
        alpha_BM, beta_BM = tap.heard["gates"]
        scores_NHW = output.logits_BNHW.softmax(dim=1)[0].numpy()
        row = {
            "norm": float(after.memory_BMKV.norm(dim=(2, 3)).max()) / bound,
            "norm change": float((after.memory_BMKV - state.memory_BMKV).norm()),
            "keep": float(alpha_BM.mean()),
            "write": -float(beta_BM.mean()),
            "surprise": _surprise(config, tap.heard, state),
            "sensory change": float((after.sensory_BCHW - state.sensory_BCHW).abs().mean()),
            "presence": -float(output.presence_B.sigmoid()),
            "soft share": _soft_share(scores_NHW[1]),
            "mask": scores_NHW.argmax(axis=0) == 1,
        }
        for name, value in row.items():
            found.setdefault(name, []).append(value)
        state = after
    return found


def _surprise(config: ModelConfig, heard: dict[str, Any], state: NetworkState) -> float:
    key_BKP, _ = heard["address"]
    value_BMVP = torch.tanh(heard["value"]).flatten(2)
    value_BMVP = value_BMVP.unflatten(1, (config.heads, config.value_width))
    return float((value_BMVP - recall(state.memory_BMKV, key_BKP)).square().mean())


def _soft_share(lv_HW: NDArray[np.float32]) -> float:
    area = int(np.count_nonzero(lv_HW > 0.5))
    return float(np.count_nonzero((lv_HW > SOFT[0]) & (lv_HW < SOFT[1])) / max(area, 1))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", help="name in the manifest; its default if unset")
    parser.add_argument("--patients", type=int, default=50)
    options = parser.parse_args()
    info = load_info(options.weights)
    network = LiveNetwork(info.config).eval()
    path = parameters_of(info)
    fill(network, read_weights(path), path)
    side = info.config.network_size
    streams = make_streams(
        read_patients(options.data / "valid", 2 * side)[: options.patients], side
    )
    columns: dict[str, list[NDArray[np.float64]]] = {}
    wrong: list[NDArray[np.bool_]] = []
    for images_THW, labels_THW in zip(streams.bad_NTHW, streams.labels_NTHW, strict=True):
        found = follow(network, images_THW)
        masks_THW = np.stack(found.pop("mask"))
        wrong.append(dice(masks_THW, labels_THW == 1)[FIRST:] < WRONG_DICE)
        for name, values in found.items():
            columns.setdefault(name, []).append(np.array(values)[FIRST:])
    is_wrong_F = np.concatenate(wrong)
    signal = {name: np.concatenate(parts) for name, parts in columns.items()}
    passes_F = (signal["presence"] <= -PRESENT) & (signal["soft share"] <= SOFT_SHARE)
    print(f"{len(is_wrong_F)} frames, {is_wrong_F.sum()} wrong; ", end="")
    print(f"{passes_F.sum()} pass the gates, {(is_wrong_F & passes_F).sum()} of them wrong")
    print("| signal | AUC, all frames | AUC, frames that pass the gates |")
    print("| --- | --- | --- |")
    for name, value_F in signal.items():
        passing = auc(value_F[passes_F], is_wrong_F[passes_F])
        print(f"| {name} | {auc(value_F, is_wrong_F):.3f} | {passing:.3f} |")


if __name__ == "__main__":
    main()
