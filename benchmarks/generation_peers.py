"""Who generates in benchmarks/generate.py, each in a process of its own: python generation_peers.py DIRECTORY NAME.

All have the same random weights of GPT-2 124M's shape, which `make_models` writes once in each one's format. A text
starts from the end-of-text token; its seconds hold everything from the prompt to the list of token ids.
"""

from __future__ import annotations

import ctypes
import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from turns import Answer, serve

THREADS, TOP_K = 2, 40
VOCABULARY, START, START_TOKEN = 50257, 50256, "<|endoftext|>"
GPTKIT, HF, CTRANSLATE2 = "gptkit", "hf", "ctranslate2"  # directories of models

Generate = Callable[[int, int], Sequence[Sequence[int]]]  # batch, new tokens -> the new token ids of each row


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


def timed(generate: Generate) -> Answer:
    """Return a function that gives the seconds of `generate`, having seen that no token is missing."""

    def seconds(*, batch: int, tokens: int) -> float:
        began = time.perf_counter()
        texts = generate(batch, tokens)
        elapsed = time.perf_counter() - began
        if [len(text) for text in texts] != [tokens] * batch:
            raise ValueError(f"asked for {batch} x {tokens} tokens, got {[len(text) for text in texts]}")
        return elapsed

    return seconds


def hf(directory: Path, dtype: str) -> Answer:
    import torch
    from transformers import GPT2LMHeadModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(THREADS)
    model = GPT2LMHeadModel.from_pretrained(directory / HF, dtype=dtype).eval()
    model.generation_config.eos_token_id = None  # a text goes on to its last token

    def generate(batch: int, tokens: int) -> list[list[int]]:
        ids = torch.full((batch, 1), START)
        mask = torch.ones_like(ids)
        output = model.generate(
            ids, attention_mask=mask, max_new_tokens=tokens, do_sample=True, top_k=TOP_K, pad_token_id=START
        )
        rows: list[list[int]] = output[:, 1:].tolist()
        return rows

    return timed(generate)


def ctranslate2(directory: Path, compute_type: str) -> Answer:
    from ctranslate2 import Generator

    generator = Generator(
        str(directory / CTRANSLATE2), device="cpu", compute_type=compute_type, intra_threads=THREADS, inter_threads=1
    )

    def generate(batch: int, tokens: int) -> list[list[int]]:
        results = generator.generate_batch(
            [[START_TOKEN]] * batch,
            max_length=tokens,
            min_length=tokens,
            sampling_topk=TOP_K,
            include_prompt_in_result=False,
        )
        return [result.sequences_ids[0] for result in results]

    return timed(generate)


def gptkit(directory: Path, precision: str, quantize: Literal["none", "int8", "int4"]) -> Answer:
    from gptkit.decoding.engines import open_engine
    from gptkit.decoding.loop import Decoder
    from gptkit.decoding.sampling import SamplingRules
    from gptkit.decoding.text_options import TextModelOptions

    options = TextModelOptions(device="cpu", precision=precision, quantize=quantize, compile="on")
    engine = open_engine(directory / GPTKIT, options, tokens=1 << 20)
    rules = SamplingRules(top_k=TOP_K)

    def generate(batch: int, tokens: int) -> list[list[int]]:
        decoder = Decoder(engine, [[START]] * batch, max_new_tokens=tokens, rules=rules)
        for _ in decoder:
            pass
        return [sample.token_ids for sample in decoder.samples]

    return timed(generate)


def memory(directory: Path) -> Answer:
    """Return the function that measures bytes/s of one-way reading by all threads, the best of seven rounds."""
    import numpy as np

    from gptkit.decoding.native.library import FLAGS, FOLDER, find_c_compiler

    source, library = Path(__file__).with_name("read_bandwidth.c"), directory / "read_bandwidth.so"
    flags = [*FLAGS, "-march=native", "-fopenmp", f"-I{FOLDER}"]
    subprocess.run([*(find_c_compiler() or ["cc"]), *flags, str(source), "-o", str(library), "-lm"], check=True)
    read_all = ctypes.CDLL(str(library)).gpt_read_all
    values = np.ones(512 << 18, np.float32)

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
    "gptkit fp32": lambda directory: gptkit(directory, "fp32", "none"),
    "gptkit bf16": lambda directory: gptkit(directory, "bf16", "none"),
    "gptkit int8": lambda directory: gptkit(directory, "fp32", "int8"),
    "gptkit int4": lambda directory: gptkit(directory, "fp32", "int4"),
    "gptkit, bf16 activations, int8": lambda directory: gptkit(directory, "bf16", "int8"),
}


if __name__ == "__main__":
    main()
