"""The shape of a network, frozen and saved beside every set of weights."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from model.errors import WeightsError

ENCODERS = ("plain", "mobilenet")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What fixes the shape of ``gdkvm-live``; nothing else does.

    Attributes:
        network_size: side of the square input in pixels, divisible by 16.
        widths: encoder channels at strides 2, 4, 8 and 16.
        encoder: one of ``ENCODERS``; "mobilenet" is MobileNetV2, which can start from ImageNet.
        key_width: K, width of a key.
        heads: M, independent memories, each with its own gates.
        value_width: V, width of a value in one head.
        sensory_width: channels of the sensory map.
        alpha_max: upper bound of the share of memory kept each frame, below 1.
    """

    network_size: int = 144
    widths: tuple[int, int, int, int] = (32, 64, 96, 160)
    key_width: int = 64
    heads: int = 4
    value_width: int = 32
    sensory_width: int = 64
    alpha_max: float = 0.97
    encoder: str = "plain"

    def __post_init__(self) -> None:
        """Refuse a shape that cannot be built.

        Raises:
            WeightsError: a side not divisible by 16, a width below 1, or a bound outside (0, 1).
        """
        object.__setattr__(self, "widths", tuple(self.widths))
        counts = (*self.widths, self.key_width, self.heads, self.value_width, self.sensory_width)
        if len(self.widths) != 4 or min(counts) < 1:
            raise WeightsError(f"a network needs four encoder widths, all widths >= 1, got {self}")
        if self.network_size % 16 or self.network_size < 32:
            raise WeightsError(f"network_size must be a multiple of 16, got {self.network_size}")
        if self.encoder not in ENCODERS:
            raise WeightsError(f"encoder is one of {', '.join(ENCODERS)}, got {self.encoder!r}")
        if not 0.0 < self.alpha_max < 1.0:
            raise WeightsError(f"alpha_max must lie inside (0, 1), got {self.alpha_max}")

    @property
    def grid(self) -> int:
        """Side of the stride-16 grid on which the memory works."""
        return self.network_size // 16

    def to_json(self) -> dict[str, Any]:
        """As plain values for a manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ModelConfig":
        """Read what ``to_json`` wrote.

        Raises:
            WeightsError: a field this version does not know.
        """
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise WeightsError(f"the model configuration has unknown fields: {sorted(unknown)}")
        return cls(**values)
