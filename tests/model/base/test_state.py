"""What a session of the published network carries from frame to frame."""

import pytest
import torch

from model.base import STATE_NAMES, AlphaRule, BaseConfig, BaseState
from model.errors import StateError, WeightsError

FLAG_BYTES = 4


@pytest.mark.parametrize(
    ("side_px", "published_bytes"), [(112, 232_512), (128, 278_592), (256, 868_416)]
)
def test_a_session_carries_as_many_bytes_as_published_and_a_flag(
    side_px: int, published_bytes: int
) -> None:
    state = BaseState.zeros(1, 1, side_px, side_px, like=torch.zeros(()))
    assert state.nbytes == published_bytes + FLAG_BYTES


def test_a_fresh_state_is_zero_and_in_the_named_order() -> None:
    state = BaseState.zeros(2, 3, 32, 48, like=torch.zeros((), dtype=torch.float64))
    shapes = [(2, 3, 64, 256), (2, 3, 16, 257), (2, 3, 256, 2, 3), (2, 256, 2, 3), (2, 3, 32, 48)]
    assert [tuple(tensor.shape) for tensor in state.tensors()] == [*shapes, (2,)]
    assert all(not tensor.any() and tensor.dtype == torch.float64 for tensor in state.tensors())
    assert [getattr(state, name).shape for name in STATE_NAMES] == [
        tensor.shape for tensor in state.tensors()
    ]


@pytest.mark.parametrize("size_px", [(0, 64), (64, 8), (100, 64), (64, -16)])
def test_sides_that_are_no_multiple_of_16_are_refused(size_px: tuple[int, int]) -> None:
    with pytest.raises(StateError, match=f"multiples of 16, got {size_px[0]} x {size_px[1]}"):
        BaseState.zeros(1, 1, *size_px, like=torch.zeros(()))


@pytest.mark.parametrize(("batch", "structures"), [(0, 1), (1, 0), (-1, 1)])
def test_a_state_of_nothing_is_refused(batch: int, structures: int) -> None:
    with pytest.raises(StateError, match=f"got {batch}, {structures}"):
        BaseState.zeros(batch, structures, 64, 64, like=torch.zeros(()))


@pytest.mark.parametrize("config", [BaseConfig(), BaseConfig(AlphaRule.RERELEASE, False)])
def test_a_config_survives_its_json(config: BaseConfig) -> None:
    assert BaseConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"alpha_rule": "official"},
        {"alpha_rule": "official", "auxiliary_head": True, "heads": 8},
        {"alpha_rule": "paper", "auxiliary_head": True},
        {"alpha_rule": "official", "auxiliary_head": 1},
        {"alpha_rule": ["official"], "auxiliary_head": True},
    ],
)
def test_a_config_of_another_network_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(WeightsError, match="gdkvm-base config"):
        BaseConfig.from_json(values)
