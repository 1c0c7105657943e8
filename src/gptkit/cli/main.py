"""One command line, from its arguments to its exit code. Nothing heavy is imported before it is known to be good."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import itertools
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from gptkit.cli import app
from gptkit.cli.failures import as_gptkit_error
from gptkit.console import Console
from gptkit.errors import AGAIN, Interrupted, UsageError
from gptkit.system import ranks
from gptkit.system.limits import guard_limits, usable_processors
from gptkit.system.signals import SignalWatch
from gptkit.system.terminal import is_live, open_standard_streams
from gptkit.training.options import TrainingOptions


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; nothing but exits of the interpreter escapes."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    has_stdout = open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        # What an encoding cannot show comes out as an escape, not as a crash.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    console = Console(json="--json" in arguments, command_line=shlex.join(["gptkit", *arguments]))
    with _watch(console):
        try:
            return _exit_code(arguments, console, has_stdout=has_stdout)
        except (Interrupted, KeyboardInterrupt) as error:  # a signal while an error was being reported
            return as_gptkit_error(error, None, console.command_line).exit_code


def _exit_code(arguments: Sequence[str], console: Console, *, has_stdout: bool) -> int:
    try:
        request = app.parse(arguments)
        options = request.options if isinstance(request, app.Request) else None
        leaves_run_directory = isinstance(options, TrainingOptions) and not options.dry_run
        if not has_stdout and not leaves_run_directory:
            raise UsageError("stdout is closed", fix="redirect it to a file, or to /dev/null")
        if isinstance(request, int):
            return request
        console.json, console.recipe_note = request.options.json, request.recipe_note
        _run(request, arguments, console)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has what it wanted. Point stdout elsewhere, or the interpreter complains when it closes it.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise  # anything else may come: a panic of tokenizers is no Exception
        failure = as_gptkit_error(error, console.run_directory, console.command_line)
        if ranks.report_error(failure):
            return failure.exit_code
        if console.json:
            with contextlib.suppress(OSError):
                console.print_json(failure.as_json())
        console.error(str(failure))
        return failure.exit_code
    return 0


def _watch(console: Console) -> contextlib.AbstractContextManager[object]:
    """Return the context in which signals end a command."""
    if ranks.world() is None:
        return SignalWatch(_interrupt, console.say, "as soon as possible")
    with contextlib.suppress(ValueError):  # only the main thread may
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a rank may be waiting for others, deaf to Python's handlers
    return contextlib.nullcontext()


def _interrupt(number: int) -> None:
    """Raise what main reports in one line, with the signal's exit code."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Interrupted(f"interrupted by {signal.Signals(number).name}", signal_number=number, fix=AGAIN)


def _run(request: app.Request, arguments: Sequence[str], console: Console) -> None:
    row, options = request.command, request.options

    def command(options: Any, console: Console) -> Any:
        module, name = row.function.split(":")
        return getattr(importlib.import_module(module), name)(options, console)

    _prepare_environment(vars(options).values())
    if isinstance(options, TrainingOptions):
        result = run_training(command, options, arguments, console) or {}
    else:
        result = command(options, console) or {}
    if ranks.report_result(result):
        return
    if options.json:
        console.print_json(result)
        return
    line = row.next if isinstance(row.next, str) else row.next(result)
    words = {key: shlex.quote(str(value)) for key, value in result.items()}
    with contextlib.suppress(KeyError):  # a result without a model, as of a dry run, has nothing to go on with
        if line:
            console.say(f"next: {line.format_map({**words, 'free': _Free()})}")


class _Free:
    """Formats as the name after the colon, with a number where that is taken: `{free:exported}` as exported-2."""

    def __format__(self, name: str) -> str:
        names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        return next(name for name in names if not os.path.lexists(name))


def _prepare_environment(values: Iterable[Any]) -> None:
    """Keep every library off the network unless some option names `hf:`; must come before they are imported."""
    from gptkit.system.hub import OFFLINE_SWITCHES

    guard_limits()
    named = [text for value in values for text in (value if isinstance(value, tuple) else (value,))]
    if not any(isinstance(text, str) and text.startswith("hf:") for text in named):
        os.environ.update(dict.fromkeys(OFFLINE_SWITCHES, "1"))
    if not is_live(sys.stderr, os.environ):
        os.environ.update({"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"})
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


def run_training(
    command: Callable[..., dict[str, Any]], options: TrainingOptions, arguments: Sequence[str], console: Console
) -> dict[str, Any]:
    """Return the result of a training command, run here, in this rank, or in processes of its own.

    `arguments` is the command line, for the ranks to be given again.
    """
    world = ranks.world()
    if world is not None:
        return command(_in_rank(options, world, console), console)
    if options.accelerate_config is None and (options.dry_run or options.num_processes in (None, 1)):
        return command(options, console)  # before torch is imported for nothing

    import torch

    from gptkit.training import launching, sharding

    config, named = launching.LaunchConfig(), options.accelerate_config
    if named is not None or launching.DEFAULT.is_file():
        config = launching.read_launch_config(launching.DEFAULT if named is None else launching.config_path(named))
        if options.num_processes is not None:
            config = dataclasses.replace(config, num_processes=None)  # the option beats it
        console.say(config.summary())
    if options.dry_run:
        processes = options.num_processes or config.num_processes
        if config.sharded and processes != 1:
            sharding.refuse_muon(options.optimizer)
        return command(dataclasses.replace(options, num_processes=processes), console)
    gpus, cores = torch.cuda.device_count(), usable_processors()
    plan = launching.plan_launch(options, config, gpus=gpus, cores=cores, environment=os.environ)
    if plan is None:
        console.say("1 process: nothing is launched" + (", nothing is sharded" if config.sharded else ""))
        return command(dataclasses.replace(options, num_processes=1), console)
    if config.sharded:
        sharding.refuse_muon(options.optimizer)
    console.say(plan.summary(arguments))

    def note_run(directory: Path) -> None:
        console.run_directory = directory

    return launching.launch(plan, arguments, note_run)


def _in_rank(options: TrainingOptions, world: ranks.World, console: Console) -> TrainingOptions:
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
