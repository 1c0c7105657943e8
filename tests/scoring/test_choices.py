"""The arithmetic of choices, last words and acceptability, with a model whose log-probabilities are known."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from gptkit.errors import InputError
from gptkit.scoring.asking import score_protocols
from gptkit.scoring.choices import ChoiceProtocol, item_ids, per_character, per_token, total
from gptkit.scoring.encoder import Encoder
from gptkit.scoring.measures import MEASURES, measure, value_of
from gptkit.scoring.protocols import Answer, Group, Items, Request, ScoredProtocol
from gptkit.tasks.benchmarks.blimp import BLIMP, harness_pairs
from gptkit.tasks.benchmarks.cola import above_threshold
from gptkit.tasks.benchmarks.lambada import LAMBADA, stop_tokens
from gptkit.tasks.table import EVALUATIONS, kind_of
from gptkit.text.examples import Example

ROWS = {name: row for name, row in EVALUATIONS.items() if kind_of(row) == "choices"}


class Words(Encoder):
    """An encoder whose tokens are words with preceding white space."""

    def __init__(self, n_positions: int = 100) -> None:
        self.n_positions = n_positions
        self.separator = 0
        self.words = ["<separator>"]

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.array([self.id(word) for word in re.findall(r"\s*\S+", text)], dtype=np.int64) for text in texts]

    def id(self, word: str) -> int:
        self.words += [word] * (word not in self.words)
        return self.words.index(word)

    def text(self, ids: np.ndarray) -> str:
        return "".join(self.words[one] for one in ids)


def answer(request: Request, encoder: Words, log_probs: Mapping[str, float]) -> Answer:
    """Return the answers of a model with independent words; the log-probability of words not given is -9."""
    scored = request.ids[request.start :]
    values = [log_probs.get(encoder.words[one].strip(), -9.0) for one in scored]
    return Answer(np.array(values), scored, scored)


def scored(protocol: ScoredProtocol, examples: Sequence[Example], log_probs: Mapping[str, float]) -> Items:
    encoder = Words()
    groups = protocol.requests(examples, encoder)
    answers = [tuple(answer(one, encoder, log_probs) for one in group) for group in groups]
    return protocol.items(examples, groups, answers, encoder)


def choice(label: int | None, *endings: str, identifier: str = "0") -> Example:
    return Example(("Once", "", endings), label, "file:1", identifier)


def endings(example: Example) -> list[tuple[str, str]]:
    return [(str(example.fields[0]), f" {ending}") for ending in example.fields[2]]


@pytest.mark.parametrize(
    ("score", "scores"),
    [(total, (-2.0, -1.5, -3.0)), (per_token, (-1.0, -1.5, -3.0)), (per_character, (-2 / 3, -1.5 / 8, -3.0))],
)
def test_the_largest_score_wins_and_its_share_is_the_confidence(score, scores) -> None:
    protocol = ChoiceProtocol("name", "about", pairs=endings, score=score)
    examples = [choice(label, "a a", "cucumber", "b", identifier=str(label)) for label in range(3)]
    columns = scored(protocol, examples, {"a": -1.0, "cucumber": -1.5, "b": -3.0}).columns
    won = scores.index(max(scores))
    assert columns["prediction"].tolist() == [won] * 3
    assert columns["correct"].tolist() == [float(label == won) for label in range(3)]
    confidence = math.exp(scores[won]) / sum(map(math.exp, scores))
    assert columns["confidence"] == pytest.approx([confidence] * 3, rel=1e-12)


def test_the_gain_is_what_the_context_adds() -> None:
    """A common ending is likely anywhere; the rare one gains 2 nats from its context. An empty ending never wins."""
    encoder, protocol = Words(), ChoiceProtocol("gain", "about", pairs=endings, by_gain=True)
    examples = [choice(1, "common", "rare", ""), choice(0, "", "rare", identifier="1")]
    groups = protocol.requests(examples, encoder)
    known = {("Once", "common"): -2.0, ("Once", "rare"): -3.0, ("", "common"): -1.5, ("", "rare"): -5.0}

    def answered(request: Request) -> Answer:
        context = "" if request.ids[0] == encoder.separator else "Once"
        return answer(request, encoder, {word: value for (before, word), value in known.items() if before == context})

    items = protocol.items(examples, groups, [tuple(map(answered, group)) for group in groups], encoder)
    assert items.columns["prediction"].tolist() == [1, 1]
    assert items.columns["confidence"] == pytest.approx([1 / (1 + math.exp(-0.5 - 2.0)), 1.0])
    assert [sum(bool(request.impossible) for request in group) for group in groups] == [1, 1]


def test_a_right_choice_that_is_no_likelier_than_another_is_wrong() -> None:
    protocol = ChoiceProtocol("name", "about", pairs=endings, score=total)
    columns = scored(protocol, [choice(0, "a", "b"), choice(1, "a", "b", identifier="1")], {"a": -1, "b": -1}).columns
    assert columns["correct"].tolist() == [0, 0]
    assert columns["confidence"].tolist() == [0.5, 0.5]
    with pytest.raises(InputError, match=r"no label to compare with \(file:1\)"):
        scored(protocol, [choice(None, "a", "b")], {})


HELLASWAG_ROW = ("Cooking", "He stirs.", "", "He stirs.", ("tastes.", "tastes.", "tastes.", "tastes."))
COPA_ROW = ("It fell.", "What was the cause of this?", ("A cat.", "A cat."))


@pytest.mark.parametrize(
    ("row", "protocol", "fields", "correct"),
    [
        ("blimp", "sum", ("causative", ("He ate.", "He ate.")), [0]),
        ("blimp", "harness", ("causative", ("He ate.", "He ate.")), [1]),
        ("hellaswag", "completion", HELLASWAG_ROW, [0, 0, 0, 0]),
        ("hellaswag", "harness", HELLASWAG_ROW, [1, 0, 0, 0]),
        ("hellaswag", "harness-norm", HELLASWAG_ROW, [1, 0, 0, 0]),
        ("copa", "lm-eval", COPA_ROW, [1, 0]),
    ],
)
def test_a_tie_is_wrong_but_in_the_protocols_of_lm_eval_which_take_the_first(
    row: str, protocol: str, fields: tuple[str, ...], correct: list[int]
) -> None:
    """lm-eval: acc = float(np.argmax(lls) == target)."""
    [chosen] = [one for one in ROWS[row].protocols if one.name == protocol]
    assert isinstance(chosen, ScoredProtocol)
    examples = [Example(fields, label, "file:1", str(label)) for label in range(len(correct))]
    columns = scored(chosen, examples, {}).columns
    assert columns["correct"].tolist() == correct
    assert columns["confidence"] == pytest.approx([1 / len(fields[-1])] * len(correct))


@pytest.mark.parametrize("ties", ["wrong", "first"])
@pytest.mark.parametrize("score", [total, per_token, per_character])
def test_what_has_no_tokens_never_wins_and_what_does_not_fit_is_scored_in_windows(score, ties) -> None:
    """Three positions: "a a a a" is one word too long, and " " has no tokens."""
    protocol = ChoiceProtocol("name", "about", pairs=endings, score=score, ties=ties)
    encoder, said = Words(n_positions=3), []
    examples = [
        Example(("Once", "", ("b b b", " ", "a a a a")), 2, "file:1", "0"),
        Example(("Once", "", ("b b b", " ", "c c c a c")), 0, "file:2", "1"),
        Example(("Once", "", (" ", " ", " ")), 0, "file:3", "2"),
        Example(("Once upon a time", "", ("b", "b b", "a a")), 2, "file:4", "3"),
    ]

    asked = []

    def answers(groups: Sequence[Group], banned: Sequence[int]) -> list[tuple[Answer, ...]]:
        asked.extend(encoder.text(one.ids) + f"|{len(one.ids) - one.start}" for group in groups for one in group)
        return [tuple(answer(one, encoder, {"a": -0.01, "b": -3.0}) for one in group) for group in groups]

    [items] = score_protocols([protocol], examples, encoder, answers, warn=said.append)
    assert asked[:4] == ["Once b b b|3", "Once|0", "Once a a a|3", " a a a a|1"]  # three words before the last
    assert items.columns["prediction"].tolist() == [2, 0, -1, 2]
    assert items.columns["correct"].tolist() == [1, 1, 0, 1]
    assert items.columns["confidence"][2] == 0
    assert (items.cut, items.impossible) == (3, 5)
    assert items.columns["impossible"].tolist() == [1, 1, 3, 0]
    assert said == [
        "3 of 4 examples do not fit into the model's 3 positions: contexts are truncated on the left, and overlong "
        "choices are scored in windows",
        "3 texts cannot be scored and are never chosen: '' has no tokens (file:1); "
        "'' has no tokens (file:2); '' has no tokens (file:3)",
    ]
    assert all(math.isfinite(entry["value"]) for entry in measure(protocol.measures, items).values())


def test_items_bear_the_names_of_the_data_or_numbers() -> None:
    assert item_ids([choice(0, identifier="x"), choice(0, identifier="y")]) == ("x", "y")
    assert item_ids([choice(0, identifier="x"), choice(0, identifier="x")]) == ("0", "1")


def test_blimp_compares_whole_sentences_and_sorts_its_items() -> None:
    pairs = [("causative", ("Ann ate.", "Ann ated it.")), ("wh_island", ("Who slept?", "Who what?"))]
    examples = [Example(fields, 0, "", fields[0]) for fields in pairs]
    protocol, harness, _ = BLIMP.protocols
    encoder = Words()
    assert [[encoder.text(one.ids) for one in group] for group in protocol.requests(examples, encoder)] == [
        ["<separator>Ann ate.", "<separator>Ann ated it."],
        ["<separator>Who slept?", "<separator>Who what?"],
    ]
    assert harness_pairs(examples[0]) == [("", " Ann ate."), ("", " Ann ated it.")]
    assert harness.measures == protocol.measures
    items = scored(protocol, examples, {"Ann": -1, "ate.": -2, "ated": -0.5, "it.": -2, "what?": -1})
    assert items.columns["correct"].tolist() == [1, 0]
    assert items.groups == {
        "phenomenon": ("argument_structure", "island_effects"),
        "set": ("causative", "wh_island"),
    }


def lambada(name: str) -> ScoredProtocol:
    return next(one for one in LAMBADA.protocols if one.name == name)


def test_a_last_word_is_right_when_all_of_its_tokens_are_the_likeliest() -> None:
    """Words of one token; a line break follows the last space, so the target has two tokens."""
    examples = [Example((text,), None, "", str(i)) for i, text in enumerate(["He saw Ann", "He saw\nit of\nit"])]
    encoder = Words()
    groups = lambada("last-word").requests(examples, encoder)
    [ann], [both] = groups
    assert [encoder.text(one.ids[one.start :]) for one in (ann, both)] == [" Ann", " of\nit"]
    the, target = encoder.id(" the"), both.ids[both.start :]
    answers = [
        (Answer(np.array([-0.25]), np.array([the]), ann.ids[ann.start :]),),
        (Answer(np.array([-1.0, -0.75]), target, np.array([the, target[1]])),),
    ]
    plain = lambada("last-word").items(examples, groups, answers, encoder)
    filtered = lambada("last-word-no-stop-words").items(examples, groups, answers, encoder)
    assert plain.columns["correct"].tolist() == [0, 1]
    assert filtered.columns["correct"].tolist() == [1, 0]
    for items in (plain, filtered):
        assert items.columns["nll"].tolist() == [0.25, 1.75]
        assert value_of(MEASURES["perplexity"], items.columns) == pytest.approx(math.e)
    second_wrong = (Answer(np.array([-1.0, -0.75]), np.array([target[0], the]), target),)
    assert lambada("last-word").items(examples[1:], groups[1:], [second_wrong], encoder).columns[
        "correct"
    ].tolist() == [0]


def test_predicting_the_unknown_token_is_no_answer() -> None:
    encoder = Words()
    examples = [Example((text,), None, "", text) for text in ("He Ann", "He Жан")]
    groups = lambada("last-word").requests(examples, encoder)
    encoder.unknown = encoder.id(" Жан")
    answers = [(answer(request, encoder, {}),) for (request,) in groups]  # both are the most likely
    found = measure(("accuracy", "perplexity"), lambada("last-word").items(examples, groups, answers, encoder))
    assert found["accuracy"]["value"] == 0.5
    assert found["perplexity"]["reason"] == "1 of the 2 targets have tokens unknown to the tokenizer"


def test_a_last_token_is_asked_alone_and_long_texts_are_cut_at_the_left() -> None:
    examples = [Example((text,), None, "", text) for text in ("a b c d e", "e")]
    encoder = Words(n_positions=3)
    [[long], [short]] = lambada("last-token").requests(examples, encoder)
    assert (encoder.text(long.ids), long.start) == (" b c d e", 3)
    assert (encoder.text(short.ids), short.start) == ("<separator>e", 1)
    assert (long.cut, short.cut) == (True, False)
    [[prepared]] = lambada("last-token-openai").requests([Example((" “Go,” he said ",), None, "", "0")], Words())
    assert prepared.start == len(prepared.ids) - 1
    encoder = Words()
    [[prepared]] = lambada("last-word-openai").requests([Example((" “Go,” he said ",), None, "", "0")], encoder)
    assert encoder.text(prepared.ids) == '\n"Go," he said'


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("last-word", "a " + "b\n" * 4, r"it is longer than the model's 3 positions \(file:7\)"),
        ("last-word", "a ", r"'' has no tokens \(file:7\)"),
        ("last-token", " ", r"it has no tokens \(file:7\)"),
    ],
)
def test_a_passage_whose_end_cannot_be_scored_is_refused(name: str, text: str, reason: str) -> None:
    with pytest.raises(InputError, match=f"the end of the passage cannot be scored: {reason}"):
        lambada(name).requests([Example((text,), None, "file:7", "0")], Words(n_positions=3))


def test_stop_words_are_whole_tokens() -> None:
    class Halves(Words):
        def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
            whole = super().encode(texts)
            return [np.repeat(ids, 2) if "every" in text else ids for ids, text in zip(whole, texts, strict=True)]

    encoder = Halves()
    banned = {encoder.words[one] for one in stop_tokens(encoder)}
    assert {" the", " The", " of"} <= banned
    assert not {" everyone", "the", " house"} & banned


def test_the_likeliest_sentences_are_acceptable() -> None:
    scores = np.array([-3.0, -1.0, -2.0, -1.0, -4.0])
    assert above_threshold(scores, 0.6).tolist() == [0, 1, 1, 1, 0]
    assert above_threshold(scores, 0.2).tolist() == [0, 1, 0, 0, 0]
    texts = ["good good good", "good bad", "bad bad", "good"]
    examples = [Example((text,), label, "", text) for text, label in zip(texts, [1, 1, 0, 0], strict=True)]
    [protocol] = ROWS["cola"].protocols
    items = scored(protocol, examples, {"good": -1, "bad": -3})
    assert items.columns["score"].tolist() == [-1, -2, -3, -1]
    assert items.columns["prediction"].tolist() == [1, 1, 0, 1]
    assert items.columns["correct"].tolist() == [1, 1, 1, 0]
    unseen = scored(protocol, [*examples, Example((" ",), 0, "", " ")], {"good": -1, "bad": -3})
    assert unseen.columns["score"].tolist() == [-1, -2, -3, -1, -4]  # below all that could be scored
    assert unseen.columns["prediction"].tolist() == [1, 1, 1, 1, 0]


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_row_holds_together(row) -> None:
    names = [protocol.name for protocol in row.protocols]
    assert len(set(names)) == len(names)
    for protocol in row.protocols:
        assert set(protocol.measures) <= set(MEASURES)
        assert protocol.chance is not None
        for figure in protocol.published:
            assert figure.measure in protocol.measures
            assert 0 < figure.value < 1 or figure.measure == "perplexity"
            assert figure.source
