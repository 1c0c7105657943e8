"""Prompts are read line by line; their samples are taken up where they stopped, and never mixed with others."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from generation_toy import write_model
from gptkit.decoding.text_options import what_texts_depend_on
from gptkit.errors import InputError
from gptkit.generate.options import GenerateOptions
from gptkit.generate.prompts_file import SamplesFile, read_prompts
from gptkit.report.resuming import settings_hash

PROMPTS = {1: "a", 3: "b\x1b"}


def facts(prompt: str, text: str = "t") -> dict[str, Any]:
    return {"prompt": prompt, "text": text, "token_ids": [1], "num_tokens": 1, "finish_reason": "stop"}


@pytest.mark.parametrize(
    ("name", "content", "prompts"),
    [
        ("p.txt", b"\xef\xbb\xbfone\r\n\n  \ntwo \xe2\x80\xa8 lines\x0b\n", [(1, "one"), (4, "two \u2028 lines\x0b")]),
        ("p.txt", b"no line break", [(1, "no line break")]),
        ("p.jsonl", b'{"prompt": "a\\nb", "id": 7}\n\n{"prompt": " "}', [(1, "a\nb"), (3, " ")]),
    ],
)
def test_prompts_keep_the_numbers_of_their_lines(
    name: str, content: bytes, prompts: list[tuple[int, str]], tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert list(read_prompts(path).items()) == prompts


@pytest.mark.parametrize(
    ("name", "content", "place", "message"),
    [
        ("p.txt", b"a\nb\xff\n", ":2, byte 3", "not valid UTF-8"),
        ("p.txt", "one\n".encode("utf-16-le"), ":1, byte 1", "could be utf-16-le"),
        ("p.txt", b"\n \n", "p.txt", "no prompt"),
        ("p.jsonl", b'{"prompt": "a"}\n{"text": "b"}\n', ":2", 'no "prompt"'),
        ("p.jsonl", b'{"prompt": 3}\n', ":1", "number"),
        ("p.jsonl", b'{"prompt": ""}\n', ":1", "empty"),
        ("p.jsonl", b'{"prompt": "\\udc00"}\n', ":1", "surrogate"),
        ("p.jsonl", b'["a"]\n', ":1", "array"),
        ("p.jsonl", b'{"prompt": "a"\n', ":1", "not valid JSON"),
        ("p.csv", b"a\n", "p.csv", "neither"),
    ],
)
def test_a_bad_prompt_is_named_by_its_line(name: str, content: bytes, place: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_prompts(path)
    assert str(caught.value.where).endswith(place)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.txt").mkdir()
    for name in ("nowhere.txt", "folder.txt"):
        with pytest.raises(InputError):
            read_prompts(tmp_path / name)


def test_samples_are_found_again_whatever_write_was_cut(tmp_path: Path) -> None:
    """The file is cut at every byte; what is lost is made again, and the finished file is the same."""
    whole = tmp_path / "whole.jsonl"
    places = [(1, 0), (1, 1), (3, 0), (3, 1)]
    with SamplesFile(whole, "s", PROMPTS) as file:
        for line, sample in (places[2], places[0], places[3], places[1]):
            file.append(line, sample, facts(PROMPTS[line], f"{line} {sample} \x9b"))
        written = whole.read_bytes()
        file.finish()
    content = whole.read_bytes()
    assert [(row["line"], row["sample"]) for row in map(json.loads, content.splitlines())] == places
    path = tmp_path / "cut.jsonl"
    for length in range(len(written) + 1):
        path.write_bytes(written[:length])
        with SamplesFile(path, "s", PROMPTS) as file:
            assert len(file.rows) == written[:length].count(b"\n")
            for line, sample in places:
                if (line, sample) not in file.rows:
                    file.append(line, sample, facts(PROMPTS[line], f"{line} {sample} \x9b"))
            assert path.read_bytes().count(b"\n") == 4
            file.finish()
        assert path.read_bytes() == content


def test_samples_of_changed_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    with SamplesFile(path, "s", PROMPTS) as file:
        for line, prompt in PROMPTS.items():
            file.append(line, 0, facts(prompt))
    with SamplesFile(path, "s", {1: "a", 3: "new"}) as file:
        assert list(file.rows) == [(1, 0)]
        assert file.stale == 1
        file.append(3, 0, facts("new"))
        file.finish()
    assert [json.loads(line)["prompt"] for line in path.read_text().splitlines()] == ["a", "new"]


@pytest.mark.parametrize(
    "content",
    ['{"line": 1}\n', "text\n", "[1]\n", '{"line": true}\n', '{"prompt": "a"}\n'],
)
def test_another_file_is_never_overwritten(content: str, tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match="--output"):
        SamplesFile(path, "s", PROMPTS)
    assert path.read_text() == content


def test_other_settings_and_another_process_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    with SamplesFile(path, "s", PROMPTS) as file:
        file.append(1, 0, facts("a"))
        with pytest.raises(InputError, match="another process"):
            SamplesFile(path, "s", PROMPTS)
    with pytest.raises(InputError, match="different settings") as caught:
        SamplesFile(path, "t", PROMPTS)
    assert caught.value.where == f"{path}:1"


def test_a_file_without_samples_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    with pytest.raises(ZeroDivisionError), SamplesFile(path, "s", PROMPTS):
        raise ZeroDivisionError
    assert not path.exists()


def test_the_settings_hash_knows_the_models_files(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(bytes(8) + b"weights")
    before = settings_hash({"seed": 0}, tmp_path)
    assert settings_hash({"seed": 1}, tmp_path) != before
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "vast.json").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "other.safetensors")
    assert settings_hash({"seed": 0}, tmp_path) == before
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content + b" ")
        assert settings_hash({"seed": 0}, tmp_path) != before, name
        (tmp_path / name).write_bytes(content)


WRITTEN: dict[str, dict[str, Any]] = {
    "cff82d3b4c790bd4": {},
    "017d96af4fdec16a": {"beams": 4},
    "70a794c9bd190781": {
        **{"greedy": True, "stop": ("\\n", "end"), "template": "Q: {prompt} A:", "sentences": 3, "show_probs": True},
        **{"num_samples": 4, "max_new_tokens": 7, "ignore_eos": True},
    },
    "77bd2c1437b9332b": {
        **{"temperature": 0.7, "top_k": 40, "top_p": 0.9, "top_p_rule": "openai", "repetition_penalty": 1.2},
        **{"seed": 5, "quantize": "int4", "precision": "bf16"},
    },
}


@pytest.mark.parametrize(("written", "options"), WRITTEN.items(), ids=WRITTEN)
def test_samples_of_gptkit_1_0_are_resumed(written: str, options: dict[str, Any], tmp_path: Path) -> None:
    """The hashes that it wrote into samples files."""
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(bytes(8) + b"weights")
    assert settings_hash(what_texts_depend_on(GenerateOptions(**options)), tmp_path) == written


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "added_tokens.json"])
def test_a_model_file_that_is_no_regular_file_is_refused_not_waited_for(name: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(InputError, match=r"not a regular file|no tokenizer in this directory"):
        settings_hash({}, folder)
