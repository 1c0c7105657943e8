"""`gptkit convert`: convert a model's weights between formats, and prove that another program computes the same."""

from __future__ import annotations

import gc
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from gptkit.console import Console
from gptkit.convert.adapter import in_peft, merge
from gptkit.convert.dtypes import chosen_dtype, refuse_overflow
from gptkit.convert.formats import FORMATS, Exporter, Importer, importer_of
from gptkit.convert.options import ConvertOptions
from gptkit.convert.proof import (
    Peer,
    Proof,
    Questions,
    classifier_questions,
    compare,
    language_questions,
    observe,
    proof_text,
    require,
)
from gptkit.convert.torch_peer import OURS, Encode, own_encoder, own_peer
from gptkit.errors import GptkitError, InputError
from gptkit.model.loading import Head, State, build_model, set_special_tokens
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.model.modeling_gpt import GPTForCausalLM, GPTPreTrainedModel
from gptkit.model_files import source_directory
from gptkit.system.files import new_directory, rename, require_free, sync_all, sync_directory
from gptkit.system.run_layout import described_in
from gptkit.tasks.own import TASK_FILE, carried_task, write_task
from gptkit.text.tokenizers.encoding import encode_pieces
from gptkit.text.tokenizers.files import has_tokenizer
from gptkit.text.tokenizers.gpt1 import GPT1Tokenizer
from gptkit.text.tokenizers.loading import load_tokenizer, tokenizer_in
from gptkit.training.finished_runs import readable_model


@dataclass(frozen=True)
class _Source:
    """What is converted: where it lies, what is added, and the class of the model that is written."""

    path: Path
    adapter: Path | None
    tokenizer: PreTrainedTokenizerBase | None
    is_tokenizer_shared: bool  # the program that the source belongs to has the same one
    encode: Encode | None
    kind: Head


def run(options: ConvertOptions, console: Console) -> dict[str, Any]:
    """Write the destination completely or not at all, and return how far another program's figures differ."""
    destination, row = options.destination, FORMATS[options.to]
    require_free(destination, str(destination))
    exporter = row.exporter()
    source, model = _opened(options, exporter, console)
    dtype, questions = chosen_dtype(options.dtype, model.dtype, row.dtypes), _questions(model, source.tokenizer)
    parameters, head_format = model.num_parameters(), model.config.format
    exporter.refuse(model, source.tokenizer, dtype)
    refuse_overflow(model, dtype)
    with _new_destination(destination.absolute(), row.suffix) as folder:
        exporter.write(model, source.tokenizer, folder, dtype, console)
        if exporter.holds_task and (task := carried_task(source.path)) is not None:
            write_task(folder, task)
        del model
        tensors = _tensors(exporter.tensors(folder))
        proof = _proof(source, exporter, folder, questions, dtype, console)
    if tensors:
        console.table(f"Tensors of {destination}", ("tensor", "shape", "number", "parameters"), tensors)
    console.result(f"{parameters:,} parameters in {dtype}; {_described(proof)}")
    about: dict[str, Any] = {"source": options.source, "destination": str(destination), "to": options.to}
    about |= {"dtype": dtype, "parameters": parameters, "format": head_format}
    return {**about, **asdict(proof), "tokenizer": source.tokenizer is not None}


def load_source(source: Path, adapter: Path | None = None) -> GPTPreTrainedModel:
    """Return a model in any format that convert reads, in its own dtype, so that its exact bits can be written.

    Weights of several dtypes become f32. With `adapter`, it is merged into the weights.
    """
    config, state = importer_of(source).read(source)
    if adapter is not None:
        merge(state, adapter)
    head = GPTDoubleHeadsModel if "score.weight" in state else GPTForCausalLM
    dtypes = {tensor.dtype for tensor in state.values()}
    return build_model(config, state, dtypes.pop() if len(dtypes) == 1 else torch.float32, head)


def _opened(options: ConvertOptions, exporter: Exporter, console: Console) -> tuple[_Source, GPTPreTrainedModel]:
    """Return the source and the model to write, with a head only if the format can hold it; warn of what is dropped."""
    asked = options.source
    path = Path(asked) if os.path.isfile(asked) else source_directory(readable_model(asked, console))
    importer = importer_of(path)
    for note in importer.notes(path):
        console.warn(note)
    loaded = load_source(path, options.adapter)
    if getattr(loaded.config, "features", "none") == "mix" and options.to != "gptkit":
        fix = "fine-tune with --features last, or pass the pre-trained model"
        raise InputError("its head reads a mix of all layers, which only gptkit computes", where=str(path), fix=fix)
    model = _with_head_if_kept(loaded, exporter, path, console)
    tokenizer = _tokenizer(options.tokenizer, importer, path, model.config.vocab_size, console)
    if tokenizer is not None and model.config.eos_token_id is None:
        with suppress(InputError):  # with a tokenizer without a separator they stay unset
            set_special_tokens(model, tokenizer)
    is_shared = options.tokenizer is None and not isinstance(tokenizer, GPT1Tokenizer)
    encode = own_encoder(model.config, tokenizer)
    return _Source(path, options.adapter, tokenizer, is_shared, encode, type(model)), model


def _with_head_if_kept(
    model: GPTPreTrainedModel, exporter: Exporter, source: Path, console: Console
) -> GPTPreTrainedModel:
    """Return the model, or the language model inside, saying what is dropped, if the format cannot hold its head."""
    if not isinstance(model, GPTDoubleHeadsModel):
        return model
    obstacle = exporter.head_obstacle(model)
    if obstacle is None:
        return model
    console.warn(f"the head for {model.config.task} is dropped: {obstacle}")
    if (described_in(source) / TASK_FILE).exists():
        console.warn(f"{TASK_FILE}, which describes that task, is dropped too")
    return model.language_model()


def _tokenizer(
    asked: str | None, importer: Importer, source: Path, vocab_size: int, console: Console
) -> PreTrainedTokenizerBase | None:
    """Return the requested tokenizer, else the source's own, else None with a warning."""
    tokenizer: PreTrainedTokenizerBase | None = None
    if asked is not None:
        tokenizer = load_tokenizer(asked)
    elif importer.tokenizer is not None:
        tokenizer = importer.tokenizer(source)
    elif has_tokenizer(described_in(source)):
        tokenizer = tokenizer_in(source)
    if tokenizer is None:
        console.warn(f"no tokenizer found in {source}: generate needs one; pass it with --tokenizer")
    elif len(tokenizer) > vocab_size:
        message = f"the tokenizer has {len(tokenizer):,} entries, but the model only {vocab_size:,}"
        raise InputError(message, where="--tokenizer", fix="pass the one that the model was trained with")
    return tokenizer


@contextmanager
def _new_destination(path: Path, suffix: str | None) -> Iterator[Path]:
    """Yield a new directory that becomes `path` at the end, or whose one file of that suffix does; else remove it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if suffix is None or path.suffix.lower() != suffix or path.is_dir():
        with new_directory(path, replace=False) as folder:
            yield folder
        return
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
        yield Path(temporary)
        sync_all(Path(temporary))
        require_free(path, str(path))
        rename(Path(temporary, f"model{suffix}"), path)
        sync_directory(path.parent)


def _questions(model: GPTPreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> Questions:
    config, text, ids = model.config, None, None
    if tokenizer is not None:
        text = proof_text()
        ids = encode_pieces(tokenizer, [text])[0].tolist()
    sizes = {"n_positions": config.n_positions, "vocab_size": config.vocab_size}
    if isinstance(model, GPTDoubleHeadsModel):
        markers = int(config.start_token_id or 0), int(config.extract_token_id or 0)
        return classifier_questions(ids, text, markers=markers, **sizes)
    return language_questions(ids, text, parameters=model.num_parameters(), **sizes)


def _proof(
    source: _Source, exporter: Exporter, folder: Path, questions: Questions, dtype: str, console: Console
) -> Proof:
    """Return how far the other program agrees; GptkitError if too little. Without figures if it is not installed."""
    gc.collect()  # only one model at a time is in memory
    try:
        peer = exporter.open_peer(folder)
    except ImportError as error:
        console.warn(f"{error.name or error} is not installed, so nothing is proven: pip install 'gptkit[export]'")
        return Proof()
    found, name = observe(peer, questions), peer.name
    del peer
    gc.collect()
    reference = _reference(source)
    expected = observe(reference, questions, with_gaps=True)
    other = expected.program if name == OURS != reference.name else None  # an import: compared with where it came from
    if other is None and expected.ids is None and questions.text is not None and source.encode is not None:
        expected = replace(expected, ids=source.encode(questions.text))
    proof = compare(expected, found, other, exporter.rounding)
    same_ids = not isinstance(source.tokenizer, GPT1Tokenizer)  # which nobody else splits as OpenAI did
    where = str(source.path)
    if other is not None and same_ids and proof.tokenizer_ids_equal is False:
        fix = "to keep gptkit's reading of its files, pass them with --tokenizer"
        raise GptkitError(f"{other} makes other token ids of the same text; nothing was written", where=where, fix=fix)
    require(proof, expected, dtype, where=where, same_ids=same_ids, rounding=exporter.rounding)
    return proof


def _reference(source: _Source) -> Peer:
    """Return the program that says what is right: the source's own, or PEFT for an adapter, or else our model."""
    open_source = importer_of(source.path).open_source
    with suppress(ImportError):
        if source.adapter is not None:
            return in_peft(_loaded_again(source), source.tokenizer, source.adapter)
        if open_source is not None:
            return open_source(source.path, source.kind, source.is_tokenizer_shared)
    return own_peer(_loaded_again(source, source.adapter), source.tokenizer)


def _loaded_again(source: _Source, adapter: Path | None = None) -> GPTPreTrainedModel:
    """Return the source's model once more, of a classifier whose head was dropped the language model inside."""
    model = load_source(source.path, adapter)
    return model.language_model() if isinstance(model, GPTDoubleHeadsModel) and source.kind is GPTForCausalLM else model


def _tensors(state: State) -> list[tuple[str, str, int, int]]:
    """Return (name, shape, number, parameters) of each kind of tensor, counting all layers together."""
    kinds = [
        (re.sub(r"(^|\.)h\.\d+\.", r"\1h.N.", name), " x ".join(map(str, tensor.shape)), tensor.numel())
        for name, tensor in state.items()
    ]
    return [(name, shape, number, number * size) for (name, shape, size), number in Counter(kinds).items()]


def _described(proof: Proof) -> str:
    """Return a proof in words."""
    if proof.peer is None:
        return "not compared with any other program"
    is_own = proof.peer.startswith(f"{OURS} ")
    parts = [f"read back by {proof.peer}, no other program" if is_own else f"compared with {proof.peer}"]
    if proof.max_logit_difference is not None:
        parts.append(f"logits differ by at most {proof.max_logit_difference:.1e}")
    if proof.nll_difference is not None:
        parts.append(f"NLL by {proof.nll_difference:+.1e} nats per token")
    if proof.greedy_equal is not None:
        parts.append("greedy text is equal" if proof.greedy_equal else "greedy text is not equal")
    if proof.tokenizer_ids_equal is not None:
        parts.append("token ids are equal" if proof.tokenizer_ids_equal else "token ids are not equal")
    return f"{parts[0]}: {', '.join(parts[1:])}"
