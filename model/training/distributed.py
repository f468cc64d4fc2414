"""Several processes that train one model: started by `torchrun`, kept in step by torch.

`ddp` keeps the whole model in each process, `fsdp` a part of its weights, gradients and optimizer state.
Either way results are those of one process that does all parts of a step itself, up to rounding.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from ...errors import ConfigError
from .objective import Objective

Strategy = Literal["ddp", "fsdp"]
T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The processes of a run.

    Attributes:
        device: where this process computes.
        rank: its number.
        size: how many there are.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether any process says so; all get the same answer."""
        if self.size == 1:
            return flag
        told = torch.tensor(int(flag), device=self.device)
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return bool(told.item())

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in order."""
        if self.size == 1:
            return [value]
        found: list[T | None] = [None] * self.size
        dist.all_gather_object(found, value)
        return cast("list[T]", found)

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def join_world(device: torch.device) -> Generator[World]:
    """The world that `torchrun` started this process in, or one of this process alone.

    Args:
        device: kind of device; of GPUs each process takes the one of its local rank.

    Raises:
        ConfigError: `torchrun` started more processes here than there are GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(device)
        return
    if device.type == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"torchrun started {local + 1} processes or more, this machine has "
                f"{torch.cuda.device_count()} GPUs: set --nproc-per-node."
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(device, dist.get_rank(), size)
    finally:
        dist.destroy_process_group()


def spread(objective: Objective, world: World, strategy: Strategy) -> nn.Module:
    """Make a module whose backward pass leaves gradients averaged over all processes."""
    if strategy == "ddp":
        ids = [world.device] if world.device.type == "cuda" else None
        # A batch uses the layers of its modalities only.
        return DistributedDataParallel(objective, device_ids=ids, find_unused_parameters=True)
    mesh = init_device_mesh(world.device.type, (world.size,))
    fourm = objective.fourm
    for block in (*fourm.encoder, *fourm.decoder):
        fully_shard(block, mesh=mesh)
    for block in fourm.decoder:
        register_fsdp_forward_method(block, "context_kv")
    fully_shard(objective, mesh=mesh)
    return objective


def whole(tree: T) -> T:
    """Nested dicts and lists with every sharded tensor gathered, in all processes; on the CPU."""
    if isinstance(tree, dict):
        return cast("T", {key: whole(value) for key, value in cast("dict[Any, Any]", tree).items()})
    if isinstance(tree, list):
        return cast("T", [whole(value) for value in cast("list[Any]", tree)])
    if isinstance(tree, Tensor):
        full = tree.full_tensor() if isinstance(tree, DTensor) else tree
        return cast("T", full.detach().cpu())
    return tree


def like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor, placed and sharded as another of its shape is."""
    tensor = tensor.to(other.device)
    if isinstance(other, DTensor) and tensor.shape == other.shape:
        return distribute_tensor(tensor, other.device_mesh, other.placements)
    return tensor


def like_all(state: dict[str, Any], parameters: Iterable[Tensor]) -> dict[str, Any]:
    """The state dict of an optimizer, its tensors placed and sharded as their parameters are."""
    placed = dict(enumerate(parameters))
    moved = {
        index: {
            key: like(value, placed[index]) if isinstance(value, Tensor) and value.ndim else value
            for key, value in entries.items()
        }
        for index, entries in state["state"].items()
    }
    return {**state, "state": moved}
