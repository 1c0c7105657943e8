"""FSDP2: every process keeps its rows of each weight, gradient and moment, and gathers a block's weights to use them.

Rows are split along the first dimension as `torch.chunk` splits them. Optimizers see a process's own rows as plain
tensors, so that each works on shards as on full parameters (except Muon, which needs whole matrices).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from gptkit.errors import UsageError
from gptkit.training.optimizers import OptimizerSet

ASKED, VERSION = "ACCELERATE_USE_FSDP", "FSDP_VERSION"  # as accelerate launch sets them


def is_asked(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether the launcher asked for FSDP2; raises UsageError if it asked for FSDP1."""
    if environment.get(ASKED, "").lower() not in ("true", "1"):
        return False
    if environment.get(VERSION) != "2":
        raise UsageError("only FSDP2 is supported", where=VERSION, fix="write fsdp_version: 2 under fsdp_config")
    return True


def refuse_muon(optimizer: str) -> None:
    """Raise UsageError for an optimizer that cannot be sharded."""
    if optimizer == "muon":
        fix = "use --optimizer adamw, or --accelerate-config ddp"
        raise UsageError("Muon needs whole matrices, but FSDP2 splits them", where="--optimizer muon", fix=fix)


def rows_of(total: int, index: int, count: int) -> range:
    """Return which of `total` rows process `index` of `count` keeps; the last processes may get fewer, or none."""
    size = -(-total // count)
    return range(min(total, index * size), min(total, (index + 1) * size))


class Sharding:
    """A sharded copy of a model, `sharded`, for training; the model itself, `full`, is for evaluation and saving.

    `full` holds no weights between `free_weights` and `gather_weights`. The optimizer's parameters become `locals`,
    this process's rows of the sharded copy.
    """

    def __init__(self, model: nn.Module, optimizer: OptimizerSet, device: torch.device, processes: int) -> None:
        self.full = model
        self.sharded = copy.deepcopy(model).train()
        mesh = init_device_mesh(device.type, (processes,))
        lists = [module for module in self.sharded.modules() if isinstance(module, nn.ModuleList)]
        for block in (member for members in lists for member in members):
            if not isinstance(block, nn.ModuleList):
                fully_shard(block, mesh=mesh)
        fully_shard(self.sharded, mesh=mesh, reshard_after_forward=False)
        self.index, self.count = mesh.get_local_rank(), processes
        self._parameters: dict[str, nn.Parameter] = dict(self.sharded.named_parameters())
        self.locals = {
            name: nn.Parameter(_local(parameter), requires_grad=parameter.requires_grad)
            for name, parameter in self._parameters.items()
        }
        self.shapes = {name: parameter.shape for name, parameter in self._parameters.items()}
        self.rows = {name: rows_of(shape[0], self.index, self.count) for name, shape in self.shapes.items()}
        optimizer.replace(self.locals, self.rows)
        self.has_full_weights = True
        self.free_weights()

    def move_gradients_to_shards(self) -> None:
        """Move this process's rows of the gradients to the optimizer's parameters."""
        for name, parameter in self._parameters.items():
            self.locals[name].grad = None if parameter.grad is None else _local(parameter.grad)
            parameter.grad = None

    @torch.no_grad()
    def gather_weights(self) -> None:
        """Gather the weights into the full model, if it has none; every process must call this."""
        if self.has_full_weights:
            return
        targets = dict(self.full.named_parameters())
        for name, parameter in self._parameters.items():
            assert isinstance(parameter, DTensor)
            targets[name].data = parameter.full_tensor()
        self.has_full_weights = True

    def free_weights(self) -> None:
        """Free the full model's weights."""
        if self.has_full_weights:
            for parameter in self.full.parameters():
                parameter.data = parameter.data.new_empty(0)
        self.has_full_weights = False


def _local(tensor: Tensor) -> Tensor:
    """Return this process's rows of a sharded tensor, sharing its memory."""
    assert isinstance(tensor, DTensor)
    return tensor.to_local().detach()
