"""R23: on a real terminal nothing that comes from models, data, names or settings is more than text.

A process runs command lines with a pseudo-terminal as its three streams; what the terminal got is searched for bytes
that drive one.
"""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import sys
import termios
import threading
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest
from children import start
from safetensors.numpy import load_file, save_file

from generation_toy import write_model

# Colours, and what a display that redraws itself needs: back to the line's start, up, erase, hide the cursor.
# No text of the corpus asks for one of them.
OWN = re.compile(r"\r?\x1b\[(?!8;7)(?:[\d;]*m|\d*A|2K|\?25[lh])|\r(?=\x1b\[(?:\d*A|2K))")
BIDI = {*map(chr, [0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])}
INVISIBLE = {*map(chr, [0x200B, *range(0x2060, 0x2065), 0xFEFF, *range(0xE0000, 0xE0080)])}
FINALS = [chr(one) for one in range(0x40, 0x7F)]


def corpus() -> list[str]:
    """Return texts that would drive a terminal, or rich, if they reached it as they are."""
    controls = [chr(one) for one in [*range(0x20), *range(0x7F, 0xA0)] if chr(one) not in "\n\t"]
    sequences = [f"\x1b[8;7{final}" for final in FINALS] + [f"\x9b9{final}" for final in FINALS]
    sequences += [f"\x1b{final}" for final in FINALS] + [f"\x1b#{one}\x1b({one}" for one in range(9)]
    numbers = [0, 1, 2, 4, 7, 8, 9, 10, 11, 22, 50, 52, 66, 104, 133, 633, 777, 1337, 5522]
    strings = [f"\x1b]{one};x\x07" for one in numbers] + [f"\x9d{one};x\x9c" for one in numbers]
    strings += [f"\x1b{one}1$q\x1b\\" for one in "PX^_"] + [f"{one}q\x9c" for one in "\x90\x98\x9e\x9f"]
    known = ["\x1b]8;;http://x\x1b\\y\x1b]8;;\x1b\\", "\x1b]52;c;QQ==\x07", "\x1b[6n\x1b[c", "\x1b[?1049h", "\x1bc"]
    known += [
        "over\rwritten",
        "a\b\bb",
        "**\x18B00",
        "\x1b[2J\x1b[3J",
        "\x1b_Gf=24;QQ==\x1b\\",
        "\x0e\x0f",
        "\x1b[1;1\nH",
    ]
    marked = ["[link=http://x]y[/link]", "[/b]", "[bold red]z", ":smile:", "[@click=app.bell]x", "\\[b]", "[", "]]"]
    marked += [f"a{one}b" for one in sorted(BIDI)] + ["\u2028\u2029"] + [f"a{one}b" for one in sorted(INVISIBLE)[:12]]
    return [*controls, *sequences, *strings, *known, *marked]


# --- the process on the terminal ---


def on_terminal(lines: Sequence[Sequence[str]], name: str, folder: str, typed: str | None) -> NoReturn:
    """Run command lines with a terminal as stdin, stdout and stderr; `typed` is a file that stands for stdin."""
    terminal = os.open(name, os.O_RDWR)
    source = terminal if typed is None else os.open(typed, os.O_RDONLY)
    for number, one in enumerate((source, terminal, terminal)):
        os.dup2(one, number)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    os.chdir(folder)
    from gptkit.cli.main import main

    for words in lines:
        main(list(words))
    sys.stdout.flush()
    os._exit(0)


def shown(lines: Sequence[Sequence[str]], folder: Path, typed: Path | None = None) -> str:
    """Return all that a terminal got from command lines, as the bytes say it."""
    master, slave = pty.openpty()
    settings = termios.tcgetattr(slave)
    settings[1] &= ~termios.OPOST  # what was written, not what a driver makes of it
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(slave, termios.TCSANOW, settings)
    termios.tcsetwinsize(slave, (40, 150))
    got: list[bytes] = []

    def listen() -> None:
        try:
            while piece := os.read(master, 1 << 16):
                got.append(piece)
        except OSError:  # the last that held the other end is gone
            pass

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    environment = {"TERM": "xterm-256color", "COLORTERM": "", "CI": "", "NO_COLOR": "", "GITHUB_ACTIONS": ""}
    facts = (lines, os.ttyname(slave), str(folder), None if typed is None else str(typed))
    child = start(on_terminal, *facts, log=folder / "log", environment=environment)
    code = child.wait(100)
    os.close(slave)
    listener.join(10)
    os.close(master)
    text = b"".join(got).decode("utf-8", "surrogateescape")
    assert code == 0, text[-2000:]
    return text


def driving(text: str) -> list[str]:
    """Return what in a text would drive a terminal and is not our own."""
    rest = OWN.sub("", text)
    return [
        f"{mark!r} in {rest[max(0, at - 30) : at + 30]!r}"
        for at, mark in enumerate(rest)
        if mark not in "\n\t" and (unicodedata.category(mark) in ("Cc", "Cs") or mark in BIDI | INVISIBLE)
    ]


# --- the lines ---


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose every other token is a character that drives a terminal."""
    text = "".join(map(chr, [*range(256)])) * 4 + "".join(sorted(BIDI)) * 4 + "First [b] \U0001f600" * 9
    return write_model(tmp_path_factory.mktemp("model"), text=text)


def as_name(text: str) -> str:
    return text.replace("/", "").replace("\0", "")[:60] or "x"


def lines_with(text: str, model: Path, folder: Path) -> list[list[str]]:
    """Return command lines that take a text wherever one can be given: prompts, names, flags, values, tasks, files."""
    name, place = as_name(text), folder / "files"
    place.mkdir(exist_ok=True)
    rows = place / f"{name}.jsonl"
    rows.write_bytes(json.dumps({text: "a"}).encode())
    recipe = place / f"{name}.yaml"
    recipe.write_text(f"{json.dumps(text or 'x')}: 1\n")
    known = place / f"known-{name}.yaml"
    known.write_text(f"model: {json.dumps(text or 'x')}\n")
    clean = text.encode("utf-8", "replace").decode().replace("\0", "") or "x"
    return [
        ["generate", clean[:12], "--model", str(model), "--max-new-tokens", "24", "--stream"],
        ["generate", "--model", str(place / name)],
        ["pretrain", str(rows)],
        ["pretrain", "-r", str(recipe)],
        ["pretrain", "-r", str(known), "--help"],
        ["pretrain", f"--{clean}"],
        ["pretrain", f"--seed={clean}"],
        [clean],
        ["eval", "--task", clean, "--model", str(model)],
        ["recipes", "show", clean],
        ["tokenizer", "compare", clean, "char"],
    ]


def deep_lines(text: str, model: Path, folder: Path) -> list[list[str]]:
    """Return command lines that show what is inside of models and data: samples, probabilities, tensors, groups."""
    hostile = folder / "files" / "hostile.txt"
    hostile.parent.mkdir(exist_ok=True)
    hostile.write_text((text + " word\n") * 60, newline="")
    shape = folder / "files" / "shape.json"
    shape.write_text(json.dumps({"n_positions": 16, "n_embd": 16, "n_layer": 1, "n_head": 2}))
    other = folder / "files" / "other"
    shutil.copytree(model, other)
    tensors = load_file(model / "model.safetensors")
    save_file({**tensors, f"transformer.{text}": tensors["transformer.ln_f.weight"]}, other / "model.safetensors")
    training = [
        "--steps",
        "4",
        "--eval-every",
        "2",
        "--tokens-per-step",
        "32",
        "--sequence-length",
        "8",
        "--log-every",
        "1",
    ]
    out = str(folder / "files" / as_name(text))
    return [
        [
            "pretrain",
            str(hostile),
            "--model",
            str(shape),
            "--tokenizer",
            "char",
            *training,
            "--out",
            out,
            "--device",
            "cpu",
        ],
        ["generate", "--model", out, "--max-new-tokens", "40", "--num-samples", "2", "--no-stream"],
        ["generate", "F", "--model", str(model), "--max-new-tokens", "20", "--show-probs"],
        ["generate", "F", "--model", str(other)],
        ["convert", str(other), "made"],
        ["eval", "--model", out, "--task", "perplexity", "--data", str(hostile)],
        ["pretrain", "--resume", out],
    ]


@pytest.mark.slow
def test_the_terminal_is_one_and_the_search_finds(model: Path, tmp_path: Path) -> None:
    """A harmless text brings our colours and our live display, and nothing else; a text that gets through is found."""
    text = shown([*lines_with("harmless", model, tmp_path), *deep_lines("harmless", model, tmp_path)], tmp_path)
    assert "\x1b[1;31merror:" in text
    assert "\x1b[?25l" in text
    assert driving(text) == []
    for one in corpus():
        if any(unicodedata.category(mark) in ("Cc", "Cs") or mark in BIDI for mark in one):
            assert driving(text + one), repr(one)


def test_nothing_given_on_a_command_line_drives_the_terminal(
    tmp_path: Path, model: Path, count: Any, figure: Any
) -> None:
    texts = corpus()
    chosen = texts[:: count(40, 1)]
    found: list[str] = []
    for begin in range(0, len(chosen), 25):
        folder = tmp_path / str(begin)
        folder.mkdir()
        lines = [line for text in chosen[begin : begin + 25] for line in lines_with(text, model, folder)]
        found += driving(shown(lines, folder))
    told = f"{len(found)} raw control bytes on the terminal, from {11 * len(chosen)} command lines"
    figure("R23", "hostile texts as prompt, name, flag, value, key and in files", len(chosen), told, bound="0")
    assert not found, "\n".join(found[:20])


@pytest.mark.slow
def test_nothing_inside_models_and_data_drives_the_terminal(
    tmp_path: Path, model: Path, count: Any, figure: Any
) -> None:
    texts = ["".join(one for one in corpus() if "\0" not in one and "\ud800" not in one)[:1500]]
    texts += [one for one in corpus() if "\0" not in one][:: count(1000, 12)]
    found: list[str] = []
    for number, text in enumerate(texts):
        folder = tmp_path / str(number)
        folder.mkdir()
        found += driving(shown(deep_lines(text, model, folder), folder))
    told = f"{len(found)} raw control bytes on the terminal"
    figure("R23", "training text, samples, tokens and tensor names that drive a terminal", len(texts), told, bound="0")
    assert not found, "\n".join(found[:20])


def test_a_dialogue_shows_text_alone(tmp_path: Path, model: Path, count: Any, figure: Any) -> None:
    """What is said comes back as the model's prompt, from !set, and in the error that ends it."""
    texts = [one for one in corpus() if not set(one) & {"\n", "\0", "'"}]
    chosen = texts[:: count(40, 1)]
    found: list[str] = []
    for begin in range(0, len(chosen), 5):
        said = [f"a{one[:8]}\n!set stop 'a{one[:8]}'\n!set stop\n" for one in chosen[begin : begin + 5]]
        typed = tmp_path / f"typed-{begin}"
        typed.write_bytes(f"{''.join(said)}!{chosen[begin]}x\n".encode("utf-8", "replace"))
        line = ["generate", "--interactive", "--model", str(model), "--max-new-tokens", "8"]
        found += driving(shown([line], tmp_path, typed))
    told = f"{len(found)} raw control bytes on the terminal"
    figure("R23", "hostile lines in a dialogue", len(chosen), told, bound="0")
    assert not found, "\n".join(found[:20])
