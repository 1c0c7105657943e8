"""Single tokens as people see them: parts of a character, white space, controls; and tokenizer encode and decode."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from tokenizers import pre_tokenizers

from gptkit.cli.main import main
from gptkit.console import Console
from gptkit.text.tokenizers.encoding import encode_pieces
from gptkit.text.tokenizers.kinds import byte_level, train_tokenizer
from gptkit.text.tokenizers.shown import pieces_of, visible

BYTES = train_tokenizer("bpe:257", ["a"])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer("bpe:280", ["the cat, the 你好 " * 20]).save_pretrained(folder)
    return str(folder)


@given(st.text(max_size=12))
@settings(max_examples=60)
def test_pieces_of_bytes_are_their_characters_or_hexadecimal_numbers(text: str) -> None:
    pieces = pieces_of(BYTES, encode_pieces(BYTES, [text])[0].tolist())
    shown = [char if char.isascii() else f"<{byte:02X}>" for char in text for byte in char.encode()]
    assert pieces == shown


def test_a_token_of_a_whole_character_and_a_part_of_the_next() -> None:
    merges = [("ä", "½"), ("ä½", "ł"), ("ä½ł", "å")]  # 你, which is E4 BD A0, and the first byte of 好
    entries = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    tokenizer = byte_level({entry: id for id, entry in enumerate(entries)}, merges, Path())
    assert pieces_of(tokenizer, encode_pieces(tokenizer, ["你好"])[0].tolist()) == ["你<E5>", "<A5>", "<BD>"]


@pytest.mark.parametrize(
    ("piece", "shown"),
    [
        (" the", "␣the"),
        ("\n\t", r"\n\t"),
        ("\r", r"\r"),
        ("\x1b[1m", r"\x1b[1m"),
        ("\u3000", r"\u3000"),
        ("ั", "◌ั"),
        ("\u200d", r"\u200d"),
        ("\xad", r"\xad"),
        ("👩\u200d", "👩\u200d"),
        ("", ""),
    ],
)
def test_nothing_invisible_is_left(piece: str, shown: str) -> None:
    assert visible(piece) == shown


def test_encode_and_decode_invert_each_other(
    saved: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*line: str) -> Any:
        assert main(["tokenizer", *line, "--tokenizer", saved, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    text = "the 你好é\n\x1b"
    encoded = run("encode", text)
    assert encoded["pieces"][0] == "the"
    assert encoded["pieces"][-4:] == ["<C3>", "<A9>", "\n", "\x1b"]
    assert run("decode", *map(str, encoded["ids"]))["text"] == text
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfthe cat\r\n")))
    assert run("encode", "-")["pieces"] == ["the", " cat"]
    assert main(["tokenizer", "encode", "the cat", "--tokenizer", saved]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ")[1] for line in lines] == ["the", "␣cat"]


@pytest.mark.parametrize("width", [2, 8, 40])
def test_a_terminal_of_any_width_gets_ids_below_their_pieces(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", str(width))
    screen, pieces = Terminal(), ["␣the", "你好世界", "x", "ok"]
    Console(stdout=screen, environment={"TERM": "xterm"}).tokens(pieces, ["11", "2", "333", "4"])
    lines = re.sub(r"\x1b\[[\d;]*m", "", screen.getvalue()).splitlines()
    above, below = lines[::2], lines[1::2]
    assert "".join("".join(above).split()) == "".join(pieces)
    assert "".join(below).split() == ["11", "2", "333", "4"]
    if width == 40:
        starts = [cell_len(lines[0][: lines[0].index(piece)]) for piece in pieces]
        assert starts == [lines[1].index(note) for note in ("11", "2", "333", "4")]
    assert all(cell_len(line) <= max(width, 4) for line in lines)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["decode", "3", "999"], "no token has id 999 (ID) - pass ids from 0 to 2"),
        (["decode", "x"], "'x' is not a whole number"),
        (["encode", "a\udcff"], "the text is not UTF-8"),
        (["encode", "a", "--model", "m"], "both name a tokenizer (--model, --tokenizer)"),
    ],
)
def test_bad_input_is_refused(line: list[str], message: str, saved: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokenizer", *line, "--tokenizer", saved]) == 2
    assert message in capsys.readouterr().err


def test_by_default_the_newest_run_has_the_tokenizer(
    saved: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gptkit.training.finished_runs.newest_model", lambda console: console.say("newest") or saved)
    assert main(["tokenizer", "decode", "3"]) == 0
    assert "newest" in capsys.readouterr().err
