"""The Typer app: builds each command's flags, help and shell completion from its options dataclass.

A recipe's values replace the command's defaults (`ctx.default_map`). Nothing heavy is imported here.
"""

from __future__ import annotations

import dataclasses
import glob
import inspect
import os
import re
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
    """A parsed command line; `recipe_note` lists what a recipe sets that the user did not name."""

    command: Command
    options: OutputOptions
    recipe_note: str


def parse(arguments: Sequence[str]) -> Request | int:
    """Return a Request, or the exit code where Typer itself has answered: help, version, completion."""
    if arguments[:1] == ["help"]:
        arguments = [*(word for word in arguments if word != "help"), "--help"]
    try:
        return make_app()(arguments, prog_name="gptkit", standalone_mode=False) or 0
    except SystemExit:  # raised by completion, and where the reader of stdout has gone
        return 0


def make_app() -> Any:
    """Return the root command."""
    app = typer.Typer(
        cls=_Group,
        help=GROUPS[""],
        epilog=_first_examples(""),
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    groups = {"": app}
    for row in COMMANDS:
        group, _, name = row.name.rpartition(" ")
        if group not in groups:
            groups[group] = typer.Typer(cls=_Group)
            app.add_typer(groups[group], name=group, help=GROUPS[group], epilog=_first_examples(f"{group} "))
        paragraphs = (inspect.getdoc(row.options) or "").split("\n\n")
        text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
        about: dict[str, Any] = {"help": text, "epilog": _examples(row.examples)}
        if any(other.name.startswith(f"{row.name} ") for other in COMMANDS):
            command = type("_CommandGroup", (_CommandGroup,), {"row": row})
            groups[row.name] = typer.Typer(cls=command, callback=_signature(row), invoke_without_command=True)
            app.add_typer(groups[row.name], name=row.name, **about)
        else:
            command = type("_Command", (_Command,), {"row": row})
            groups[group].command(name, cls=command, **about)(_signature(row))
    program = typer.main.get_command(app)
    for option in program.params:
        option.default = False  # with None, the completion flags would import pydantic
    return program


def _show_version(value: bool) -> None:
    if value:
        print(f"gptkit {gptkit.__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Show the version.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Declare the options of `gptkit` itself: Typer reads this signature."""


def _first_examples(group: str) -> str:
    return _examples([row.examples[0] for row in COMMANDS if row.name.startswith(group)])


def _examples(lines: Sequence[str]) -> str:
    return "\n".join(["Examples:", *lines]).replace("[", r"\[")


def _signature(row: Command) -> type:
    """Return a class whose constructor has a parameter for each field of the command's options, for Typer to read."""
    kinds, fields = kinds_of(row.options), fields_of(row.options)
    parameters = [_parameter(name, kinds[name], field) for name, field in fields.items()]
    if recipe_keys(row.options):
        ships = bool(recipes_of(row.name))
        text = f"{'A recipe (see gptkit recipes ls), or a' if ships else 'A'} YAML file of options; flags override it."
        metavar = "NAME|FILE" if ships else "FILE"
        info = _option("Common", "--recipe", "-r", metavar=metavar, help=text, autocompletion=COMPLETERS["recipe"])
        parameters.append(("recipe", Annotated[str | None, info], dataclasses.field(default=None)))
    info = _option("Run", "--help-all", help="Show help for every flag and recipe key.")
    info.hidden = not any(field.metadata["panel"] in PANELS_OF_HELP_ALL for field in fields.values())
    parameters.append(("help_all", Annotated[bool, info], dataclasses.field(default=False)))
    return dataclasses.make_dataclass("Signature", parameters, kw_only=True)


def _parameter(name: str, kind: Kind, field: dataclasses.Field[Any]) -> tuple[str, Any, Any]:
    facts, flag = field.metadata, "--" + name.replace("_", "-")
    where = (facts["metavar"] or name.upper()) if facts["argument"] else flag

    def parse(value: Any) -> Any:
        # Values from recipes and defaults from the dataclass are already converted.
        return parse_value(value, kind, field, where) if isinstance(value, str) else value

    placeholder = {int: "N", float: "X", Path: "PATH"}.get(kind.type, "TEXT")
    more: dict[str, Any] = {
        "help": facts["help"].partition(" [default")[0],  # for completion; format_help adds the default
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
    hidden = panel == "Recipe keys"  # from completion; format_help decides what the help hides
    return typer.Option(*flags, rich_help_panel=panel, hidden=hidden, show_default=False, **more)


class _FlagsAsWritten:
    """Flag parsing for commands and groups: `-model x` is not `-m odel x`; an unknown flag suggests the nearest."""

    help_panel: str | None = None

    def make_parser(self, ctx: Any) -> Any:
        parser = super().make_parser(ctx)  # type: ignore[misc]
        if ctx.resilient_parsing:  # completing an unfinished line
            return parser
        flags = {**parser._long_opt, **parser._short_opt}
        known = {flag: option for flag, option in flags.items() if option.obj.rich_help_panel != "Recipe keys"}
        match, path = parser._match_long_opt, ctx.command_path

        def match_as_written(flag: str, value: str | None, state: Any) -> None:
            if flag not in known:
                raise self.unknown_flag(flag, known, path)
            if value is not None and not flag.startswith("--"):
                message = f"'{flag}={value}' attaches a value to a short flag"
                raise UsageError(message, where=path, fix=f"write {flag} {value}")
            if value is not None and not known[flag].takes_value:
                raise UsageError(f"{flag} takes no value", where=path, fix=f"write {flag}")
            match(flag, value, state)

        parser._long_opt, parser._match_long_opt = known, match_as_written
        return parser

    def unknown_flag(self, flag: str, known: Iterable[str], path: str) -> UsageError:
        """Return the error for a flag that this command does not have."""
        name = flag.lstrip("-")
        if not name.replace("-", "").replace("_", "").isalpha():
            fix = "write -- before text that begins with a dash"
        # Compare without dashes, which would make any two short flags look alike.
        elif near := nearest(name, [flag[2:] for flag in known if flag.startswith("--")]):
            fix = f"did you mean '--{near}'?"
        else:
            fix = f"see {path} --help"
        return UsageError(f"unknown flag {flag!r}", where=path, fix=fix)

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)  # type: ignore[misc]
        option.help, option.rich_help_panel = "Show this help.", self.help_panel
        option.default = False  # as above
        return option

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from typer import rich_utils

        rich_utils.FORCE_TERMINAL = has_colour(sys.stdout, os.environ)  # rich_utils also sets it for GITHUB_ACTIONS
        width = shutil.get_terminal_size((80, 24)).columns
        rich_utils.MAX_WIDTH = min(110, width)
        if width < 80:  # Rich would cut the names of flags; this page has no markup, and \b keeps its lines
            ctx.command.rich_markup_mode = None
            ctx.command.epilog = "\b\n" + "\n".join(filter(None, (ctx.command.epilog or "").splitlines()))
            for param in ctx.command.get_params(ctx):
                param.help = str(param.help or "").replace("\\[", "[")
        for param in ctx.command.get_params(ctx):
            if param.param_type_name == "argument" or param.is_flag:
                param.display_type_rich = lambda ctx: ""  # not <bool>, <list[str]>
        super().format_help(ctx, formatter)  # type: ignore[misc]


class _Row(_FlagsAsWritten):
    """A row of the table, whose defaults come from a recipe; invoking it returns a Request."""

    row: ClassVar[Command]
    params: Any
    help_panel = "Run"
    shows_all = False

    def unknown_flag(self, flag: str, known: Iterable[str], path: str) -> UsageError:
        key = flag.lstrip("-").replace("-", "_")
        field = fields_of(self.row.options).get(key)
        if field is not None and field.metadata["argument"]:
            arguments = [each.metadata for each in fields_of(self.row.options).values() if each.metadata["argument"]]
            fix = f"pass it as an argument: {' '.join([path, *(each['metavar'] for each in arguments)])}"
            return UsageError(f"{flag!r} is an argument, not a flag", where=path, fix=fix)
        if field is None or not field.metadata["recipe_only"]:
            return super().unknown_flag(flag, known, path)
        fix = f"put `{key}: VALUE` in a recipe file and pass that with --recipe"
        return UsageError(f"{flag!r} is a recipe key, not a flag", where=path, fix=fix)

    def make_parser(self, ctx: Any) -> Any:
        """Return a parser that, once it has split the line into flags, reads the recipe that they ask for."""
        parser = super().make_parser(ctx)
        if ctx.resilient_parsing:
            return parser
        parse = parser.parse_args

        def parse_and_read_recipe(args: list[str]) -> Any:
            given, rest, order = parse(args)
            recipe = recipe_behind(self.row.name, self.row.options, given, recipe_by=self.row.recipe_by)
            ctx.default_map, ctx.obj = recipe
            if "help_all" in given:
                self.shows_all = given["help"] = True
            return given, rest, order

        parser.parse_args = parse_and_read_recipe
        return parser

    def invoke(self, ctx: Any) -> Request:
        kinds = kinds_of(self.row.options)
        values: dict[str, Any] = {
            name: tuple(ctx.params[name] or ()) if kind.many else ctx.params[name] for name, kind in kinds.items()
        }
        if values.get("resume", "auto") not in ("auto", "never"):
            values["resume"] = "auto"  # --resume DIR has already become `out`
        used = [
            f"{name} {value}"
            for name, value in ctx.default_map.items()
            if values[name] == value and name != self.row.recipe_by
        ]
        note = f"recipe {ctx.obj}: {', '.join(used)}" if ctx.obj and used else ""
        return Request(self.row, self.row.options(**values), note)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        fields, params = fields_of(self.row.options), list[Any](self.params)
        for param in params:
            if field := fields.get(param.name):
                default = (ctx.default_map or {}).get(param.name, field.default)
                is_recipes = ctx.obj and field.default not in (
                    None,
                    default,
                )  # `laptop`, which another model is not for
                note = f" for {ctx.obj}, else {field.default}" if is_recipes else ""
                param.help = _explanation(field.metadata["help"], default, note)
                param.hidden = field.metadata["panel"] in PANELS_OF_HELP_ALL and not self.shows_all
                if field.default is False:
                    param.secondary_opts = []  # --no-x is only for overriding a recipe
                if field.metadata["recipe_only"]:
                    param.opts = [param.name]
        self.params = sorted(params, key=_place_in_help)
        super().format_help(ctx, formatter)


class _Command(_Row, TyperCommand):
    """A command of the table."""


def _place_in_help(param: Any) -> tuple[int, bool, bool]:
    """Return a sort key: by panel; within one, required options first, then those with a short name."""
    return PANELS.index(param.rich_help_panel or "Common"), not param.required, len(param.opts) < 2


def _explanation(text: str, default: Any, note: str) -> str:
    """Return a help text with the default in effect, escaped for rich's markup."""
    if default is not None and default is not False and default not in ((), Path()):
        shown = "on" if default is True else " ".join(default) if isinstance(default, tuple) else default
        what = text.partition(" [default: ")[0].removesuffix(".")
        text = f"{what}. [default: {safe_text(f'{shown}{note}')}]"
    return text.replace("[", r"\[")


class _Group(_FlagsAsWritten, TyperGroup):
    """gptkit itself or a group: without a command it shows its help; a misspelt command gets a suggestion."""

    def unknown_flag(self, flag: str, known: Iterable[str], path: str) -> UsageError:
        fields = {name: field for row in COMMANDS for name, field in fields_of(row.options).items()}
        flags = {"help_all", "recipe", "-r", *fields, *(field.metadata["short"] for field in fields.values())}
        if not {flag, flag.lstrip("-").replace("-", "_")} & flags:
            return super().unknown_flag(flag, known, path)
        fix = f"write it after a command: {path} COMMAND {flag}"
        return UsageError(f"{flag!r} is a flag of individual commands", where=path, fix=fix)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing and not self.invoke_without_command:
            print(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands and not ctx.resilient_parsing:
            fix = suggest(args[0], self.commands)
            raise UsageError(f"unknown command {args[0]!r}", where=ctx.command_path, fix=fix)
        return super().resolve_command(ctx, args)


class _CommandGroup(_Row, _Group):
    """A command that others belong to: `gptkit tasks`, beside `gptkit tasks show`."""

    def invoke(self, ctx: Any) -> Any:
        if not ctx._protected_args:
            return super().invoke(ctx)
        if ctx.params["json"]:
            fix = f"write {ctx.command_path} {ctx._protected_args[0]} ... --json"
            raise UsageError("--json stands before the command", where=ctx.command_path, fix=fix)
        return _Group.invoke(self, ctx)


def _task_names(ctx: typer.Context) -> list[str]:
    """Return the tasks of finetune; for the others also the evaluations and each of their protocols."""
    from gptkit.tasks.table import TASKS, names_of_evaluations

    return sorted({*TASKS, *(names_of_evaluations() if ctx.command.name != "finetune" else ())})


def _runs(incomplete: str) -> list[str]:
    """Return the run directories under ./runs and those whose path begins with `incomplete`."""
    return _folders_with(CONFIG, incomplete)


def _runs_by_name(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the names of the runs under --root and, once something is typed, the paths that begin with it."""
    root = glob.escape(str(ctx.params.get("root") or "runs"))
    names = {Path(found).parent.name for found in glob.glob(f"{root}/*/{CONFIG}")}
    return _escaped(names) + (_runs(incomplete) if incomplete else [])


def _models(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return presets for pretrain, run directories for the other commands, and model directories for all."""
    first = list(recipes_of("models")) if ctx.command.name == "pretrain" else _runs(incomplete)
    return [*first, *_folders_with("config.json", incomplete)]


def _folders_with(file: str, incomplete: str) -> list[str]:
    patterns = (f"runs/*/{file}", f"{glob.escape(incomplete)}*/{file}")
    return _escaped({str(Path(found).parent) for pattern in patterns for found in glob.glob(pattern)})


def _escaped(names: set[str]) -> list[str]:
    """Return names in order, as the shell takes them."""
    typed = os.environ.get("COMP_WORDS", "").split("\n")[-1]
    if os.environ.get("_GPTKIT_COMPLETE") != "complete_bash" or typed.startswith(("'", '"')):
        return sorted(names)
    return [re.sub(r"([^\w%+,./:=@-])", r"\\\1", name) for name in sorted(names)]  # bash inserts what it is given


# Shell completion of an option's value, by the option's name.
COMPLETERS: dict[str, Callable[..., list[str]]] = {
    "task": _task_names,
    "recipe": lambda ctx: list(recipes_of(str(ctx.command.name))),
    "name": lambda: sorted({name for recipe in all_recipes() for name in (recipe.name, recipe.full_name)}),
    "model": _models,
    "resume": lambda incomplete: ["auto", "never", *_runs(incomplete)],
    "all_checkpoints": _runs,
    "run": _runs_by_name,
    "runs": _runs_by_name,
}
