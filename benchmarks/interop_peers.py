"""What benchmarks/interop.py runs in each peer's environment: python interop_peers.py PEER DISTRIBUTION FOLDER.

A peer is a function from the models to (what was compared, difference). Of gptkit it imports at its top only what
needs nothing but numpy: some of the environments have no torch, or another transformers.
"""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gptkit.convert.proof import Logits, Proof, compare, observe, require

LAMBADA_FILE, PASSAGES = Path("zero_shot", "lambada_test.jsonl"), 200  # the first ones
SAME = "ids of 100 KB of text, logits and NLL of 4,096 tokens, greedy text"
Found = Iterator[tuple[str, str]]


class Model(NamedTuple):
    """A model that gptkit trained: its own directory, the hf export, and the pickled questions and answers."""

    name: str
    model: str
    hf: str
    expected: str


def main() -> None:
    name, distribution, folder = sys.argv[1:]
    models = [Model(**row) for row in json.loads(Path(folder, "models.json").read_text())]
    rows = list(PEERS[name](models))
    Path(folder, "result.json").write_text(json.dumps([version(distribution), rows]), encoding="utf-8")


def compared(model: Model, peer: Any) -> str:
    """Return how far a peer's answers are from ours; GptkitError if it is further than rounding explains."""
    questions, ours = pickle.loads(Path(model.expected).read_bytes())  # written by interop.py
    proof = compare(ours, observe(peer, questions))
    require(proof, ours, "f32", where=model.name)
    return told(proof)


def is_gpt2(model: Model) -> bool:
    return bool(json.loads(Path(model.hf, "config.json").read_text())["model_type"] == "gpt2")


def told(proof: Proof) -> str:
    equal = {True: "equal", False: "not equal", None: "not compared"}
    return (
        f"ids {equal[proof.tokenizer_ids_equal]}; logits {figure(proof.max_logit_difference)}; "
        f"NLL {figure(proof.nll_difference)} nats a token; greedy text {equal[proof.greedy_equal]}"
    )


def figure(number: float | None) -> str:
    return "not compared" if number is None else f"{number:.1e}"


# --- transformers ---


def transformers(models: Sequence[Model]) -> Found:
    for model in models:
        yield f"{model.name}: the hf export, {SAME}", compared(model, TransformersPeer(model.hf))


class TransformersPeer:
    def __init__(self, folder: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
        from transformers.utils import logging

        logging.set_verbosity_error()
        self.name, self.version = "transformers", version("transformers")
        self.torch = torch
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.model.generation_config = GenerationConfig(pad_token_id=0)  # names no end of text

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def logits(self, ids: Sequence[int]) -> Logits:
        with self.torch.inference_mode():
            logits: Logits = self.model(input_ids=self.torch.tensor([[*ids]])).logits[0].numpy()
        return logits

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        given = self.torch.tensor([[*ids]])
        mask = self.torch.ones_like(given)
        with self.torch.inference_mode():
            found = self.model.generate(given, attention_mask=mask, max_new_tokens=count, do_sample=False)
        return [int(id) for id in found[0, len(ids) :]]


# --- mlx-lm ---


def mlx_lm(models: Sequence[Model]) -> Found:
    for model in filter(is_gpt2, models):  # it knows no openai-gpt
        yield f"{model.name}: the hf export, {SAME}", compared(model, MlxPeer(model.hf))


class MlxPeer:
    def __init__(self, folder: str) -> None:
        import mlx.core as mx
        from mlx_lm import load

        self.name, self.version = "mlx-lm", version("mlx-lm")
        self.mx = mx
        self.model, self.tokenizer = load(folder)[:2]

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def logits(self, ids: Sequence[int]) -> Logits:
        return np.array(self.model(self.mx.array([[*ids]]))[0].astype(self.mx.float32))

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        from mlx_lm.generate import generate_step

        steps = generate_step(self.mx.array([*ids]), self.model, max_tokens=count)
        return [int(id) for id, _ in steps]


# --- the formats that convert writes, each read by the newest release of its program ---


def converted(to: str) -> Callable[[Sequence[Model]], Found]:
    """Return the peer of a format: convert's own proof, of the first model in every dtype, of the others in f32."""

    def peer(models: Sequence[Model]) -> Found:
        from gptkit.convert.formats import FORMATS

        for model in models:
            for dtype in FORMATS[to].dtypes if model is models[0] else ("f32",):
                yield f"{model.name}: {to} in {dtype}, {SAME}", proven(model, to, dtype)

    return peer


def proven(model: Model, to: str, dtype: str) -> str:
    """Return what `gptkit convert` says of its own proof, or why it refuses."""
    from gptkit.console import Console
    from gptkit.convert.command import run
    from gptkit.convert.options import ConvertOptions
    from gptkit.errors import InputError

    console = Console(stdout=io.StringIO(), stderr=io.StringIO(), environment={})
    with tempfile.TemporaryDirectory() as folder:
        options = ConvertOptions(source=model.model, destination=Path(folder, "new"), to=to, dtype=dtype)
        try:
            result = run(options, console)
        except InputError as error:
            return f"refused: {error.message}"
    return told(Proof(**{name: result[name] for name in Proof.__dataclass_fields__}))


def ctranslate2(models: Sequence[Model]) -> Found:
    """Also CTranslate2's own converter on the hf export."""
    from ctranslate2.converters import TransformersConverter

    from gptkit.convert.ctranslate2 import Peer

    yield from converted("ctranslate2")(models)
    for model in filter(is_gpt2, models):  # it knows no openai-gpt
        with tempfile.TemporaryDirectory() as folder:
            converter = TransformersConverter(model.hf, copy_files=["tokenizer.json", "tokenizer_config.json"])
            converter.convert(folder, force=True)
            difference = compared(model, Peer(Path(folder)))
        yield f"{model.name}: the hf export through CTranslate2's converter, {SAME}", difference


# --- PEFT ---


def peft(models: Sequence[Model]) -> Found:
    """LoRA on our class and on the hf export: a step of training, saved, loaded, merged."""
    from transformers import AutoModelForCausalLM

    import gptkit.model  # noqa: F401 - registers our class

    for model in models:
        for what, folder in (("our own class", model.model), ("the hf export", model.hf)):
            yield (
                f"{model.name}: {what}, a step of LoRA, saved; logits when loaded, and when merged",
                adapted(lambda folder=folder: AutoModelForCausalLM.from_pretrained(folder)),
            )


def adapted(load: Callable[[], Any]) -> str:
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    base = load()
    ids = torch.randint(base.config.vocab_size, (2, 64))
    is_transposed = any(isinstance(module, Conv1D) for module in base.modules())
    model = get_peft_model(
        base,
        LoraConfig(
            task_type="CAUSAL_LM", r=4, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=is_transposed
        ),
    )
    before = model(input_ids=ids, labels=ids).loss
    before.backward()
    torch.optim.AdamW((one for one in model.parameters() if one.requires_grad), lr=1e-2).step()
    model.eval()
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        outputs = model(input_ids=ids, labels=ids)
        if not float(outputs.loss) < float(before):
            raise AssertionError(f"the step took the loss from {before} to {outputs.loss}")
        model.save_pretrained(folder)
        loaded = PeftModel.from_pretrained(load(), folder).eval()
        there = loaded(input_ids=ids).logits
        merged = loaded.merge_and_unload()(input_ids=ids).logits
    differences = [float((outputs.logits - logits).abs().max()) for logits in (there, merged)]
    if not max(differences) < 1e-3:
        raise AssertionError(f"logits differ by {differences}")
    return f"logits {differences[0]:.1e} and {differences[1]:.1e}; loss {before:.3f} -> {outputs.loss:.3f}"


# --- TRL ---


def trl(models: Sequence[Model]) -> Found:
    for model in models:
        yield f"{model.name}: the hf export, the loss of SFTTrainer's first step and ours", first_loss(model)


def first_loss(model: Model) -> str:
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from gptkit.model.loading import load_model

    questions, _ = pickle.loads(Path(model.expected).read_bytes())
    texts = [questions.text[start : start + 300] for start in (0, 20_000)]
    with tempfile.TemporaryDirectory() as folder:
        options = SFTConfig(
            folder,
            max_steps=1,
            per_device_train_batch_size=2,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,  # which transformers' openai-gpt cannot do
            report_to="none",
        )
        trainer = SFTTrainer(model.hf, args=options, train_dataset=Dataset.from_dict({"text": texts}))
        trainer.model.eval()  # no dropout: the loss is compared
        trainer.model.train = lambda mode=True: trainer.model
        theirs = trainer.train().training_loss
        rows = [torch.tensor([row["input_ids"]]) for row in trainer.train_dataset]
    own = load_model(model.model)
    with torch.inference_mode():
        sums = [own(input_ids=ids, labels=ids).loss * (ids.numel() - 1) for ids in rows]
    ours = float(sum(sums)) / sum(ids.numel() for ids in rows)  # Trainer counts each row's first token as a target too
    if not math.isclose(ours, theirs, abs_tol=1e-3):
        raise AssertionError(f"loss {theirs}, ours {ours}")
    return f"{theirs:.5f} - {ours:.5f} = {theirs - ours:.1e}"


# --- lm-eval ---

LAMBADA = {  # as lm-eval's lambada_openai, from a local file
    "task": "lambada",
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "loglikelihood",
    "doc_to_text": "{{text.split(' ')[:-1]|join(' ')}}",
    "doc_to_target": "{{' '+text.split(' ')[-1]}}",
    "metric_list": [
        {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
        {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
    ],
}


def lm_eval(models: Sequence[Model]) -> Found:
    data = Path(os.environ["GPTKIT_TEST_DATA"], LAMBADA_FILE)
    for model in models:
        theirs, ours = lambada_of_lm_eval(model.hf, data), lambada_of_gptkit(model.model, data)
        difference = math.log(theirs["perplexity"]) - math.log(ours["perplexity"])
        if theirs["acc"] != ours["accuracy"] or not abs(difference) < 1e-4:
            raise AssertionError(f"{theirs}, ours {ours}")
        yield (
            f"{model.name}: LAMBADA, {PASSAGES} passages of a local file, beside gptkit eval's lambada/last-word",
            f"accuracy {theirs['acc']:.4f}, equal; perplexity {theirs['perplexity']:.6g}: ln {difference:.1e}",
        )


def lambada_of_lm_eval(folder: str, data: Path) -> dict[str, float]:
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    with tempfile.TemporaryDirectory() as tasks:
        task = LAMBADA | {"dataset_kwargs": {"data_files": {"test": str(data)}}}
        Path(tasks, "lambada.yaml").write_text(json.dumps(task))
        found = TaskManager(include_path=tasks, include_defaults=False).load("lambada")["tasks"]
        model = HFLM(pretrained=folder, dtype="float32", batch_size=8, device="cpu")
        results = evaluate(lm=model, task_dict=found, limit=PASSAGES, bootstrap_iters=0, log_samples=False)["results"]
    return {name: float(results["lambada"][f"{name},none"]) for name in ("perplexity", "acc")}


def lambada_of_gptkit(folder: str, data: Path) -> dict[str, float]:
    asked = ["eval", "--model", folder, "--task", "lambada/last-word", "--data", str(data), "--limit", str(PASSAGES)]
    command = [sys.executable, "-m", "gptkit", *asked, "--precision", "fp32", "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    metrics = json.loads(done.stdout)["results"]["lambada/last-word"]["metrics"]
    return {name: float(metrics[name]["value"]) for name in ("perplexity", "accuracy")}


PEERS: dict[str, Callable[[Sequence[Model]], Found]] = {
    "transformers 5": transformers,
    "transformers 4.57": transformers,
    "PEFT": peft,
    "TRL": trl,
    "lm-eval": lm_eval,
    "llama.cpp": converted("gguf"),
    "onnxruntime": converted("onnx"),
    "CTranslate2": ctranslate2,
    "mlx-lm": mlx_lm,
}

if __name__ == "__main__":
    main()
