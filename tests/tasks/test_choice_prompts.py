"""What each protocol asks, as text: the parts that are scored and what stands before them, in GPT-2's tokens."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gptkit.errors import InputError
from gptkit.scoring.encoder import Encoder
from gptkit.scoring.protocols import ScoredProtocol
from gptkit.tasks.benchmarks.cbt import cbt_pairs
from gptkit.tasks.benchmarks.copa import copa_pairs
from gptkit.tasks.benchmarks.winograd import substituted
from gptkit.tasks.detokenizers import TREEBANK
from gptkit.tasks.table import EVALUATIONS, find_evaluation
from gptkit.text.examples import Example
from gptkit.text.tokenizers.loading import tokenizer_in

PASSAGE = ("“Well,” she said. ”No” was\nhis answer",)
CBT = (("`` Come -LRB- in -RRB- ! ''", "They did n't go ."), "He saw XXXXX , she said .", ("Ann", "Bob"))
WINOGRAD = ("The man fed the dog because ", "he", " was kind.", ("The man", "the dog"))
HELLASWAG = (
    "Baking",
    "[header] How to bake [title] Heat it.",
    "then",
    "[header] How to bake [title] Heat it. then",
    ("stirs.", "[step] rests [substeps] now.", "a", "b"),
)
RACE = ("It rained.", "Why did we stay?", ("rain", "snow", "sun", "fun"))
STORY = ("He ran.", "", ("He won.", "She won."))
COPA = ("The glass fell.", "What was the cause of this?", ("The cat pushed it.", "It flew."))
FALL = " because"
# (evaluation, protocol, fields, what stands before, what is scored)
ASKED: list[tuple[str, str, Any, list[str], list[str]]] = [
    ("lambada", "last-token", PASSAGE, ["“Well,” she said. ”No” was\nhis"], [" answer"]),
    ("lambada", "last-word", PASSAGE, ["“Well,” she said. ”No” was\nhis"], [" answer"]),
    ("lambada", "last-word-openai", PASSAGE, ['\n"Well," she said. "No" was\nhis'], [" answer"]),
    ("lambada", "last-token-openai-no-stop-words", PASSAGE, ['\n"Well," she said. "No" was\nhis'], [" answer"]),
    (
        "cbt-ne",
        "gpt2",
        CBT,
        ['"Come (in)!" They didn\'t go. He saw'] * 2,
        [" Ann, she said.", " Bob, she said."],
    ),
    (
        "cbt-v",
        "raw",
        CBT,
        ["`` Come -LRB- in -RRB- ! '' They did n't go . He saw"] * 2,
        [" Ann , she said .", " Bob , she said ."],
    ),
    (
        "winograd",
        "partial",
        WINOGRAD,
        ["The man fed the dog because the man", "The man fed the dog because the dog"],
        [" was kind."] * 2,
    ),
    (
        "winograd",
        "full",
        WINOGRAD,
        ["The man fed the dog because"] * 2,
        [" the man was kind.", " the dog was kind."],
    ),
    (
        "hellaswag",
        "completion",
        HELLASWAG,
        ["[header] How to bake [title] Heat it. then"] * 4,
        [" stirs.", " [step] rests [substeps] now.", " a", " b"],
    ),
    (
        "hellaswag",
        "harness-norm",
        HELLASWAG,
        ["Baking: How to bake. Heat it. Then"] * 4,
        [" stirs.", "  rests now.", " a", " b"],
    ),
    ("race", "gpt1", RACE, ["It rained. Why did we stay?"] * 4, [" rain", " snow", " sun", " fun"]),
    ("story-cloze", "sum", STORY, ["He ran."] * 2, [" He won.", " She won."]),
    ("copa", "lm-eval", COPA, [f"The glass fell{FALL}"] * 2, [" the cat pushed it.", " it flew."]),
    ("sst2", "gpt1", ("a fine film ",), ["a fine film very"] * 2, [" negative", " positive"]),
    ("cola", "gpt1", ("He go.",), ["<|endoftext|>"], ["He go."]),
    ("blimp", "sum", ("causative", ("I ate.", "I eats.")), ["<|endoftext|>"] * 2, ["I ate.", "I eats."]),
]


@pytest.fixture(scope="module")
def gpt2(test_data: Path) -> Encoder:
    return Encoder(tokenizer_in(test_data / "tokenizers" / "gpt2"), 1024)


@pytest.mark.parametrize(
    ("name", "protocol", "fields", "before", "after"), ASKED, ids=[f"{r[0]}/{r[1]}" for r in ASKED]
)
def test_requests_decode_to_what_the_protocol_says(
    gpt2: Encoder, name: str, protocol: str, fields: Any, before: list[str], after: list[str]
) -> None:
    [chosen] = [one for one in EVALUATIONS[name].protocols if one.name == protocol]
    assert isinstance(chosen, ScoredProtocol)
    [group] = chosen.requests([Example(fields, 0, "file:1", "0")], gpt2)
    decode = partial(gpt2.tokenizer.decode, clean_up_tokenization_spaces=False)
    assert [decode(one.ids[: one.start]) for one in group] == before
    assert [decode(one.ids[one.start :]) for one in group] == after


def test_the_last_token_may_be_the_end_of_a_word(gpt2: Encoder) -> None:
    protocols = {protocol.name: protocol for protocol in EVALUATIONS["lambada"].protocols}
    word, token = protocols["last-word"], protocols["last-token"]
    example = Example(("It was Harlin",), None, "", "0")
    [[whole]], [[end]] = word.requests([example], gpt2), token.requests([example], gpt2)
    assert gpt2.tokenizer.decode(whole.ids[whole.start :]) == " Harlin"
    assert gpt2.tokenizer.decode(end.ids[end.start :]) == "lin"


def test_stop_words_of_gpt2_are_tokens_with_a_space(gpt2: Encoder) -> None:
    banned = EVALUATIONS["lambada"].banned(gpt2)
    texts = [gpt2.tokenizer.decode([one]) for one in banned]
    assert {" the", " The", " of", " it", " could"} <= set(texts)
    assert all(text.startswith(" ") and text[1:].isalpha() for text in texts)


SAID = 'He said "Go." '


@pytest.mark.parametrize(
    ("before", "pronoun", "after", "referent", "expected"),
    [
        ("The drain is clogged with hair. ", "It", " has to go.", "the hair", "The hair"),
        (SAID, "He", " left.", "my uncle", "My uncle"),
        ("", "They", " left.", "people", "People"),
        ("I left because ", "he", " came.", "The old man", "the old man"),
        ("I left because ", "he", " came.", "Ann", "Ann"),
        ("He moved ", "his", " bishop.", "The man", "the man's"),
        ("He moved ", "his", ' "Dibs!" was slow.', "Bill", "Bill's"),
        ("He held her against ", "her", " will.", "Ann", "Ann's"),
        ("He saw ", "her", ".", "Ann", "Ann"),
        ("She saw ", "her", " house.", "Tina's", "Tina's"),
    ],
)
def test_a_referent_fits_where_the_pronoun_stood(
    before: str, pronoun: str, after: str, referent: str, expected: str
) -> None:
    assert substituted(Example((before, pronoun, after, (referent, "x")), 0, "", ""))[0] == expected


def test_what_a_candidate_draws_to_itself_belongs_to_every_continuation() -> None:
    example = Example((("Up .",), "We did XXXXX go .", ("n't", "soon")), 0, "", "")
    first, second = cbt_pairs(example, TREEBANK.detokenize)
    assert (first, second) == (("Up. We did", "n't go."), ("Up. We did", " soon go."))


def test_copas_other_question_and_one_that_is_none() -> None:
    effect = Example(("It rained.", "What happened as a result?", ("I got wet.", "x")), 0, "f:1", "")
    assert copa_pairs(effect)[0] == ("It rained therefore", " i got wet.")
    with pytest.raises(InputError, match=r"unknown question 'Why\?' \(f:1\)"):
        copa_pairs(Example(("It rained.", "Why?", ("a", "b")), 0, "f:1", ""))


def test_rows_of_tasks_and_of_single_sets(test_data: Path) -> None:
    assert len(EVALUATIONS["cola"].load(str(test_data / "tasks")).examples) == 1043
    row = find_evaluation("blimp-wh_vs_that_no_gap")
    assert row is not None
    loaded = row.load(str(test_data / "zero_shot"))
    assert (row.name, len(loaded.examples), loaded.notes) == ("blimp-wh_vs_that_no_gap", 1000, ())
