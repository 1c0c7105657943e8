from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptkit.errors import GptkitError, InputError, NothingComparable
from gptkit.evaluate.gate.verdicts import HEADER, compare, not_comparable
from gptkit.evaluate.jobs import Job
from gptkit.evaluate.results import EvalResults, ProtocolResult, eval_text, read_baseline, result_of
from gptkit.scoring.measures import MEASURES
from gptkit.scoring.measures import measure as measure_all
from gptkit.scoring.protocols import Items, Protocol
from gptkit.tasks.reading import loaded

WORDS = Protocol("words", "per word", ("accuracy", "word_perplexity"), gated=2)
TOKENS = Protocol("tokens", "per token", ("token_perplexity",), per_token=True)
N = 1000


def columns(wrong: int, nats: float) -> dict[str, Any]:
    right = (np.arange(N) % 10 < 6) * 1.0
    right[np.flatnonzero(right)[:wrong]] = 0.0
    noise = np.random.default_rng(7).normal(0, 0.1, N)
    return {"correct": right, "nll": 30 + noise + nats * 10, "words": np.full(N, 10.0), "tokens": np.full(N, 12.0)}


def a_run(
    wrong: int = 0, nats: float = 0.0, *protocols: Protocol, tasks: tuple[str, ...] = ("lambada",)
) -> EvalResults:
    items = Items(tuple(f"item {place}" for place in range(N)), columns(wrong, nats))
    results = {
        f"{task}/{one.name}": result_of(one, items, "d" * 64, {"window": 64})
        for task in tasks
        for one in protocols or (WORDS,)
    }
    return EvalResults("model", "m" * 64, "t" * 64, results)


def job(*protocols: Protocol, floor: float | None = None, minimum: float | None = None) -> Job:
    return Job("lambada", protocols, NOTHING, floor=floor, minimum=minimum)


NOTHING = loaded(())
ASKED = [job(WORDS)]


def test_a_drop_fails_and_the_first_line_says_which_and_by_how_much_the_worst_first() -> None:
    found = compare(a_run(30, 0.05), a_run(), ASKED, resamples=100)
    assert found.verdict == "fail"
    first, second = found.headline.split("; lambada")
    assert first.startswith("fail: lambada/words.word_perplexity 20.07 -> 21.10 (+1.03; p ")
    assert first.endswith(", floor 0.201)")
    assert second == "/words.accuracy 0.600 -> 0.570 (-0.030; p 9.3e-10, floor 0.02)"  # nothing of power
    accuracy = found.comparison["lambada/words.accuracy"]
    assert accuracy.p_value == pytest.approx(0.5**30)
    assert [row.verdict for row in found.rows] == ["fail", "fail"]
    assert {len(row.cells) for row in found.rows} == {len(HEADER)} == {8}


def test_the_same_items_pass_in_any_order_and_whatever_n() -> None:
    run = a_run()
    for n in (1, 2, N):
        some = np.arange(n)[::-1]
        items = run.results["lambada/words"].items
        assert items is not None
        ids = tuple(items.ids[place] for place in some)
        before = result_of(WORDS, Items(items.ids[:n], {k: v[:n] for k, v in items.columns.items()}), "d", {})
        after = result_of(WORDS, Items(ids, {k: v[some] for k, v in items.columns.items()}), "d", {})
        sides = [replace(run, results={"lambada/words": one}) for one in (after, before)]
        found = compare(sides[0], sides[1], ASKED, resamples=50)
        assert found.headline == "pass: 2 measures compared, none dropped by its floor or more"


def test_what_may_be_chance_is_inconclusive_and_the_first_line_says_what_could_have_been_found() -> None:
    found = compare(a_run(3), a_run(), [job(replace(WORDS, gated=1), floor=0.002)], resamples=50)
    assert found.verdict == "inconclusive"
    assert found.headline.startswith(
        "inconclusive: lambada/words.accuracy 0.6000 -> 0.5970 (-0.0030; p 0.12, floor 0.002, a regression of "
    )


def undefined_in(run: EvalResults) -> EvalResults:
    items = run.results["lambada/words"].items
    assert items is not None
    unseen = replace(items, undefined={"word_perplexity": "no spaces"})
    return replace(run, results={"lambada/words": result_of(WORDS, unseen, "d" * 64, {"window": 64})})


def test_a_figure_that_is_not_defined_is_named_and_never_passes() -> None:
    run = undefined_in(a_run())
    for present, baseline, where in (
        (run, a_run(), "this run"),
        (a_run(), run, "the baseline"),
        (run, run, "both runs"),
    ):
        found = compare(present, baseline, ASKED, resamples=50)
        key, reason = "lambada/words.word_perplexity", f"it is n/a in {where}: no spaces"
        assert (found.verdict, found.headline) == ("n/a", f"n/a: {key} cannot be gated: {reason}")
        assert [row.verdict for row in found.rows] == ["pass", "n/a"]
        entry = found.as_json()["comparison"][key]
        assert (entry["difference"], entry["p_value"], entry["verdict"], entry["reason"]) == (None, None, "n/a", reason)
        assert (entry["value"] is None, entry["baseline"] is None) == (present is run, baseline is run)
    dropped = compare(
        replace(run, results={**run.results, **a_run(30, tasks=("cbt",)).results}),
        None,
        [
            replace(job(WORDS, minimum=0.6), name="cbt"),
            job(replace(WORDS, measures=("word_perplexity",)), minimum=99.0),
        ],
    )
    assert dropped.verdict == "fail"
    assert dropped.warnings == ("n/a: lambada/words.word_perplexity cannot be gated: it is n/a: no spaces",)
    assert dropped.as_json()["minimums"]["lambada/words.word_perplexity"] == {
        "minimum": 99.0,
        "value": None,
        "verdict": "n/a",
        "reason": "no spaces",
    }


def test_a_warning_says_what_is_inconclusive_beside_a_failure() -> None:
    found = compare(a_run(3), a_run(), [job(WORDS, floor=0.002, minimum=0.9)], resamples=50)
    unsure = [row.message for row in found.rows if row.verdict == "inconclusive"]
    assert found.verdict == "fail"
    assert unsure
    assert found.warnings == tuple(f"inconclusive: {message}" for message in unsure)


def test_a_p_value_beyond_what_the_tests_can_tell_is_shown_as_a_bound() -> None:
    found = compare(a_run(100), a_run(), [job(WORDS)], resamples=50)
    accuracy = found.rows[0]
    assert found.comparison["lambada/words.accuracy"].p_value == pytest.approx(0.5**100)
    assert "; p < 1e-12, floor" in accuracy.message
    assert accuracy.cells[4] == "< 1e-12"


def test_the_floor_is_in_the_json_of_a_comparison() -> None:
    entries = compare(undefined_in(a_run()), a_run(), [job(WORDS, floor=0.05)], resamples=50).as_json()["comparison"]
    assert [entry["floor"] for entry in entries.values()] == [0.05, None]


def test_a_refused_comparison_has_a_row_for_each_task_with_its_own_reason() -> None:
    both = a_run(tasks=("lambada", "cbt"))
    baseline = replace(both, results={**both.results, **OTHER_DATA.results})
    jobs = [job(WORDS), replace(job(WORDS), name="cbt")]
    with pytest.raises(NothingComparable) as refused:
        compare(both, baseline, jobs)
    outcome = not_comparable(both, baseline, jobs, refused.value)
    assert [(row.task, row.verdict) for row in outcome.rows] == [("lambada", "n/a"), ("cbt", "n/a")]
    assert outcome.rows[0].message == refused.value.message
    assert outcome.rows[1].message.startswith("not compared, because of another task: lambada/words: different data")
    assert outcome.as_json()["verdict"] == "n/a"


def test_a_baseline_may_lack_a_figure_only_with_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    run = undefined_in(a_run())
    path.write_text(eval_text(run))
    assert read_baseline(path).results["lambada/words"].metrics == run.results["lambada/words"].metrics
    path.write_text(eval_text(run).replace(',"reason":"no spaces"', ""))
    with pytest.raises(InputError, match="the value None does not match its items"):
        read_baseline(path)


def test_an_older_baseline_that_calls_an_undefined_correlation_zero_is_not_comparable(tmp_path: Path) -> None:
    scores = Protocol("head", "", ("pearson",))
    figures = {"prediction": np.ones(4), "reference": np.arange(4.0)}
    run = EvalResults("m", None, None, {"lambada/head": result_of(scores, Items(tuple("abcd"), figures), "d", {})})
    path = tmp_path / "baseline.json"
    old = re.sub(r'"value":null,"stderr":null,(.*?),"reason":"[^"]*"', r'"value":0,"stderr":0,\1', eval_text(run))
    path.write_text(old)
    found = compare(run, read_baseline(path), [job(scores)])
    assert found.headline == "n/a: lambada/head.pearson cannot be gated: it is n/a in both runs: all predictions are 1"


def test_minimums_need_no_baseline() -> None:
    assert compare(a_run(), None, [job(WORDS, minimum=0.6)]).headline == "pass: 1 minimum met"
    found = compare(a_run(30), None, [job(WORDS, minimum=0.6)])
    assert found.headline == "fail: lambada/words.accuracy 0.570, but at least 0.600 is required"
    assert found.as_json()["minimums"] == {"lambada/words.accuracy": {"minimum": 0.6, "value": 0.57, "verdict": "fail"}}
    below = [job(replace(WORDS, measures=("word_perplexity",), gated=1), minimum=20.0)]
    missed = "fail: lambada/words.word_perplexity 20.071, but at most 20.000 is required"
    assert compare(a_run(), None, below).headline == missed
    both = compare(a_run(30), a_run(30), [job(WORDS, minimum=0.6)], resamples=50)
    assert both.verdict == "fail"
    assert [row.measure for row in both.rows] == ["accuracy", "word_perplexity", "accuracy.minimum"]


def without(run: EvalResults, **changes: Any) -> EvalResults:
    return replace(run, results={key: replace(one, **changes) for key, one in run.results.items()})


def other_items(run: EvalResults, change: Callable[[Items], Items]) -> EvalResults:
    def changed(one: ProtocolResult) -> ProtocolResult:
        assert one.items is not None
        return replace(one, items=change(one.items))

    return replace(run, results={key: changed(one) for key, one in run.results.items()})


RENAMED = other_items(a_run(), lambda items: Items(("other", *items.ids[1:]), items.columns))
REWORDED = other_items(a_run(), lambda items: Items(items.ids, {**items.columns, "words": items.columns["words"] + 1}))
UNCOUNTED = other_items(a_run(), lambda items: Items(items.ids, {"correct": items.columns["correct"]}))


V2 = {"window": 64, "protocol_version": 2}
OTHER_DATA = without(a_run(), data_sha256="e" * 64)


@pytest.mark.parametrize(
    ("baseline", "kind", "message"),
    [
        (replace(a_run(), results={}), NothingComparable, "the baseline has no lambada"),
        (a_run(tasks=("blimp",)), NothingComparable, "the baseline has no lambada"),
        (a_run(0, 0.0, TOKENS), NothingComparable, "the baseline has no lambada/words, only lambada/tokens"),
        (
            OTHER_DATA,
            NothingComparable,
            "lambada/words: different data: sha256 d{12} here, sha256 e{12} in the baseline",
        ),
        (
            without(OTHER_DATA, n=2000),
            NothingComparable,
            r"1,000 examples here \(sha256 d{12}\), 2,000 in the baseline \(sha256 e{12}\)",
        ),
        (
            without(a_run(), settings={"window": 32}),
            NothingComparable,
            "window is 64 here but 32 .* one context length",
        ),
        (without(a_run(), settings={}), NothingComparable, "window is 64 here but None in the baseline"),
        (without(a_run(), settings=V2), NothingComparable, "protocol_version is 1 here but 2 in the baseline"),
        (without(a_run(), items=None), NothingComparable, "no items.* - pass the file that --output wrote"),
        (REWORDED, NothingComparable, r"lambada/words.word_perplexity: the items' 'words' differ from the baseline's"),
        (UNCOUNTED, NothingComparable, "the baseline's items have no 'nll'"),
        (RENAMED, InputError, "the data are the same, but item 'item 0' is only in one run"),
    ],
)
def test_what_cannot_be_compared_is_named(baseline: EvalResults, kind: type[GptkitError], message: str) -> None:
    with pytest.raises(kind, match=message):
        compare(a_run(), baseline, ASKED)


def test_a_baseline_that_names_no_version_of_a_protocol_is_of_the_first() -> None:
    first = {**V2, "protocol_version": 1}
    assert compare(without(a_run(), settings=first), a_run(), ASKED, resamples=50).verdict == "pass"
    assert compare(without(a_run(), settings=V2), without(a_run(), settings=V2), ASKED, resamples=50).verdict == "pass"
    with pytest.raises(NothingComparable, match="lambada/words: protocol_version is 2 here but 1 in the baseline"):
        compare(without(a_run(), settings=V2), a_run(), ASKED)


def test_another_tokenizer_is_no_obstacle_to_what_counts_words() -> None:
    other = replace(a_run(0, 0.0, WORDS, TOKENS), tokenizer_sha256="u" * 64)
    assert compare(a_run(), other, ASKED, resamples=50).verdict == "pass"
    with pytest.raises(NothingComparable, match=r"lambada/tokens.token_perplexity counts tokens"):
        compare(a_run(0, 0.0, WORDS, TOKENS), other, [job(WORDS, TOKENS)])


def test_what_the_present_run_leaves_out_is_told() -> None:
    baseline = a_run(0, 0.0, WORDS, TOKENS, tasks=("lambada", "blimp"))
    assert compare(a_run(), baseline, ASKED, resamples=50).warnings == (
        "blimp is in the baseline but was not evaluated in this run",
        "lambada/tokens is in the baseline but was not evaluated in this run",
    )


def test_a_run_is_written_and_read_back_as_it_was(tmp_path: Path) -> None:
    run = a_run(3, 0.01, WORDS, TOKENS)
    text = eval_text(run, compare(run, run, ASKED, resamples=50).as_json())
    assert text == eval_text(run, compare(run, run, ASKED, resamples=50).as_json())
    assert "NaN" not in text
    path = tmp_path / "baseline.json"
    path.write_text(text, encoding="utf-8")
    again = read_baseline(path)
    assert again.as_json(items=True) == json.loads(json.dumps(run.as_json(items=True)))
    assert compare(run, again, ASKED, resamples=50).comparison["lambada/words.word_perplexity"].difference == 0.0
    assert "items" not in run.as_json()


def test_an_earlier_version_s_baseline_of_every_kind_of_measure_gives_the_same_numbers() -> None:
    kept = read_baseline(Path(__file__).with_name("baseline-of-eb82668.json"))
    jobs = []
    for key, result in kept.results.items():
        task, name = key.split("/")
        assert result.items is not None
        measures = tuple(sorted(result.metrics, key=lambda name: MEASURES[name].floor is None))
        for measure, entry in measure_all(measures, result.items).items():
            for figure in ("value", "stderr"):
                before = result.metrics[measure][figure]
                assert entry[figure] == (before and pytest.approx(before, rel=1e-12)), f"{key}.{measure}"
        gated = sum(MEASURES[measure].floor is not None for measure in measures)
        jobs.append(Job(task, (Protocol(name, "", measures, gated=gated),), NOTHING))
    found = compare(kept, kept, jobs, resamples=50)
    assert {one.difference for one in found.comparison.values()} == {0.0}
    assert found.verdict == "pass"
    assert {key.rpartition(".")[2] for key in found.comparison} == {name for name in MEASURES if MEASURES[name].floor}


def hostile(change: Callable[[dict[str, Any]], object]) -> str:
    written = json.loads(eval_text(a_run()))
    for one in written["items"].values():
        one["ids"] = one["ids"][:3]
        one["columns"] = {name: column[:3] for name, column in one["columns"].items()}
    written["results"]["lambada/words"] |= {"n": 3, "metrics": {}}
    change(written)
    return json.dumps(written)


LM_EVAL = '{"results": {"lambada": {"acc,none": 0.3, "acc_stderr,none": 0.01}}, "lm_eval_version": "0.4.13"}'


def of_items(change: Callable[[dict[str, Any]], object]) -> str:
    return hostile(lambda written: change(written["items"]["lambada/words"]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("[]", "a JSON array"),
        ("[" * 100_000, "nested too deeply"),
        (eval_text(a_run())[:-200], "not valid JSON"),
        ('{"a": NaN}', "NaN is not a JSON number"),
        ('{"schema": "x", "schema": "y"}', "duplicate key"),
        ("{}", "no schema, expected gptkit.eval/1"),
        (LM_EVAL, "no schema, .* - write the baseline with `gptkit eval --output baseline.json`"),
        (LM_EVAL.replace("0.01", "NaN"), "NaN is not a JSON number .* - write the baseline with"),
        ('{"schema": "gptkit.eval/2"}', "schema 'gptkit.eval/2'"),
        ('{"schema": "gptkit.eval/1"}', "no 'results'"),
        ('{"schema": "gptkit.eval/1", "results": []}', "'results' is a JSON array, not an object"),
        (hostile(lambda one: one["results"]["lambada/words"].update(n="3")), "'n' is a JSON string"),
        (hostile(lambda one: one["results"]["lambada/words"].update(n=True)), "'n' is a JSON boolean"),
        (hostile(lambda one: one["results"].update(x=None)), "results.x"),
        (hostile(lambda one: one["items"].update(x={})), "items of 'x' without results"),
        (of_items(lambda one: one.update(ids=["a", "b"])), "2 ids, but n is 3"),
        (of_items(lambda one: one.update(ids=["a", "b", "a"])), "the id 'a' appears twice"),
        (of_items(lambda one: one.update(ids=["a", "b", 1])), "an id is not a string"),
        (of_items(lambda one: one["columns"].update(correct=[1, 0])), "2 values for 3 items"),
        (of_items(lambda one: one["columns"].update(correct=[1, 0, 0.5])), r"item 2: .* is not 0 or 1"),
        (of_items(lambda one: one["columns"].update(correct=[1, True, 0])), r"item 1: .* is not a number"),
        (of_items(lambda one: one["columns"].update(nll=[1, 2, None])), r"item 2: .* is not a number"),
        (of_items(lambda one: one["columns"].update(nll=[1, 2, -5])), r"item 2: .* is not a number from -0.001"),
        (of_items(lambda one: one["columns"].update(nll=[1, 2, 10**400])), r"item 2: .* is not a number"),
        (
            of_items(lambda one: one["columns"].update(nll=[1, 2, 9])).replace(" 9]", " 1e999]"),
            r"item 2: .* is not a number",
        ),
    ],
)
def test_a_file_that_is_no_baseline_is_an_error_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "baseline.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message) as found:
        read_baseline(path)
    assert "baseline.json" in str(found.value)
    assert found.value.exit_code == 2


def test_a_path_that_is_no_baseline(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff{}")
    folder = "not a regular file .* - write the baseline with `gptkit eval --output baseline.json`"
    for name, message in (("missing", "not found"), ("", folder), ("bytes", "not valid UTF-8: 0xff")):
        with pytest.raises(InputError, match=message):
            read_baseline(tmp_path / name)
