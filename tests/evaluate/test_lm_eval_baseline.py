from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptkit.errors import InputError, NothingComparable
from gptkit.evaluate.gate.lm_eval_baseline import is_lm_eval, read_lm_eval
from gptkit.evaluate.gate.pairing import Asked
from gptkit.evaluate.gate.verdicts import compare
from gptkit.evaluate.results import EvaluatedRun, eval_text, scored
from gptkit.scoring.protocols import Items, Protocol
from gptkit.text.examples import Example

LAST_WORD = Protocol("last-word", "", ("accuracy", "perplexity"), gated=2)
LAST_TOKEN = Protocol("last-token", "", ("accuracy",), per_token=True)
HARNESS = Protocol("harness", "", ("accuracy",))
DOCUMENTS = Protocol("documents", "", ("word_perplexity", "bits_per_byte"), gated=2)
PASSAGES = ["a b c the end", "d e f of it", "g h the end"]
PAIRS = [("We go.", "We goes."), ("They see.", "They sees.")]
PAGES = [[" = A = \n", " some , words \n"], [" = B = \n"]]
DATE = "2026-11-22T12-33-27.651388"


def lambada_sample(text: str, correct: int, log_prob: float) -> dict[str, Any]:
    context, _, word = text.rpartition(" ")
    asked = {"gen_args_0": {"arg_0": context, "arg_1": f" {word}"}}
    return {
        "doc_id": 0, "doc": {"text": text}, "target": f" {word}", "arguments": asked, "filter": "none",
        "resps": [[[str(log_prob), str(bool(correct))]]], "metrics": ["perplexity", "acc"],
        "perplexity": log_prob, "acc": correct,
    }  # fmt: skip


def blimp_sample(pair: tuple[str, str], correct: float, space: str = "") -> dict[str, Any]:
    asked = {f"gen_args_{place}": {"arg_0": "", "arg_1": space + text} for place, text in enumerate(pair)}
    doc = {"sentence_good": pair[0], "sentence_bad": pair[1], "UID": "wh_island", "pairID": "0"}
    return {"doc": doc, "arguments": asked, "filter": "none", "metrics": ["acc"], "acc": correct}


def page_sample(text: str, asked: str, log_prob: float, words: int) -> dict[str, Any]:
    size = len(text.encode())
    return {
        "doc": {"page": text}, "arguments": {"gen_args_0": {"arg_0": asked}}, "filter": "none",
        "word_perplexity": [log_prob, words], "byte_perplexity": [log_prob, size], "bits_per_byte": [log_prob, size],
    }  # fmt: skip


def written(folder: Path, **samples: list[dict[str, Any]]) -> Path:
    """Write what lm-eval does, the standard error of a single item being NaN."""
    folder.mkdir(exist_ok=True)
    tasks = {name: {"alias": name, "acc_stderr,none": float("nan")} for name in samples}
    results = {"results": tasks, "n-shot": {}, "lm_eval_version": "0.4.13", "model_name": "other", "max_length": 64}
    (folder / f"results_{DATE}.json").write_text(json.dumps(results))
    for name, rows in samples.items():
        path = folder / f"samples_{name}_{DATE}.jsonl"
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return folder


def run_of(task: str, *protocols: Protocol, settings: dict[str, Any] | None = None, **columns: Any) -> EvaluatedRun:
    arrays = {name: np.asarray(column, np.float64) for name, column in columns.items()}
    items = Items(tuple(map(str, range(len(next(iter(arrays.values())))))), arrays)
    scores = {f"{task}/{one.name}": scored(one, items, "d", settings or {}) for one in protocols}
    return EvaluatedRun("ours", "m", "t", scores)


LAMBADA = [Example((text,), None, f"lambada_test.jsonl:{n + 1}", str(n)) for n, text in enumerate(PASSAGES)]
LAMBADA_RUN = run_of("lambada", LAST_TOKEN, LAST_WORD, correct=[1, 0, 1], nll=[1, 2, 3])
ASKED = [Asked("lambada", (LAST_TOKEN, LAST_WORD))]


def lambada_rows() -> list[dict[str, Any]]:
    rows = [
        lambada_sample(text, *found) for text, found in zip(PASSAGES, [(1, -1.0), (0, -2.0), (1, -3.0)], strict=True)
    ]
    return rows[::-1]  # in an order of its own


def test_items_are_matched_by_their_text_and_other_protocols_are_told(tmp_path: Path) -> None:
    folder = written(tmp_path / "out", lambada_openai=lambada_rows())
    assert is_lm_eval(folder)
    assert is_lm_eval(next(folder.glob("results_*")))
    for path in (folder, tmp_path, next(folder.glob("results_*"))):
        baseline, present = read_lm_eval(path, LAMBADA_RUN, {"lambada": LAMBADA})
        found = compare(present, baseline, ASKED, resamples=50)
        assert found.verdict == "pass"
        assert {key: one.difference for key, one in found.comparison.items()} == {
            "lambada/last-word.accuracy": 0.0,
            "lambada/last-word.perplexity": 0.0,
        }
        assert found.warnings == ("lambada/last-token is not in the baseline, and was not compared",)


def test_our_own_files_are_not_lm_evals(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text(eval_text(LAMBADA_RUN))
    assert not is_lm_eval(tmp_path / "own.json")


def test_the_newest_samples_count_and_other_filters_do_not(tmp_path: Path) -> None:
    folder = written(tmp_path / "out", lambada_openai=[*lambada_rows(), {**lambada_rows()[0], "filter": "strict"}])
    (folder / "samples_lambada_openai_2026-11-21T12-33-27.651388.jsonl").write_text("{}\n")
    assert read_lm_eval(folder, LAMBADA_RUN, {"lambada": LAMBADA}).baseline.scores["lambada/last-word"].n == 3


def test_other_data_or_another_prompt_cannot_be_compared(tmp_path: Path) -> None:
    short = written(tmp_path / "short", lambada_openai=lambada_rows()[1:])
    with pytest.raises(NothingComparable, match=r"lambada/last-word: lm-eval has other data: not lambada_test.jsonl:3"):
        read_lm_eval(short, LAMBADA_RUN, {"lambada": LAMBADA})
    more = written(tmp_path / "more", lambada_openai=[*lambada_rows(), lambada_sample("x y", 0, -1.0)])
    with pytest.raises(NothingComparable, match="lm-eval has 1 items more"):
        read_lm_eval(more, LAMBADA_RUN, {"lambada": LAMBADA})
    pairs = [Example(("wh_island", pair), 0, "wh_island.jsonl:1", str(n)) for n, pair in enumerate(PAIRS)]
    run = run_of("blimp-wh_island", HARNESS, correct=[1, 0])
    same = written(tmp_path / "same", blimp_wh_island=[blimp_sample(pair, 1.0, " ") for pair in PAIRS])
    assert read_lm_eval(same, run, {"blimp-wh_island": pairs}).baseline.scores["blimp-wh_island/harness"].n == 2
    bare = written(tmp_path / "bare", blimp_wh_island=[blimp_sample(pair, 1.0) for pair in PAIRS])
    with pytest.raises(NothingComparable, match=r"lm-eval scored 'We go.' where gptkit scores ' We go.'"):
        read_lm_eval(bare, run, {"blimp-wh_island": pairs})


def test_what_lm_eval_has_not_is_not_compared(tmp_path: Path) -> None:
    folder = written(tmp_path / "out", hellaswag=[])
    baseline, present = read_lm_eval(folder, LAMBADA_RUN, {"lambada": LAMBADA})
    with pytest.raises(NothingComparable, match="the baseline has no lambada"):
        compare(present, baseline, ASKED)


def test_both_figures_of_a_choice_come_from_one_sample(tmp_path: Path) -> None:
    endings = ("one [title] way.", "another way.", "no way.", "any way.")
    example = Example(("Cooking", "A man cooks.", "he", "A man cooks. he", endings), 2, "hellaswag_val.jsonl:1", "0")
    asked = {
        f"gen_args_{place}": {"arg_0": "Cooking: A man cooks. He", "arg_1": f" {text}"}
        for place, text in enumerate(("one. way.", *endings[1:]))
    }
    doc = {"activity_label": "Cooking", "ctx_a": "A man cooks.", "ctx_b": "he", "endings": list(endings)}
    row = {"doc": doc, "arguments": asked, "filter": "none", "acc": 0.0, "acc_norm": 1.0}
    protocols = [Protocol(name, "", ("accuracy",)) for name in ("harness", "harness-norm")]
    run = run_of("hellaswag", *protocols, correct=[1])
    baseline = read_lm_eval(written(tmp_path / "out", hellaswag=[row]), run, {"hellaswag": [example]}).baseline
    found = [one.items.columns["correct"].tolist() for one in baseline.scores.values() if one.items is not None]
    assert found == [[0.0], [1.0]]


def test_pages_are_compared_as_wholes(tmp_path: Path) -> None:
    examples = [
        Example((text,), None, "wiki", f"{page}:{place}")
        for page, parts in enumerate(PAGES)
        for place, text in enumerate(parts)
    ]
    settings = {"window": 64, "stride": 64}
    run = run_of("wikitext2", DOCUMENTS, settings=settings, nll=[3, 7, 5], words=[3, 2, 4], bytes=[8, 15, 8])
    asked = [" = A =\nsome, words\n", " = B =\n"]
    texts = ["".join(parts) for parts in PAGES]
    rows = [page_sample(text, *rest) for text, *rest in zip(texts, asked, [-10.0, -5.0], [5, 4], strict=True)]
    folder = written(tmp_path / "out", wikitext=rows)
    baseline, present = read_lm_eval(folder, run, {"wikitext2": examples})
    items = present.scores["wikitext2/documents"].items
    assert items is not None
    assert items.columns["nll"].tolist() == [10.0, 5.0]
    assert compare(present, baseline, [Asked("wikitext2", (DOCUMENTS,))], resamples=50).verdict == "pass"
    other = {key: replace(one, settings={"window": 32, "stride": 32}) for key, one in run.scores.items()}
    baseline, present = read_lm_eval(folder, replace(run, scores=other), {"wikitext2": examples})
    with pytest.raises(NothingComparable, match="window is 32, in the baseline 64"):
        compare(present, baseline, [Asked("wikitext2", (DOCUMENTS,))])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"acc": "yes"}, "is not a number"),
        ({"acc": 2}, "is not a number from 0 to 1"),
        ({"perplexity": None}, "no sample of lm-eval's"),
        ({"doc": []}, "no sample of lm-eval's"),
        ({"arguments": [1]}, "no sample of lm-eval's"),
    ],
)
def test_damaged_samples_are_errors_with_their_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = written(tmp_path / "out", lambada_openai=[{**row, **change} for row in lambada_rows()])
    with pytest.raises(InputError, match=message) as found:
        read_lm_eval(folder, LAMBADA_RUN, {"lambada": LAMBADA})
    assert ".jsonl:" in str(found.value)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no results_"):
        read_lm_eval(tmp_path, LAMBADA_RUN, {"lambada": LAMBADA})
    folder = written(tmp_path / "out", lambada_openai=lambada_rows())
    next(folder.glob("samples_*")).unlink()
    with pytest.raises(NothingComparable, match="--log_samples"):
        read_lm_eval(folder, LAMBADA_RUN, {"lambada": LAMBADA})
    for text in ("", "[]", "{}", '{"results": 1}', "[" * 100_000):
        next(folder.glob("results_*")).write_text(text)
        with pytest.raises(InputError, match=r"JSON|no results"):
            read_lm_eval(folder, LAMBADA_RUN, {"lambada": LAMBADA})
