"""What benchmarks/interop.py runs in each peer's environment: python interop_peers.py PEER MODELS OUT.

A peer is a function from the models to (what was compared, difference). Of gptkit this file imports at its top only
what needs nothing but numpy: one of the environments has another transformers.
"""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gptkit.console import Console
from gptkit.convert.proof import Answers, Logits, Proof, Questions, compare, observe, require
from gptkit.errors import InputError

GPT2_TOKENIZER = "GPT-2, its own tokenizer"
LAMBADA_FILE, PASSAGES = Path("zero_shot", "lambada_test.jsonl"), 80  # the first ones; the models learn half of them
DATA, LLM_C = "GPTKIT_TEST_DATA", "LLM_C"  # environment variables: a directory, and llm.c's compiled test_gpt2
SAME = "ids of 100 KB of text, logits and NLL of 4,096 tokens, greedy text"
Found = Iterator[tuple[str, str]]


class Model(NamedTuple):
    """A model that gptkit trained: its own directory, the hf export, and the pickled questions and answers."""

    name: str
    model: str
    hf: str
    expected: str


def main() -> None:
    name, folder, out = sys.argv[1:]
    models = [Model(*row) for row in json.loads(Path(folder, "models.json").read_text())]
    peer = PEERS[name]
    rows = [(peer.counts and version(peer.counts), *row) for row in peer.run(models)]
    Path(out, "result.json").write_text(json.dumps(rows), encoding="utf-8")


def compared(model: Model, peer: Any, dtype: str = "f32", rounding: float = 0.0) -> str:
    """Return how far a peer's answers are from ours; GptkitError if it is further than rounding explains."""
    questions, ours = expected(model)
    proof = compare(ours, observe(peer, questions), rounding=rounding)
    require(proof, ours, dtype, where=model.name, rounding=rounding)
    return told(proof)


def expected(model: Model) -> tuple[Questions, Answers]:
    return pickle.loads(Path(model.expected).read_bytes())  # written by interop.py


def is_gpt2(model: Model) -> bool:
    return bool(json.loads(Path(model.hf, "config.json").read_text())["model_type"] == "gpt2")


def told(proof: Proof) -> str:
    equal = {True: "equal", False: "not equal"}
    return (
        f"ids {equal[proof.tokenizer_ids_equal]}; logits {proof.max_logit_difference:.1e}; "
        f"NLL {proof.nll_difference:.1e} nats a token; greedy text {equal[proof.greedy_equal]}"
    )


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
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = convert(model.model, folder, to, dtype=dtype)
        except InputError as error:
            return f"refused: {error.message}"
    return told(Proof(**{name: result[name] for name in Proof.__dataclass_fields__}))


def convert(source: str, destination: str, to: str, **asked: Any) -> dict[str, Any]:
    from gptkit.convert.command import run
    from gptkit.convert.options import ConvertOptions

    console = Console(stdout=io.StringIO(), stderr=io.StringIO(), environment={})
    return run(ConvertOptions(source=source, destination=Path(destination), to=to, **asked), console)


def llama_cpp_converter(models: Sequence[Model]) -> Found:
    """llama.cpp's own converter on the hf export, from llama-cpp-python's source; it knows only GPT-2's tokenizer."""
    from gptkit.convert.gguf import ROUNDING
    from gptkit.convert.llama_cpp import LlamaCpp

    [archive] = Path(sys.argv[3]).glob("llama_cpp_python-*.tar.gz")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(archive) as opened:
            opened.extractall(folder, [one for one in opened if one.name.endswith(".py")], filter="data")
        [script] = Path(folder).glob("*/vendor/llama.cpp/convert_hf_to_gguf.py")
        for model in (model for model in models if model.name == GPT2_TOKENIZER):
            file = Path(folder, "model.gguf")
            subprocess.run([sys.executable, script, model.hf, "--outfile", file, "--outtype", "f32"], check=True)
            difference = compared(model, LlamaCpp(file), rounding=ROUNDING)
            yield f"{model.name}: the hf export through {script.name} of {archive.name}, {SAME}", difference


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


# --- llm.c ---

LLM_C_ORDER = [  # of the tensors in a model.bin, each of them for all layers, then the next
    f"{module}.{part}"
    for module in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
    for part in ("weight", "bias")
]


def llm_c(models: Sequence[Model]) -> Found:
    """Its weights read here without gptkit, by llm.c's order and shapes, into transformers' class; and by llm.c."""
    for model in filter(is_gpt2, models):
        for dtype in ("f32", "bf16") if model is models[0] else ("f32",):
            with tempfile.TemporaryDirectory() as folder:
                file, peer = Path(folder, "gpt2_124M.bin"), TransformersPeer(model.hf)  # the name that llm.c expects
                convert(model.model, str(file), "llm.c", dtype=dtype)
                fill(peer.model.transformer.state_dict(), file)
                yield f"{model.name}: its .bin in {dtype}, read into transformers, {SAME}", compared(model, peer, dtype)
                if dtype == "f32":
                    yield f"{model.name}: its .bin in test_gpt2, logits and loss of a window", in_llm_c(model, file)


def fill(state: dict[str, Any], file: Path) -> None:
    """Overwrite all of a model's weights with those of a model.bin."""
    import torch

    _, version, _, _, layers, _, width, padded = np.fromfile(file, "<i4", 8).tolist()
    numbers = torch.from_numpy(np.fromfile(file, {3: "<f4", 5: "<i2"}[version], offset=1024))
    left = numbers if version == 3 else numbers.view(torch.bfloat16)
    stacked = [f"h.{layer}.{name}" for name in LLM_C_ORDER for layer in range(layers)]
    for name in ("wte.weight", "wpe.weight", *stacked, "ln_f.weight", "ln_f.bias"):
        into = state[name].transpose(0, -1) if name.startswith("h.") else state[name]  # (out, in) in llm.c
        into.copy_(left[: into.numel()].view(into.shape))
        left = left[padded * width if name == "wte.weight" else into.numel() :]
    if len(left):
        raise AssertionError(f"{len(left)} numbers are left")


def in_llm_c(model: Model, file: Path) -> str:
    """Return what test_gpt2 prints, which compares with the figures in a file; the gradients are left zero there."""
    if LLM_C not in os.environ:
        return f"not run: {LLM_C} names no compiled test_gpt2, and PyPI has none"
    zeros = bytes(file.stat().st_size - 1024)
    file.with_name("gpt2_124M_debug_state.bin").write_bytes(debug_state(model) + zeros)
    done = subprocess.run([os.environ[LLM_C]], cwd=file.parent, check=True, capture_output=True, text=True)
    pattern = r"^OK \(LOGITS\), max_diff = (\S+)\nLOSS OK: (\S+) (\S+)"
    [(logits, theirs, ours)] = re.findall(pattern, done.stdout, re.MULTILINE)
    return f"logits {float(logits):.1e}; loss {theirs} - {ours} = {float(theirs) - float(ours):.1e}"


def debug_state(model: Model) -> bytes:
    """Return what test_gpt2 compares with: header, ids, targets, our logits and loss."""
    import torch

    from gptkit.model.loading import load_model

    window = torch.tensor(expected(model)[0].windows[0])
    with torch.inference_mode():
        ours = load_model(model.model)(input_ids=window[None], labels=window[None])
    header = [20240327, 2, 1, len(window) - 1, *[0] * 252]
    ids = np.array([*header, *window[:-1], *window[1:]], "<i4")
    return ids.tobytes() + ours.logits[0, :-1].numpy().tobytes() + ours.loss.numpy().tobytes()


# --- PEFT ---


def peft(models: Sequence[Model]) -> Found:
    """A step of LoRA on our class and on the hf export; the adapter saved, loaded, merged by PEFT and by convert."""
    for model in models:
        for what, folder in (("our own class", model.model), ("the hf export", model.hf)):
            yield (
                f"{model.name}: {what}, a step of LoRA, saved; logits when loaded, when merged by PEFT, "
                "and when merged by convert --adapter",
                adapted(folder),
            )


def adapted(source: str) -> str:
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    from gptkit.model.loading import load_model

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(source)
    ids = torch.randint(base.config.vocab_size, (2, 64))
    targets = ["c_attn", "c_proj", "c_fc"]
    transposed = base.config.model_type != "gptkit"  # Conv1D
    settings = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=targets, fan_in_fan_out=transposed)
    model = get_peft_model(base, settings)
    before = model(input_ids=ids, labels=ids).loss
    before.backward()
    torch.optim.AdamW((one for one in model.parameters() if one.requires_grad), lr=1e-2).step()
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        outputs = model.eval()(input_ids=ids, labels=ids)
        if not float(outputs.loss) < float(before):
            raise AssertionError(f"the step took the loss from {before} to {outputs.loss}")
        model.save_pretrained(folder)
        loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(source), folder).eval()
        found = [loaded(input_ids=ids).logits, loaded.merge_and_unload()(input_ids=ids).logits]
        convert(source, f"{folder}/merged", "gptkit", adapter=Path(folder))
        found.append(load_model(Path(folder, "merged"))(input_ids=ids).logits)
    differences = [float((outputs.logits - logits).abs().max()) for logits in found]
    if not max(differences) < 1e-3:
        raise AssertionError(f"logits differ by {differences}")
    there, by_peft, by_us = differences
    return f"logits {there:.1e}, {by_peft:.1e} and {by_us:.1e}; loss {before:.3f} -> {outputs.loss:.3f}"


# --- TRL ---


def trl(models: Sequence[Model]) -> Found:
    for model in models:
        yield f"{model.name}: the hf export, the loss of SFTTrainer's first step and ours", first_loss(model)


def first_loss(model: Model) -> str:
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from gptkit.model.loading import load_model

    texts = [str(expected(model)[0].text)[start : start + 300] for start in (0, 20_000)]
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
    data = Path(os.environ[DATA], LAMBADA_FILE)
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


# --- all of them ---


class Peer(NamedTuple):
    """How to compare, the distribution whose version counts, and what to install on top of gptkit's environment.

    `source` is downloaded as an archive and not installed. `data`: it needs GPTKIT_TEST_DATA.
    """

    run: Callable[[Sequence[Model]], Found]
    counts: str = ""
    packages: Sequence[str] = ()
    source: str = ""
    data: bool = False


PEERS = {
    "transformers 5": Peer(transformers, "transformers"),
    "transformers 4.57": Peer(transformers, "transformers", ["transformers==4.57.*"]),
    "PEFT": Peer(peft, "peft", ["peft"]),
    "TRL": Peer(trl, "trl", ["trl"]),
    "lm-eval": Peer(lm_eval, "lm_eval", ["lm-eval[hf]"], data=True),
    "llama.cpp": Peer(converted("gguf"), "xllamacpp", ["gguf", "xllamacpp"]),
    "llama.cpp's converter": Peer(
        llama_cpp_converter, "xllamacpp", ["xllamacpp", "sentencepiece"], "llama-cpp-python", True
    ),
    "onnxruntime": Peer(converted("onnx"), "onnxruntime", ["onnx", "onnxscript", "onnxruntime"]),
    "CTranslate2": Peer(ctranslate2, "ctranslate2", ["ctranslate2"]),
    "mlx-lm": Peer(mlx_lm, "mlx-lm", ["mlx-lm", "mlx[cpu]"]),
    "llm.c": Peer(llm_c),
}

if __name__ == "__main__":
    main()
