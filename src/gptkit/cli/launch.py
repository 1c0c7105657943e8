"""Between the command line and a training command: run it here, in this rank, or in processes of its own."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gptkit.console import Console
from gptkit.errors import UsageError, suggest
from gptkit.recipes import recipes_root
from gptkit.system import ranks
from gptkit.system.limits import usable_processors
from gptkit.training.options import TrainingOptions

if TYPE_CHECKING:
    from gptkit.training.launch_config import LaunchConfig

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
    from gptkit.training import launching

    config = _config(options, console)
    if options.dry_run:
        processes = options.num_processes or (config.num_processes if config else None)
        if config is not None and config.sharded and processes != 1:
            _refuse_muon(options)
        return command(dataclasses.replace(options, num_processes=processes), console)
    plan = launching.plan_launch(options, config, gpus=_gpus(), cores=usable_processors(), environment=os.environ)
    if plan is None:
        console.say("1 process: nothing is launched" + (", nothing is sharded" if config and config.sharded else ""))
        return command(dataclasses.replace(options, num_processes=1), console)
    if plan.sharded:
        _refuse_muon(options)
    console.say(plan.described(arguments))

    def note_run(directory: Path) -> None:
        console.run_directory = directory

    return launching.launch(plan, arguments, note_run)


def _in_rank(options: Options, world: ranks.World, console: Console) -> Options:
    """Return the options with as many processes as there are: another launcher's number stands."""
    if world.size > 1:
        ranks.end_with_launcher(world.launcher)
    _settle_sharding(options, world, console)
    if ranks.is_left_alone():
        console.warn("accelerate launch connects no processes on CPUs: this one runs alone; use --num-processes")
    elif options.num_processes not in (None, world.size):
        there = f"{world.size} process{'es were' if world.size > 1 else ' was'} launched already"
        console.warn(f"{there}; num_processes {options.num_processes} is not used")
    return dataclasses.replace(options, num_processes=world.size)


def _settle_sharding(options: TrainingOptions, world: ranks.World, console: Console) -> None:
    """Check what a launcher asked for, and take back what does not go with it."""
    from gptkit.training import sharding

    if not sharding.is_asked():
        return
    if world.size == 1:
        console.say("1 process: nothing is sharded")
        os.environ[sharding.ASKED] = "false"
        return
    _refuse_muon(options)
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"  # ranks above 0 would read no weights


def _refuse_muon(options: TrainingOptions) -> None:
    if options.optimizer == "muon":
        fix = "use --optimizer adamw, or --accelerate-config ddp"
        raise UsageError("Muon needs whole matrices, FSDP2 cuts them", where="--optimizer muon", fix=fix)


def _config(options: TrainingOptions, console: Console) -> LaunchConfig | None:
    """Return the file that is named, else the user's default, if there is one; say what comes from it."""
    from gptkit.training.launch_config import DEFAULT, read_launch_config

    if options.accelerate_config is not None:
        path = config_path(options.accelerate_config)
    elif DEFAULT.is_file():
        path = DEFAULT
    else:
        return None
    config = read_launch_config(path)
    if options.num_processes is not None:
        config = dataclasses.replace(config, num_processes=None)  # the option beats it
    console.say(config.described())
    return config


def config_path(name: str) -> Path:
    """Return the file that a shipped name or a path means; raises UsageError with the nearest name."""
    shipped = {path.stem: path for path in (recipes_root() / "accelerate").glob("*.yaml")}
    if name in shipped:
        return shipped[name]
    path = Path(name).expanduser()
    if path.is_file():
        return path
    where = "--accelerate-config"
    raise UsageError(f"no configuration and no file is called {name!r}", where=where, fix=suggest(name, shipped))


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
