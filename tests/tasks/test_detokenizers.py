from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptkit.tasks.detokenizers import ONE_BILLION_WORDS, TREEBANK, WIKITEXT

Change = Callable[[str], str]

WAYS: dict[str, tuple[Change, Change]] = {
    "wikitext": (WIKITEXT.detokenize, WIKITEXT.retokenize),
    "1bw": (ONE_BILLION_WORDS.detokenize, ONE_BILLION_WORDS.retokenize),
    "ptb": (TREEBANK.detokenize, TREEBANK.retokenize),
}
WRITTEN = {
    "wikitext": {
        " = = Description = = ": " == Description == ",
        " 15 – 35 lobsters , 1 @,@ 000 m ( 0 @.@ 59 in ) long . ": " 15–35 lobsters, 1,000 m (0.59 in) long. ",
        ' the " lobster red " of anti @-@ <unk> ; it \'s': ' the "lobster red" of anti-<unk>; it\'s',
        " Linnaeus ' concept of the ' sand ' ": " Linnaeus' concept of the 'sand' ",
        " 5 % or $ 2 at 9 ° C in 2009 . ": " 5% or $2 at 9°C in 2009. ",
        " Dr. H. <unk> of the U.S. . . . \n \n and / or": " Dr. H. <unk> of the U.S. . . . \n \n and/or",
    },
    "1bw": {
        '" I don \'t know , " he said ( in the U.S. ) .': '"I don\'t know," he said (in the U.S.).',
        "The company 's shares rose 5.4 % to $ 1,000 .": "The company's shares rose 5.4% to $1,000.",
        "The players ' long-term union -- 8 : 30 p.m. today .": "The players' long-term union -- 8:30 p.m. today.",
    },
    "ptb": {
        "`` I do n't know , '' he said , `` ca n't I ?": '"I don\'t know," he said, "can\'t I?',
        "Not -LRB- ever -RRB- ? ''": 'Not (ever)?"',
        " brothers ' co. cost $ N or N % of <unk> inc. ": " brothers' co. cost $N or N% of <unk> inc. ",
        "`` He said : ` Go away ! ' '' Mr. Smith 's gon na .": "\"He said: 'Go away!'\" Mr. Smith's gonna.",
        "that ca n't be what can not be": "that can't be what cannot be",
    },
}

# What a careless rule would glue where nobody can take it apart again.
COMMON = ["a", "<unk>", ".", ",", ":", "%", "$", "'", "'s", "U.S."]
TOKENS = {
    "wikitext": [*COMMON, "No.", "No", "(", ")", '"', "@-@", "@.@", "=", "5", "–", "/", "-"],
    "1bw": [*COMMON, "Inc.", "Inc", "(", ")", '"', "'t", "--", "5", "5.4", ";", "...", "-"],
    "ptb": [*COMMON, "can", "not", "n't", "`", "``", "''", "-LRB-", "-RRB-", "N", "co.", "gon", "na", "I"],
}


@pytest.mark.parametrize("corpus", WAYS)
def test_text_is_written_as_people_write_it_and_back(corpus: str) -> None:
    detokenize, retokenize = WAYS[corpus]
    for tokens, written in WRITTEN[corpus].items():
        assert detokenize(tokens) == written
        assert retokenize(written) == tokens


@pytest.mark.parametrize("corpus", WAYS)
@given(data=st.data())
def test_whatever_keeps_the_conventions_comes_back(corpus: str, data: st.DataObject) -> None:
    detokenize, retokenize = WAYS[corpus]
    text = " ".join(data.draw(st.lists(st.sampled_from(TOKENS[corpus]), max_size=12)))
    kept = next((one for one in (text, retokenize(text)) if retokenize(one) == one), None)
    if kept is not None:
        assert retokenize(detokenize(kept)) == kept


@given(st.text(max_size=80))
def test_any_text_can_be_given(text: str) -> None:
    for detokenize, retokenize in WAYS.values():
        if retokenize(text) == text:
            assert retokenize(detokenize(text)) == text


@pytest.mark.parametrize("corpus", WAYS)
def test_neither_words_nor_numbers_are_lost(corpus: str) -> None:
    detokenize, _ = WAYS[corpus]
    for tokens in WRITTEN[corpus]:
        letters = [character for character in tokens if character.isalnum()]
        kept = [character for character in detokenize(tokens) if character.isalnum()]
        assert corpus == "ptb" or kept == letters


def test_wikitext_comes_back_line_by_line(test_data: Path) -> None:
    lines = (test_data / "corpora" / "wikitext2-valid.txt").read_text(encoding="utf-8").split("\n")[:800]
    changed = [WIKITEXT.detokenize(line) for line in lines]
    assert [WIKITEXT.retokenize(line) for line in changed] == lines
    assert sum(map(len, changed)) < 0.97 * sum(map(len, lines))
