"""Print results one by one: on a terminal as tables, in a pipe as lines of JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from gptkit.console import Console
from gptkit.report.text import figure, known_columns
from gptkit.tasks.task import FORMAT_FIELDS, Task
from gptkit.text.tokenizers.shown import visible

SHOWN = 48  # characters of a text in a table
GREEN, YELLOW = 0.693, 2.303  # nats at most: a probability of a half, of a tenth


class Results:
    """The results of a command, printed as they come; with --json they are kept.

    A table waits for its last row, of which it keeps only the beginnings of texts.
    """

    def __init__(self, console: Console) -> None:
        self.kept: list[dict[str, Any]] = []
        self._console = console
        self._columns: Sequence[str] = ()
        self._rows: list[Sequence[object]] = []

    def add(self, result: dict[str, Any], columns: Sequence[str], row: Sequence[object]) -> None:
        """Take a result and its row of the terminal's table."""
        if self._console.json:
            self.kept.append(result)
        elif self._console.is_watched:
            self._columns = columns
            self._rows.append(row)
        else:
            self._console.record(result)

    def finish(self) -> None:
        """Print the table."""
        if self._rows:
            self._console.table("", *known_columns(self._columns, self._rows))


class Scores:
    """The scores of texts or pairs: their results, and what they add up to."""

    COLUMNS = ("text", "tokens", "nll", "perplexity", "bits per byte", "bits per character")
    PAIRS = ("first", "second", "nll of first", "nll of second", "preferred")

    def __init__(self, console: Console) -> None:
        self.results = Results(console)
        self._console = console
        self._preferred: Counter[str] = Counter()

    def add(self, result: dict[str, Any]) -> None:
        """Print or keep the result of a text or of a pair; tokens come in a table of their own."""
        if "preferred" in result:
            self._preferred[result["preferred"]] += 1
            texts = [result["first"], result["second"]]
            row = [*(beginning(text["text"]) for text in texts), *(f"{text['nll']:.3f}" for text in texts)]
            self.results.add(result, self.PAIRS, [*row, result["preferred"]])
        else:
            texts = [result]
            self.results.add(result, self.COLUMNS, _row(result))
        for text in texts if self._console.is_watched else ():
            if "tokens" in text:
                _print_tokens(text, self._console)

    def finish(self) -> None:
        """Print the table, and of pairs how often the first text is preferred."""
        self.results.finish()
        if pairs := self._preferred.total():
            first, ties = self._preferred["first"], self._preferred["tie"]
            share = f"the first text is preferred in {first:,} of {pairs:,} pairs ({100 * first / pairs:.1f}%)"
            self._console.say(share + f", {ties:,} tied" * bool(ties))


class Predictions:
    """The predictions of examples: their results, and the rows of a table."""

    MOST_LIKELY = 3

    def __init__(self, task: Task, console: Console) -> None:
        self.results = Results(console)
        self._fields = FORMAT_FIELDS[task.format]
        self._is_score = task.target in ("score", "soft-score")
        self._columns = (*self._fields, *(("value",) if self._is_score else ("label", "probability", "others")), "cut")

    def add(self, result: dict[str, Any]) -> None:
        """Print or keep the prediction of an example."""
        fields = [result[name] for name in self._fields]
        texts = [field if isinstance(field, str) else " | ".join(field) for field in fields]
        answer: list[object] = [f"{result['value']:.4g}"] if self._is_score else self._answer(result)
        row = [*map(beginning, texts), *answer, "yes" if result["truncated"] else ""]
        self.results.add(result, self._columns, row)

    def _answer(self, result: Mapping[str, Any]) -> list[object]:
        chances = sorted(result["probabilities"].items(), key=lambda item: -item[1])
        others = [f"{label} {chance:.3f}" for label, chance in chances if label != result["label"]]
        probability = result["probabilities"][result["label"]]
        return [result["label"], f"{probability:.4f}", "  ".join(others[: self.MOST_LIKELY])]


def _row(text: Mapping[str, Any]) -> list[object]:
    bits = [text[name] and f"{text[name]:.4f}" for name in ("bits_per_byte", "bits_per_character")]
    return [beginning(text["text"]), text["num_tokens"], f"{text['nll']:.3f}", figure(text["perplexity"]), *bits]


def _print_tokens(text: Mapping[str, Any], console: Console) -> None:
    tokens = text["tokens"]
    rows = [(visible(token["piece"]), token["id"], f"{token['nll']:.3f}", f"{token['rank']:,}") for token in tokens]
    levels = [(token["nll"] > GREEN) + (token["nll"] > YELLOW) for token in tokens]
    colours = [("green", "yellow", "red")[level] for level in levels]
    console.table(beginning(text["text"]), ("token", "id", "nll", "rank"), rows, colours)


def beginning(text: str) -> str:
    """Return a text's first characters, as tables show it."""
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
