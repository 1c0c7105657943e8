"""Who generates in benchmarks/generate.py, each in a process of its own: python generation_peers.py DIRECTORY NAME.

All have the same random weights of GPT-2 124M's shape, which `make_models` writes once in each one's format. A text
starts from the end-of-text token; its seconds hold everything from the prompt to the list of token ids.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, Literal

from turns import Answer, serve

THREADS, TOP_K = 2, 40
LLAMA_CPP_ROWS = 64  # the most that are asked for together
VOCABULARY, START, START_TOKEN = 50257, 50256, "<|endoftext|>"
GPTKIT, HF, LLAMA_CPP, CTRANSLATE2 = (
    "gptkit",
    "hf",
    "llama.cpp",
    "ctranslate2",
)  # directories of models; the last one is written last

Generate = Callable[[int, int, int], Sequence[Sequence[int]]]  # batch, prompt, new tokens -> the new ids of each row


def main() -> None:
    directory, name = sys.argv[1:]
    serve(lambda: PREPARE[name](Path(directory)))


def make_models(directory: Path) -> None:
    """Write the random model for each engine; gptkit's comes with a tokenizer as large as GPT-2's."""
    import torch
    from ctranslate2.converters import TransformersConverter
    from transformers.utils import logging

    from gptkit.convert.hf import write as write_hf
    from gptkit.model.configuration_gpt import GPTConfig
    from gptkit.model.loading import save_model
    from gptkit.model.modeling_gpt import GPTForCausalLM

    logging.disable_progress_bar()
    torch.manual_seed(0)
    model = GPTForCausalLM(GPTConfig(vocab_size=VOCABULARY)).eval()
    tokenizer = make_tokenizer()
    save_model(model, directory / GPTKIT)
    tokenizer.save_pretrained(directory / GPTKIT)
    write_hf(model, directory / HF)
    tokenizer.unk_token = START_TOKEN  # as in GPT-2's own; CTranslate2 asks for one
    tokenizer.save_pretrained(directory / HF)
    write_gguf(model, tokenizer, directory / LLAMA_CPP)
    unfinished = directory / f"{CTRANSLATE2}.unfinished"
    TransformersConverter(str(directory / HF)).convert(str(unfinished), force=True)
    unfinished.rename(directory / CTRANSLATE2)


def make_tokenizer() -> Any:
    """Return a byte-level BPE of GPT-2's size: the bytes, then pairs of them, then the end-of-text token."""
    from tokenizers import pre_tokenizers

    from gptkit.text.tokenizers.kinds import byte_level

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = list(itertools.islice(itertools.product(letters, letters), VOCABULARY - len(letters) - 1))
    tokens = [*letters, *(first + second for first, second in merges)]
    return byte_level({token: number for number, token in enumerate(tokens)}, merges, Path("vocabulary"))


def write_gguf(model: Any, tokenizer: Any, directory: Path) -> None:
    """Write f32.gguf, q8_0.gguf and q4_0.gguf, with the names and keys that llama.cpp reads of a gpt2."""
    import gguf

    config, state = model.config, {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    tokens = tokenizer.convert_ids_to_tokens(range(VOCABULARY))
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    kinds = [gguf.TokenType.CONTROL if token == START_TOKEN else gguf.TokenType.NORMAL for token in tokens]
    directory.mkdir(exist_ok=True)
    for kind in ("F32", "Q8_0", "Q4_0"):
        writer = gguf.GGUFWriter(directory / f"{kind.lower()}.gguf", "gpt2")
        writer.add_context_length(config.n_positions)
        writer.add_embedding_length(config.n_embd)
        writer.add_block_count(config.n_layer)
        writer.add_feed_forward_length(config.inner_width)
        writer.add_head_count(config.n_head)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list(tokens)
        writer.add_token_types(kinds)
        writer.add_token_merges([" ".join(merge) for merge in merges])
        writer.add_bos_token_id(START)
        writer.add_eos_token_id(START)
        quantized = gguf.GGMLQuantizationType[kind]
        for name, array in state.items():
            is_product = array.ndim == 2 and not name.startswith("transformer.wpe")
            form = quantized if is_product else gguf.GGMLQuantizationType.F32
            name = gguf_name(name)
            writer.add_tensor(name, gguf.quants.quantize(array, form), raw_dtype=form)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


GGUF_NAMES = {
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
    "lm_head": "output",
    "transformer.h": "blk",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
}


def gguf_name(name: str) -> str:
    for ours, theirs in GGUF_NAMES.items():
        name = name.replace(f"{ours}.", f"{theirs}.")
    return name


def timed(generate: Generate) -> Answer:
    """Return a function that gives the seconds of `generate`, having seen that no token is missing."""

    def seconds(*, batch: int, tokens: int, prompt: int = 1) -> float:
        began = time.perf_counter()
        texts = generate(batch, prompt, tokens)
        elapsed = time.perf_counter() - began
        if [len(text) for text in texts] != [tokens] * batch:
            raise ValueError(f"asked for {batch} x {tokens} tokens, got {[len(text) for text in texts]}")
        return elapsed

    return seconds


def prompt_ids(length: int, start: int = START) -> list[int]:
    """Return a prompt that begins with the end-of-text token; llama.cpp must not have read it before."""
    return [start, *(random.randrange(start) for _ in range(length - 1))]


def hf(directory: Path, dtype: str) -> Answer:
    import torch
    from transformers import GPT2LMHeadModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(THREADS)
    model = GPT2LMHeadModel.from_pretrained(directory / HF, dtype=dtype).eval()
    model.generation_config.eos_token_id = None  # a text goes on to its last token

    def generate(batch: int, prompt: int, tokens: int) -> list[list[int]]:
        ids = torch.tensor([prompt_ids(prompt)] * batch)
        mask = torch.ones_like(ids)
        output = model.generate(
            ids, attention_mask=mask, max_new_tokens=tokens, do_sample=True, top_k=TOP_K, pad_token_id=START
        )
        rows: list[list[int]] = output[:, prompt:].tolist()
        return rows

    return timed(generate)


def ctranslate2(directory: Path, compute_type: str) -> Answer:
    from ctranslate2 import Generator

    generator = Generator(
        str(directory / CTRANSLATE2), device="cpu", compute_type=compute_type, intra_threads=THREADS, inter_threads=1
    )

    names = list(json.loads((directory / CTRANSLATE2 / "vocabulary.json").read_text()))

    def generate(batch: int, prompt: int, tokens: int) -> list[list[int]]:
        results = generator.generate_batch(
            [[names[number] for number in prompt_ids(prompt)]] * batch,
            max_length=tokens,
            min_length=tokens,
            sampling_topk=TOP_K,
            include_prompt_in_result=False,
        )
        return [result.sequences_ids[0] for result in results]

    return timed(generate)


def llama_cpp(directory: Path, weights: str) -> Answer:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(directory / LLAMA_CPP / f"{weights}.gguf")
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = THREADS
    params.n_parallel, params.n_ctx = LLAMA_CPP_ROWS, LLAMA_CPP_ROWS * 1024
    params.warmup = params.cache_prompt = params.ui = False
    params.verbosity = -1
    server = xllamacpp.Server(params)

    def complete(prompt: int, tokens: int) -> range:
        request = {"prompt": prompt_ids(prompt), "n_predict": tokens, "ignore_eos": True}
        answer = server.handle_completions(request | {"top_k": TOP_K, "top_p": 1.0, "min_p": 0.0, "temperature": 1.0})
        return range(answer["usage"]["completion_tokens"])  # the ids are not in it

    def generate(batch: int, prompt: int, tokens: int) -> list[range]:
        with ThreadPool(batch) as pool:
            return pool.starmap(complete, [(prompt, tokens)] * batch)

    return timed(generate)


def gptkit(directory: Path, precision: str, quantize: Literal["none", "int8", "int4"]) -> Answer:
    from gptkit.decoding.engines import choose_engine
    from gptkit.decoding.loop import Decoder
    from gptkit.decoding.sampling import SamplingRules
    from gptkit.decoding.text_options import TextModelOptions

    options = TextModelOptions(device="cpu", precision=precision, quantize=quantize, compile="on")
    engine = choose_engine(directory / GPTKIT, options, tokens=1 << 20).open()
    start = engine.vocab_size - 1
    rules = SamplingRules(top_k=TOP_K)

    def generate(batch: int, prompt: int, tokens: int) -> list[list[int]]:
        decoder = Decoder(engine, [prompt_ids(prompt, start)] * batch, max_new_tokens=tokens, rules=rules)
        for _ in decoder:
            pass
        return [sample.token_ids for sample in decoder.samples]

    return timed(generate)


def memory(directory: Path, size: int = 512 << 20) -> Answer:
    """Return the function that measures bytes/s of reading `size` bytes by all threads, the best of seven times."""
    import numpy as np

    from gptkit.decoding.native.library import FLAGS, FOLDER, find_c_compiler

    source, library = Path(__file__).with_name("read_bandwidth.c"), directory / "read_bandwidth.so"
    flags = [*FLAGS, "-march=native", "-fopenmp", f"-I{FOLDER}"]
    subprocess.run([*(find_c_compiler() or ["cc"]), *flags, str(source), "-o", str(library), "-lm"], check=True)
    read_all = ctypes.CDLL(str(library)).gpt_read_all
    values = np.ones(size // 4, np.float32)

    def measure() -> float:
        seconds = []
        for _ in range(7):
            began = time.perf_counter()
            read_all(ctypes.c_void_p(values.ctypes.data), ctypes.c_int64(values.size), THREADS)
            seconds.append(time.perf_counter() - began)
        return values.nbytes / min(seconds)

    return measure


def models(directory: Path) -> Answer:
    """Make the models; there is nothing to ask."""
    make_models(directory)
    return lambda: 0.0


PREPARE: dict[str, Callable[[Path], Answer]] = {
    "models": models,
    "memory": memory,
    "HF fp32": lambda directory: hf(directory, "float32"),
    "HF bf16": lambda directory: hf(directory, "bfloat16"),
    "CTranslate2 fp32": lambda directory: ctranslate2(directory, "float32"),
    "CTranslate2 int8": lambda directory: ctranslate2(directory, "int8"),
    "llama.cpp f32": lambda directory: llama_cpp(directory, "f32"),
    "llama.cpp q8_0": lambda directory: llama_cpp(directory, "q8_0"),
    "llama.cpp q4_0": lambda directory: llama_cpp(directory, "q4_0"),
    "gptkit fp32": lambda directory: gptkit(directory, "fp32", "none"),
    "gptkit bf16": lambda directory: gptkit(directory, "bf16", "none"),
    "gptkit int8": lambda directory: gptkit(directory, "auto", "int8"),
    "gptkit int4": lambda directory: gptkit(directory, "auto", "int4"),
}


if __name__ == "__main__":
    main()
