"""The models beside GPT in `--study paper`: an LSTM and a masked model, pre-trained as the model itself was.

Each is a run of `gptkit pretrain` beside the model's own, RUN-lstm and RUN-masked, with the same options: the same
text, tokens and rates, which were chosen for the GPT alone. The next study of that model finds them there.
"""

from __future__ import annotations

import math
from pathlib import Path

from gptkit.errors import AGAIN, UsageError
from gptkit.finetune.inputs import Inputs
from gptkit.finetune.lm_tuning import Pretrain
from gptkit.model.configuration_gpt import GPTConfig, LSTMConfig
from gptkit.model_files import OWN_KEYS, SPECIAL_IDS, model_directory
from gptkit.system.files import translate_os_errors, write_atomically
from gptkit.system.run_layout import MODEL
from gptkit.system.writing import json_text
from gptkit.training.finished_runs import read_result
from gptkit.training.run import Session
from gptkit.training.run_text import pretrain_run_of

SAME = ("tokens", "data_sha256", "split_sha256")  # in the results of the model's own run and of a peer's


def own_run(model: str) -> Path:
    """Return the pretrain run of the model that the others stand beside; UsageError if it is not known."""
    return pretrain_run_of(model_directory(model), "--study ablation, which needs no other models")[0]


def pretrained_peer(kind: str, inputs: Inputs, run: Path, session: Session, pretrain: Pretrain) -> Path:
    """Return the model of a kind that `pretrain` makes, or has made, beside the model's own run.

    UsageError if the run that is there has read another text, or more or less of it.
    """
    own = own_run(inputs.model_name)
    out, shape = own.with_name(f"{own.name}-{kind}"), run / f"{kind}.json"
    result = session.on_main(lambda: read_result(out))
    if result is None:
        config = inputs.pretrained.config
        if kind == "lstm":
            config = lstm_of_size(config, inputs.pretrained.num_parameters())
        session.on_main(lambda: _write_shape(shape, config))
        session.console.say(f"pre-training the {kind} model in {out}, on the text of {own}")
        objective = "masked" if kind == "masked" else "causal"
        tokenizer = str(model_directory(inputs.model_name))
        result = pretrain(own, model=str(shape), tokenizer=tokenizer, objective=objective, out=out, resume="auto")
    first = session.on_main(lambda: read_result(own)) or {}
    if first and any(result[name] != first[name] for name in SAME):
        message = f"it was not trained on the same text and tokens as {own}"
        raise UsageError(message, where=str(out), fix="move it away, and it is trained anew")
    return out / MODEL


def lstm_of_size(config: GPTConfig, parameters: int) -> LSTMConfig:
    """Return the LSTM of one layer with about as many parameters as a GPT, and its embedding width.

    U units of width E have 4 U (E + U) + 8 U parameters in the gates and E U + E in the projection.
    """
    width = config.n_embd
    left, linear = parameters - (config.vocab_size + 1) * width, 5 * width + 8
    units = max(1, round((math.sqrt(linear**2 + 16 * max(left, 0)) - linear) / 8))
    shared = ("vocab_size", "n_positions", "n_embd", "embd_pdrop", "resid_pdrop")
    return LSTMConfig(**{name: getattr(config, name) for name in shared}, n_inner=units)


def _write_shape(path: Path, config: GPTConfig) -> None:
    values = {key: value for key, value in config.to_diff_dict().items() if key in (OWN_KEYS | {"model_type"})}
    for key in ("vocab_size", *SPECIAL_IDS):  # those of the tokenizer
        values.pop(key, None)
    with translate_os_errors("writing the shape of a model", fix=AGAIN):
        write_atomically(path, json_text(values, indent=2) + "\n")
