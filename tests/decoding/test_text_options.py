"""The hash of a samples file is derived from the options: one that affects texts cannot be forgotten."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gptkit.decoding import text_options
from gptkit.decoding.sampling import SamplingRules
from gptkit.decoding.text_options import DecodingOptions, check_settings, stop_strings, what_texts_depend_on
from gptkit.errors import UsageError
from gptkit.generate.options import GenerateOptions

OTHER_VALUES: dict[type, Any] = {
    int: 3,
    float: 0.5,
    bool: True,
    str: "hf {prompt}",
    tuple: ("x",),
    type(None): "{prompt}",
}


def names(options: type) -> set[str]:
    return {field.name for field in dataclasses.fields(options)}


def test_only_these_options_bear_on_no_text() -> None:
    idle = "json prompt prompts output model interactive stream device encoding compile batch_size"
    assert names(GenerateOptions) - names(DecodingOptions) == set(idle.split())


@pytest.mark.parametrize("field", dataclasses.fields(DecodingOptions), ids=lambda field: field.name)
def test_each_option_of_a_text_counts(field: dataclasses.Field[Any]) -> None:
    changed = dataclasses.replace(GenerateOptions(), **{field.name: OTHER_VALUES[type(field.default)]})
    assert what_texts_depend_on(changed) != what_texts_depend_on(GenerateOptions())


def test_a_younger_option_counts_where_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """So unfinished samples files from before can still be resumed."""
    younger = dataclasses.make_dataclass("Younger", [("typical_p", float, 1.0)], bases=(DecodingOptions,), frozen=True)
    before = what_texts_depend_on(DecodingOptions())
    monkeypatch.setattr(text_options, "DecodingOptions", younger)
    assert what_texts_depend_on(younger()) == before
    assert what_texts_depend_on(younger(typical_p=0.5)) == before | {"typical_p": 0.5}


@pytest.mark.parametrize("field", dataclasses.fields(SamplingRules), ids=lambda field: field.name)
def test_beams_take_no_rule_of_sampling(field: dataclasses.Field[Any]) -> None:
    """Except for two that have no effect on their own: temperature 0, and the rule for the token that crosses p."""
    if field.name == "top_p_rule":
        check_settings(DecodingOptions(beams=2, top_p_rule="openai"))
        return
    options = DecodingOptions(beams=2, **{field.name: OTHER_VALUES[type(field.default)]})
    with pytest.raises(UsageError) as caught:
        check_settings(options)
    assert caught.value.where == f"--beams, --{field.name.replace('_', '-')}"
    check_settings(DecodingOptions(beams=2, temperature=0.0))


def test_stop_strings_end_lines_as_text_does() -> None:
    options = DecodingOptions(stop=(r"a\r\n", "b\r\n", r"\r", r"c\\r", r"\t"))
    assert stop_strings(options) == ["a\n", "b\n", "\n", r"c\r", "\t"]


@pytest.mark.parametrize("options", [DecodingOptions(stop=("a\udcff",)), DecodingOptions(template="\ud800{prompt}")])
def test_what_no_text_can_hold_is_refused(options: DecodingOptions) -> None:
    with pytest.raises(UsageError, match="contains a lone surrogate"):
        check_settings(options)
