"""The published network under its golden parameters, built once a precision."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.base import AlphaRule, BaseConfig, BaseNetwork
from tests.model.base import golden

GoldenNetwork: TypeAlias = Callable[[AlphaRule, torch.dtype], BaseNetwork]
ReadCase: TypeAlias = Callable[[str], golden.Case]


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="package")
def golden_parameters() -> dict[str, NDArray[np.generic]]:
    return golden.parameters()


@pytest.fixture(scope="package")
def golden_network(golden_parameters: dict[str, NDArray[np.generic]]) -> GoldenNetwork:
    """Networks of either rule share one set of tensors a precision: leave them alone."""

    @cache
    def entries(dtype: torch.dtype) -> dict[str, Tensor]:
        tensors = {name: torch.from_numpy(value) for name, value in golden_parameters.items()}
        return {k: v.to(dtype) if v.is_floating_point() else v for k, v in tensors.items()}

    @cache
    def build(rule: AlphaRule, dtype: torch.dtype) -> BaseNetwork:
        network = BaseNetwork(BaseConfig(rule))
        network.load_state_dict(entries(dtype), assign=True)
        return network.requires_grad_(False).eval()

    return build


@pytest.fixture(scope="package")
def read_case() -> ReadCase:
    """Reads a case from the project's own vectors, or from those beside the checkout."""

    @cache
    def read(name: str) -> golden.Case:
        file = f"gdkvm_{name}.npz"
        shared = Path(__file__).resolve().parents[4] / "shared" / "golden" / file
        own = golden.VECTORS / file
        if not own.is_file() and not shared.is_file():
            pytest.skip(f"the golden vectors {file} are not beside the checkout")
        return golden.Case.read(own if own.is_file() else shared)

    return read
