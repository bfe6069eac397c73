import json
from typing import Any

import pytest

from model.config import ModelConfig
from model.errors import WeightsError


def test_a_configuration_survives_the_manifest() -> None:
    config = ModelConfig(network_size=96, widths=(8, 16, 24, 32), heads=2, alpha_max=0.9)
    assert ModelConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_the_memory_works_on_a_grid_of_sixteen_pixels() -> None:
    assert ModelConfig(network_size=144).grid == 9


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"network_size": 150}, "150"),
        ({"network_size": 16}, "16"),
        ({"alpha_max": 1.0}, "alpha_max"),
        ({"alpha_max": 0.0}, "alpha_max"),
        ({"heads": 0}, "heads=0"),
        ({"key_width": -1}, "key_width=-1"),
        ({"widths": [8, 16, 32]}, "four encoder widths"),
        ({"widths": [8, 16, 32, 0]}, "0)"),
        ({"dropout": 0.1}, "dropout"),
    ],
)
def test_a_shape_that_cannot_be_built_is_refused_and_named(
    values: dict[str, Any], named: str
) -> None:
    with pytest.raises(WeightsError) as refusal:
        ModelConfig.from_json(values)
    assert named in refusal.value.message
