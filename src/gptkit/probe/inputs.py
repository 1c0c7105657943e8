"""The examples that a probe reads: each text after the separator, as in pre-training, with no marker added.

The strength of the fit is chosen on dev and accuracy reported on test. Where test is missing or has no labels, dev is
reported, and the strength is chosen on a tenth of train; the fit that is reported is on all of train.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptkit.console import Console
from gptkit.errors import InputError, UsageError
from gptkit.probe.options import ProbeOptions
from gptkit.tasks.encoding import EncodedExamples
from gptkit.tasks.reading import check_examples, load_examples, shared_notes
from gptkit.tasks.table import find_task
from gptkit.tasks.task import Loaded, Task
from gptkit.text.tokenizers.any_tokenizer import AnyTokenizer, separator_id, unknown_note
from gptkit.text.tokenizers.encoding import count_unknown, encode_pieces

Labels = NDArray[np.int64]
HELD_OUT = 10  # of train, one example in so many chooses the strength where dev is reported


@dataclass(frozen=True)
class Split:
    """The examples of a split: `encoded` has one sequence each, and their labels as targets."""

    name: str
    texts: tuple[str, ...]
    encoded: EncodedExamples
    sha256: str

    @property
    def labels(self) -> Labels:
        return np.asarray(self.encoded.targets, np.int64)


@dataclass(frozen=True)
class Inputs:
    """What is probed: the fits are on `train`."""

    task: Task
    train: Split
    dev: Split
    reported: Split  # test, or dev itself

    @property
    def has_test(self) -> bool:
        return self.reported is not self.dev

    def choosing_rows(self, seed: int) -> NDArray[np.int64] | None:
        """Return the rows of train that choose the strength, None where dev does."""
        if self.has_test:
            return None
        order = np.random.default_rng(seed).permutation(len(self.train.texts))
        return np.sort(order[: max(1, len(order) // HELD_OUT)])


def probed_task(options: ProbeOptions) -> Task:
    """Return the task that --task names; UsageError unless it has classes and a training split."""
    task = find_task(options.task)
    if task.target != "class":
        labels = "choices" if task.target == "choice" else "scores"
        message, fix = f"the labels of {task.name} are {labels}, not classes", "choose one such as demo-classification"
        raise UsageError(message, where=f"--task {options.task}", fix=fix)
    for split in ("train", "dev"):
        check_examples(task, split, options.data)
    return task


def read_inputs(
    task: Task, options: ProbeOptions, tokenizer: AnyTokenizer, n_positions: int, console: Console
) -> Inputs:
    """Read and check the splits; say what was dropped or cut, and which split is reported."""
    loaded = {name: load_examples(task, name, options.data) for name in ("train", "dev")}
    if (test := _labelled_test(task, options.data)) is not None:
        loaded["test"] = test
    if task.is_own:
        for note in shared_notes({name: each.examples for name, each in loaded.items()}):
            console.warn(note)
    splits = {name: _split(name, each, tokenizer, n_positions, console) for name, each in loaded.items()}
    if len({*splits["train"].labels.tolist()}) < 2:
        message = "all training examples have the same label"
        raise InputError(message, where=f"--task {options.task}", fix="check its files")
    if test is None:
        console.say("no labelled test split: accuracy is on dev, and a tenth of train chooses the strength of the fits")
    return Inputs(task, splits["train"], splits["dev"], splits.get("test", splits["dev"]))


def _labelled_test(task: Task, data: str | None) -> Loaded | None:
    """Return the test split; None where the task, its files or their labels lack it."""
    if "test" not in task.splits:
        return None
    try:
        check_examples(task, "test", data)
    except UsageError:
        return None
    loaded = load_examples(task, "test", data)
    return loaded if all(example.label is not None for example in loaded.examples) else None


def _split(name: str, loaded: Loaded, tokenizer: AnyTokenizer, n_positions: int, console: Console) -> Split:
    for note in loaded.notes:
        console.say(f"{name}: {note}")
    texts = tuple("\n".join(map(str, example.fields)) for example in loaded.examples)
    encoded = encode(tokenizer, texts, [example.label for example in loaded.examples], n_positions)
    cut = f"; {len(encoded.cut):,} cut to their last {n_positions - 1:,} tokens" if encoded.cut else ""
    console.say(f"{name}: {len(texts):,} examples, {encoded.tokens.mean():.0f} tokens on average{cut}")
    if encoded.n_unknown:
        console.warn(unknown_note(name, encoded.n_unknown, len(encoded.ids)))
    return Split(name, texts, encoded, loaded.sha256)


def encode(tokenizer: AnyTokenizer, texts: Sequence[str], labels: Sequence[Any], n_positions: int) -> EncodedExamples:
    """Return the separator and the last tokens of each text, as many as the model has positions for."""
    pieces = encode_pieces(tokenizer, texts)
    start = np.array([separator_id(tokenizer)])
    rows = [np.concatenate([start, ids[-(n_positions - 1) :]]).astype(np.int32) for ids in pieces]
    return EncodedExamples(
        ids=np.concatenate(rows),
        offsets=np.cumsum([0, *map(len, rows)]),
        sequences_per_example=1,
        targets=np.array(labels, np.int64),
        truncated={},
        cut=[row for row, ids in enumerate(pieces) if len(ids) >= n_positions],
        n_unknown=sum(count_unknown(tokenizer, ids) for ids in pieces),
    )
