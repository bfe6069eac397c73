"""TrainConfig: what a training run is told, kept as one TOML file beside its weights."""

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

from model.errors import WeightsError


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One run, start to end.

    Attributes:
        data: folder in the A4C PNG layout (``train/``, ``valid/``, ``index.csv``).
        negatives: folder of PNG images that show no apical view, or empty for made-up ones only.
        start: checkpoint or safetensors file whose weights the run starts from, or empty.
        clip_frames: frames of a training clip; 1 trains frame by frame with an empty state.
        freeze_norm: keep the batch-norm statistics of ``start``.
        burst_share: share of clips that hold a burst of corrupted frames.
        negative_share: share of a batch that shows no apical view.
        negative_weight: weight of the presence loss.
        threads: processor threads of the training step.
    """

    data: str
    negatives: str = ""
    start: str = ""
    seed: int = 0
    steps: int = 6000
    batch: int = 16
    clip_frames: int = 1
    freeze_norm: bool = False
    burst_share: float = 0.6
    negative_share: float = 0.08
    negative_weight: float = 0.1
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warmup_steps: int = 200
    clip_norm: float = 3.0
    ema_decay: float = 0.998
    threads: int = 1
    evaluate_every: int = 500
    checkpoint_every: int = 250

    @classmethod
    def read(cls, path: Path) -> "TrainConfig":
        """Read a TOML file.

        Raises:
            WeightsError: an unknown setting; its name is in the message.
        """
        values = tomllib.loads(path.read_text())
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise WeightsError(f"{path.name} has unknown settings: {', '.join(sorted(unknown))}")
        return cls(**values)

    def to_toml(self) -> str:
        """As the TOML text that ``read`` takes."""
        lines = []
        for field in fields(self):
            value = getattr(self, field.name)
            text = str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')
            lines.append(f"{field.name} = {text}")
        return "\n".join(lines) + "\n"
