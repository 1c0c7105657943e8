"""Scoring beside a plain HF loop and lm-eval, in one run: GPT-2 124M's shape, random weights, 2 threads or a GPU.

    GPTKIT_TEST_DATA=... python benchmarks/evaluate.py [--passages 96] [--pairs 96] [--rounds 3] [--only NAME ...]

The first passages of LAMBADA (the last word given the rest) and the first pairs of one BLiMP set, with GPT-2's
tokenizer, as they lie under GPTKIT_TEST_DATA. Everybody has the same weights; each row is a process of its own that
has read model and data and warmed up, asked in turn for the seconds of encoding and scoring. The plain loop runs
one text at a time, over a quarter of the items. The claim is the median of the rounds' ratios; --json keeps every
figure. What they found is in the table too: NLL a passage in nats, and the
share of pairs whose good sentence is the likelier.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from side_by_side import BEST, auto_precision, machine, print_table, ratio_columns, spread, without_emulated
from turns import Answer, Worker, serve

THREADS, VOCABULARY = 2, 50257
GPTKIT, HF, TASKS = "gptkit", "hf", "tasks"  # directories
FILES = {"lambada": "zero_shot/lambada_test.jsonl", "blimp": "zero_shot/blimp/wh_vs_that_no_gap.jsonl"}
PARTS = tuple(FILES)
ASKED = 1.5  # times the best peer, of the precision that gptkit would choose
LM_EVAL_TASKS: dict[str, dict[str, Any]] = {
    "lambada": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{text.split(' ')[:-1]|join(' ')}}",
        "doc_to_target": "{{' '+text.split(' ')[-1]}}",
        "metric_list": [{"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False}],
    },
    "blimp": {
        "output_type": "multiple_choice",
        "doc_to_text": "",
        "doc_to_target": 0,
        "doc_to_choice": "{{[sentence_good, sentence_bad]}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    },
}

Evaluate = Callable[[str, int], float]  # part, items -> what was found


class Settings(NamedTuple):
    """How a row computes; `share` of the items is enough to time it. What keeps its memory warms up on more items."""

    prepare: Callable[[Path, str, int], Evaluate]
    precision: str
    batch_size: int = 0
    share: float = 1.0
    warm_up: int = 4


def main() -> None:
    if sys.argv[1:2] == ["--row"]:
        serve(lambda: timed(Path(sys.argv[2]), sys.argv[3]))
        return
    options = parsed_options()
    os.environ |= {"OMP_NUM_THREADS": str(THREADS), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # those that stand still must not be left behind
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ["HF_DATASETS_CACHE"] = str(directory / "datasets")
        subprocess.run([sys.executable, __file__, "--row", str(directory), "models"], check=True, input="", text=True)
        names = without_emulated([name for name in ROWS if not options.only or name in options.only])
        commands = {name: [sys.executable, __file__, "--row", str(directory), name] for name in names}
        workers = {name: stack.enter_context(Worker(commands[name], os.environ)) for name in names}
        where = machine("torch", "transformers", "lm_eval")
        print(where)
        figures = measure(workers, {"lambada": options.passages, "blimp": options.pairs}, options.rounds)
    if options.json:
        options.json.write_text(json.dumps({"machine": where, "figures": figures}))


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=96)
    parser.add_argument("--pairs", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", choices=list(ROWS))
    parser.add_argument("--json", type=Path, help="also write every figure to this file")
    return parser.parse_args()


def measure(workers: Mapping[str, Worker], items: Mapping[str, int], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Print a table for each part; return the items/s of every round by part and row."""
    figures = {}
    for part in PARTS:
        rates: dict[str, list[float]] = {name: [] for name in workers}
        for _ in range(rounds):
            for name, worker in workers.items():
                asked = max(1, int(items[part] * ROWS[name].share))
                rates[name].append(asked / worker.ask(part=PARTS.index(part), items=asked))
        found = {name: worker.ask(part=PARTS.index(part), items=0) for name, worker in workers.items()}
        print_part(part, rates, found)
        figures[part] = rates
    return figures


def print_part(part: str, rates: Mapping[str, list[float]], found: Mapping[str, float]) -> None:
    unit, figure = {"lambada": ("passages", "NLL"), "blimp": ("pairs", "accuracy")}[part]
    heads, cells = ratio_columns(rates, {f"{GPTKIT} {auto_precision()}": {BEST: ASKED}})
    rows = [[name, spread(own), f"{found[name]:.5f}", *cells[name]] for name, own in rates.items()]
    print()
    print_table([part, f"{unit}/s: median (lowest to highest)", figure, *heads], rows)


def timed(directory: Path, name: str) -> Answer:
    """Return a function that gives the seconds of a part; asked for 0 items, it gives what the last time found."""
    if name == "models":
        make_files(directory)
        return lambda: 0.0
    settings = ROWS[name]
    evaluate = settings.prepare(directory, settings.precision, settings.batch_size)
    for part in PARTS:
        evaluate(part, settings.warm_up)
    found: dict[str, float] = {}

    def seconds(*, part: int, items: int) -> float:
        if items == 0:
            return found[PARTS[part]]
        began = time.perf_counter()
        found[PARTS[part]] = evaluate(PARTS[part], items)
        return time.perf_counter() - began

    return seconds


def make_files(directory: Path) -> None:
    """Write the random model for each library, and lm-eval's tasks over the local files."""
    import torch
    import yaml
    from transformers.utils import logging

    from gptkit.convert.hf import write as write_hf
    from gptkit.model.configuration_gpt import GPTConfig
    from gptkit.model.loading import save_model
    from gptkit.model.modeling_gpt import GPTForCausalLM
    from gptkit.text.tokenizers.loading import tokenizer_in

    logging.disable_progress_bar()
    torch.manual_seed(0)
    model = GPTForCausalLM(GPTConfig(vocab_size=VOCABULARY)).eval()
    tokenizer = tokenizer_in(test_data() / "tokenizers" / "gpt2")
    save_model(model, directory / GPTKIT)
    write_hf(model, directory / HF)
    for name in (GPTKIT, HF):
        tokenizer.save_pretrained(directory / name)
    (directory / TASKS).mkdir()
    for part, task in LM_EVAL_TASKS.items():
        files = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(test_data() / FILES[part])}}}
        task = {"task": f"local_{part}", "test_split": "test", **files, **task}
        (directory / TASKS / f"{part}.yaml").write_text(yaml.safe_dump(task))


def device_name() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def test_data() -> Path:
    return Path(os.environ["GPTKIT_TEST_DATA"])


def pairs_of_texts(part: str) -> list[tuple[tuple[str, str], ...]]:
    """Return (context, continuation) pairs of each item."""
    lines = (test_data() / FILES[part]).read_text(encoding="utf-8").splitlines()
    fields = [json.loads(line) for line in lines]
    if part == "blimp":
        return [(("", one["sentence_good"]), ("", one["sentence_bad"])) for one in fields]
    cut = [one["text"].rpartition(" ") for one in fields]
    return [((context, f" {word}"),) for context, _, word in cut]


def figure_of(part: str, sums: Sequence[Sequence[float]]) -> float:
    """Return the mean NLL or the accuracy, from the summed log-probabilities of each item's continuations."""
    return statistics.mean(-one[0] if part == "lambada" else float(one[0] > one[1]) for one in sums)


def gptkit(directory: Path, precision: str, batch_size: int) -> Evaluate:
    import torch

    from gptkit.model.loading import load_model
    from gptkit.scoring.encoder import Encoder
    from gptkit.scoring.scorer import Scorer
    from gptkit.text.tokenizers.loading import tokenizer_in
    from gptkit.training.memory import keep_freed_memory

    keep_freed_memory()
    model = load_model(directory / GPTKIT)
    encoder = Encoder(tokenizer_in(directory / GPTKIT), model.config.n_positions)
    device = torch.device(device_name())
    scorer = Scorer(model.to(device), device=device, precision=precision, batch_size=batch_size or None)
    texts = {part: pairs_of_texts(part) for part in PARTS}

    def evaluate(part: str, items: int) -> float:
        chosen = texts[part][:items]
        requests = iter(encoder.requests([pair for item in chosen for pair in item]))
        groups = [tuple(next(requests) for _ in item) for item in chosen]
        return figure_of(part, [[float(one.log_probs.sum()) for one in answers] for answers in scorer.score(groups)])

    return evaluate


def hf_loop(directory: Path, precision: str, batch_size: int) -> Evaluate:
    """Prepare what people write: each text alone, all of its logits."""
    import torch
    from transformers import AutoTokenizer, GPT2LMHeadModel

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    model = GPT2LMHeadModel.from_pretrained(directory / HF, dtype=dtype).eval().to(device_name())
    tokenizer = AutoTokenizer.from_pretrained(directory / HF)
    texts = {part: pairs_of_texts(part) for part in PARTS}

    @torch.no_grad()
    def log_probability(context: str, continuation: str) -> float:
        before = tokenizer(context).input_ids or [tokenizer.eos_token_id]
        ids = torch.tensor([before + tokenizer(continuation).input_ids], device=model.device)
        log_probs = model(ids).logits[0, :-1].float().log_softmax(-1)  # (token - 1, vocab)
        return float(log_probs.gather(1, ids[0, 1:, None])[len(before) - 1 :].sum())

    def evaluate(part: str, items: int) -> float:
        return figure_of(part, [[log_probability(*pair) for pair in item] for item in texts[part][:items]])

    return evaluate


def lm_eval(directory: Path, precision: str, batch_size: int) -> Evaluate:
    import math

    from lm_eval.evaluator import evaluate as run_tasks
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    dtype = {"fp32": "float32", "bf16": "bfloat16"}[precision]
    model = HFLM(pretrained=str(directory / HF), dtype=dtype, batch_size=batch_size, device=device_name())
    manager = TaskManager(include_path=str(directory / TASKS), include_defaults=False)
    tasks = {part: manager.load(f"local_{part}")["tasks"] for part in PARTS}

    def evaluate(part: str, items: int) -> float:
        found = run_tasks(lm=model, task_dict=tasks[part], limit=items, bootstrap_iters=0, log_samples=False)
        figures = found["results"][f"local_{part}"]
        return math.log(figures["perplexity,none"]) if part == "lambada" else float(figures["acc,none"])

    return evaluate


ROWS = {
    "HF loop fp32": Settings(hf_loop, "fp32", share=0.25),
    "HF loop bf16": Settings(hf_loop, "bf16", share=0.25),
    "lm-eval fp32, batch 8": Settings(lm_eval, "fp32", 8),
    "lm-eval fp32, batch 64": Settings(lm_eval, "fp32", 64),
    "lm-eval bf16, batch 8": Settings(lm_eval, "bf16", 8),
    "lm-eval bf16, batch 64": Settings(lm_eval, "bf16", 64),
    "gptkit fp32": Settings(gptkit, "fp32", warm_up=32),
    "gptkit bf16": Settings(gptkit, "bf16", warm_up=32),
}

if __name__ == "__main__":
    main()
