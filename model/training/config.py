"""TrainConfig: what a training run is told, kept as one TOML file beside its weights."""

import json
import tomllib
from dataclasses import dataclass, fields
from math import isfinite
from pathlib import Path

from model.config import ENCODERS, ModelConfig
from model.errors import WeightsError

COUNTS = (
    "steps", "batch", "clip_frames", "threads", "workers", "folds", "evaluate_every",
    "checkpoint_every",
)  # fmt: skip
ABOVE_ZERO = ("learning_rate", "clip_norm")
NOT_NEGATIVE = (
    "frames_between", "truncate_frames", "seed", "warmup_steps", "weight_decay", "negative_weight",
)  # fmt: skip
SHARES = ("burst_share", "negative_share", "ema_decay", "soft_share", "mean_share")
VIEWS = ("4CH", "2CH")
WORDS = {
    "network": ("live", "base"),
    "encoder": ENCODERS,
    "alpha_rule": ("official", "rerelease"),
    "device": ("cpu", "cuda"),
}


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One run, start to end.

    Attributes:
        data: folder of a data set, in one of the forms of ``model.training.sets``.
        views: the views that are trained on and validated, of "4CH" and "2CH".
        frames_between: real labelled frames kept between the two phases, where the set has them;
            clips are then made of these, else the stills are carried along by splines.
        negatives: folder of images, films and DICOM files that show no apical view, or empty for
            made-up ones only.
        start: checkpoint or safetensors file whose weights the run starts from, or empty; of "base"
            a published checkpoint too.
        mean_share: share of other weights in what the run ends with; see ``mean_with``.
        mean_with: checkpoint or safetensors file of those weights, which grew from the same ones as
            this run's, or empty for those of ``start``.
        network: "live" is ``gdkvm-live``; "base" is the published network, trained by its recipe on
            the cavity alone, for which the settings of burst, negatives, folds, soft labels,
            truncation, means, widths and encoder mean nothing.
        alpha_rule: the memory law of "base".
        imagenet: folder of torchvision's weights that the encoders begin with, or empty:
            ``resnet50-*.pth`` and ``resnet18-*.pth`` of "base", ``mobilenet_v2-*.pth`` of "live"
            with the encoder "mobilenet".
        network_size: side of the network's input.
        widths: its encoder's channels.
        encoder: "plain" or "mobilenet" (MobileNetV2).
        folds: parts into which the training patients are split; 1 trains on all of them.
        fold: the part that is not trained on, counted from 0, where there are several.
        soft_labels: file of ``distill``, or empty: what other networks say of every still.
        soft_share: their share in the labels; the rest is the annotator's.
        clip_frames: frames of a training clip; 1 trains frame by frame with an empty state.
        truncate_frames: gradients go back over so many frames of a clip; 0 is all of them.
        rate_drops: steps at which the learning rate falls to a tenth; without any it warms up and
            falls by half a cosine.
        freeze_norm: keep the batch-norm statistics of ``start``.
        burst_share: share of clips that hold a burst of corrupted frames.
        negative_share: share of a batch that shows no apical view.
        negative_weight: weight of the presence loss.
        bf16: compute in bfloat16; several times slower where the processor has no instructions for
            it, twice as fast where it has.
        device: where the network trains and, on ``cuda``, the clips are rendered too.
        threads: processor threads of the training step.
        workers: processes that prepare patients and batches; 1 prepares them in a thread.
    """

    data: str
    views: tuple[str, ...] = VIEWS
    frames_between: int = 0
    negatives: str = ""
    start: str = ""
    mean_share: float = 0.0
    mean_with: str = ""
    seed: int = 0
    network: str = "live"
    alpha_rule: str = "rerelease"
    imagenet: str = ""
    network_size: int = 144
    widths: tuple[int, ...] = (32, 64, 96, 160)
    encoder: str = "plain"
    folds: int = 1
    fold: int = 0
    soft_labels: str = ""
    soft_share: float = 0.5
    steps: int = 6000
    batch: int = 16
    clip_frames: int = 1
    truncate_frames: int = 0
    freeze_norm: bool = False
    burst_share: float = 0.6
    negative_share: float = 0.08
    negative_weight: float = 0.1
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warmup_steps: int = 200
    rate_drops: tuple[int, ...] = ()
    clip_norm: float = 3.0
    ema_decay: float = 0.998
    bf16: bool = False
    device: str = "cpu"
    threads: int = 1
    workers: int = 1
    evaluate_every: int = 500
    checkpoint_every: int = 250

    def __post_init__(self) -> None:
        """Refuse settings that no run can have.

        Raises:
            WeightsError: a value of the wrong type or out of bounds; its name is in the message.
        """
        self._check_types()
        self._check_bounds()
        for name, words in WORDS.items():
            if getattr(self, name) not in words:
                raise WeightsError(f"setting {name} is one of {', '.join(words)}")
        if self.frames_between and self.device != "cpu":
            raise WeightsError("setting frames_between needs the device cpu")
        if self.network == "base" and self.clip_frames < 2:
            raise WeightsError("setting clip_frames must be at least 2 for the network base")
        if not 0 <= self.fold < self.folds:
            raise WeightsError("setting fold must be at least 0 and below folds")
        self.shape()

    def _check_bounds(self) -> None:
        for name in COUNTS:
            if getattr(self, name) < 1:
                raise WeightsError(f"setting {name} must be at least 1")
        for name in ABOVE_ZERO:
            if getattr(self, name) <= 0:
                raise WeightsError(f"setting {name} must be above 0")
        for name in NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise WeightsError(f"setting {name} must be at least 0")
        for name in SHARES:
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise WeightsError(f"setting {name} must lie in [0, 1]")

    def _check_types(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is float and type(value) is int:
                object.__setattr__(self, field.name, float(value))
            elif field.name == "views":
                object.__setattr__(self, field.name, _views(value))
            elif field.name == "rate_drops":
                object.__setattr__(self, field.name, _whole_numbers(field.name, value))
            elif field.name == "widths":
                object.__setattr__(self, field.name, _widths(value))
            elif type(value) is not field.type or not (isinstance(value, str) or isfinite(value)):
                raise WeightsError(f"setting {field.name} has no such value: {value!r}")

    def shape(self) -> ModelConfig:
        """The shape of the network.

        Raises:
            WeightsError: one that cannot be built.
        """
        w2, w4, w8, w16 = self.widths
        return ModelConfig(self.network_size, (w2, w4, w8, w16), encoder=self.encoder)

    @classmethod
    def read(cls, path: Path, data: str | None = None) -> "TrainConfig":
        """Read a TOML file.

        Args:
            path: the file.
            data: what the setting data becomes, whatever the file says.

        Raises:
            WeightsError: no such file, not TOML, or an unknown, missing or impossible setting; its
                name is in the message.
        """
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            raise WeightsError(f"cannot read the settings of a run: {error}") from error
        if data is not None:
            values["data"] = data
        if "data" not in values:
            raise WeightsError(f"{path.name} lacks the setting data")
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise WeightsError(f"{path.name} has unknown settings: {', '.join(sorted(unknown))}")
        return cls(**values)

    def to_toml(self) -> str:
        """As the TOML text that ``read`` takes."""
        lines = []
        for field in fields(self):
            value = getattr(self, field.name)
            # JSON's strings, numbers and booleans are TOML's too, but for DEL and surrogate pairs.
            text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
            lines.append(f"{field.name} = {text}")
        return "\n".join(lines) + "\n"


def _views(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not value or not set(value) <= set(VIEWS):
        raise WeightsError(f"setting views holds some of {', '.join(VIEWS)}, got {value!r}")
    return tuple(value)


def _widths(value: object) -> tuple[int, ...]:
    widths = _whole_numbers("widths", value)
    if len(widths) != 4:
        raise WeightsError(f"setting widths has no such value: {value!r}")
    return widths


def _whole_numbers(name: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or any(type(each) is not int for each in value):
        raise WeightsError(f"setting {name} has no such value: {value!r}")
    return tuple(value)
