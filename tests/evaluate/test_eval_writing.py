"""What a model writes for an evaluation is what generate writes, whoever stands beside, and prompts keep their end."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from generation_toy import POSITIONS, write_model
from gptkit.decoding.engines import choose_engine
from gptkit.decoding.text_model import TextModel
from gptkit.decoding.text_options import TextModelOptions, check_settings
from gptkit.evaluate.model import GeneratedTexts, generate_texts
from gptkit.scoring.protocols import GeneratedProtocol, Items
from gptkit.tasks.table import EVALUATIONS
from gptkit.text.examples import Example

NEW = 6
BASE = TextModelOptions(seed=3, precision="fp32")
TEXTS = ["First", "Citizen: before", "we proceed any further, hear me speak", "hear", "me"]
EXAMPLES = [Example((text,), None, f"x:{number}", str(number)) for number, text in enumerate(TEXTS)]


def protocol(**options: object) -> GeneratedProtocol:
    return GeneratedProtocol(
        "toy",
        "",
        ("exact_match",),
        prompt=lambda example: f"{example.fields[0]}\n",
        items=lambda examples, texts: Items((), {}),
        options={"max_new_tokens": NEW, "ignore_eos": True, **options},
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TextModel:
    folder = write_model(tmp_path_factory.mktemp("model"))
    return TextModel(folder, BASE, choose_engine(folder, BASE, tokens=100))


def write(
    model: TextModel, examples: list[Example], told: list[int] | None = None, **options: object
) -> GeneratedTexts:
    asked = protocol(**options)
    heard = (told if told is not None else []).append
    return generate_texts(model, examples, asked, replace(BASE, **asked.options), on_text=heard)


def test_texts_are_those_of_generate_and_depend_on_no_neighbour(model: TextModel) -> None:
    told: list[int] = []
    written = write(model, EXAMPLES, told, top_k=4)
    assert sum(told) == NEW * len(EXAMPLES)
    assert all(math.isnan(one.confidence) for one in written.texts)
    assert [one.text for one in write(model, EXAMPLES[:2], top_k=4).texts] == [one.text for one in written.texts[:2]]
    options = replace(BASE, **protocol(top_k=4).options)
    equal = write(model, 5 * EXAMPLES[:1], top_k=4).texts
    assert len({one.text for one in equal}) == 5  # each example has random numbers of its own
    generation = model.generate([model.read("hear\n", options)], [3], options, live=False)
    list(generation)
    assert generation.drafts[0].continuation.text == written.texts[3].text


def test_a_long_prompt_loses_its_beginning(model: TextModel) -> None:
    written = write(model, EXAMPLES, greedy=True)
    room = POSITIONS - NEW
    assert written.truncated == 1
    assert written.notes == [f"1 of 5 prompts do not fit: truncated on the left to {room} tokens"]
    end = Example(((TEXTS[2] + "\n")[-room:-1],), None, "x:1", "0")
    assert write(model, [end], greedy=True).texts[0].text == written.texts[2].text


def test_confidence_is_the_geometric_mean_of_the_tokens(model: TextModel) -> None:
    written = write(model, EXAMPLES[:1], greedy=True, show_probs=True)
    options = replace(BASE, **protocol(greedy=True, show_probs=True).options)
    generation = model.generate([model.read("First\n", options)], [0], options, live=False)
    list(generation)
    product = math.prod(one.probability for one in generation.drafts[0].reports)
    assert written.texts[0].confidence == pytest.approx(product ** (1 / NEW))


def test_every_row_s_options_go_together() -> None:
    for row in EVALUATIONS.values():
        for one in row.protocols:
            if isinstance(one, GeneratedProtocol):
                check_settings(replace(BASE, **one.options))
