"""The command line: what it understands, what it says about the rest, and how it ends."""

from __future__ import annotations

import errno
import functools
import json
import os
import random
import re
import shlex
import string
import subprocess
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

import gptkit
from gptkit import recipes
from gptkit.cli import app
from gptkit.cli.commands import COMMANDS, Command
from gptkit.cli.main import main
from gptkit.console import Console
from gptkit.errors import Diverged, GateFailed, GptkitError, Interrupted, NothingComparable, UsageError, suggest
from gptkit.finetune.options import FinetuneOptions
from gptkit.generate.options import GenerateOptions
from gptkit.options import fields_of, option, recipe_only
from gptkit.pretrain.options import PretrainOptions
from gptkit.recipes import CONFIG_HEADER, recipe_keys, recipes_of
from gptkit.training.options import TrainingOptions

HEAVY = ("torch", "transformers", "datasets", "evaluate", "accelerate", "numpy", "tokenizers", "pydantic")


@dataclass(frozen=True, kw_only=True)
class ToyOptions(TrainingOptions):
    """Options of every kind."""

    data: tuple[str, ...] = option((), "Texts.", argument=True, metavar="DATA")
    steps: int = option(5, "Steps.", minimum=1)
    shuffle: bool = option(True, "Shuffle.")
    noise: float = recipe_only(0.0, "Noise.", minimum=0, maximum=1)


class Toy:
    """A command that records what it was given and does as it is told."""

    def __init__(self) -> None:
        self.options: Any = None
        self.console: Any = None
        self.environment: Mapping[str, str] = {}
        self.act: Callable[[], dict[str, Any] | None] = lambda: {"answer": 42, "where": Path("a b")}

    def run(self, options: ToyOptions, console: Console) -> dict[str, Any] | None:
        self.options, self.console, self.environment = options, console, dict(os.environ)
        console.result("the result")
        return self.act()


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Toy:
    """A command `gptkit toy` with recipes `laptop` and `big`, in an empty working directory."""
    command = Toy()
    module = types.ModuleType("gptkit.manage.toy")
    module.run = command.run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gptkit.manage.toy", module)
    row = Command("toy", ToyOptions, "gptkit.manage.toy:run", ("gptkit toy",), "gptkit toy {where}", "model")
    monkeypatch.setattr(app, "COMMANDS", (*COMMANDS, row))
    texts = {"laptop": "steps: 7\nnoise: 0.5\ndropout: 0.1\n", "big": "steps: 70\nmodel: big\n"}
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    monkeypatch.setattr(
        recipes, "recipes_of", lambda kind: {n: tmp_path / f"{n}.yaml" for n in texts} if kind == "toy" else {}
    )
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return command


def fail(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Run a command line that fails; return its exit code and its one line."""
    code = main(arguments)
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    plain = main([*arguments, "--json"]) if "--" not in arguments else code
    assert plain == code
    if "--" not in arguments:
        shown = json.loads(capsys.readouterr().out)["error"]
        assert set(shown) == {"kind", "exit_code", "message", "where", "fix"}
        assert shown["exit_code"] == code
        assert shown["fix"]
    return code, err


def test_flag_wins_over_recipe_over_default(toy: Toy, tmp_path: Path) -> None:
    Path("mine.yaml").write_text("steps: 3\nseed: 4\nshuffle: no\nnoise: 1\ndata: [x, y]\nmicro_batch: 2\n")
    assert main(["toy", "-r", "mine.yaml", "--seed", "5", "--shuffle"]) == 0
    assert toy.options == ToyOptions(steps=3, seed=5, shuffle=True, noise=1.0, data=("x", "y"), micro_batch=2)
    assert main(["toy", "--recipe=mine.yaml", "a", "--no-shuffle", "--", "-b"]) == 0
    assert toy.options.data == ("a", "-b")
    assert not toy.options.shuffle
    assert main(["toy", "-r", "big", "-m", "other", "-o", "runs/x"]) == 0
    assert toy.options == ToyOptions(steps=70, model="other", out=Path("runs/x"))


def test_a_preset_brings_its_recipe_unless_one_is_named(toy: Toy) -> None:
    assert main(["toy"]) == 0
    assert toy.options == ToyOptions(steps=7, noise=0.5, dropout=0.1)
    assert toy.console.recipe_note == "recipe laptop: steps 7, noise 0.5, dropout 0.1"
    assert main(["toy", "--dropout", "0.2"]) == 0
    assert toy.console.recipe_note == "recipe laptop: steps 7, noise 0.5"
    assert main(["toy", "--model", "big"]) == 0
    assert toy.options == ToyOptions(steps=70, model="big")
    assert toy.console.recipe_note == "recipe big: steps 70"
    assert main(["toy", "--model", "./somewhere"]) == 0
    assert toy.options == ToyOptions(model="./somewhere")
    Path("empty.yaml").write_text("")
    assert main(["toy", "--recipe", "empty.yaml"]) == 0
    assert toy.options == ToyOptions()
    assert toy.console.recipe_note == ""
    assert main(["toy", "--recipe", "big"]) == 0
    assert toy.console.recipe_note == ""  # whoever names a recipe knows


def test_a_task_brings_its_recipe_and_gpt1s_values_where_it_has_none() -> None:
    def values(*line: str) -> FinetuneOptions:
        request = app.parse(["finetune", *line])
        assert isinstance(request, app.Request)
        assert isinstance(request.options, FinetuneOptions)
        return request.options

    assert values("--task", "demo-cloze").learning_rate > 1e-4
    assert values("--recipe", "demo-cloze").task == "demo-cloze"
    plain = values("--task", "rte")
    assert plain == FinetuneOptions(task="rte")
    assert (plain.learning_rate, plain.epochs, plain.batch_size, plain.lm_coef) == (6.25e-5, 3, 32, 0.5)
    assert (plain.optimizer, plain.schedule, plain.weight_decay, plain.clip_norm) == (
        "openai-adam",
        "openai-linear",
        0.01,
        1.0,
    )
    assert (plain.beta1, plain.beta2, plain.epsilon, plain.classifier_dropout) == (0.9, 0.999, 1e-8, 0.1)


def test_resume_takes_the_options_of_that_run(
    toy: Toy, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    Path("runs/x").mkdir(parents=True)
    recipe = "data: [/text]\nsteps: 9\nnoise: 0.25\nmodel: hf:gpt2\n"
    Path("runs/x/config.yaml").write_text(f"{CONFIG_HEADER.format(command='toy')}\n{recipe}")
    assert main(["toy", "--resume", "runs/x", "--log-every", "3"]) == 0
    expected = ToyOptions(data=("/text",), steps=9, noise=0.25, model="hf:gpt2", log_every=3, out=Path("runs/x"))
    assert toy.options == expected
    assert "HF_HUB_OFFLINE" not in toy.environment
    capsys.readouterr()
    assert "runs/y/config.yaml is missing" in fail(capsys, "toy", "--resume", "runs/y")[1]
    assert "remove --recipe" in fail(capsys, "toy", "--resume", "runs/x", "-r", "big")[1]
    assert "remove --out" in fail(capsys, "toy", "--resume", "runs/x", "-o", "runs/y")[1]
    Path("runs/x/config.yaml").write_text(f"{CONFIG_HEADER.format(command='finetune')}\n{recipe}")
    assert "this is a run of gptkit finetune" in fail(capsys, "toy", "--resume", "runs/x")[1]
    Path("runs/x/config.yaml").write_text(recipe[:-4])
    assert "config.yaml is damaged" in fail(capsys, "toy", "--resume", "runs/x")[1]


def test_help_shows_the_defaults_that_would_hold(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text('steps: 123\nmodel: "\\e[1m"\n')
    for arguments in (["--help", "-r", "mine.yaml"], ["-r", "mine.yaml", "-h"]):
        assert main(["toy", *arguments]) == 0
        out = words(capsys.readouterr().out)
        assert "Steps. [default: 123]" in out
        assert "[default: \\x1b[1m]" in out
    assert main(["toy", "--help"]) == 0
    assert "Steps. [default: 7 for laptop, else 5]" in words(capsys.readouterr().out)


def words(page: str) -> str:
    """Return the text of a help page without its panels' frames and line breaks."""
    return " ".join(re.sub("[\u2500-\u257f]", " ", page).split())


@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row.name)
def test_every_help_is_short_and_ends_with_examples_that_parse(
    row: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    assert main([*row.name.split(), "-h"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    flags = len(re.findall(r"^\W+--", out, flags=re.MULTILINE))  # with --recipe, --help and --help-all
    assert flags <= 23, 'this page is full: give a new option panel="Advanced", which --help-all shows'
    facts = {name: field.metadata for name, field in fields_of(row.options).items()}
    for name, fact in facts.items():
        if not fact["argument"] and fact["panel"] not in ("Advanced", "Recipe keys"):
            assert re.search(rf"--{name.replace('_', '-')}\b", out)
    assert ("A recipe (see gptkit recipes" in words(out)) == bool(recipes_of(row.name))
    assert words(out).endswith(words("Examples: " + " ".join(row.examples)))
    for example in row.examples:
        line = shlex.split(example.rpartition("| ")[2], comments=True)
        assert line[: 1 + len(row.name.split())] == ["gptkit", *row.name.split()]
        assert isinstance(app.parse(line[1:]), app.Request)


@pytest.mark.parametrize("group", ["runs", "tokenizer", "recipes"])
def test_the_help_of_a_group_ends_with_an_example_of_each_command(
    group: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    assert main([group, "-h"]) == 0
    examples = [row.examples[0] for row in COMMANDS if row.name.startswith(f"{group} ")]
    assert words(capsys.readouterr().out).endswith(words("Examples: " + " ".join(examples)))


@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row.name)
def test_help_all_explains_every_flag_and_recipe_key(
    row: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    facts = {name: field.metadata for name, field in fields_of(row.options).items()}
    assert main([*row.name.split(), "--help"]) == 0
    first = capsys.readouterr().out
    assert main([*row.name.split(), "--help-all"]) == 0
    page = capsys.readouterr().out
    has_more = any(fact["panel"] in ("Advanced", "Recipe keys") for fact in facts.values())
    assert ("--help-all" in first) == ("--help-all" in page) == (first != page) == has_more
    assert "\x1b" not in page
    panels = re.findall(r"^╭─ (.*?) ─+╮$(.*?)^╰", page, flags=re.MULTILINE | re.DOTALL)
    shown = {title: words(text) for title, text in panels}
    for name, fact in facts.items():
        panel = shown["Arguments" if fact["argument"] else fact["panel"]]
        assert name == "schedule" or fact["help"].partition(" [default")[0].rstrip(".") in panel
        called = fact["metavar"] if fact["argument"] else name if fact["recipe_only"] else "--" + name.replace("_", "-")
        assert re.search(rf"(^| ){called} ", panel)
    assert "--" not in shown.get("Recipe keys", "")


@pytest.mark.parametrize("environment", [{}, {"GITHUB_ACTIONS": "true", "FORCE_COLOR": "1"}])
def test_help_in_a_pipe_is_plain_text(environment: dict[str, str]) -> None:
    for line in (["pretrain", "--help"], ["generate", "--help-all"], [], ["recipes"]):
        done = run_python("-m", "gptkit", *line, **environment)
        assert done.returncode == 0
        assert "Usage: gptkit" in done.stdout
        assert "\x1b" not in done.stdout + done.stderr


def test_the_first_words_explain_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["-h"], ["--help"]):
        assert main(arguments) == 0
        out = capsys.readouterr().out
        assert all(row.name.split()[0] in out for row in COMMANDS)
    assert main(["recipes"]) == 0
    assert "show" in capsys.readouterr().out
    for flag in ("--version", "-V"):
        assert main([flag]) == 0
        assert capsys.readouterr().out == f"gptkit {gptkit.__version__}\n"


@pytest.mark.parametrize("words", ["", "help", "pretrain", "tokenizer", "tokenizer train"])
def test_help_is_a_command_too(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", *words.split()]) == 0
    shown = capsys.readouterr().out
    assert main([*words.replace("help", "").split(), "--help"]) == 0
    assert shown == capsys.readouterr().out


def test_gpt2_is_gpt2_small_unless_a_directory_has_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def parsed(*words: str) -> Any:
        request = app.parse(words)
        assert isinstance(request, app.Request)
        return request.options

    assert parsed("pretrain", "--model", "gpt2") == parsed("pretrain", "--model", "gpt2-small")
    assert parsed("generate", "--model", "gpt2").model == "gpt2"
    Path("mine.yaml").write_text("model: gpt2\nsteps: 3\n")
    assert parsed("pretrain", "--recipe", "mine.yaml").model == "gpt2-small"
    assert parsed("pretrain", "--recipe", "gpt2") == parsed("pretrain", "--recipe", "gpt2-small")
    assert recipes.find_recipe("gpt2") == recipes.find_recipe("gpt2-small")
    Path("gpt2").mkdir()
    assert parsed("pretrain", "--model", "gpt2").model == "gpt2"


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("pretrian", "did you mean 'pretrain'?"),
        ("recipes shwo x", "did you mean 'show'?"),
        ("--json toy", "gptkit COMMAND --json"),
        ("-m x", "gptkit COMMAND -m"),
        ("--help-all", "gptkit COMMAND --help-all"),
        ("--versoin", "did you mean '--version'?"),
        ("toy --stepz 3", "did you mean '--steps'?"),
        ("toy --bogus", "unknown flag '--bogus' (gptkit toy) - see gptkit toy --help"),
        ("toy --steps 0", "(--steps) - pass a whole number of at least 1"),
        ("toy --steps=many", "'many' is not a whole number (--steps)"),
        ("toy --steps", "requires an argument"),
        ("toy --dropout 2", "between 0 and 0.99"),
        ("toy --schedule cosin", "did you mean 'cosine'?"),
        ("toy -model x", "did you mean '--model'?"),
        ("toy -m=x", "write -m x"),
        ("toy --model=", "empty"),
        ("toy --shuffle=yes", "takes no value"),
        ("toy --noise 1", "a recipe key, not a flag"),
        ("toy -5", "write -- before text"),
        ("toy -r bog", "did you mean 'big'?"),
        ("toy -r none.yaml", "file not found (none.yaml) - see gptkit recipes ls, or pass a YAML file"),
        ("toy -r .", "not a regular file (.)"),
        ("toy -r wrong.yaml", "(wrong.yaml:2) - did you mean 'steps'?"),
        ("toy -r wrong.yaml --help", "(wrong.yaml:2)"),
        ("env extra", "unexpected extra argument"),
        ("convert", "missing argument 'SRC'"),
        ("finetune", "missing option '--task'"),
        ("recipes show no-such-recipe", "no recipe is called"),
    ],
)
def test_a_usage_mistake_is_one_line_with_a_cure(
    toy: Toy, capsys: pytest.CaptureFixture[str], line: str, part: str
) -> None:
    Path("wrong.yaml").write_text("seed: 1\nstep: 3\n")
    code, shown = fail(capsys, *line.split())
    assert code == 2
    assert part in shown
    assert " - " in shown


def misspelt(word: str, start: int, random_numbers: random.Random) -> Iterator[str]:
    """Yield deletions, transpositions, replacements and insertions of one letter at every other place."""
    letters = string.ascii_lowercase + "-_"
    for i in range(start + random_numbers.randrange(2), len(word), 2):
        yield word[:i] + word[i + 1 :]
        yield word[:i] + word[i + 1 : i + 2] + word[i] + word[i + 2 :]
        yield word[:i] + random_numbers.choice(letters) + word[i + 1 :]
        yield word[:i] + random_numbers.choice(letters) + word[i:]


@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row.name)
def test_one_edit_typos_get_the_right_suggestion_first(row: Command) -> None:
    random_numbers = random.Random(0)
    command = functools.reduce(lambda group, name: group.commands[name], row.name.split(), app.make_app())
    context = typer.Context(command)
    flags = command.make_parser(context)._long_opt
    right = wrong = 0
    for flag in (flag for flag in flags if flag.startswith("--")):
        for typo in set(misspelt(flag, 1, random_numbers)) - set(flags) - {"--"}:
            with pytest.raises(UsageError) as caught:
                command.make_parser(context).parse_args([typo])
            right += caught.value.fix == f"did you mean {flag!r}?"
            wrong += caught.value.fix != f"did you mean {flag!r}?"
    keys = recipe_keys(row.options)
    for key in keys:
        for typo in set(misspelt(key, 0, random_numbers)) - set(keys):
            right += suggest(typo, keys) == f"did you mean {key!r}?"
            wrong += suggest(typo, keys) != f"did you mean {key!r}?"
    assert right >= 0.95 * (right + wrong)


def test_the_result_is_text_or_one_json_object(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["toy", "--seed", "3", "a b"]) == 0
    out, err = capsys.readouterr()
    assert out == "the result\n"
    assert err == "next: gptkit toy 'a b'\n"
    assert toy.console.command_line == "gptkit toy --seed 3 'a b'"
    assert main(["toy", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"answer": 42, "where": "a b"}
    assert err == ""
    toy.act = lambda: None
    assert main(["toy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {}


def test_nothing_reaches_for_the_network_unless_the_hub_is_named(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    switches = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
    Path("hub.yaml").write_text("data: [a.txt, 'hf:stas/openwebtext-10k']\n")
    for arguments, offline in ((["x.txt"], True), (["-m", "hf:gpt2"], False), (["-r", "hub.yaml"], False)):
        for switch in switches:
            monkeypatch.delenv(switch, raising=False)
        assert main(["toy", *arguments]) == 0
        assert [toy.environment.get(switch) == "1" for switch in switches] == [offline] * 3


ENDINGS: list[tuple[BaseException, int, str, str]] = [
    (UsageError("m", where="w", fix="f"), 2, "usage", "error: m (w) - f"),
    (GateFailed("m", result={}, fix="f"), 3, "gate", "error: m - f"),
    (NothingComparable("m", fix="f"), 4, "nothing_comparable", "error: m - f"),
    (Diverged("m\nn", fix="f"), 5, "diverged", "error: m n - f"),
    (MemoryError(), 6, "resources", "out of memory (main memory)"),
    (RuntimeError("CUDA out of memory. Tried to"), 6, "resources", "out of memory (the GPU)"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you"), 6, "resources", "out of memory (main memory)"),
    (OSError(errno.ENOSPC, "No space left on device", "f.bin"), 6, "resources", "no space left on the disk (f.bin)"),
    (RuntimeError("I/O error: No space left on device (os error 28)"), 6, "resources", "no space left on the disk"),
    (PermissionError(errno.EACCES, "Permission denied", "f.bin"), 2, "input", "permission denied (f.bin)"),
    (KeyboardInterrupt(), 130, "interrupted", "interrupted"),
    (Interrupted("stopped", signal_number=15, fix="f"), 143, "interrupted", "stopped"),
]


@pytest.mark.parametrize(("error", "code", "kind", "part"), ENDINGS, ids=lambda value: type(value).__name__)
def test_every_failure_has_its_exit_code(
    toy: Toy, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, kind: str, part: str
) -> None:
    def act() -> None:
        raise error

    toy.act = act  # type: ignore[assignment]
    assert main(["toy", "--json"]) == code
    out, err = capsys.readouterr()
    shown = json.loads(out)["error"]
    assert (shown["kind"], shown["exit_code"]) == (kind, code)
    assert part in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("error", [ValueError("a\nb\x1b[2J"), GptkitError("bare"), OSError("no file name")])
def test_a_bug_leaves_its_traceback_in_a_log(
    toy: Toy, capsys: pytest.CaptureFixture[str], tmp_path: Path, error: Exception
) -> None:
    def act() -> None:
        toy.console.run_directory = tmp_path
        raise error

    toy.act = act  # type: ignore[assignment]
    (tmp_path / "config.yaml").touch()
    assert main(["toy", "--seed", "9", "--json"]) == 1
    out, err = capsys.readouterr()
    shown = json.loads(out)["error"]
    assert (shown["kind"], shown["exit_code"]) == ("internal", 1)
    log = Path(shown["where"])
    assert log.parent == tmp_path
    assert log.stat().st_mode == (tmp_path / "config.yaml").stat().st_mode  # for all who share the run
    text = log.read_text()
    assert "Traceback" in text
    assert "gptkit toy --seed 9" in text
    assert err.count("\n") == 1
    assert "\x1b" not in err
    assert "please report it" in err


def run_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    facts = {**os.environ, "PYTHONPATH": str(Path(gptkit.__file__).parents[1]), **environment}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=facts, timeout=60)


def test_help_and_mistakes_import_nothing_heavy() -> None:
    helps = [[*row.name.split(), "--help"] for row in COMMANDS] + [["-h"], [], ["pretrain", "--help-all"]]
    for lines, heavy in ((helps, HEAVY), ([["pretrian"], ["pretrain", "--bad"]], (*HEAVY, "rich"))):
        code = f"import sys; from gptkit.cli.main import main; [main(line) for line in {lines!r}]; "
        done = run_python("-W", "error", "-c", code + f"print([name for name in {heavy!r} if name in sys.modules])")
        assert done.stdout.splitlines()[-1] == "[]"


def test_flags_are_whole_in_a_narrow_terminal() -> None:
    shown = run_python("-m", "gptkit", "finetune", "--help-all", COLUMNS="60").stdout
    assert all(flag in shown for flag in ("--transfer-layers", "--accelerate-config"))
    assert "\u2026" not in shown
    prose = [line for line in shown.partition("Examples:")[0].splitlines() if not line.startswith("  -")]
    assert max(map(len, prose)) <= 60
    assert "\\[" not in shown
    assert "  gptkit finetune --task demo-cloze --study ablation --seeds 5\n" in shown  # whole, to copy


def test_as_a_module_in_a_closed_pipe_and_on_a_full_disk() -> None:
    shown = run_python("-m", "gptkit", "recipes", "ls", "--jsn", GITHUB_ACTIONS="true", FORCE_COLOR="1")
    assert (shown.returncode, shown.stdout) == (2, "")
    assert shown.stderr == "error: unknown flag '--jsn' (gptkit recipes ls) - did you mean '--json'?\n"
    reader, writer = os.pipe()
    os.close(reader)
    facts = {**os.environ, "PYTHONPATH": str(Path(gptkit.__file__).parents[1])}
    line = [sys.executable, "-m", "gptkit", "recipes", "ls"]
    done = subprocess.run(line, stdout=writer, stderr=subprocess.PIPE, text=True, env=facts, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
    if Path("/dev/full").exists():
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, env=facts, timeout=60)
        assert done.returncode == 6
        assert done.stderr.startswith("error: no space left")


HELP_OR_RESULT = [["--help"], ["pretrain", "-h"], ["--version"], ["recipes", "ls"], ["recipes", "ls", "--json"]]


def run_closed(arguments: list[str], closed: tuple[int, ...]) -> subprocess.CompletedProcess[str]:
    """Run gptkit without some of its standard streams; the others are pipes."""
    facts = {**os.environ, "PYTHONPATH": str(Path(gptkit.__file__).parents[1])}
    shell = " ".join({0: "<&-", 1: ">&-", 2: "2>&-"}[number] for number in closed)
    line = ["sh", "-c", f'exec "$@" {shell}', "sh", sys.executable, "-m", "gptkit", *arguments]
    return subprocess.run(line, capture_output=True, text=True, env=facts, timeout=60, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("arguments", HELP_OR_RESULT, ids=" ".join)
def test_a_closed_stdout_is_named_in_one_line(arguments: list[str]) -> None:
    done = run_closed(arguments, (1,))
    assert (done.returncode, done.stderr) == (2, "error: stdout is closed - redirect it to a file, or to /dev/null\n")
    assert run_closed(arguments, (0, 1, 2)).returncode == 2


@pytest.mark.parametrize("arguments", HELP_OR_RESULT, ids=" ".join)
def test_with_stderr_or_stdin_closed_results_come_as_ever(arguments: list[str]) -> None:
    whole = run_closed(arguments, ())
    assert whole.returncode == 0
    for closed in ((2,), (0,), (0, 2)):
        done = run_closed(arguments, closed)
        assert (done.returncode, done.stdout) == (0, whole.stdout)
    failed = run_closed(["recipes", "ls", "--jsn", "--json"], (2,))
    assert (failed.returncode, json.loads(failed.stdout)["error"]["kind"]) == (2, "usage")


@pytest.mark.parametrize("arguments", HELP_OR_RESULT, ids=" ".join)
def test_a_reader_that_left_before_the_first_byte_is_no_failure(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    facts = {**os.environ, "PYTHONPATH": str(Path(gptkit.__file__).parents[1])}
    line = [sys.executable, "-m", "gptkit", *arguments]
    done = subprocess.run(line, stdout=writer, stderr=subprocess.PIPE, text=True, env=facts, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_opened_later_gets_no_standard_streams_number(tmp_path: Path) -> None:
    """Or a library's print would go into it."""
    script = (
        "import os, sys; from gptkit.cli import main as cli\n"
        "def work(request, arguments, console):\n"
        f"    file = open({str(tmp_path / 'file')!r}, 'w')\n"
        "    assert file.fileno() > 2\n"
        "    [os.write(number, b'printed') for number in (1, 2)]\n"
        "cli._run = work\n"
        "sys.exit(cli.main(['pretrain']))\n"
    )
    facts = {**os.environ, "PYTHONPATH": str(Path(gptkit.__file__).parents[1])}
    line = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", script]
    assert subprocess.run(line, env=facts, timeout=60).returncode == 0
    assert (tmp_path / "file").read_text() == ""


def test_options_of_pretrain_are_those_that_scripts_rely_on() -> None:
    relied_on = """data validation model tokenizer out steps tokens_per_step micro_batch sequence_length learning_rate
        warmup_steps schedule weight_decay optimizer dropout precision compile device seed log_every eval_every
        save_every resume num_processes accelerate_config dry_run report_to json"""
    assert set(relied_on.split()) <= set(fields_of(PretrainOptions))


def test_options_of_finetune_are_those_that_scripts_rely_on() -> None:
    relied_on = """task data model lm_coef epochs batch_size learning_rate optimizer transfer_layers schedule
        layer_decay unfreeze seeds study predict out micro_batch warmup_steps weight_decay dropout precision compile
        device seed log_every eval_every save_every resume num_processes accelerate_config dry_run report_to json"""
    assert set(relied_on.split()) <= set(fields_of(FinetuneOptions))
    shared = fields_of(TrainingOptions)
    for name, field in fields_of(FinetuneOptions).items():
        if name in shared:
            assert field.metadata["resumable"] == shared[name].metadata["resumable"]
            assert field.metadata["minimum"] == shared[name].metadata["minimum"]
    assert [name for name in fields_of(FinetuneOptions) if name in shared] == list(shared)  # the order is kept


def test_options_of_generate_are_those_that_scripts_rely_on() -> None:
    relied_on = """prompt prompts model max_new_tokens top_k top_p top_p_rule temperature greedy beams
        repetition_penalty num_samples seed stop ignore_eos quantize precision compile stream interactive
        show_probs json"""
    assert set(relied_on.split()) <= set(fields_of(GenerateOptions))
