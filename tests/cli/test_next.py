"""Every command that gptkit prints works as it stands: after `next:`, in cards, cures and the README."""

from __future__ import annotations

import ast
import re
import shlex
import sys
from pathlib import Path

import pytest

import gptkit
from gptkit.cli import app
from gptkit.cli.commands import COMMANDS
from gptkit.cli.main import main
from gptkit.errors import UsageError
from gptkit.recipes import recipes_root

REPOSITORY = Path(__file__).parents[2]
NAMES = "|".join(sorted((row.name for row in COMMANDS), key=len, reverse=True))

# Each line runs in the folder that the lines before it leave, then the line that it prints after `next:`.
STORY = """
tasks
recipes cp tldr early.yaml
recipes cp demo-cloze early-cloze.yaml
pretrain 'bo ok.txt' --model tiny --tokenizer char --steps 2 --out 'runs/r u'
generate --model 'runs/r u' --max-new-tokens 4
generate a --max-new-tokens 4
generate a --max-new-tokens 4 --temperature 0.9
generate a --max-new-tokens 4 --greedy
score 'ab cd' --model 'runs/r u'
score 'ab cd' 'a b' --tokens
score -- -ab
generate --max-new-tokens 4 -- -a
inspect 'abab cdcd'
probe --task 'o wn.yaml' --model 'runs/r u' --out 'pr obe'
eval --model 'runs/r u' --task demo-cloze --limit 5
eval --task demo-cloze --limit 5
eval --task demo-cloze --limit 5 --output 'base line {0}.json'
eval --task demo-cloze --limit 5 -o other.json
eval --task demo-cloze --limit 5 --baseline other.json
eval --task demo-cloze --limit 5 --all-checkpoints 'runs/r u'
tasks
tasks show demo-cloze
tasks show demo-cloze/sum
env
recipes ls
recipes show laptop
recipes show models/tiny
recipes cp models/tiny small.json
recipes cp tldr
recipes cp demo-cloze
recipes cp laptop mine.yaml
tokenizer train 'bo ok.txt' --tokenizer char --out 'to ken{s}'
tokenizer compare char bpe:300 'bo ok.txt'
tokenizer encode 'ab cd' --model 'runs/r u'
tokenizer decode 5 6 --model 'runs/r u'
pretrain 'bo ok.txt' --model tiny --tokenizer char --steps 2 --seed 1 --out 'runs/r u 2'
finetune --task 'o wn.yaml' --model 'runs/r u' --epochs 1 --batch-size 4 --out 'f t'
finetune --task 'o wn.yaml' --model 'runs/r u' --epochs 1 --batch-size 4 --out study --study ablation
predict 'ab cd' --model 'f t'
predict 'ab cd' --model 'f t/model'
predict 'LONG' --model 'f t'
inspect 'abab cdcd' --model 'f t' --out tuned.html
eval --model 'f t'
eval --model 'f t' --output=class.json
convert 'f t' 'f c'
convert 'f t' 'f h' --to hf
convert 'runs/r u' copy
convert 'runs/r u' 'l c.bin' --to llm.c
generate a --max-new-tokens 4 --model copy
runs ls
runs show 'r u'
runs compare 'runs/r u' 'runs/r u 2'
runs prune 'r u' --yes
runs rm 'r u 2' --yes
"""
QUIET = {
    "eval --task demo-cloze --limit 5 --baseline",
    "eval --task demo-cloze --limit 5 --all",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, whose name needs quotes, with a text and a task of one's own."""
    place = tmp_path / "it's 数据"
    place.mkdir()
    monkeypatch.chdir(place)
    Path("bo ok.txt").write_text("\n\n".join(f"abababab cdcdcdcd {number}" for number in range(800)))
    for name in ("train.csv", "dev.csv"):
        Path(name).write_text("text,label\n" + "".join(f"ab{row} {name} cd,{'xy'[row % 2]}\n" for row in range(20)))
    Path("o wn.yaml").write_text(
        "name: own\nformat: classification\nlabels: [x, y]\ncolumns: {text: text, label: label}\n"
        "splits: {train: train.csv, dev: dev.csv}\n"
    )
    return place


def test_every_line_after_next_works(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    followed = set()
    tried: set[str] = set()
    for line in filter(None, STORY.splitlines()):
        assert main(shlex.split(line.replace("LONG", "ab cd " * 200))) == 0, line + capsys.readouterr().err
        printed = capsys.readouterr().err.splitlines()[-1:]
        has_next = bool(printed) and printed[0].startswith("next: ")
        assert has_next != any(line.startswith(begin) for begin in QUIET), line
        if not has_next:
            continue
        suggested = printed[0].removeprefix("next: ")
        followed.add(max((row.name for row in COMMANDS if f"{line} ".startswith(f"{row.name} ")), key=len))
        program, *words = shlex.split(suggested)
        if program == "python":
            monkeypatch.setattr(sys, "argv", words[1:])
            exec(words[1], {})
            continue
        assert program == "gptkit"
        if suggested in tried or words == ["pretrain"]:
            continue
        tried.add(suggested)
        if {"--dry-run", "--interactive"} & {*words} or (words[0] == "finetune" and "--resume" not in words):
            assert isinstance(app.parse(words), app.Request)  # asks, measures for seconds or trains for minutes
            continue
        if words[0] == "pretrain":
            words += ["--model", "tiny", "--steps", "1"]
        assert main(words) == 0, f"{line}\n{suggested}\n{capsys.readouterr().err}"
        capsys.readouterr()
    assert followed == {row.name for row in COMMANDS}


def test_a_card_s_command_works_in_the_model_s_folder(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = "pretrain 'bo ok.txt' --model tiny --tokenizer char --steps 2 --out r"
    tune = "finetune --task 'o wn.yaml' --model r --epochs 1 --batch-size 4 --out f"
    for line, run in ((train, "r"), (tune, "f")):
        assert main(shlex.split(line)) == 0
        card = Path(run, "model", "README.md").read_text(encoding="utf-8")
        used = re.search(r"## Use\n\n`{3,}\w*\n(.*?)\n`{3,}", card, re.DOTALL)
        assert used is not None
        with monkeypatch.context() as context:
            context.chdir(folder / run / "model")
            for command in used[1].splitlines():
                assert main(shlex.split(command, comments=True)[1:]) == 0, capsys.readouterr().err


def printed_commands() -> list[tuple[str, str, str]]:
    """Return (place, command, the words after it) for each command in a string of the code, a recipe or a page."""
    texts = [(path, path.read_text(encoding="utf-8")) for path in sorted(recipes_root().rglob("*.yaml"))]
    texts += [(page, page.read_text(encoding="utf-8")) for page in REPOSITORY.glob("*.md")]
    for path in sorted(Path(gptkit.__file__).parent.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "x" for part in node.values]
                texts.append((path, "".join(map(str, parts))))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                texts.append((path, node.value))
    found = re.compile(rf"gptkit ({NAMES})\b([^`;\n]*(?:\\\n[^`;\n]*)*)")
    return [(str(path), match[1], match[2]) for path, text in texts for match in found.finditer(text)]


def test_printed_commands_have_flags_that_exist_and_no_placeholders() -> None:
    commands = printed_commands()
    assert len(commands) > 100
    flags_of = {
        row.name: {option for param in _command(row.name).params for option in param.opts + param.secondary_opts}
        for row in COMMANDS
    }
    for place, name, rest in commands:
        own = re.split(r"\||#|, ", rest)[0]
        unknown = set(re.findall(r"(?<=\s)--[a-z][a-z-]+", own)) - flags_of[name] - {"--help"}
        assert not unknown, (place, name, rest)
        if place.endswith(".py"):
            assert not re.search(r"(^|--[a-z-]+) [A-Z_]{3,}\b", own), (place, name, rest)


@pytest.mark.skipif(not (REPOSITORY / "README.md").is_file(), reason="no README.md beside the tests")
def test_the_commands_of_the_readme_and_the_demo_are_accepted(folder: Path) -> None:
    page = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    demo = (REPOSITORY / "docs" / "demo.sh").read_text(encoding="utf-8")
    lines = [f"gptkit {line}" for line in re.findall(r'^step "(.*)" <<', demo.replace("$run", "a"), flags=re.MULTILINE)]
    assert len(lines) == 5
    lines += re.findall(r"^ {4}(?:\$ |next: )?(gptkit .*)$", page, flags=re.MULTILINE)
    assert len(lines) >= 15
    for line in lines:
        words = shlex.split(line.partition(" &&")[0].partition(";")[0].rpartition("| ")[2], comments=True)[1:]
        if words and "--resume" not in words:
            try:
                assert isinstance(app.parse(words), app.Request | int)
            except UsageError as error:
                raise AssertionError(f"{line}: {error}") from None


def _command(name: str) -> object:
    group = app.make_app()
    for word in name.split():
        group = group.commands[word]
    return group
