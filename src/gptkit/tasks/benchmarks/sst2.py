"""SST-2: is a sentence from a film review positive? As a task of GLUE, and zero-shot (GPT-1, section 5)."""

from __future__ import annotations

from gptkit.scoring.choices import ChoiceProtocol, Pair
from gptkit.tasks.benchmarks.glue import GLUE, glue_hub, glue_splits
from gptkit.tasks.reading import zero_shot
from gptkit.tasks.task import BINARY, Task, ablation, best_before_gpt1, counts, gpt1
from gptkit.text.examples import Example

ORDER = 2

SST2 = Task(
    "sst2",
    "classification",
    GLUE,
    glue_splits(("sentence",), "sentence|label", "index|sentence", BINARY),
    ("negative", "positive"),
    hub=glue_hub("sst2", "sentence"),
    sizes=counts(67349, 872, 1821),
    published=gpt1("accuracy", 91.3, 4),
    ablation=ablation(91.3, 84.0, 92.0, 90.5),
    glue_file="SST-2.tsv",
    folders=("SST-2",),
)


def sentiment_pairs(example: Example) -> list[Pair]:
    """Return the sentence followed by ` very`, with each of the two words to compare."""
    context = f"{str(example.fields[0]).strip()} very"
    return [(context, " negative"), (context, " positive")]


_BY_WORDS = ChoiceProtocol(
    "gpt1",
    "positive or negative, whichever is more likely after the sentence and the word very",
    published=best_before_gpt1(0.932, "GPT-1 paper, table 4"),
    pairs=sentiment_pairs,
)

BENCHMARKS = (SST2, zero_shot(SST2, "dev", _BY_WORDS))
