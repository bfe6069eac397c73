"""What the log says of a network while it trains."""

import cv2
import torch
from torch import Tensor

from model.network import LiveNetwork
from model.training.clips import Patient


@torch.no_grad()
def validation_dice(network: LiveNetwork, patients: list[Patient]) -> dict[str, float]:
    """Mean Dice of each structure at end diastole and end systole on the network grid.

    Each still is fed twice, so that the state is not empty when it is scored. A structure that
    neither annotator nor network sees is left out, and so is one that the masks do not tell.
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
                if size and patient.known[label - 1]:
                    scores.setdefault(f"{name}_{phase}", []).append(2 * both / size)
    return {name: round(float(torch.stack(values).mean()), 4) for name, values in scores.items()}
