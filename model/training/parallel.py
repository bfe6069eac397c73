"""Several processes that train one network, started by torchrun; alone, nothing of it happens.

Every process renders and reads its share of each batch. Gradients, the loss and the statistics of
batch norms are those of the whole batch, so that the number of processes changes the speed and not
the result beyond rounding. Gradients are averaged by hand once a step, since a clip may go
backwards in several parts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from model.errors import WeightsError


@dataclass(frozen=True, slots=True)
class Crew:
    """This process among those that train together.

    Attributes:
        rank: its number; the one numbered 0 writes files.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    @property
    def share(self) -> slice:
        """Its clips of a batch."""
        return slice(self.rank, None, self.size)

    def check_batch(self, batch: int) -> None:
        """Refuse a batch that cannot be shared evenly.

        Raises:
            WeightsError: it is no multiple of the number of processes.
        """
        if batch % self.size:
            raise WeightsError(
                f"setting batch is {batch}, which {self.size} processes cannot share evenly"
            )

    def average(self, network: nn.Module, loss: float) -> float:
        """Replace gradients by their mean over all processes; returns the mean loss."""
        if self.size == 1:
            return loss
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        told = gradients[0].new_tensor([loss])
        flat = torch.cat([*(each.flatten() for each in gradients), told])
        distributed.all_reduce(flat)
        flat /= self.size
        parts = flat.split([each.numel() for each in (*gradients, told)])
        for gradient, part in zip(gradients, parts, strict=False):
            gradient.copy_(part.view_as(gradient))
        return float(parts[-1])

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.size > 1:
            distributed.barrier()


@contextmanager
def join(device: str) -> Iterator[Crew]:
    """Meet the other processes where torchrun started several."""
    if not distributed.is_torchelastic_launched():
        yield Crew()
        return
    distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        if device == "cuda":
            torch.cuda.set_device(distributed.get_node_local_rank())
        yield Crew(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()


class _Sum(torch.autograd.Function):
    """Sum over all processes, of values forwards and of their gradients backwards."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


class CrewNorm(nn.BatchNorm2d):
    """A batch norm whose statistics are those of all processes' shares together."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Normalise; a frozen norm is an ordinary one."""
        if not self.training:
            return super().forward(x_BCHW)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        wide = x_BCHW.to(self.weight.dtype)
        size = distributed.get_world_size()
        count = size * wide.numel() // wide.shape[1]
        mean_C = _sum(wide.mean(dim=(0, 2, 3))) / size
        apart = wide - mean_C[:, None, None]
        var_C = _sum(apart.square().mean(dim=(0, 2, 3))) / size
        with torch.no_grad():
            self.running_mean.lerp_(mean_C, self.momentum)
            self.running_var.lerp_(var_C * (count / max(1, count - 1)), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        scale_C = self.weight * torch.rsqrt(var_C + self.eps)
        return (apart * scale_C[:, None, None] + self.bias[:, None, None]).to(x_BCHW.dtype)


def _sum(x: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
    return total


def share_norms(network: nn.Module, crew: Crew) -> None:
    """Make every batch norm one of the whole crew, in place; its parameters stay the same ones."""
    if crew.size == 1:
        return
    for module in network.modules():
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d:
                shared = CrewNorm(child.num_features, child.eps, child.momentum)
                # The very tensors: an optimiser holds them already.
                shared.weight, shared.bias = child.weight, child.bias
                shared.running_mean, shared.running_var = child.running_mean, child.running_var
                shared.num_batches_tracked = child.num_batches_tracked
                setattr(module, name, shared)
