"""Run one command line, from its arguments to its exit code. Nothing heavy is imported before it is validated."""

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
from gptkit.console import Console, NoReader
from gptkit.errors import AGAIN, Interrupted, UsageError
from gptkit.options import ReadingOptions
from gptkit.system import ranks
from gptkit.system.encodings import text_encoding
from gptkit.system.limits import guard_limits, usable_processors
from gptkit.system.signals import SignalWatch
from gptkit.system.terminal import is_live, open_standard_streams
from gptkit.training.options import TrainingOptions, config_path


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; no exception escapes."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    has_stdout = open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        # Print what the encoding cannot represent as escapes instead of crashing.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    console = Console(json="--json" in arguments, command_line=shlex.join(["gptkit", *arguments]))
    with _watch(console):
        try:
            return _exit_code(arguments, console, has_stdout=has_stdout)
        except (Interrupted, KeyboardInterrupt) as error:  # a signal during the report of an error
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
    except NoReader:
        pass  # it has what it wanted
    except BaseException as error:  # a panic inside tokenizers is not an Exception
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
    """Return a context in which signals end the command."""
    if ranks.world() is None:
        return SignalWatch(_interrupt, console.say, "as soon as possible")
    with contextlib.suppress(ValueError):  # allowed only in the main thread
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a rank that waits for others runs no Python handlers
    return contextlib.nullcontext()


def _interrupt(number: int) -> None:
    """Raise the error that main reports on one line, with the signal's exit code."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Interrupted(f"interrupted by {signal.Signals(number).name}", signal_number=number, fix=AGAIN)


def _run(request: app.Request, arguments: Sequence[str], console: Console) -> None:
    row, options = request.command, request.options

    def command(options: Any, console: Console) -> Any:
        return _imported(row.function)(options, console)

    _prepare_environment(vars(options).values())
    with contextlib.ExitStack() as stack:
        if isinstance(options, ReadingOptions):
            encoding = stack.enter_context(text_encoding(options.encoding, console.warn))
            options = dataclasses.replace(options, encoding=encoding)
        if row.check is not None and ranks.world() is None:  # a rank's launcher has checked them
            _imported(row.check)(options)
        if isinstance(options, TrainingOptions):
            result = run_training(command, options, arguments, console) or {}
        else:
            result = command(options, console) or {}
    if ranks.report_result(result):
        return
    if options.json:
        console.print_json(result)
        return
    line = row.next if isinstance(row.next, str) else row.next(result, arguments)
    words = {key: shlex.quote(str(value)) for key, value in result.items()}
    with contextlib.suppress(KeyError):  # a result without a model, such as a dry run's, suggests nothing
        if line and console.has_reader:
            console.say(f"next: {line.format_map({**words, 'free': _Free()})}")


def _imported(name: str) -> Any:
    """Return the function that "module:function" names."""
    module, function = name.split(":")
    return getattr(importlib.import_module(module), function)


class _Free:
    """Formats as an unused file name: `{free:baseline.json}` as baseline.json, or baseline-2.json if that exists."""

    def __format__(self, name: str) -> str:
        stem, suffix = os.path.splitext(name)
        names = itertools.chain([name], (f"{stem}-{number}{suffix}" for number in itertools.count(2)))
        return next(name for name in names if not os.path.lexists(name))


def _prepare_environment(values: Iterable[Any]) -> None:
    """Keep all libraries off the network unless an option names `hf:`. Call this before they are imported."""
    from gptkit.system.hub import OFFLINE_SWITCHES

    guard_limits()
    texts = [text for value in values for text in (value if isinstance(value, tuple) else (value,))]
    if not any(isinstance(text, str) and text.startswith("hf:") for text in texts):
        os.environ.update(dict.fromkeys(OFFLINE_SWITCHES, "1"))
    if not is_live(sys.stderr, os.environ):
        os.environ.update({"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"})
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


def run_training(
    command: Callable[..., dict[str, Any]], options: TrainingOptions, arguments: Sequence[str], console: Console
) -> dict[str, Any]:
    """Run a training command in this process, as one rank of a launch, or in processes that it launches.

    `arguments` is the command line, which launched ranks are given too.
    """
    world = ranks.world()
    if world is not None:
        return command(_in_rank(options, world, console), console)
    if options.accelerate_config is None and (options.dry_run or options.num_processes in (None, 1)):
        return command(options, console)  # without importing torch first

    import torch

    from gptkit.training import launching, sharding

    config, named = launching.LaunchConfig(), options.accelerate_config
    if named is not None or launching.DEFAULT.is_file():
        config = launching.read_launch_config(launching.DEFAULT if named is None else config_path(named))
        if options.num_processes is not None:
            config = dataclasses.replace(config, num_processes=None)  # the option overrides it
        console.say(config.summary())
    if options.dry_run:
        processes = options.num_processes or config.num_processes
        if config.sharded and processes != 1:
            sharding.refuse_muon(options.optimizer)
        return command(dataclasses.replace(options, num_processes=processes), console)
    gpus, cores = torch.cuda.device_count(), usable_processors()
    plan = launching.plan_launch(options, config, gpus=gpus, cores=cores, environment=os.environ)
    if plan is None:
        console.say("1 process: nothing to launch" + (", nothing to shard" if config.sharded else ""))
        return command(dataclasses.replace(options, num_processes=1), console)
    if config.sharded:
        sharding.refuse_muon(options.optimizer)
    console.say(plan.summary(arguments))

    def note_run(directory: Path) -> None:
        console.run_directory = directory

    return launching.launch(plan, arguments, note_run)


def _in_rank(options: TrainingOptions, world: ranks.World, console: Console) -> TrainingOptions:
    """Return the options with the number of processes that the launcher has started."""
    from gptkit.training import sharding

    if world.size > 1:
        ranks.end_with_launcher(world.launcher)
    is_sharded = sharding.is_asked()
    if is_sharded and world.size == 1:
        console.say("1 process: nothing to shard")
        os.environ[sharding.ASKED] = "false"
    elif is_sharded:
        sharding.refuse_muon(options.optimizer)
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"  # else only rank 0 reads the weights
    if ranks.is_unconnected():
        console.warn("accelerate launch does not connect processes on CPUs: this one runs alone; use --num-processes")
    elif options.num_processes not in (None, world.size):
        launched = f"{world.size} process{'es were' if world.size > 1 else ' was'} already launched"
        console.warn(f"{launched}; ignoring num_processes {options.num_processes}")
    return dataclasses.replace(options, num_processes=world.size)
