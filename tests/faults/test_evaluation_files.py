"""R20: a damaged file of a zero-shot evaluation is read, or refused in one line that names it."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from in_process import LONGEST_LINE

from gptkit.errors import GptkitError
from gptkit.tasks.table import find_evaluation

SEED = 20
DEEP = 100_000
LONG = "x" * 200_000

HELLASWAG = {
    **{"ind": 4, "activity_label": "Cooking", "ctx_a": "A man stirs.", "ctx_b": "he", "ctx": "A man stirs. he"},
    **{"endings": ["sits.", "eats.", "runs.", "sings."], "label": 2},
}
WSC = {"text": "It fell because it slid.", "pronoun": "it", "pronoun_loc": 16, "options": ["The cup", "It"], "label": 0}
COQA = {
    **{"source": "mctest", "id": "3", "story": "Anna saw a cat.", "answers": [{"input_text": "Anna"}]},
    **{"questions": [{"input_text": "Who?"}], "additional_answers": {"0": [{"input_text": "Anna did"}]}},
}
SCHEMA = """<collection><schema><text><txt1>Mo fits in because</txt1><pron>it</pron><txt2>is small.</txt2></text>
<answers><answer>Mo</answer><answer>The box</answer></answers><correctAnswer>B</correctAnswer></schema></collection>"""
CBT = "\n".join([*(f"{i} Sentence {i} ." for i in range(1, 21)), "21 I saw XXXXX .\tAnn\t\tBob|Ann|Eve", ""])
SGM = '<doc docid="a">\n<seg id="1">One &amp; two.</seg>\n<seg id="2">Three.</seg>\n</doc>\n' * 4


def lines_of(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


EVALUATIONS: Mapping[str, tuple[str, str]] = {  # evaluation -> file, content
    "lambada": ("lambada_test.jsonl", lines_of({"text": "One two three"}, {"text": "A b"})),
    "hellaswag": ("hellaswag_val.jsonl", lines_of(HELLASWAG, HELLASWAG)),
    "winograd": ("WSCollection.xml", SCHEMA),
    "cbt-ne": ("cbtest_NE_valid_2000ex.txt", CBT * 2),
    "blimp-wh_island": (
        "wh_island.jsonl",
        lines_of({"sentence_good": "I go.", "sentence_bad": "I goes.", "UID": "wh_island", "pairID": "7"}),
    ),
    "coqa": ("coqa-dev-v1.0.json", json.dumps({"version": "1.0", "data": [COQA]})),
    "natural-questions": ("NQ-open.dev.jsonl", lines_of({"question": "who", "answer": ["Ann", "Bob"]})),
    "cnn-dm": ("test.jsonl", lines_of({"article": "It rained.", "highlights": "Rain.", "id": "a"})),
    "wmt14-en-fr": ("newstest2014-fren-src.en.sgm", SGM),
    "wikitext2": ("wiki.test.raw", "\n = Title = \n\n Some words .\n"),
    "ptb": ("ptb.test.txt", " no it was n't black\n but <unk> said\n"),
}
DAMAGES = [b"\0", b"\xff", b"\xed\xa0\x80", b"\\ud800", b'"', b"<", b"&", b"NaN", b"null", b"[]", b"\n", b"\t", b""]
DAMAGES += [b"[" * DEEP, LONG.encode(), b"1" * 5000, b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"</seg>", b"-1", b"\x1b[2J"]


def damaged(random_: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(random_.randint(1, 2)):
        at, size = random_.randrange(len(changed) + 1), random_.choice([0, 0, 1, 5, len(changed)])
        changed[at : at + size] = random_.choice(DAMAGES)
    return bytes(changed)


def another_value(random_: random.Random, content: str) -> bytes:
    """Put another value of JSON in place of one of them."""
    rows = [json.loads(line) for line in content.splitlines()]
    holder, key = random_.choice(list(places(rows)))
    holder[key] = random_.choice([None, True, -1, 9, 1.5, "", " ", "x", LONG, [], ["a"], {}, "\0", "\ud800", 10**40])
    return lines_of(*rows).encode()


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return every (holder, key) below a value."""
    keys = range(len(value)) if isinstance(value, list) else list(value) if isinstance(value, dict) else []
    return [pair for key in keys for pair in [(value, key), *places(value[key])]]


def test_a_damaged_evaluation_file_is_read_or_refused_in_one_line(tmp_path: Path, count: Any, figure: Any) -> None:
    random_ = random.Random(SEED)
    trials = count(11 * len(EVALUATIONS), 100 * len(EVALUATIONS))
    outcomes: Counter[str] = Counter()
    failures = []
    for trial in range(trials):
        name = list(EVALUATIONS)[trial % len(EVALUATIONS)]
        file, text = EVALUATIONS[name]
        is_json = file.endswith((".jsonl", ".json"))
        folder = tmp_path / str(trial)
        folder.mkdir()
        (folder / file).write_bytes(
            another_value(random_, text) if is_json and trial % 2 else damaged(random_, text.encode())
        )
        if name.startswith("wmt14"):
            (folder / "newstest2014-fren-ref.fr.sgm").write_text(text)
        outcomes[came := read_or_refused(name, folder)] += 1
        if came not in ("read", "refused"):
            failures.append(f"{name} ({trial}): {came}")
    told = f"{outcomes['read']} read, {outcomes['refused']} refused in one line, {len(failures)} else"
    fault = f"damage in the files of {len(EVALUATIONS)} evaluations"
    figure("R20", fault, trials, told, seed=SEED, bound="0 else")
    assert outcomes["refused"] > trials / 3
    assert not failures, "\n".join(failures)


def read_or_refused(name: str, folder: Path) -> str:
    evaluation = find_evaluation(name)
    assert evaluation is not None
    try:
        examples = evaluation.load(str(folder)).examples
    except GptkitError as error:
        line = str(error)
        complete = error.exit_code == 2 and error.where and error.fix and str(folder) in error.where
        return "refused" if complete and len(line) < LONGEST_LINE else f"exit {error.exit_code}: {line[:300]}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return "a NUL was read" if any("\0" in text for one in examples for text in texts_in(one.fields)) else "read"


def texts_in(fields: Any) -> list[str]:
    return [fields] if isinstance(fields, str) else [text for one in fields for text in texts_in(one)]
