"""The shape of ``gdkvm-base``: fixed widths, and what its published versions differ in."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from model.errors import WeightsError

KEY_WIDTH = 64
VALUE_WIDTH = 256
GATE_HEADS = 8
ATTENTION_HEADS = 8
QUERIES = 16
TRANSFORMER_BLOCKS = 3
FEED_FORWARD_WIDTH = 2048
STRIDE = 16


class AlphaRule(StrEnum):
    """How the published code turns its log-decay into the multiplier of the old memory.

    OFFICIAL multiplies by the log-decay itself, a negative number without bound, its heads tiled
    over the value channels (channel v uses head v mod 8). RERELEASE multiplies by its exponential,
    which lies in (0, 1], heads interleaved (channel v uses head v div 32).
    """

    OFFICIAL = "official"
    RERELEASE = "rerelease"


@dataclass(frozen=True, slots=True)
class BaseConfig:
    """What distinguishes one ``gdkvm-base`` from another.

    Attributes:
        alpha_rule: the published memory law that the weights were trained under.
        auxiliary_head: whether the training-only head on the sensory map is there.
    """

    alpha_rule: AlphaRule = AlphaRule.OFFICIAL
    auxiliary_head: bool = True

    def to_json(self) -> dict[str, Any]:
        """As plain values for a manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "BaseConfig":
        """Read what ``to_json`` wrote.

        Raises:
            WeightsError: a field that is missing, unknown or of another type.
        """
        wanted = {"alpha_rule", "auxiliary_head"}
        if set(values) != wanted:
            raise WeightsError(
                f"a gdkvm-base config has the fields {sorted(wanted)}, got {sorted(values)}"
            )
        rule, auxiliary = values["alpha_rule"], values["auxiliary_head"]
        if rule not in list(AlphaRule) or not isinstance(auxiliary, bool):
            raise WeightsError(f"not a gdkvm-base config: {dict(values)}")
        return cls(AlphaRule(rule), auxiliary)
