"""The scores as people read them: the usual protocol in full, each explanation once, chance beside each accuracy."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from generation_toy import write_model
from gptkit.cli.main import main
from gptkit.console import Console
from gptkit.evaluate.jobs import Job, TaskSpec, prepare_jobs
from gptkit.evaluate.options import EvalOptions
from gptkit.evaluate.results import EvalResults, result_of
from gptkit.evaluate.show import show_scores
from gptkit.scoring.protocols import Items
from gptkit.tasks.heads import Head, head_protocol
from gptkit.tasks.table import EVALUATIONS, find_task
from gptkit.tasks.task import Loaded
from gptkit.text.examples import Example

ROWS = [{"text": f"First {word} before we speak"} for word in ("citizen", "hear", "me", "any") * 5]


@pytest.fixture(scope="module")
def lambada(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What eval prints on LAMBADA, which has eight protocols, in 60 columns."""
    folder = tmp_path_factory.mktemp("show")
    write_model(folder / "model", "bpe:300")
    (folder / "lambada_test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    with pytest.MonkeyPatch.context() as patch:
        stream = io.StringIO()
        patch.setenv("COLUMNS", "60")
        patch.setattr("sys.stdout", stream)
        assert main(["eval", "--model", str(folder / "model"), "--task", "lambada", "--data", str(folder)]) == 0
    return stream.getvalue()


def test_figures_published_for_another_text_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "lambada_test.txt").write_text("she looked at the river\n")
    wanted = (TaskSpec("lambada", str(tmp_path)),)
    [job] = prepare_jobs(wanted, Head(tmp_path, None, None, ()), EvalOptions(), print)
    assert not any(protocol.published for protocol in job.protocols)


def test_the_usual_protocol_comes_first_and_the_others_by_one_measure(lambada: str) -> None:
    first, second = lambada.split("\n\n")[:2]
    assert first.splitlines()[1].startswith("last-token-openai, the usual protocol: ")
    assert "accuracy" in first
    assert "perplexity" in first
    assert "GPT-2 117M 45.99%" in first
    others = [protocol.name for protocol in EVALUATIONS["lambada"].protocols if protocol.name != "last-token-openai"]
    assert [line.split()[0] for line in second.splitlines()[2 : 2 + len(others)]] == others
    assert "perplexity" not in second.replace("perplexity is not filtered", "").replace("(the\n  perplexity", "")
    assert "--json or --output" in second


def test_each_explanation_stands_there_once_within_60_columns(lambada: str) -> None:
    assert max(map(len, lambada.splitlines())) <= 60
    text = " ".join(lambada.split())
    for words in ("may not be a stop word", "as OpenAI prepared it", "all tokens after the last space", "unchanged"):
        assert text.count(words) == 1, words
    assert len(lambada.splitlines()) < 50


def test_every_difference_from_the_usual_protocol_has_a_letter_that_is_explained() -> None:
    for row in EVALUATIONS.values():
        job = Job(row.name, row.protocols, Loaded((), (), ""), row)
        same = [protocol.name for protocol in row.protocols if protocol.about == job.usual.about]
        assert same == [job.usual.name], row.name
        assert row.usual in ("", job.usual.name)


def head_shown(task_name: str, columns: dict[str, list[float]], fields: tuple[object, ...]) -> str:
    task = find_task(task_name)
    protocol = head_protocol(task, "the dev split")
    n = len(columns["reference"])
    arrays = {name: np.array(column, np.float64) for name, column in columns.items()}
    items = Items(tuple(map(str, range(n))), arrays)
    result = result_of(protocol, items, "d" * 64, {}, {name: 0.5 for name in task.metrics})
    examples = tuple(Example(fields, label, "f:1", str(number)) for number, label in enumerate(columns["reference"]))
    job = Job(task_name, (protocol,), Loaded(examples, (), "d" * 64))
    stream = io.StringIO()
    show_scores(EvalResults("m", None, None, {f"{task_name}/fine-tuned": result}), [job], Console(stdout=stream), 100)
    return stream.getvalue()


def test_an_accuracy_stands_beside_what_knowing_nothing_scores() -> None:
    answers = {"prediction": [0.0, 1, 0, 0], "reference": [0.0, 0, 0, 1], "correct": [1.0, 0, 1, 0]}
    by_class = head_shown("rte", {**answers, "confidence": [0.5] * 4}, ("a", "b"))
    assert "chance: always the most frequent class" in by_class
    assert "top N%: the N% of items with most confidence" in " ".join(by_class.split())
    [line] = [line for line in by_class.splitlines() if line.startswith("accuracy")]
    assert line.split()[-1] == "75.00%"
    by_choice = head_shown("race", {**answers, "confidence": [0.5] * 4}, ("a", "b", ("c", "d", "e", "f")))
    [line] = [line for line in by_choice.splitlines() if line.startswith("accuracy")]
    assert line.split()[-1] == "25.00%"
    assert "(GPT-1 paper, table 3, on test)" in " ".join(by_choice.split())
    score = head_shown("stsb", {name: answers[name] for name in ("prediction", "reference")}, ("a", "b"))
    lines = [line for line in score.splitlines() if line.startswith(("pearson", "spearman"))]
    assert [line.split()[-1] for line in lines] == ["0.0000", "0.0000"]


def perplexity_shown(*undefined: str) -> str:
    """Return what is shown of all protocols of a text where these measures are undefined for one reason."""
    row = EVALUATIONS["perplexity"]
    columns = {name: np.ones(3) for name in ("nll", "tokens", "words", "bytes", "characters")}
    unknown = {"value": None, "stderr": None, "higher_is_better": False, "reason": "the text has no words"}
    results = {}
    for protocol in row.protocols:
        result = result_of(protocol, Items(("a", "b", "c"), columns), "d" * 64, {})
        metrics = {**result.metrics, **dict.fromkeys(undefined, unknown)}
        results[f"perplexity/{protocol.name}"] = replace(result, metrics=metrics)
    stream = io.StringIO()
    job = Job("perplexity", row.protocols, Loaded((), (), "d" * 64), row)
    show_scores(EvalResults("m", None, None, results), [job], Console(stdout=stream), 100)
    return stream.getvalue()


def test_the_parts_of_a_text_are_not_called_examples() -> None:
    assert perplexity_shown().startswith("perplexity: 0 passages, 3 items, data ")


def test_what_is_undefined_says_why_once_and_names_its_direction() -> None:
    text = perplexity_shown("word_perplexity", "bits_per_byte")
    assert text.count("bits per byte, word perplexity: n/a, as the text has no words") == 1
    assert text.count("lower") == 4


def test_an_error_of_zero_which_only_says_that_the_items_are_alike_is_not_shown() -> None:
    alike = dict.fromkeys(("correct", "prediction", "reference"), [1.0] * 12) | {"confidence": [0.25] * 12}
    text = head_shown("rte", alike, ("a", "b"))
    assert "75.00%" in text
    assert " 0.00%" not in text


def test_the_other_protocols_show_their_first_measure_that_is_defined() -> None:
    assert "other protocols  bits per byte" in perplexity_shown()
    assert "other protocols  token perplexity" in perplexity_shown("bits_per_byte")
