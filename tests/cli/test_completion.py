"""Shell completion: installed as a user does it, then asked by the shells' own protocols."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import gptkit
from gptkit.recipes import CONFIG, all_recipes, recipes_of
from gptkit.tasks.table import names_of_evaluations

LIMIT = 0.4  # seconds, of the processor: others may be at work too
RATIO = 5  # on a slower machine: to importing Typer and Rich alone


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's home with `gptkit` on its PATH, a run and a model directory."""
    program = tmp_path / "bin" / "gptkit"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gptkit "$@"\n')
    program.chmod(0o755)
    for file in (f"runs/first/{CONFIG}", f"elsewhere/second/{CONFIG}", "models/mine/config.json"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    return tmp_path


def run(home: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    facts = {
        **os.environ,
        "PYTHONPATH": str(Path(gptkit.__file__).parents[1]),
        "HOME": str(home),
        "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
        **environment,
    }
    return subprocess.run(command, capture_output=True, text=True, env=facts, cwd=home, timeout=60)


def in_bash(home: Path, line: str) -> list[str]:
    """Return what bash offers for the last word of a line, after the installed ~/.bashrc was read."""
    words = line.split(" ")
    script = f'. "$HOME/.bashrc"; COMP_WORDS=({" ".join(words[:-1])} "{words[-1]}"); COMP_CWORD={len(words) - 1}; '
    script += '$(complete -p gptkit | sed "s/.*-F \\([^ ]*\\).*/\\1/") gptkit; printf "%s\\n" "${COMPREPLY[@]}"'
    done = run(home, "bash", "--norc", "-c", script)
    assert (done.returncode, done.stderr) == (0, "")
    return [line for line in done.stdout.splitlines() if line]


def in_zsh(home: Path, line: str) -> str:
    """Return the call of zsh's _arguments that offers words for the end of a line, as its function asks for it."""
    done = run(home, "gptkit", _GPTKIT_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS=line)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


LINES = [
    ("gptkit pretr", {"pretrain"}),
    ("gptkit pretrain --tok", {"--tokenizer", "--tokens-per-step"}),
    ("gptkit pretrain --sch", {"--schedule"}),  # which only --help-all shows
    ("gptkit pretrain --bet", set()),  # which is a key for recipes
    ("gptkit pretrain --schedule openai-c", {"openai-cosine", "openai-constant"}),
    ("gptkit finetune --task demo-", {"demo-classification", "demo-cloze", "demo-entailment", "demo-similarity"}),
    ("gptkit finetune --task st", {"stsb", "stsb-soft", "story-cloze"}),
    ("gptkit eval --task rte", {"rte"}),
    ("gptkit eval --task lambada/l", {name for name in names_of_evaluations() if name.startswith("lambada/l")}),
    ("gptkit pretrain --model gpt2-", {name for name in recipes_of("models") if name.startswith("gpt2-")}),
    ("gptkit pretrain --recipe ", set(recipes_of("pretrain"))),
    ("gptkit pretrain --recipe laptop --mod", {"--model"}),
    ("gptkit recipes show pretrain/", {recipe.full_name for recipe in all_recipes() if recipe.kind == "pretrain"}),
    ("gptkit generate --model ", {"runs/first"}),
    ("gptkit generate --model models/m", {"models/mine"}),
    ("gptkit score --model ", {"runs/first"}),
    ("gptkit score --quantize in", {"int8", "int4"}),
    ("gptkit predict --model models/m", {"models/mine"}),
    ("gptkit predict --i", {"--inputs"}),
    ("gptkit pretrain --resume ", {"auto", "never", "runs/first"}),
    ("gptkit pretrain --resume elsewhere/", {"elsewhere/second"}),
    ("gptkit eval --all-checkpoints ru", {"runs/first"}),
    ("gptkit runs rm first elsewhere/", {"elsewhere/second"}),
    ("gptkit runs show ", {"first"}),
    ("gptkit runs compare first fi", {"first"}),
    ("gptkit runs prune runs/", {"runs/first"}),
    ("gptkit runs show --root elsewhere s", {"second"}),
]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_what_it_was_installed_for(home: Path) -> None:
    done = run(home, "bash", "--norc", "-c", "gptkit --install-completion; echo $?")
    assert done.stdout.splitlines()[-1] == "0", done.stderr
    assert "\x1b" not in done.stdout
    for line, expected in LINES:
        assert set(in_bash(home, line)) == expected, line
    (home / "my run é").mkdir()
    (home / "my run é" / CONFIG).touch()
    assert "my\\ run\\ é" in in_bash(home, "gptkit generate --model my")


def test_zsh_completes_as_its_function_asks(home: Path) -> None:
    script = run(home, "gptkit", _GPTKIT_COMPLETE="source_zsh").stdout
    assert "_GPTKIT_COMPLETE=complete_zsh" in script
    assert "_TYPER_COMPLETE_ARGS" in script
    for line, expected in LINES:
        offered = in_zsh(home, line)
        assert offered.startswith("_arguments" if expected else "_files")
        assert all(f'"{word}"' in offered for word in expected), line
    assert in_zsh(home, "gptkit eval --data ") == "_files\n"


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh")
def test_zsh_completes_what_it_was_installed_for(home: Path) -> None:
    """What zsh's own completion calls is run, and _arguments shows the words that it is given."""
    done = run(home, "zsh", "-f", "-c", "gptkit --install-completion; echo $?")
    assert done.stdout.splitlines()[-1] == "0", done.stderr
    assert "compinit" in (home / ".zshrc").read_text()
    stand_ins = "compdef() { :; }; _files() { echo FILES; }; _arguments() { print -r -- $2 $1; }"
    for line, expected in LINES:
        words = " ".join(f'"{word}"' for word in line.split(" "))
        script = f"{stand_ins}; words=({words}); CURRENT=$#words; . ~/.zfunc/_gptkit; _gptkit_completion"
        done = run(home, "zsh", "-f", "-c", script)
        assert (done.returncode, done.stderr) == (0, "")
        assert all(f'"{word}"' in done.stdout for word in expected), line


@pytest.mark.parametrize("line", ["gptkit eval --task lam", "gptkit finetune --task r", "gptkit pretrain --recipe l"])
def test_a_completion_needs_neither_torch_nor_long(home: Path, line: str) -> None:
    facts = {"_GPTKIT_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": line}
    done = run(home, sys.executable, "-X", "importtime", "-m", "gptkit", **facts)
    imported = {text.rpartition("|")[2].strip().partition(".")[0] for text in done.stderr.splitlines()}
    assert "gptkit" in imported
    assert not {"torch", "transformers", "datasets"} & imported
    seconds = min(processor_seconds(lambda: in_zsh(home, line)) for _ in range(5))
    libraries = [sys.executable, "-c", "import typer, typer.rich_utils, yaml"]
    peer = min(processor_seconds(lambda: subprocess.run(libraries, check=True)) for _ in range(5))
    assert seconds < max(LIMIT, RATIO * peer)


def processor_seconds(call: Callable[[], object]) -> float:
    """Return the seconds of the processor that the processes of a call take."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    call()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
