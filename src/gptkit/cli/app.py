"""The Typer app: commands whose flags, help and completion come from their dataclasses of options.

A recipe's values are Typer's defaults for the command that it is given to. Nothing heavy is imported here.
"""

from __future__ import annotations

import dataclasses
import glob
import inspect
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, get_args

import typer
from typer.core import TyperCommand, TyperGroup

import gptkit
from gptkit.cli.commands import COMMANDS, GROUPS, Command
from gptkit.errors import UsageError, nearest, suggest
from gptkit.options import OutputOptions, Panel, fields_of
from gptkit.recipes import CONFIG, Kind, all_recipes, kinds_of, parse_value, recipe_behind, recipe_keys, recipes_of
from gptkit.system.terminal import has_colour, safe_text

PANELS = get_args(Panel)
PANELS_OF_HELP_ALL = ("Advanced", "Recipe keys")


class Request(NamedTuple):
    """A command line that was understood; the note says what a recipe sets that nobody named."""

    command: Command
    options: OutputOptions
    recipe_note: str


def parse(arguments: Sequence[str]) -> Request | int:
    """Return a Request, or the exit code of what Typer answers itself: help, the version and completion."""
    try:
        return make_app()(arguments, prog_name="gptkit", standalone_mode=False) or 0
    except SystemExit as ended:  # completion ends so, and rich where the reader has left
        if ended.code:
            raise BrokenPipeError from None
        return 0


def make_app() -> Any:
    """Return the program as Typer runs it."""
    app = typer.Typer(
        cls=_Group,
        help=GROUPS[""],
        epilog=_examples([row.examples[0] for row in COMMANDS]),
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    groups = {"": app}
    for row in COMMANDS:
        group, _, name = row.name.rpartition(" ")
        if group not in groups:
            groups[group] = typer.Typer(cls=_Group)
            app.add_typer(groups[group], name=group, help=GROUPS[group])
        command = type("_Command", (_Command,), {"row": row})
        paragraphs = (inspect.getdoc(row.options) or "").split("\n\n")
        text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
        groups[group].command(name, cls=command, help=text, epilog=_examples(row.examples))(_values_of(row))
    program = typer.main.get_command(app)
    for option in program.params:
        option.default = False  # as None, the flags of completion would import pydantic
    return program


def _show_version(value: bool) -> None:
    if value:
        print(f"gptkit {gptkit.__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Typer reads this signature."""


def _examples(lines: Sequence[str]) -> str:
    return "\n".join(["Examples:", *lines]).replace("[", r"\[")


def _values_of(row: Command) -> type:
    """Return a class whose constructor Typer reads, with a parameter for every field of the command's options."""
    kinds, fields = kinds_of(row.options), fields_of(row.options)
    parameters = [_parameter(name, kinds[name], field) for name, field in fields.items()]
    if recipe_keys(row.options):
        text = "A name of gptkit recipes ls, or a YAML file of option names; flags win over it."
        info = _option("Common", "--recipe", "-r", metavar="NAME|FILE", help=text, autocompletion=COMPLETERS["recipe"])
        parameters.append(("recipe", Annotated[str | None, info], dataclasses.field(default=None)))
    if any(field.metadata["panel"] in PANELS_OF_HELP_ALL for field in fields.values()):
        info = _option("Run", "--help-all", help="Show the help of every flag and recipe key.")
        parameters.append(("help_all", Annotated[bool, info], dataclasses.field(default=False)))
    return dataclasses.make_dataclass("Values", parameters, kw_only=True)


def _parameter(name: str, kind: Kind, field: dataclasses.Field[Any]) -> tuple[str, Any, Any]:
    facts, flag = field.metadata, "--" + name.replace("_", "-")
    where = name.upper() if facts["argument"] else flag

    def parse(value: Any) -> Any:
        # A recipe's values and the dataclass's defaults are converted already.
        return parse_value(value, kind, field, where) if isinstance(value, str) else value

    placeholder = {int: "N", float: "X", Path: "PATH"}.get(kind.type, "TEXT")
    more: dict[str, Any] = {
        "help": facts["help"].partition(" [default")[0],  # for completion; the help itself says more
        "metavar": facts["metavar"] or "|".join(kind.choices) or placeholder,
        "autocompletion": (lambda: [*kind.choices]) if kind.choices else COMPLETERS.get(name),
        "parser": None if kind.type is bool else parse,
    }
    if facts["argument"]:
        info: Any = typer.Argument(show_default=False, **more)
    else:
        flag = f"{flag}/--no-{flag[2:]}" if kind.type is bool else flag
        info = _option(facts["panel"], flag, *filter(None, [facts["short"]]), **more)
    required = field.default is None and not kind.optional
    default: Any = dataclasses.field() if required else dataclasses.field(default=field.default)
    return name, Annotated[list[str] if kind.many else kind.type, info], default


def _option(panel: Panel, *flags: str, **more: Any) -> Any:
    hidden = panel == "Recipe keys"  # from completion; format_help says what is hidden there
    return typer.Option(*flags, rich_help_panel=panel, hidden=hidden, show_default=False, **more)


class _FlagsAsWritten:
    """Of a command or a group: `-model x` is no `-m odel x`, and an unknown flag is refused with the nearest."""

    panel_of_help: str | None = None

    def make_parser(self, ctx: Any) -> Any:
        parser = super().make_parser(ctx)  # type: ignore[misc]
        if ctx.resilient_parsing:  # completing a line that is still being typed
            return parser
        flags = {**parser._long_opt, **parser._short_opt}
        known = {flag: option for flag, option in flags.items() if option.obj.rich_help_panel != "Recipe keys"}
        match, path = parser._match_long_opt, ctx.command_path

        def match_as_written(flag: str, value: str | None, state: Any) -> None:
            if flag not in known:
                raise self.refused(flag, known, path)
            if value is not None and not flag.startswith("--"):
                message = f"'{flag}={value}' glues a value to a short flag"
                raise UsageError(message, where=path, fix=f"write {flag} {value}")
            if value is not None and not known[flag].takes_value:
                raise UsageError(f"{flag} takes no value", where=path, fix=f"write {flag}")
            match(flag, value, state)

        parser._long_opt, parser._match_long_opt = known, match_as_written
        return parser

    def refused(self, flag: str, known: Iterable[str], path: str) -> UsageError:
        """Return the error of a flag that is not known here."""
        name = flag.lstrip("-")
        if not name.replace("-", "").replace("_", "").isalpha():
            fix = "write -- before text that begins with a dash"
        # The dashes are left out: they alone would make any two short flags look alike.
        elif near := nearest(name, [flag[2:] for flag in known if flag.startswith("--")]):
            fix = f"did you mean '--{near}'?"
        else:
            fix = f"see {path} --help"
        return UsageError(f"unknown flag {flag!r}", where=path, fix=fix)

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)  # type: ignore[misc]
        option.help, option.rich_help_panel = "Show this help.", self.panel_of_help
        option.default = False  # converting None would import pydantic
        return option

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from typer import rich_utils

        rich_utils.FORCE_TERMINAL = has_colour(sys.stdout, os.environ)  # nor does GITHUB_ACTIONS make it one
        rich_utils.MAX_WIDTH = max(40, min(110, shutil.get_terminal_size((110, 24)).columns))
        for param in ctx.command.get_params(ctx):
            if param.param_type_name == "argument" or param.is_flag:
                param.display_type_rich = lambda ctx: ""  # no <bool>, no <list[str]>
        super().format_help(ctx, formatter)  # type: ignore[misc]


class _Command(_FlagsAsWritten, TyperCommand):
    """A command that takes its defaults from a recipe and returns a Request."""

    row: ClassVar[Command]
    panel_of_help = "Run"
    shows_all = False

    def refused(self, flag: str, known: Iterable[str], path: str) -> UsageError:
        key = flag.lstrip("-").replace("-", "_")
        field = fields_of(self.row.options).get(key)
        if field is None or not field.metadata["recipe_only"]:
            return super().refused(flag, known, path)
        fix = f"write `{key}: VALUE` into a recipe and name that with --recipe"
        return UsageError(f"{flag!r} is a recipe key, not a flag", where=path, fix=fix)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            given, _, _ = self.make_parser(ctx).parse_args(list(args))
            recipe = recipe_behind(self.row.name, self.row.options, given, recipe_by=self.row.recipe_by)
            ctx.default_map, ctx.obj = recipe
            self.shows_all = given.get("help_all", False)
        return super().parse_args(ctx, ["--help", *args] if self.shows_all else args)

    def invoke(self, ctx: Any) -> Request:
        given = vars(super().invoke(ctx))
        kinds = kinds_of(self.row.options)
        values: dict[str, Any] = {
            name: tuple(given[name] or ()) if kind.many else given[name] for name, kind in kinds.items()
        }
        if values.get("resume", "auto") not in ("auto", "never"):
            values["resume"] = "auto"  # the run of --resume DIR is its `out` by now
        held = [
            f"{name} {value}"
            for name, value in ctx.default_map.items()
            if values[name] == value and name != self.row.recipe_by
        ]
        note = f"recipe {ctx.obj}: {', '.join(held)}" if ctx.obj and held else ""
        return Request(self.row, self.row.options(**values), note)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        fields, params = fields_of(self.row.options), list[Any](self.params)
        for param in params:
            if field := fields.get(param.name):
                default = (ctx.default_map or {}).get(param.name, field.default)
                param.help = _explanation(field.metadata["help"], default)
                param.hidden = field.metadata["panel"] in PANELS_OF_HELP_ALL and not self.shows_all
                if field.default is False:
                    param.secondary_opts = []  # --no-x overrules a recipe alone
                if field.metadata["recipe_only"]:
                    param.opts = [param.name]
        self.params = sorted(params, key=_place_in_help)
        super().format_help(ctx, formatter)


def _place_in_help(param: Any) -> tuple[int, bool, bool]:
    """Order the panels; in each what is required comes first, then what has a short name, which is used most."""
    return PANELS.index(param.rich_help_panel or "Common"), not param.required, len(param.opts) < 2


def _explanation(text: str, default: Any) -> str:
    """Return a help text, safe from rich's markup, with the default that holds here."""
    if default is not None and default is not False and default not in ((), Path()):
        shown = "on" if default is True else " ".join(default) if isinstance(default, tuple) else default
        what = text.partition(" [default: ")[0].removesuffix(".")
        text = f"{what}. [default: {safe_text(str(shown))}]"
    return text.replace("[", r"\[")


class _Group(_FlagsAsWritten, TyperGroup):
    """gptkit itself and its groups: without a command they show their help, a misspelt one is named."""

    def refused(self, flag: str, known: Iterable[str], path: str) -> UsageError:
        key = flag.lstrip("-").replace("-", "_")
        if not any(key in fields_of(row.options) for row in COMMANDS):
            return super().refused(flag, known, path)
        fix = f"write it after a command: {path} COMMAND {flag}"
        return UsageError(f"the flag {flag!r} belongs to a command", where=path, fix=fix)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            print(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands and not ctx.resilient_parsing:
            fix = suggest(args[0], self.commands)
            raise UsageError(f"unknown command {args[0]!r}", where=ctx.command_path, fix=fix)
        return super().resolve_command(ctx, args)


def _task_names(ctx: typer.Context) -> list[str]:
    """Return what finetune trains on; for eval also its own rows, and each of their protocols."""
    from gptkit.tasks.table import TASKS, names_of_evaluations

    return sorted({*TASKS, *(names_of_evaluations() if ctx.command.name == "eval" else ())})


def _runs(incomplete: str) -> list[str]:
    """Return the run directories under ./runs, and those whose path begins so."""
    return _folders_with(CONFIG, incomplete)


def _models(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return presets for pretrain, runs for what reads their models, and model directories."""
    first = list(recipes_of("models")) if ctx.command.name == "pretrain" else _runs(incomplete)
    return [*first, *_folders_with("config.json", incomplete)]


def _folders_with(file: str, incomplete: str) -> list[str]:
    patterns = (f"runs/*/{file}", f"{glob.escape(incomplete)}*/{file}")
    return sorted({str(Path(found).parent) for pattern in patterns for found in glob.glob(pattern)})


# What shell completion offers as the value of an option, by its name.
COMPLETERS: dict[str, Callable[..., list[str]]] = {
    "task": _task_names,
    "recipe": lambda ctx: list(recipes_of(str(ctx.command.name))),
    "name": lambda: [name for recipe in all_recipes() for name in (recipe.name, recipe.full_name)],
    "model": _models,
    "resume": lambda incomplete: ["auto", "never", *_runs(incomplete)],
    "all_checkpoints": _runs,
}
