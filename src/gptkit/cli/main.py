"""One command line, from its arguments to its exit code. Nothing heavy is imported before it is known to be good."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import shlex
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gptkit.cli import app, launch
from gptkit.cli.failures import as_gptkit_error
from gptkit.console import Console
from gptkit.errors import AGAIN, Interrupted, UsageError
from gptkit.system import ranks
from gptkit.system.limits import guard_limits
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
    command = request.command
    _prepare_environment(vars(request.options).values())
    result = _result(request, arguments, console)
    if ranks.report_result(result):
        return
    if request.options.json:
        console.print_json(result)
        return
    if line := command.next if isinstance(command.next, str) else command.next(result):
        _say_next(line, result, console)


def _result(request: app.Request, arguments: Sequence[str], console: Console) -> dict[str, Any]:
    def function(options: Any, console: Console) -> Any:
        module, name = request.command.function.split(":")
        return getattr(importlib.import_module(module), name)(options, console)

    if isinstance(request.options, TrainingOptions):  # which may be work for several processes
        return launch.run(function, request.options, arguments, console) or {}
    return function(request.options, console) or {}


def _say_next(line: str, result: Mapping[str, Any], console: Console) -> None:
    words = {key: shlex.quote(str(value)) for key, value in result.items()}
    with contextlib.suppress(KeyError):  # a result without a model, as of a dry run, has nothing to go on with
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
