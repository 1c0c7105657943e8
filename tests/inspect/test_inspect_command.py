"""`gptkit inspect` as a person or a script uses it: page, sidecar, summary, JSON, and one line for what is wrong."""

from __future__ import annotations

import errno
import io
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from generation_toy import POSITIONS, write_model
from gptkit.cli.main import main
from gptkit.console import Console
from gptkit.inspect.inspection import inspect_model
from gptkit.inspect.summary import print_summary

TEXT, UNKNOWN = "hear me speak", "\N{SNOWMAN}"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a language model of 24 positions."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "model", "bpe:300")
    return tmp_path


def run(line: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(shlex.split(line))
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_json_has_what_scripts_rely_on(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(f"inspect '{TEXT}' --model model --json", capsys)
    assert code == 0
    found = json.loads(out)
    assert found.keys() == {"page", "sidecar", "model", "tokens", "nll", "head_types", "max_error"}
    assert (found["page"], found["sidecar"]) == ("inspect.html", "inspect.safetensors")
    first, *rest = found["tokens"]
    assert (first["nll"], first["rank"]) == (None, None)
    assert "".join(token["piece"] for token in rest) == TEXT
    assert sum(token["nll"] for token in rest) == pytest.approx(found["nll"])
    assert 0 <= found["max_error"] < 0.01
    saved = load_file(place / "inspect.safetensors")
    assert [token["id"] for token in found["tokens"]] == saved["tokens.ids"].tolist()
    np.testing.assert_allclose([token["nll"] for token in rest], saved["loss.nll"][:-1])
    assert (place / "inspect.html").read_text(encoding="utf-8").startswith("<!")


def test_knock_out_is_left_out_where_it_takes_long_unless_asked_for(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def has_knock_out(flags: str) -> tuple[bool, str, str]:
        code, out, err = run(f"inspect '{TEXT}' --model model --overwrite {flags}", capsys)
        assert code == 0
        return "knock_out.losses" in load_file(place / "inspect.safetensors"), out, err

    has, out, err = has_knock_out("")
    assert (has, "--knock-out" in err) == (True, False)
    assert "loss of the text in nats, with a part set to zero" in out
    assert all(part in out for part in ("head 0.0", "head 0.1", "attention 0", "MLP 0"))
    has, out, err = has_knock_out("--no-knock-out")
    assert (has, "knock-out" in err, "set to zero" in out) == (False, False, False)
    monkeypatch.setattr("gptkit.inspect.inspection.MOST_SECONDS", 0)
    has, out, err = has_knock_out("--device cpu")
    assert (has, "set to zero" in out) == (False, False)
    assert "view 7, knock-out, is left out: it takes about 0 s on two cores; to compute it: --knock-out\n" in err
    assert has_knock_out("--knock-out --device cpu")[0]


def test_a_page_is_replaced_only_if_asked(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"inspect '{TEXT}' --model model --out one.html"
    assert run(line, capsys)[0] == 0
    before = (place / "one.html").read_bytes()
    code, _, err = run(line, capsys)
    assert (code, (place / "one.html").read_bytes()) == (2, before)
    assert "one.html already exists" in err
    assert "--overwrite" in err
    assert run("inspect 'speak' --model model --out one.html --overwrite", capsys)[0] == 0
    assert (place / "one.html").read_bytes() != before


def test_the_weights_of_a_model_are_never_replaced(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (place / "model" / "model.safetensors").read_bytes()
    code, _, err = run(f"inspect '{TEXT}' --model model --out model/model.html --overwrite", capsys)
    assert (code, (place / "model" / "model.safetensors").read_bytes()) == (2, before)
    assert "model.safetensors, which is not an inspection's" in err
    assert "choose another --out" in err


def test_a_page_that_cannot_be_written_leaves_no_numbers(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("gptkit.inspect.page.write_page", full)
        assert run(f"inspect '{TEXT}' --model model", capsys)[0] == 6
    assert not (place / "inspect.safetensors").exists()
    assert run(f"inspect '{TEXT}' --model model", capsys)[0] == 0


WRONG = {
    "inspect": "missing argument",
    "inspect '' --model model": "the text is empty",
    "inspect ' ' --model model": "the text is empty",
    f"inspect '{'speak ' * POSITIONS}' --model model": f"but the model has {POSITIONS}",
    "inspect a b --model model": "reads one text, not 2",
    "inspect a --model nope": "no such model directory",
    "inspect a --model model --out nodir/a.html": "its folder does not exist",
    "inspect a --model model --out folder.html": "it is a folder",
    "inspect a --model model --out a.txt": "ends in .html",
    "inspect a --model model --head 1.0": "the model has no head '1.0' (--head) - pass layer.head, from 0.0 to 0.1",
    "inspect a --model model --head 0.2": "the model has no head '0.2'",
    "inspect a --model model --head first": "'first' is not a head",
    "inspect a --model model --max-tokens 129": f"the model has {POSITIONS} positions",
    "inspect a --model model --max-tokens 7": "8",
}


@pytest.mark.parametrize("line", WRONG)
def test_what_is_wrong_is_told_in_one_line(line: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "folder.html").mkdir()
    code, out, err = run(line, capsys)
    assert code == 2
    assert out == ""
    assert len(err.splitlines()) == 1
    assert WRONG[line] in err
    assert not (place / "inspect.html").exists()


def test_a_text_beyond_max_tokens_is_shown_in_part_and_counted(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(f"inspect '{TEXT} any further, {TEXT}' --model model --max-tokens 8 --json", capsys)
    assert code == 0
    found = json.loads(out)["tokens"]
    assert len(found) == 8
    assert re.search(r"only 8 of (\d+) tokens are shown; for all: --max-tokens \1\n", err)


def test_unknown_letters_are_counted_without_the_separator(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(place / "letters", "char")
    _, _, err = run(f"inspect 'a{UNKNOWN}' --model letters --json", capsys)
    assert "the text: 1 of 2 tokens (50%) are unknown" in err


def test_the_summary_says_in_words_what_it_colours(place: Path) -> None:
    found = inspect_model(place / "model", [TEXT])
    shown = io.StringIO()
    print_summary(found, Console(stdout=shown, environment={}))
    lines = shown.getvalue().splitlines()
    assert lines[0].startswith(f"{place / 'model'}: GPT-2, 1 layers of 2 heads")
    for piece, nll in zip(found.tokens.pieces[1:], found.loss.nll[:-1], strict=True):
        assert f"{nll:.2f} {piece.replace(' ', '␣')}" in lines
    assert any(line.startswith("head 0.") for line in lines)
    last = next(line for line in lines if line.startswith("layer 0"))
    assert f"{found.loss.top_probabilities[-1, 0]:.2f}" in last
    assert last.endswith("0.000")
