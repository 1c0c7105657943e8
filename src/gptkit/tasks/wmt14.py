"""Translation after example pairs (GPT-2 paper, section 3.7)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from gptkit.scoring.protocols import Evaluation, Generated, GeneratedProtocol, Items, Published
from gptkit.scoring.sentences import sentences
from gptkit.tasks.bleu import bleu_columns
from gptkit.tasks.wmt14_files import wmt14
from gptkit.text.examples import Example


def _prompt(example: Example) -> str:
    sentence, _, shown, translations = example.fields
    pairs = [f"{one} = {other}\n" for one, other in zip(shown, translations, strict=True)]
    return "".join([*pairs, f"{sentence} ="])


def _items(examples: Sequence[Example], texts: Sequence[Generated]) -> Items:
    translations = ["".join(sentences(one.text)[:1]) for one in texts]
    columns = bleu_columns(translations, [str(one.fields[1]) for one in examples])
    return Items(tuple(one.identifier for one in examples), columns)


def _evaluation(source: str, target: str, languages: str, bleu: float) -> Evaluation:
    protocol = GeneratedProtocol(
        "pairs",
        "after five lines `sentence = translation`, greedy, cut at the first line or sentence end; "
        "corpus BLEU of sacrebleu, tokens by 13a, case kept",
        ("bleu",),
        published=(Published("GPT-2 1542M", "bleu", bleu, "Radford et al. 2019, section 3.7"),),
        chance=0.0,
        prompt=_prompt,
        items=_items,
        options={"greedy": True, "max_new_tokens": 100, "stop": ("\n",)},
    )
    return Evaluation(
        name=f"wmt14-{source}-{target}",
        about=f"news translated from {languages}",
        data=f"newstest2014-fren-src.{source}.sgm and -ref.{target}.sgm, or newstest2014.{source} and .{target}; "
        "newstest2013 beside them for the example pairs",
        load=partial(wmt14, source=source, target=target),
        protocols=(protocol,),
        size=3_003,
        texts=lambda example: (str(example.fields[0]), str(example.fields[1])),
    )


WMT14_EN_FR = _evaluation("en", "fr", "English into French", 5.0)
WMT14_FR_EN = _evaluation("fr", "en", "French into English", 11.5)
