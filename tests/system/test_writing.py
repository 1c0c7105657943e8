"""JSON and YAML that people of any script can read, and any program too."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from gptkit.console import Console
from gptkit.system.terminal import safe_text
from gptkit.system.writing import json_line, json_text, yaml_text

TEXTS = st.text(st.characters() | st.sampled_from("评עอ😀\ud83d\udcac\u2028\x85\x1b\u202e\ufeff'\"\\:#"))


@given(TEXTS)
def test_any_text_comes_back_from_one_harmless_line_of_utf8(text: str) -> None:
    written = json_text({text: [text, 1.5, None]})
    assert json.loads(written.encode("utf-8")) == json.loads(json.dumps({text: [text, 1.5, None]}))
    assert len(written.splitlines()) == 1
    assert safe_text(written) == written


@given(TEXTS.map(lambda text: text.encode("utf-8", "ignore").decode()))
def test_any_text_comes_back_from_yaml(text: str) -> None:
    assert yaml.safe_load(yaml_text({"task": text, "labels": [text]})) == {"task": text, "labels": [text]}


def test_letters_of_any_script_stay_as_they_are() -> None:
    text = "评论 отзыв รีวิว تقييم समीक्षा 😀"
    assert json_text({"a": text}) == '{"a": "' + text + '"}'
    assert text in yaml_text({"task": text})
    assert json_text("\ud83d and \x9b and \u202e and \U000e0041") == r'"\ud83d and \u009b and \u202e and \udb40\udc41"'


def test_stdout_that_is_not_utf8_gets_ascii() -> None:
    payload: dict[str, Any] = {"text": "é评😀", "loss": math.nan}
    for encoding, written in (("utf-8", json_line(payload)), ("latin-1", json.dumps(payload | {"loss": None}))):
        stdout = io.BytesIO()
        stream = io.TextIOWrapper(stdout, encoding=encoding, errors="backslashreplace")
        Console(json=True, stdout=stream, environment={}).print_json(payload)
        assert stdout.getvalue() == written.encode("utf-8") + b"\n"
