"""The options of `gptkit score` and `gptkit predict`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gptkit.decoding.text_options import DecodingOptions, Precision, Quantize, TextModelOptions
from gptkit.options import DeviceName, ReadingOptions, option, override


@dataclass(frozen=True, kw_only=True)
class ScoreOptions(ReadingOptions):
    """Score texts with a language model: log-probability, perplexity, bits per byte and per character.

    Every token counts, the first after the document separator, as in gptkit eval. A table on a terminal, in a pipe a
    JSON object per line.
    """

    text: tuple[str, ...] = option((), "Texts to score; - reads one from stdin.", argument=True, metavar="TEXT")
    texts: Path | None = option(
        None,
        'A file of texts: .txt with one per line, .jsonl of {"text": ...}, or a .tsv of minimal pairs: two columns, '
        "no header.",
        metavar="FILE",
    )
    model: str | None = option(
        None, "A model or run directory, or hf:NAME [default: the newest pretrain run].", short="-m", metavar="MODEL"
    )
    tokens: bool = option(False, "Also give each token's nll, in nats, and its rank in the model's distribution.")
    quantize: Quantize = override(DecodingOptions, "quantize")
    precision: Precision = override(
        DecodingOptions,
        "precision",
        help="Precision of activations; int8 needs quantized weights on a CPU; auto = fp32, the nll of gptkit eval, "
        "with quantized weights as in gptkit generate.",
    )
    device: DeviceName = override(TextModelOptions, "device", panel="Speed")


@dataclass(frozen=True, kw_only=True)
class PredictOptions(ReadingOptions):
    """Label new texts with a fine-tuned model: its answer, how probable it is, and what was cut.

    Several TEXTs are the fields of the model's format, in order: a text; premise, hypothesis; first, second; or
    context, question ('' for none) and choices. A table on a terminal, in a pipe a JSON object per line.
    """

    text: tuple[str, ...] = option(
        (), "A text, or the fields of one example in order; - reads one from stdin.", argument=True, metavar="TEXT"
    )
    inputs: Path | None = option(
        None,
        "A file of examples: .csv, .tsv or .jsonl with the task's field names, .txt with a text per line.",
        metavar="FILE",
    )
    model: str | None = option(
        None,
        "A fine-tuned model or its run directory, or hf:NAME [default: the newest finetune run].",
        short="-m",
        metavar="MODEL",
    )
    output: Path | None = option(
        None,
        "Write the predictions of --inputs to this .jsonl; rerun the same command to resume.",
        short="-o",
        metavar="FILE",
    )
    batch_size: int | None = option(
        None, "Maximum examples per batch [default: chosen by length].", panel="Speed", minimum=1
    )
    device: DeviceName = override(TextModelOptions, "device", panel="Speed")
