"""The models beside GPT in `--study paper`: an LSTM and a masked model, pre-trained as the model itself was.

Each is a run of `gptkit pretrain` inside the model's own, RUN/peers/lstm and RUN/peers/masked, with the same options:
the same text, tokens and rates, which were chosen for the GPT alone. The next study of that model finds them there.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from gptkit.errors import AGAIN, UsageError
from gptkit.finetune.inputs import Inputs
from gptkit.finetune.lm_tuning import Pretrain
from gptkit.model.configuration_gpt import GPTConfig, LSTMConfig, read_config
from gptkit.model_files import GPT, HEAD_FIELDS, LSTM, MASKED, OWN_KEYS, SPECIAL_IDS, model_directory, model_presets
from gptkit.system.files import translate_os_errors, write_atomically
from gptkit.system.run_layout import MODEL, PEERS
from gptkit.system.writing import json_text
from gptkit.training.finished_runs import read_result
from gptkit.training.run import Session
from gptkit.training.run_text import pretrain_run_of

KINDS = {"lstm": LSTM, "masked": MASKED}
SAME = ("tokens", "data_sha256", "split_sha256")  # in the results of the model's own run and of a peer's
OTHERWISE = "pass --study ablation, which needs no other models"


def own_run(inputs: Inputs) -> Path:
    """Return the pretrain run that the others are trained beside; UsageError unless it alone made the model, a GPT."""
    directory, config = model_directory(inputs.model_name), inputs.pretrained.config
    run, options = pretrain_run_of(directory, OTHERWISE)
    start = str(options.get("model"))
    if config.model_type != GPT:
        problem = (
            f"the study compares other models with a GPT, and this is {config.family[:1].lower()}{config.family[1:]}"
        )
    elif read_result(run) is None or directory.resolve() != (run / MODEL).resolve():
        problem = f"the other models would read all that {run} did, and these are not the weights at its end"
    elif start not in model_presets() and (start.startswith("hf:") or Path(start).is_dir()):
        problem = f"{run} continued from {start}, and the other models would begin from scratch"
    else:
        return run
    raise UsageError(problem, where=inputs.model_name, fix=f"pass a GPT's finished run as --model, or {OTHERWISE}")


def pretrained_peer(kind: str, inputs: Inputs, session: Session, pretrain: Pretrain) -> Path:
    """Return the model of a kind that `pretrain` makes, or has made, inside the model's own run.

    UsageError if the run that is there has another shape, or has read another text, or more or less of it.
    """
    own, config = own_run(inputs), inputs.pretrained.config
    out, shape = own / PEERS / kind, own / PEERS / f"{kind}.json"
    if kind == "lstm":
        config = lstm_of_size(config, inputs.pretrained.num_parameters())
    result = session.on_main(lambda: read_result(out))
    if result is None:
        session.on_main(lambda: _write(shape, {"model_type": config.model_type, **shape_of(config)}))
        session.console.say(f"pre-training the {kind} model in {out}, on the text of {own}")
        objective = "masked" if kind == "masked" else "causal"
        tokenizer = str(model_directory(inputs.model_name))
        result = pretrain(own, model=str(shape), tokenizer=tokenizer, objective=objective, out=out, resume="auto")
    first, found = session.on_main(lambda: (read_result(own) or {}, read_config(out / MODEL / "config.json")))
    if found.model_type != KINDS[kind] or shape_of(found) != shape_of(config):
        problem = f"it is not the {kind} model that goes with {own}"
    elif any(result[name] != first[name] for name in SAME):
        problem = f"it was not trained on the same text and tokens as {own}"
    else:
        return out / MODEL
    raise UsageError(problem, where=str(out), fix="move it away, and it will be trained again")


def lstm_of_size(config: GPTConfig, parameters: int) -> LSTMConfig:
    """Return the LSTM of one layer with about as many parameters as a GPT, and its embedding width.

    U units of width E have 4 U (E + U) + 8 U parameters in the gates and E U + E in the projection.
    """
    width = config.n_embd
    left, linear = parameters - (config.vocab_size + 1) * width, 5 * width + 8
    units = max(1, round((math.sqrt(linear**2 + 16 * max(left, 0)) - linear) / 8))
    shared = ("vocab_size", "n_positions", "n_embd", "embd_pdrop", "resid_pdrop")
    return LSTMConfig(**{name: getattr(config, name) for name in shared}, n_inner=units)


def shape_of(config: GPTConfig) -> dict[str, Any]:
    """Return what a config.json says of a language model before it has a tokenizer."""
    keys = (config.keys & OWN_KEYS) - {"vocab_size", *SPECIAL_IDS, *HEAD_FIELDS}
    return {key: getattr(config, key) for key in sorted(keys)}


def _write(path: Path, shape: dict[str, Any]) -> None:
    with translate_os_errors("writing the shape of a model", fix=AGAIN):
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, json_text(shape, indent=2) + "\n")
