"""`gptkit inspect`: what a model computes on a text, as a page, as exact numbers, and summarized on the terminal."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gptkit.console import Console
from gptkit.errors import UsageError
from gptkit.inspect.options import InspectOptions
from gptkit.inspect.reading import Reading, Sizes, read, sizes_in
from gptkit.inspect.sidecar import SUFFIX, is_sidecar, write_sidecar
from gptkit.model_files import model_directory
from gptkit.system.files import require_writable, translate_os_errors
from gptkit.tasks.heads import Head
from gptkit.text.tokenizers.any_tokenizer import unknown_note
from gptkit.text.tokenizers.encoding import count_unknown
from gptkit.training.finished_runs import newest_model, readable_model, require_described
from gptkit.training.saved_weights import saved_weights

if TYPE_CHECKING:
    from gptkit.inspect.inspection import Inspection


def run(options: InspectOptions, console: Console) -> dict[str, Any]:
    """Write the page and its sidecar, print a summary, and return what --json prints."""
    page, sidecar = options.out, options.out.with_suffix(SUFFIX)
    _refuse_files(page, sidecar, overwrite=options.overwrite)
    weights = {} if options.checkpoints is None else _weights(options, console)
    model = str(weights[max(weights)]) if weights else _model(options, console)
    directory = model_directory(model)
    sizes = sizes_in(directory)
    head = None if options.head is None else _parsed_head(options.head, sizes)
    _refuse_more_than(sizes.n_positions, options.max_tokens)
    reading = read(directory, options.text, options.max_tokens, console.say)
    _warn(reading, console)

    from gptkit.inspect.inspection import Settings, inspection_of  # imports torch, as do those below
    from gptkit.inspect.page import write_page
    from gptkit.inspect.summary import print_summary

    name = model if model.startswith("hf:") else str(directory)
    settings = Settings(
        head=head, weights=weights, knock_out=options.knock_out, live=options.live, device=options.device, name=name
    )
    inspection = inspection_of(directory, reading, settings, console.say)
    if options.live and isinstance(inspection.live, str):
        console.say(f"no live model in the page: {inspection.live}")
    with translate_os_errors("writing the page", fix="choose another --out"):
        write_sidecar(inspection, sidecar)
        try:
            max_error = write_page(inspection, page)
        except BaseException:
            sidecar.unlink()  # alone, it would keep the same command from running again
            raise
    print_summary(inspection, console)
    console.result(f"page {page}, exact numbers {sidecar}")
    return {"page": page, "sidecar": sidecar, **facts(inspection), "max_error": max_error}


def _model(options: InspectOptions, console: Console) -> str:
    return readable_model(options.model, console) if options.model else newest_model(console)


def _weights(options: InspectOptions, console: Console) -> dict[int, Path]:
    """Return the weights along a pretrain run by step; UsageError for other runs, and for fewer than two steps."""
    assert options.checkpoints is not None
    where = f"--checkpoints {options.checkpoints}"
    if options.model is not None:
        message = "the model is the last of the run's checkpoints"
        raise UsageError(message, where=f"{where} --model {options.model}", fix="leave --model out")
    weights, notes = saved_weights(options.checkpoints)
    for note in notes:
        console.warn(note)
    for directory in weights.values():
        require_described(directory, str(directory))
        if Head.of(directory).format is not None:
            raise UsageError("this run fine-tuned a model", where=where, fix="pass a run of gptkit pretrain")
    if len(weights) < 2:
        fix = "set the recipe key `snapshots` for the next run"
        raise UsageError("the run kept the weights of one step only", where=where, fix=fix)
    return weights


def facts(inspection: Inspection) -> dict[str, Any]:
    """Return what --json prints of an inspection; the first token, which nothing predicts, has neither nll nor rank."""
    loss, tokens, answer = inspection.loss, inspection.tokens, inspection.answer
    nll, rank = [None, *loss.nll[:-1].tolist()], [None, *loss.rank[:-1].tolist()]
    columns = zip(tokens.ids.tolist(), tokens.pieces, nll, rank, strict=True)
    found = {
        "model": inspection.model,
        "tokens": [dict(zip(("id", "piece", "nll", "rank"), row, strict=True)) for row in columns],
        "nll": loss.total,
        "head_types": [named._asdict() for named in inspection.heads.names()],
    }
    if answer is not None:
        has_choices = any(name == "choices" for name, _ in inspection.fields)  # as in predict, since two may be equal
        labels = map(str, range(len(answer.labels))) if has_choices else answer.labels
        found["answer"] = dict(zip(labels, answer.probabilities.tolist(), strict=True))
    return found


def _refuse_files(page: Path, sidecar: Path, *, overwrite: bool) -> None:
    """Raise UsageError unless both files can be written."""
    if page.suffix.lower() != ".html":
        raise UsageError("a page's name ends in .html", where=f"--out {page}", fix=f"--out {page.with_suffix('.html')}")
    if sidecar.is_file() and not is_sidecar(sidecar):
        message = f"its numbers would replace {sidecar}, which is not an inspection's"
        raise UsageError(message, where=f"--out {page}", fix="choose another --out")
    for path in (page, sidecar):
        if path.is_file() and not overwrite:
            fix = "pass --overwrite, or another --out"
            raise UsageError(f"{path} already exists", where=f"--out {page}", fix=fix)
        require_writable(path, f"--out {page}")


def _parsed_head(text: str, sizes: Sizes) -> tuple[int, int]:
    """Return (layer, head); UsageError unless the text is layer.head of a head that the model has."""
    found = re.fullmatch(r"(\d{1,4})\.(\d{1,4})", text, re.ASCII)
    layer, head = map(int, found.groups()) if found else (-1, -1)
    if found is None or layer >= sizes.n_layer or head >= sizes.n_head:
        message = f"the model has no head {text!r}" if found else f"{text!r} is not a head"
        last = f"{sizes.n_layer - 1}.{sizes.n_head - 1}"
        raise UsageError(message, where="--head", fix=f"pass layer.head, from 0.0 to {last}")
    return layer, head


def _refuse_more_than(n_positions: int, max_tokens: int) -> None:
    if max_tokens > max(n_positions, InspectOptions.max_tokens):
        message = f"the model has {n_positions:,} positions"
        raise UsageError(message, where=f"--max-tokens {max_tokens}", fix=f"pass at most {n_positions}")


def _warn(reading: Reading, console: Console) -> None:
    shown = max(map(len, reading.sequences))
    if shown < reading.whole:
        console.warn(f"only {shown:,} of {reading.whole:,} tokens are shown; for all: --max-tokens {reading.whole}")
    ids = np.array([id for id in reading.sequences[0][1:] if id not in reading.names])
    if unknown := count_unknown(reading.tokenizer, ids):
        console.warn(unknown_note("the text", unknown, len(ids)))
