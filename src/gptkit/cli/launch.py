"""Between the command line and a training command: run it here, in this rank, or in processes of its own."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from gptkit.console import Console
from gptkit.system import ranks
from gptkit.system.limits import usable_processors
from gptkit.training.options import TrainingOptions

Options = TypeVar("Options", bound=TrainingOptions)


def run(
    command: Callable[[Options, Console], dict[str, Any]], options: Options, arguments: Sequence[str], console: Console
) -> dict[str, Any]:
    """Return the result of a training command; `arguments` is its command line, for the ranks to be given again."""
    world = ranks.world()
    if world is not None:
        return command(_in_rank(options, world, console), console)
    if options.accelerate_config is None and (options.dry_run or options.num_processes in (None, 1)):
        return command(options, console)  # before torch is imported for nothing

    import torch

    from gptkit.training import launching, sharding

    config = launching.launch_config_of(options)
    if config is not None:
        console.say(config.summary())
    if options.dry_run:
        processes = options.num_processes or (config.num_processes if config else None)
        if config is not None and config.sharded and processes != 1:
            sharding.refuse_muon(options.optimizer)
        return command(dataclasses.replace(options, num_processes=processes), console)
    plan = launching.plan_launch(
        options, config, gpus=torch.cuda.device_count(), cores=usable_processors(), environment=os.environ
    )
    if plan is None:
        console.say("1 process: nothing is launched" + (", nothing is sharded" if config and config.sharded else ""))
        return command(dataclasses.replace(options, num_processes=1), console)
    if plan.sharded:
        sharding.refuse_muon(options.optimizer)
    console.say(plan.summary(arguments))

    def note_run(directory: Path) -> None:
        console.run_directory = directory

    return launching.launch(plan, arguments, note_run)


def _in_rank(options: Options, world: ranks.World, console: Console) -> Options:
    """Return the options with as many processes as there are: another launcher's number stands."""
    from gptkit.training import sharding

    if world.size > 1:
        ranks.end_with_launcher(world.launcher)
    is_sharded = sharding.is_asked()
    if is_sharded and world.size == 1:
        console.say("1 process: nothing is sharded")
        os.environ[sharding.ASKED] = "false"
    elif is_sharded:
        sharding.refuse_muon(options.optimizer)
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"  # ranks above 0 would read no weights
    if ranks.is_unconnected():
        console.warn("accelerate launch connects no processes on CPUs: this one runs alone; use --num-processes")
    elif options.num_processes not in (None, world.size):
        launched = f"{world.size} process{'es were' if world.size > 1 else ' was'} launched already"
        console.warn(f"{launched}; num_processes {options.num_processes} is not used")
    return dataclasses.replace(options, num_processes=world.size)
