"""Tune the language model on the task's training texts before the classifier (ULMFiT: Howard and Ruder 2018, 3.1).

It is a run of `gptkit pretrain` in RUN/lm, with seed 0: all seeds and variants of a study share it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gptkit.errors import AGAIN
from gptkit.finetune.inputs import Inputs
from gptkit.finetune.options import FinetuneOptions
from gptkit.model.loading import load_model, weights_sha256
from gptkit.model.model_types import ANY
from gptkit.model_files import MASKED
from gptkit.system.files import translate_os_errors, write_atomically
from gptkit.system.run_layout import LM, LM_TEXTS, MODEL
from gptkit.system.writing import json_text
from gptkit.text.pieces import Piece, is_blank
from gptkit.text.tokenizers.encoding import encode_documents
from gptkit.training.finished_runs import read_result
from gptkit.training.run import Session

TOKENS_PER_STEP = 4096  # about; ULMFiT's batches have 64 sequences of 70 tokens (section 4.1)
HELD_OUT = 0.1  # of the texts: pretrain's default
FIGURES = ("steps", "tokens", "val_loss", "val_perplexity", "bits_per_byte", "masked_loss")

Pretrain = Callable[..., dict[str, Any]]  # takes options of pretrain by name, the others being fine-tuning's own


def tune_language_model(
    options: FinetuneOptions, inputs: Inputs, run: Path, session: Session, pretrain: Pretrain
) -> Inputs:
    """Return the inputs with the model that `pretrain` makes of the training texts, or has made, in RUN/lm."""
    lm, data, name = run / LM, run / LM_TEXTS, str(options.model)
    result = session.on_main(lambda: read_result(lm))
    if result is None:
        fields = [field for example in inputs.splits["train"].examples for field in example.fields]
        each = [text for field in fields for text in ((field,) if isinstance(field, str) else field)]
        texts = [text for text in dict.fromkeys(each) if not is_blank(text)]
        session.on_main(lambda: _write(data, texts))
        session.console.say(f"tuning the language model on {len(texts):,} training texts in {lm}")
        model = name if name.startswith("hf:") else os.path.abspath(name)  # never the name of a preset
        objective = "masked" if inputs.pretrained.config.model_type == MASKED else "causal"
        result = pretrain(data=(str(data),), model=model, objective=objective, out=lm, **_steps(options, inputs, texts))
    identity = {"model_sha256": f"{inputs.identity['model_sha256']} {weights_sha256(lm / MODEL)}"}
    tuned, figures = load_model(lm / MODEL, types=ANY), {name: result.get(name) for name in FIGURES}
    return replace(inputs, tuned=tuned, lm=figures, identity={**inputs.identity, **identity})


def _write(path: Path, texts: Sequence[str]) -> None:
    """Write the texts in UTF-8, and say so at the beginning: --encoding is that of the user's own files."""
    lines = "".join(json_text({"text": text}) + "\n" for text in texts)
    with translate_os_errors("writing the training texts", fix=AGAIN):
        write_atomically(path, lines.encode("utf-8-sig"))


def _steps(options: FinetuneOptions, inputs: Inputs, texts: Sequence[str]) -> dict[str, Any]:
    """Return the steps that take `lm_epochs` epochs, and their size: blocks as long as the model and the text allow."""
    pieces = (Piece(text, number, "") for number, text in enumerate(texts))
    tokens = len(texts) + sum(len(ids) for _, ids in encode_documents(inputs.tokenizer, pieces))  # with separators
    length = max(1, min(inputs.pretrained.config.n_positions, tokens // 2))
    size = max(options.processes, TOKENS_PER_STEP // length) * length
    steps = max(1, round(options.lm_epochs * (1 - HELD_OUT) * tokens / size))
    sizes = {"tokens_per_step": size, "sequence_length": length}
    return {"steps": steps, "learning_rate": options.lm_learning_rate, **sizes}
