"""`gptkit score`: how likely a language model finds texts, and which text of a minimal pair it prefers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import Any

from gptkit.console import Console
from gptkit.decoding.text_options import TextModelOptions, check_settings
from gptkit.errors import InputError, UsageError
from gptkit.model_files import model_directory
from gptkit.tasks.given import given_texts
from gptkit.text.tokenizers.any_tokenizer import unknown_note
from gptkit.text.tokenizers.encoding import count_unknown
from gptkit.text.tokenizers.shown import pieces_of
from gptkit.training.finished_runs import newest_model, readable_model
from gptkit.use.likelihood import TextScorer, TokenScores
from gptkit.use.options import ScoreOptions
from gptkit.use.show import Scores
from gptkit.use.texts import PAIRS, Given, read_texts

AT_ONCE = 256  # texts: bounds the memory that a file takes


def run(options: ScoreOptions, console: Console) -> dict[str, Any]:
    """Print the scores of texts or pairs as they are computed; return what `--json` prints."""
    precision = "fp32" if (options.precision, options.quantize) == ("auto", "none") else options.precision
    settings = TextModelOptions(precision=precision, quantize=options.quantize, device=options.device)
    check_settings(settings)
    given, total = _given(options, console)
    model = readable_model(options.model, console) if options.model else newest_model(console)
    directory = model_directory(model)
    scorer = TextScorer(directory, settings, console.say)
    scores = Scores(console)
    is_pairs = options.texts is not None and options.texts.suffix.lower() == PAIRS
    with console.tally(total, noun="pairs" if is_pairs else "texts") if options.texts else nullcontext() as tally:
        for results in _scored(given, scorer, tokens=options.tokens):
            for result in results:
                scores.add(result)
            if tally is not None:
                tally.reach(tally.done + len(results))
    scores.finish()
    if scorer.unknown:
        console.warn(unknown_note("the texts", scorer.unknown, scorer.tokens))
    return {"model": model if model.startswith("hf:") else str(directory), "results": scores.results.kept}


def _given(options: ScoreOptions, console: Console) -> tuple[Iterable[Given], int]:
    """Return the texts or pairs to score, and their number; all of a file is checked first."""
    if options.texts is not None and options.text:
        fix = "leave one of them out"
        raise UsageError("--texts provides the texts", where="TEXT, --texts", fix=fix)
    if options.texts is not None:
        return read_texts(options.texts), sum(1 for _ in read_texts(options.texts))
    if not options.text:
        fix = "pass one, - for stdin, or a file of them: --texts FILE"
        raise UsageError("no text to score", where="TEXT", fix=fix)
    names = [f"TEXT {number}" if len(options.text) > 1 else "TEXT" for number in range(1, len(options.text) + 1)]
    texts = given_texts(options.text, names, console.say)
    return [Given((text,), name) for text, name in zip(texts, names, strict=True)], len(texts)


def _scored(given: Iterable[Given], scorer: TextScorer, *, tokens: bool) -> Iterator[list[dict[str, Any]]]:
    """Yield the results of some texts or pairs at a time."""
    waiting = iter(given)
    while chunk := list(itertools.islice(waiting, AT_ONCE)):
        scores = iter(scorer.score([text for each in chunk for text in each.texts]))
        yield [
            _result([result_of(text, next(scores), scorer, each.where, tokens=tokens) for text in each.texts])
            for each in chunk
        ]


def _result(scored: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the result of a text or of a pair, of which the likelier text is preferred."""
    if len(scored) == 1:
        return scored[0]
    first, second = scored
    better = "first" if first["nll"] < second["nll"] else "second"
    return {"first": first, "second": second, "preferred": "tie" if first["nll"] == second["nll"] else better}


def result_of(text: str, scores: TokenScores, scorer: TextScorer, where: str, *, tokens: bool) -> dict[str, Any]:
    """Return a text's figures as `--json` prints them; bits are None where the tokenizer does not know all of it."""
    count = len(scores.ids)
    if not count:
        raise InputError("the text has no tokens", where=where, fix="write some that the tokenizer knows")
    nll = float(scores.nll.sum())
    is_known = not count_unknown(scorer.encoder.tokenizer, scores.ids)
    bits = nll / math.log(2)
    result: dict[str, Any] = {
        "text": text,
        "nll": nll,
        "num_tokens": count,
        "perplexity": _perplexity(nll, count),
        "bits_per_byte": bits / len(text.encode()) if is_known else None,
        "bits_per_character": bits / len(text) if is_known else None,
    }
    if tokens:
        pieces = pieces_of(scorer.encoder.tokenizer, scores.ids.tolist())
        columns = zip(scores.ids.tolist(), pieces, scores.nll.tolist(), scores.ranks.tolist(), strict=True)
        result["tokens"] = [dict(zip(("id", "piece", "nll", "rank"), each, strict=True)) for each in columns]
    return result


def _perplexity(nll: float, tokens: int) -> float:
    try:
        return math.exp(nll / tokens)
    except OverflowError:
        return math.inf
