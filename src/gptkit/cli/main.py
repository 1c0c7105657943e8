"""The command line: the table of commands, made into a Typer app from their options dataclasses.

Nothing heavy is imported before a command line is known to be good.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import itertools
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

import gptkit
from gptkit.cli.command_line import HELP_FLAGS, RECIPE_FLAGS, Flag, RecipeValues, flags_of, recipe_values, scan
from gptkit.cli.commands import COMMANDS, GROUPS, Command
from gptkit.cli.failures import as_gptkit_error
from gptkit.cli.help_text import HELP_ROW, Page, command_page
from gptkit.console import Console
from gptkit.errors import AGAIN, Interrupted, UsageError, suggest
from gptkit.options import OutputOptions, fields_of
from gptkit.recipes import Kind, kinds_of, parse_value, recipe_keys
from gptkit.system import ranks
from gptkit.system.limits import guard_limits
from gptkit.system.signals import Watch
from gptkit.system.terminal import has_colour, is_live, open_standard_streams
from gptkit.training.options import TrainingOptions


@dataclass(frozen=True)
class Request:
    """A command line that was understood."""

    command: Command
    options: OutputOptions
    recipe_note: str


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
        request = _parsed(arguments)
        if not has_stdout and not _has_run_directory(request):
            raise UsageError("stdout is closed", fix="redirect it to a file, or to /dev/null")
        if not isinstance(request, Request):
            return request or 0
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


def _parsed(arguments: Sequence[str]) -> Request | int | None:
    """Return a Request, or the exit code of what Typer answers itself: help and the version."""
    try:
        parsed: Request | int | None = _app()(arguments, prog_name="gptkit", standalone_mode=False)
        return parsed
    except SystemExit:  # Typer's answer to a closed pipe
        raise BrokenPipeError from None


def _watch(console: Console) -> contextlib.AbstractContextManager[object]:
    """Return the context in which signals end a command."""
    if ranks.world() is None:
        return Watch(_interrupt, console.say, "as soon as possible")
    with contextlib.suppress(ValueError):  # only the main thread may
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a rank may be waiting for others, deaf to Python's handlers
    return contextlib.nullcontext()


def _interrupt(number: int) -> None:
    """Raise what main reports in one line, with the signal's exit code."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Interrupted(f"interrupted by {signal.Signals(number).name}", signal_number=number, fix=AGAIN)


def _has_run_directory(request: Request | int | None) -> bool:
    """Say whether a command leaves its result in a run directory, and so can do without stdout."""
    if not isinstance(request, Request) or not isinstance(request.options, TrainingOptions):
        return False
    return not request.options.dry_run


def _run(request: Request, arguments: Sequence[str], console: Console) -> None:
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


def _result(request: Request, arguments: Sequence[str], console: Console) -> dict[str, Any]:
    def function(options: Any, console: Console) -> Any:
        module, name = request.command.function.split(":")
        return getattr(importlib.import_module(module), name)(options, console)

    if isinstance(request.options, TrainingOptions):  # which may be work for several processes
        run = importlib.import_module("gptkit.cli.launch").run
        return run(function, request.options, arguments, console) or {}
    return function(request.options, console) or {}


def _say_next(line: str, result: Mapping[str, Any], console: Console) -> None:
    words = {key: shlex.quote(str(value)) for key, value in result.items()}
    with contextlib.suppress(KeyError):  # a result without a model, as of a dry run, has nothing to go on with
        console.say(f"next: {line.format_map({**words, 'free': _Free()})}")


class _Free:
    """Formats as the name after the colon, with a number where that is taken: `{free:exported}` as exported-2."""

    def __format__(self, name: str) -> str:
        names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        return next(one for one in names if not os.path.lexists(one))


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


def _app() -> typer.Typer:
    app = typer.Typer(
        cls=_Group,
        help=GROUPS[""],
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    groups = {"": app}
    for command in COMMANDS:
        group, _, name = command.name.rpartition(" ")
        if group not in groups:
            groups[group] = typer.Typer(cls=_Group)
            app.add_typer(groups[group], name=group, help=GROUPS[group])
        groups[group].command(name, cls=type("_Row", (_Row,), {"row": command}), help=command.help)(_signature(command))
    return app


def _show_version(value: bool) -> None:
    if value:
        print(f"gptkit {gptkit.__version__}")
        raise typer.Exit


def _root(version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_show_version)] = False) -> None:
    """Typer reads this signature."""


def _signature(command: Command) -> Callable[..., dict[str, Any]]:
    """Return a function that returns its arguments, with a parameter for every field of the command's options."""

    def values(**given: Any) -> dict[str, Any]:
        return given

    hints, kinds = get_type_hints(command.options), kinds_of(command.options)
    parameters = [
        _parameter(name, hints[name], kinds[name], field) for name, field in fields_of(command.options).items()
    ]
    if recipe_keys(command.options):
        recipe = Annotated[str | None, typer.Option(*RECIPE_FLAGS)]
        parameters.append(inspect.Parameter("recipe", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=recipe))
    values.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    values.__annotations__ = {one.name: one.annotation for one in parameters}
    return values


def _parameter(name: str, hint: Any, kind: Kind, field: dataclasses.Field[Any]) -> inspect.Parameter:
    facts = field.metadata
    flag = "--" + name.replace("_", "-")
    where = name.upper() if facts["argument"] else flag

    def parse(value: Any) -> Any:
        # A recipe's values and the dataclass's defaults are converted already.
        return parse_value(value, kind, field, where) if isinstance(value, str) else value

    if facts["argument"]:
        info = typer.Argument(parser=parse, metavar=facts["metavar"])
    elif kind.type is bool:
        info = typer.Option(f"{flag}/--no-{flag[2:]}")
    else:
        info = typer.Option(flag, *filter(None, [facts["short"]]), parser=parse)
    required = field.default is None and not kind.optional
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if required else field.default,
        annotation=Annotated[list[str] if kind.many else hint, info],
    )


class _Row(TyperCommand):
    """A command that takes its defaults from a recipe, checks flags in one pass, and returns a Request."""

    row: ClassVar[Command]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        row, fields = self.row, fields_of(self.row.options)
        knobs = [name for name, field in fields.items() if field.metadata["recipe_only"]]
        given = scan(args, flags_of(row.options), knobs, ctx.command_path)
        ctx.obj = recipe_values(row.name, row.options, given, recipe_by=row.recipe_by)
        ctx.default_map = ctx.obj.values
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Request:
        values = super().invoke(ctx)
        values.pop("recipe", None)
        for name, kind in kinds_of(self.row.options).items():
            if kind.many:
                values[name] = tuple(values[name] or ())
        if values.get("resume", "auto") not in ("auto", "never"):
            values["resume"] = "auto"  # the run of --resume DIR is its `out` by now
        return Request(self.row, self.row.options(**values), self._recipe_note(ctx.obj, values))

    def _recipe_note(self, recipe: RecipeValues, values: Mapping[str, Any]) -> str:
        """Return what a recipe that nobody named sets, as far as no flag overrules it."""
        held = [
            f"{name} {value}"
            for name, value in recipe.values.items()
            if values[name] == value and name != self.row.recipe_by
        ]
        return f"recipe {recipe.default_name}: {', '.join(held)}" if recipe.default_name and held else ""

    def get_help_option(self, ctx: Any) -> Any:
        return _given_false(super().get_help_option(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        row = self.row
        summary = f"{row.help} {row.about}".rstrip()
        _write(formatter, command_page(ctx.command_path, summary, row.options, ctx.default_map or {}, row.examples))


class _Group(TyperGroup):
    """gptkit itself and its groups: without a command they show their help, a misspelt one is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        path = ctx.command_path
        if not args:
            print(ctx.get_help())
            ctx.exit()
        own = {flag: Flag("", False) for flag in (*HELP_FLAGS, *(["--version"] if ctx.parent is None else []))}
        if args[0] not in own and any(args[0] in flags_of(row.options) for row in COMMANDS):
            fix = f"write it after a command: {path} COMMAND {args[0]}"
            raise UsageError(f"the flag {args[0]!r} belongs to a command", where=path, fix=fix)
        scan(args[:1], own, (), path)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands:
            fix = suggest(args[0], self.commands)
            raise UsageError(f"unknown command {args[0]!r}", where=ctx.command_path, fix=fix)
        return super().resolve_command(ctx, args)

    def get_help_option(self, ctx: Any) -> Any:
        return _given_false(super().get_help_option(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        order = dict.fromkeys(row.name.split()[0] for row in COMMANDS) if ctx.parent is None else self.commands
        commands = [(name, self.commands[name].help or "") for name in order]
        options = [("    --version", "Show the version."), HELP_ROW] if ctx.parent is None else [HELP_ROW]
        examples = [row.examples[0] for row in COMMANDS if f"gptkit {row.name}".startswith(ctx.command_path)]
        sections = [("Commands", commands), ("Options", options)]
        _write(formatter, Page(f"{ctx.command_path} COMMAND ...", self.help or "", sections, examples=examples))


def _given_false(option: Any) -> Any:
    """Return a --help option that is False, not None, when absent: converting None would import pydantic."""
    option.default = False
    return option


def _write(formatter: Any, page: Page) -> None:
    width = min(110, shutil.get_terminal_size((100, 24)).columns)
    formatter.write(page.render(width=max(40, width), colour=has_colour(sys.stdout, os.environ)))
