"""The command lines that `same_commands.py` runs under two source trees: a table, and the files that its rows need.

Each row runs in a folder of its own, beside those of the rows before it: `../lm/run` is what the row `lm` left.
Setup is a list of steps that `same_commands.py` knows: (verb, argument, ...). Rows whose words or setup name $DATA are
skipped where GPTKIT_TEST_DATA is not set. A row's exit code is part of the table, so that a line that fails for
another reason than it was written for is noticed.
"""

from __future__ import annotations

import json
from typing import NamedTuple

Setup = tuple[tuple[object, ...], ...]


class Row(NamedTuple):
    """A command line: its words as in a shell, what it reads and finds, and what of its result is not compared.

    `ignore` holds keys of JSON whose values are not compared, `keys` compares no values at all; `stdout` may be closed
    or full; of `help` the flags that it lists are compared.
    """

    name: str
    line: str
    code: int = 0
    setup: Setup = ()
    stdin: str = ""
    ignore: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    stdout: str = "pipe"
    keys: bool = False
    help: bool = False


class Known(NamedTuple):
    """A difference that is meant: the row, in what it differs, a pattern that its diff matches, and the reason."""

    row: str
    part: str
    says: str
    reason: str


KNOWN = (Known("error-eval-lm-eval", "*", "", "baselines that lm-eval wrote are no longer read"),)


def _json_lines(rows: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


TEXT = "".join(f"{i} green bottles, hanging on wall number {i * i};\n" for i in range(300))
OTHER = "".join(f"If {i} of the {i + 7} bottles should fall, who would count the others?\n" for i in range(60))
WORDS = ("bottle", "wall", "green", "hang", "fall", "count", "other", "number")
SHAPE = json.dumps({"model_type": "gptkit", "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 2})
GPT1_SHAPE = json.dumps(
    {"model_type": "gptkit", "n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2, "pre_norm": False}
)
DOCUMENTS = _json_lines(
    [{"text": f"Bottle {i} is {WORDS[i % 8]}, and {WORDS[i * 5 % 7]} too.\n" * 9} for i in range(40)]
)
RECIPE = """tokenizer: char
steps: 4
tokens_per_step: 64
sequence_length: 32
snapshots: 2
sample_tokens: 0
beta2: 0.9
clip_norm: 0.5
decay_steps: 2
gradient_checkpointing: true
keep_checkpoints: 3
save_every: 1
"""
TASK = """name: tickets
format: classification
labels: [rising, falling]
metrics: [accuracy, f1]
splits: {train: train.jsonl, dev: dev.jsonl, test: test.jsonl}
"""


def _tickets(salt: int, count: int) -> str:
    texts = [f"{WORDS[(i * salt) % 8]} {i} {'rises' if i % 2 else 'falls'} {WORDS[i % 5]}" for i in range(count)]
    return _json_lines([{"text": one, "label": "rising" if i % 2 else "falling"} for i, one in enumerate(texts)])


LAMBADA = _json_lines([{"text": f"{i} green bottles, hanging on the {WORDS[i % 8]}"} for i in range(40)])
OTHER_LAMBADA = _json_lines([{"text": f"{i} red bottles, hanging on the {WORDS[i % 8]}"} for i in range(40)])
RTE = "index\tsentence1\tsentence2\tlabel\n" + "".join(
    f"{i}\t{i} bottles hang\t{WORDS[i % 8]} {i}\t{'entailment' if i % 2 else 'not_entailment'}\n" for i in range(24)
)
RTE_TEST = "index\tsentence1\tsentence2\n" + "".join(f"{i}\t{i} bottles\t{WORDS[i % 8]}\n" for i in range(9))
SUITE = """tasks:
  - {task: perplexity/documents, data: text.txt, floor: 0.02}
  - {task: lambada, data: lambada_test.jsonl, limit: 20}
"""
BOUNDED = "tasks:\n  - {task: lambada/last-token, data: lambada_test.jsonl, minimum: 0.99}\n"
HALF_PROMPTS = _json_lines([{"prompt": f"{i} green"} for i in range(3)])

TEXT_FILE = (("write", "text.txt", TEXT), ("write", "shape.json", SHAPE))
TASK_FILES = (
    ("write", "tickets.yaml", TASK),
    ("write", "train.jsonl", _tickets(3, 48)),
    ("write", "dev.jsonl", _tickets(5, 16)),
    ("write", "test.jsonl", _tickets(7, 12)),
)
RTE_FILES = (
    ("write", "RTE/train.tsv", RTE),
    ("write", "RTE/dev.tsv", RTE),
    ("write", "RTE/test.tsv", RTE_TEST),
)
EVAL_FILES = (("write", "lambada_test.jsonl", LAMBADA), ("write", "text.txt", TEXT[:4000]))
REAL_RTE = (
    ("head", "$DATA/tasks/RTE/train.tsv", "RTE/train.tsv", 33),
    ("head", "$DATA/tasks/RTE/dev.tsv", "RTE/dev.tsv", 17),
)

SMALL = "--model shape.json --tokens-per-step 128 --sequence-length 32 --log-every 2 --eval-every 3 --steps 6"
PRETRAIN = f"pretrain text.txt {SMALL} --tokenizer char --learning-rate 0.01 --out run"
FINETUNE = "finetune --model ../lm/run --epochs 1 --batch-size 16 --log-every 50 --out run --json"
TICKETS = "finetune --model ../lm/run --task tickets.yaml --batch-size 8 --log-every 1 --learning-rate 0.01 --out run"
GENERATE = "generate --model ../lm/run --max-new-tokens 24"
EVAL = "eval --model ../lm/run"
SCORES = "--task lambada --data lambada_test.jsonl"
# The plan of a run measures this machine.
MEASURED = ("here", "reserve", "total")

PRETRAINING = (
    Row("lm", f"{PRETRAIN} --json", setup=TEXT_FILE),
    Row("pretrain-shown", f"pretrain text.txt {SMALL} --tokenizer char", setup=TEXT_FILE),
    Row(
        "bpe",
        f"pretrain texts 'more/*.jsonl' {SMALL} --tokenizer bpe:300 --out run --json",
        setup=(
            ("write", "shape.json", SHAPE),
            ("write", "texts/one.txt", TEXT),
            ("write", "texts/two.txt", OTHER),
            ("gzip", "texts/three.txt.gz", OTHER[:900]),
            ("write", "more/documents.jsonl", DOCUMENTS),
        ),
    ),
    Row("pretrain-default", "pretrain --steps 2 --eval-every 2 --out run --json"),
    Row("pretrain-embedded", f"pretrain {SMALL} --tokenizer bpe:600 --out run", setup=TEXT_FILE),
    Row(
        "pretrain-resumed",
        f"{PRETRAIN} --json",
        setup=(
            *TEXT_FILE,
            ("copy", "../lm/run", "run"),
            ("remove", "run/result.json"),
            ("remove", "run/model"),
            ("remove", "run/checkpoints/step-000006"),
            ("replace", "run/config.yaml", "/lm/", "/pretrain-resumed/"),
        ),
    ),
    Row(
        "pretrain-resume-dir",
        "pretrain --resume run --json",
        setup=(
            ("copy", "../lm/run", "run"),
            ("remove", "run/result.json"),
            ("remove", "run/checkpoints/step-000006"),
        ),
    ),
    Row(
        "pretrain-damaged-checkpoint",
        "pretrain --resume run",
        setup=(
            ("copy", "../lm/run", "run"),
            ("remove", "run/result.json"),
            ("flip", "run/checkpoints/step-000006/model.safetensors"),
        ),
    ),
    Row("pretrain-finished", "pretrain --resume run", setup=(("copy", "../lm/run", "run"),)),
    Row("constant", f"{PRETRAIN} --schedule constant --json", setup=TEXT_FILE),
    Row(
        "pretrain-raised",
        "pretrain ../constant/text.txt --model ../constant/shape.json --tokens-per-step 128 --sequence-length 32 "
        "--log-every 2 --eval-every 3 --tokenizer char --learning-rate 0.01 --schedule constant --steps 8 --out run",
        setup=(("copy", "../constant/run", "run"),),
    ),
    Row(
        "pretrain-muon",
        f"{PRETRAIN} --optimizer muon --schedule wsd --warmup-steps 2 --save-every 1 --json",
        setup=TEXT_FILE,
    ),
    Row(
        "pretrain-openai-adam",
        f"{PRETRAIN} --optimizer openai-adam --schedule openai-cosine --dropout 0.1 --micro-batch 2 --on-spike skip "
        "--precision fp32 --compile off --device cpu --seed 3 --weight-decay 0.01",
        setup=TEXT_FILE,
    ),
    Row(
        "pretrain-recipe",
        "pretrain text.txt --model shape.json --recipe mine.yaml --steps 3 --out run --json",
        setup=(*TEXT_FILE, ("write", "mine.yaml", RECIPE)),
    ),
    Row(
        "pretrain-goes-on", "pretrain text.txt --model ../lm/run --steps 3 --tokens-per-step 64 --out run", 0, TEXT_FILE
    ),
    Row(
        "pretrain-validation-file",
        f"{PRETRAIN} --validation other.txt --precision bf16",
        setup=(*TEXT_FILE, ("write", "other.txt", OTHER)),
    ),
    Row("pretrain-gpt1", f"{PRETRAIN} --json", setup=(TEXT_FILE[0], ("write", "shape.json", GPT1_SHAPE))),
    Row("pretrain-diverged", f"{PRETRAIN} --learning-rate 1e30 --json", 5, TEXT_FILE),
    Row("pretrain-2-processes", f"{PRETRAIN} --num-processes 2 --micro-batch 2 --json", setup=TEXT_FILE),
    Row("pretrain-dry-run", f"{PRETRAIN} --dry-run --json", setup=TEXT_FILE, ignore=MEASURED),
    Row(
        "pretrain-shakespeare",
        "pretrain $DATA/corpora/tinyshakespeare.txt --recipe shakespeare-char --steps 2 --eval-every 2 --out run",
    ),
    Row(
        "pretrain-gpt1-tokenizer",
        f"pretrain text.txt {SMALL} --tokenizer $DATA/tokenizers/gpt1 --steps 2 --out run --json",
        setup=TEXT_FILE,
    ),
)

GENERATION = (
    Row("generate-greedy", f"{GENERATE} '7 green' --greedy --json"),
    Row("generate-shown", f"{GENERATE} '7 green' --greedy"),
    Row("generate-top-k", f"{GENERATE} '7 green' --top-k 5 --num-samples 3 --seed 4 --json"),
    Row("generate-top-p", f"{GENERATE} '7' --top-p 0.8 --top-p-rule openai --temperature 0.7 --json"),
    Row("generate-penalty", f"{GENERATE} '7' --repetition-penalty 1.3 --ignore-eos --seed 2 --json"),
    Row("generate-int8", f"{GENERATE} '7 green' --quantize int8 --greedy --json"),
    Row("generate-int4", f"{GENERATE} '7 green' --quantize int4 --top-k 9 --json"),
    Row("generate-bf16", f"{GENERATE} '7 green' --precision bf16 --greedy --json"),
    Row("generate-probabilities", f"{GENERATE} '7 green' --show-probs --greedy --max-new-tokens 5"),
    Row("generate-probabilities-json", f"{GENERATE} '7 green' --show-probs --top-k 3 --max-new-tokens 5 --json"),
    Row("generate-stdin", f"{GENERATE} - --greedy --json", stdin="12 green bottles"),
    Row("generate-unconditional", f"{GENERATE} --num-samples 2 --stream"),
    Row("generate-stop", f"{GENERATE} '7 green' --stop le --stop '\\n' --seed 1 --json"),
    Row("generate-slides", "generate '7 green' --model ../lm/run --max-new-tokens 90 --greedy"),
    Row(
        "generate-prompts",
        f"{GENERATE} --prompts asked.txt --seed 5 --num-samples 2",
        setup=(("write", "asked.txt", "7 green\n8 green\n9\n"),),
    ),
    Row(
        "prompts-json",
        f"{GENERATE} --prompts asked.jsonl --output answers.jsonl --json",
        setup=(("write", "asked.jsonl", HALF_PROMPTS),),
    ),
    Row(
        "generate-prompts-resumed",
        f"{GENERATE} --prompts asked.jsonl --output answers.jsonl",
        setup=(
            ("write", "asked.jsonl", HALF_PROMPTS),
            ("copy", "../prompts-json/answers.jsonl", "answers.jsonl"),
            ("cut", "answers.jsonl", -30),
        ),
    ),
    Row(
        "generate-recipe",
        f"{GENERATE} 'hangs' --recipe ask.yaml --json",
        setup=(("write", "ask.yaml", 'template: "{prompt}, 5 green"\nsentences: 1\ntop_k: 4\nbatch_size: 2\n'),),
    ),
    Row("generate-tldr", f"{GENERATE} '7 green bottles' --recipe tldr"),
    Row(
        "generate-interactive",
        f"{GENERATE} --interactive --top-k 3",
        stdin="7 green\n!set top_k 2\n!seed 3\n8\n!help\n!save talk.txt\n",
    ),
    Row("generate-newest", "generate '7' --greedy --max-new-tokens 5", setup=(("copy", "../lm/run", "runs/one"),)),
    Row("generate-bpe", "generate 'Bottle 3' --model ../bpe/run --top-k 20 --max-new-tokens 20 --show-probs --json"),
    Row("generate-finetuned", "generate 'bottle' --model ../tickets/run --greedy --max-new-tokens 9"),
    Row("generate-snapshot", "generate '7' --model ../lm/run/snapshots/step-000003 --greedy --max-new-tokens 9"),
    Row("generate-gpt1", "generate '7' --model ../pretrain-gpt1/run --greedy --max-new-tokens 20 --json"),
    Row("generate-torch", f"{GENERATE} '7 green' --top-k 5 --num-samples 2 --compile off --json"),
    Row("generate-torch-int8", f"{GENERATE} '7 green' --quantize int8 --compile off --greedy --json"),
    Row("generate-torch-int4", f"{GENERATE} '7 green' --quantize int4 --compile off --show-probs --greedy"),
    Row("generate-beams", f"{GENERATE} '7 green' --beams 3 --json"),
    Row("generate-beams-shown", f"{GENERATE} '7 green' --beams 2 --stop 1"),
    Row(
        "generate-torch-prompts",
        f"{GENERATE} --prompts asked.txt --compile off",
        setup=(("write", "asked.txt", "7 green\n8 green\n9\n"),),
    ),
)

FINETUNING = (
    Row("finetune-classification", f"{FINETUNE} --task demo-classification"),
    Row("finetune-similarity", f"{FINETUNE} --task demo-similarity"),
    Row("finetune-entailment", f"{FINETUNE} --task demo-entailment"),
    Row("finetune-cloze", f"{FINETUNE} --task demo-cloze --predict test"),
    Row("tickets", f"{TICKETS} --predict test --json", setup=TASK_FILES),
    Row("finetune-shown", f"{TICKETS} --lm-coef 0 --epochs 2", setup=TASK_FILES),
    Row("finetune-seeds", f"{TICKETS} --seeds 2 --epochs 2 --seed 5", setup=TASK_FILES),
    Row("finetune-study", f"{TICKETS} --study ablation --epochs 1 --json", setup=TASK_FILES),
    Row(
        "finetune-gradual",
        f"{TICKETS} --unfreeze gradual --layer-decay 0.38 --schedule slanted --epochs 3 --json",
        setup=TASK_FILES,
    ),
    Row("finetune-one-layer", f"{TICKETS} --transfer-layers 1 --optimizer muon --json", setup=TASK_FILES),
    Row(
        "finetune-afresh", f"{TICKETS} --transfer-layers none --optimizer adamw --dropout 0.2 --json", setup=TASK_FILES
    ),
    Row(
        "finetune-rte",
        f"{FINETUNE} --task rte --data . --predict test --micro-batch 3 --warmup-steps 0",
        setup=RTE_FILES,
    ),
    Row(
        "finetune-resumed",
        f"{TICKETS} --json",
        setup=(
            *TASK_FILES,
            ("copy", "../tickets/run", "run"),
            ("remove", "run/result.json"),
            ("remove", "run/model"),
            ("remove", "run/checkpoints/step-000018"),
            ("replace", "run/config.yaml", "/tickets/", "/finetune-resumed/"),
        ),
    ),
    Row(
        "finetune-recipe",
        "finetune --recipe mine.yaml --out run --json",
        setup=(
            *TASK_FILES,
            (
                "write",
                "mine.yaml",
                "task: tickets.yaml\nmodel: ../lm/run\nbatch_size: 8\nclassifier_dropout: 0\nsnapshots: 0\n",
            ),
        ),
    ),
    Row("finetune-dry-run", f"{TICKETS} --dry-run --json", setup=TASK_FILES, ignore=MEASURED),
    Row("finetune-2-processes", f"{TICKETS} --num-processes 2 --micro-batch 2 --json", setup=TASK_FILES),
    Row("finetune-real-rte", f"{FINETUNE} --task rte --data .", setup=REAL_RTE),
    Row(
        "finetune-sts-b",
        f"{FINETUNE} --task stsb --data STS-B",
        setup=(
            ("head", "$DATA/tasks/STS-B/sts-train.csv", "STS-B/sts-train.csv", 40),
            ("head", "$DATA/tasks/STS-B/sts-dev.csv", "STS-B/sts-dev.csv", 20),
        ),
    ),
    Row(
        "finetune-cola",
        f"{FINETUNE} --task cola --data CoLA",
        setup=(
            ("head", "$DATA/tasks/CoLA/train.tsv", "CoLA/train.tsv", 40),
            ("head", "$DATA/tasks/CoLA/dev.tsv", "CoLA/dev.tsv", 30),
        ),
    ),
)

EVALUATION = (
    Row("scores", f"{EVAL} {SCORES} --output base.json --json", setup=EVAL_FILES),
    Row("eval-held-out", f"{EVAL} --output base.json --json"),
    Row("eval-shown", f"{EVAL} --task perplexity --data text.txt --task lambada/last-word", 2, EVAL_FILES),
    Row("eval-perplexity", f"{EVAL} --task perplexity --data text.txt --stride 16 --batch-size 3", setup=EVAL_FILES),
    Row("eval-choices", f"{EVAL} --task demo-cloze --limit 12 --json"),
    Row("eval-newest", "eval --limit 5", setup=(("copy", "../lm/run", "runs/one"),)),
    Row("eval-finetuned", "eval --model ../tickets/run --output base.json"),
    Row("eval-finetuned-split", "eval --model ../finetune-cloze/run --split test --limit 20 --json"),
    Row("eval-finetuned-data", "eval --model ../finetune-rte/run --task rte --data . --json", setup=RTE_FILES),
    Row(
        "eval-suite",
        f"{EVAL} --suite suite.yaml --output base.json",
        setup=(*EVAL_FILES, ("write", "suite.yaml", SUITE)),
    ),
    Row(
        "eval-gate-passes",
        f"{EVAL} {SCORES} --baseline ../scores/base.json --junit gate.xml --summary gate.md",
        setup=EVAL_FILES,
    ),
    Row(
        "eval-gate-fails",
        f"eval --model ../lm/run/snapshots/step-000001 {SCORES} --baseline ../scores/base.json --junit gate.xml "
        "--summary gate.md --floor 0.001 --json",
        3,
        setup=(*EVAL_FILES, ("write", "steps.md", "before\n")),
        environment=(("GITHUB_STEP_SUMMARY", "steps.md"), ("GITHUB_ACTIONS", "true")),
    ),
    Row(
        "eval-gate-fails-shown",
        "eval --model ../lm/run/snapshots/step-000001 --suite suite.yaml --baseline ../eval-suite/base.json",
        3,
        setup=(*EVAL_FILES, ("write", "suite.yaml", SUITE)),
    ),
    Row("eval-minimum", f"{EVAL} --suite suite.yaml --json", 3, (*EVAL_FILES, ("write", "suite.yaml", BOUNDED))),
    Row(
        "eval-other-data",
        f"{EVAL} {SCORES} --baseline ../scores/base.json --json",
        4,
        (("write", "lambada_test.jsonl", OTHER_LAMBADA),),
    ),
    Row(
        "eval-other-tokenizer",
        f"eval --model ../bpe/run {SCORES} --baseline ../scores/base.json",
        4,
        EVAL_FILES,
    ),
    Row("eval-other-task", f"{EVAL} --task demo-cloze --limit 5 --baseline ../scores/base.json", 4),
    Row(
        "eval-without-items",
        f"{EVAL} {SCORES} --baseline base.json",
        4,
        (*EVAL_FILES, ("without-items", "../scores/base.json", "base.json")),
    ),
    Row("eval-checkpoints", f"eval --all-checkpoints run {SCORES}", setup=(*EVAL_FILES, ("copy", "../lm/run", "run"))),
    Row("eval-contamination", f"{EVAL} {SCORES} --contamination text.txt --json", setup=EVAL_FILES),
    Row("eval-bf16", f"{EVAL} {SCORES} --precision bf16 --json", setup=EVAL_FILES),
    Row(
        "eval-lambada", f"{EVAL} --task lambada --data $DATA/zero_shot/lambada_test.jsonl --limit 30 --output base.json"
    ),
    Row("eval-blimp", f"{EVAL} --task blimp --data $DATA/zero_shot/blimp --limit 5 --json"),
    Row("eval-wikitext", f"{EVAL} --task perplexity --data $DATA/corpora/wikitext2-valid.txt --limit 20 --json"),
    Row("eval-cola", f"{EVAL} --task cola --data $DATA/tasks/CoLA --limit 30 --json"),
)

OTHERS = (
    Row("version", "--version"),
    Row("tasks", "tasks"),
    Row("tasks-json", "tasks --json"),
    Row("env", "env --json", keys=True),
    Row("recipes-ls", "recipes ls"),
    Row("recipes-ls-json", "recipes ls --json"),
    Row("recipes-show", "recipes show laptop"),
    Row("recipes-show-preset", "recipes show models/gpt2-small --json"),
    Row("recipes-show-finetune", "recipes show finetune/demo-cloze"),
    Row("recipes-show-generate", "recipes show tldr --json"),
    Row("recipes-cp", "recipes cp pretrain/laptop mine.yaml"),
    Row("recipes-cp-preset", "recipes cp models/tiny . --json"),
    Row("hf", "convert ../lm/run hf --to hf --json"),
    Row("convert-back", "convert ../hf/hf back"),
    Row("convert-finetuned", "convert ../tickets/run hf --to hf"),
    Row("convert-gpt1", "convert ../pretrain-gpt1/run hf --to hf --json"),
    Row("convert-nanogpt", "convert ckpt.pt imported --tokenizer ../bpe/run/model", setup=(("fixture", "ckpt.pt"),)),
    Row("convert-openai", "convert openai imported --json", setup=(("fixture", "openai"),)),
    Row("convert-pickled", "convert pickled imported --json", setup=(("fixture", "pickled"),)),
    Row("generate-hf", "generate '7' --model ../hf/hf --greedy --max-new-tokens 9 --json"),
    Row("tokenizer-train", "tokenizer train text.txt --tokenizer bpe:300 --out made --json", setup=TEXT_FILE),
    Row("tokenizer-train-char", "tokenizer train text.txt -t char -o made", setup=TEXT_FILE),
    Row("tokenizer-compare", "tokenizer compare char bpe:300 text.txt --json", setup=TEXT_FILE),
    Row(
        "tokenizer-compare-shown", "tokenizer compare ../lm/run ../bpe/run text.txt --megabytes 0.005", setup=TEXT_FILE
    ),
    Row(
        "tokenizer-compare-real",
        "tokenizer compare $DATA/tokenizers/gpt2 $DATA/tokenizers/gpt1 $DATA/corpora/state_union.txt --megabytes 0.1",
    ),
)

HELD = (("copy", "../lm/run", "run"), ("remove", "run/result.json"), ("hold", "run/run.lock"))
UNUSABLE = "pretrain text.txt --steps 1 --model shape.json --out run"
ERRORS = (
    # What the command line itself refuses.
    Row("error-command", "pretrian", 2),
    Row("error-command-json", "pretrian --json", 2),
    Row("error-flag-before", "--model x generate", 2),
    Row("error-root-flag", "--versoin", 2),
    Row("error-subcommand", "recipes shwo laptop", 2),
    Row("error-flag", "pretrain --frobnicate 3", 2),
    Row("error-flag-json", "pretrain --frobnicate 3 --json", 2),
    Row("error-misspelt", "pretrain --stesp 3", 2),
    Row("error-misspelt-finetune", "finetune --task rte --lm-ceof 1 --json", 2),
    Row("error-misspelt-generate", "generate --top_k 3", 2),
    Row("error-misspelt-eval", "eval --baselin x", 2),
    Row("error-one-dash", "generate -model x", 2),
    Row("error-one-dash-json", "finetune -task rte --json", 2),
    Row("error-unknown-short", "generate -x", 2),
    Row("error-glued", "generate -m=x", 2),
    Row("error-recipe-key", "pretrain --beta1 0.9", 2),
    Row("error-recipe-key-dashed", "pretrain --keep-checkpoints 3", 2),
    Row("error-recipe-key-generate", "generate --template x", 2),
    Row("error-recipe-key-finetune", "finetune --task rte --classifier-dropout 0 --json", 2),
    Row("error-negative-number", "generate -5", 2),
    Row("error-switch-value", "generate --greedy=yes", 2),
    Row("error-no-value", "pretrain --steps", 2),
    Row("error-no-task", "finetune", 2),
    Row("error-no-task-json", "finetune --json", 2),
    Row("error-no-arguments", "convert", 2),
    Row("error-one-argument", "convert x --json", 2),
    Row("error-too-many-arguments", "convert a b c", 2),
    Row("error-argument-of-none", "tasks everything", 2),
    Row("error-not-whole", "pretrain --steps 1.5", 2),
    Row("error-not-a-number", "pretrain --learning-rate fast --json", 2),
    Row("error-out-of-range", "pretrain --steps 0", 2),
    Row("error-not-finite", "generate --temperature nan", 2),
    Row("error-maximum", "generate --top-p 1.5", 2),
    Row("error-between", "pretrain --dropout 2", 2),
    Row("error-choice", "pretrain --optimizer adma", 2),
    Row("error-choice-json", "generate --quantize int5 --json", 2),
    Row("error-empty", "pretrain --tokenizer ''", 2),
    # Recipes and runs as the source of options.
    Row("error-recipe-unknown", "pretrain --recipe lptop", 2),
    Row("error-recipe-missing", "pretrain --recipe mine.yaml", 2),
    Row("error-recipe-bad-key", "pretrain --recipe a.yaml", 2, (("write", "a.yaml", "steps: 3\nlearning_rat: 1\n"),)),
    Row("error-recipe-bad-value", "pretrain --recipe a.yaml --json", 2, (("write", "a.yaml", "steps: many\n"),)),
    Row("error-recipe-twice", "pretrain --recipe a.yaml", 2, (("write", "a.yaml", "steps: 3\nsteps: 4\n"),)),
    Row("error-recipe-nested", "pretrain --recipe a.yaml", 2, (("write", "a.yaml", "steps: {a: 1}\n"),)),
    Row("error-recipe-yaml", "pretrain --recipe a.yaml", 2, (("write", "a.yaml", "steps: [3\n"),)),
    Row("error-recipe-flag-only", "pretrain --recipe a.yaml", 2, (("write", "a.yaml", "json: true\n"),)),
    Row("error-resume-missing", "pretrain --resume nowhere", 2),
    Row("error-resume-foreign", "finetune --resume ../lm/run --json", 2),
    Row("error-resume-and-out", "pretrain --resume ../lm/run --out x", 2),
    Row("error-recipes-show", "recipes show laptpo", 2),
    Row("error-recipes-cp", "recipes cp laptop mine.yaml", 2, (("write", "mine.yaml", ""),)),
    # Data, models and directories that cannot be used.
    Row("error-data", "pretrain nowhere.txt --json", 2),
    Row("error-data-glob", "pretrain 'nothing/*.txt'", 2),
    Row("error-data-empty", UNUSABLE, 2, (("write", "shape.json", SHAPE), ("write", "text.txt", ""))),
    Row("error-data-bytes", UNUSABLE, 2, (("write", "shape.json", SHAPE), ("bytes", "text.txt", "fffe00d8"))),
    Row("error-data-jsonl", "pretrain a.jsonl --out run", 2, (("write", "a.jsonl", '{"text": "x"}\n{"txt": 1}\n'),)),
    Row("error-preset", "pretrain text.txt --model laptpo", 2, TEXT_FILE),
    Row("error-shape", "pretrain text.txt --model bad.json", 2, (*TEXT_FILE, ("write", "bad.json", '{"n_layer": -1}'))),
    Row("error-tokenizer", "pretrain text.txt --tokenizer bpe:many", 2, TEXT_FILE),
    Row("error-sequence-length", f"{PRETRAIN} --sequence-length 100", 2, TEXT_FILE),
    Row("error-tokens-per-step", f"{PRETRAIN} --tokens-per-step 100 --json", 2, TEXT_FILE),
    Row("error-out-exists", f"{PRETRAIN}", 2, (*TEXT_FILE, ("write", "run/notes.txt", "mine"))),
    Row("error-out-file", f"{PRETRAIN}", 2, (*TEXT_FILE, ("write", "run", "mine"))),
    Row("error-resume-never", f"{PRETRAIN} --resume never", 2, (*TEXT_FILE, ("copy", "../lm/run", "run"))),
    Row("error-other-options", f"{PRETRAIN} --seed 9 --json", 2, (*TEXT_FILE, ("copy", "../lm/run", "run"))),
    Row("error-in-use", "pretrain --resume run", 2, HELD),
    Row("error-processes", f"{PRETRAIN} --num-processes 9", 2, TEXT_FILE),
    Row("error-accelerate-config", f"{PRETRAIN} --accelerate-config fsdp3", 2, TEXT_FILE),
    Row("error-hub", "pretrain hf:nobody/nothing --json", 2),
    Row("error-no-run", "generate hello", 2),
    Row("error-model", "generate hello --model nowhere", 2),
    Row("error-model-file", "generate hello --model text.txt --json", 2, TEXT_FILE),
    Row(
        "error-model-damaged",
        "generate x --model m",
        2,
        (("copy", "../lm/run/model", "m"), ("cut", "m/model.safetensors", 5000)),
    ),
    Row(
        "error-checkpoint-damaged",
        "generate x --model run/checkpoints/step-000006",
        2,
        (("copy", "../lm/run", "run"), ("flip", "run/checkpoints/step-000006/model.safetensors")),
    ),
    Row(
        "error-checkpoints-damaged",
        "pretrain --resume run --json",
        2,
        (
            ("copy", "../lm/run", "run"),
            ("remove", "run/result.json"),
            ("flip", "run/checkpoints/step-000003/model.safetensors"),
            ("flip", "run/checkpoints/step-000006/optimizer.safetensors"),
        ),
    ),
    Row("error-prompts", "generate --prompts nowhere.txt --model ../lm/run", 2),
    Row(
        "error-prompts-other",
        f"{GENERATE} --prompts asked.jsonl --output answers.jsonl --seed 8",
        2,
        (("write", "asked.jsonl", HALF_PROMPTS), ("copy", "../prompts-json/answers.jsonl", "answers.jsonl")),
    ),
    Row("error-prompt-and-prompts", "generate hello --prompts asked.txt --model ../lm/run", 2),
    Row("error-interactive", f"{GENERATE} --interactive", 2, stdin="7\n!set top_q 2\n"),
    Row("error-question-too-long", f"{GENERATE} 'who' --recipe question-answering --json", 2),
    Row("error-output-alone", "generate hello --output x.jsonl --model ../lm/run", 2),
    Row("error-beams-and-top-k", f"{GENERATE} x --beams 2 --top-k 3", 2),
    Row("error-unknown-task", "finetune --task ret --model ../lm/run", 2),
    Row("error-task-data", "finetune --task rte --data . --model ../lm/run", 2),
    Row("error-task-no-data", "finetune --task rte --model ../lm/run --json", 2),
    Row(
        "error-task-yaml", "finetune --task a.yaml --model ../lm/run", 2, (("write", "a.yaml", "format: classified\n"),)
    ),
    Row("error-task-label", f"{TICKETS}", 2, (*TASK_FILES, ("write", "dev.jsonl", '{"text": "x", "label": "odd"}\n'))),
    Row("error-transfer-layers", f"{TICKETS} --transfer-layers 7", 2, TASK_FILES),
    Row("error-predict", f"{TICKETS} --predict tset", 2, TASK_FILES),
    Row("error-study", f"{TICKETS} --study ablation --lm-coef 0", 2, TASK_FILES),
    Row("error-eval-task", f"{EVAL} --task lamdaba", 2),
    Row("error-eval-protocol", f"{EVAL} --task lambada/first-word --json", 2),
    Row("error-eval-twice", f"{EVAL} --task lambada --task lambada", 2),
    Row("error-eval-no-data", f"{EVAL} --task lambada --json", 2),
    Row("error-eval-floor", f"{EVAL} --floor 0.1", 2),
    Row("error-eval-junit", f"{EVAL} --junit x.xml", 2),
    Row("error-eval-suite", f"{EVAL} --suite suite.yaml", 2, (("write", "suite.yaml", "tasks: [{tsk: lambada}]\n"),)),
    Row("error-eval-suite-and-task", f"{EVAL} --suite suite.yaml --task lambada", 2),
    Row("error-eval-baseline", f"{EVAL} --baseline nowhere.json --json", 2),
    Row("error-eval-baseline-json", f"{EVAL} --baseline a.json", 2, (("write", "a.json", "{"),)),
    Row(
        "error-eval-lm-eval",
        f"{EVAL} {SCORES} --baseline folder",
        4,
        (
            *EVAL_FILES,
            ("write", "folder/results_2026-11-22T12-33-27.651388.json", '{"results": {}, "lm_eval_version": "0.4.13"}'),
        ),
    ),
    Row("error-eval-head", "eval --model ../lm/run --task rte --data .", 2, RTE_FILES),
    Row("error-eval-two-outputs", f"{EVAL} --output a.json --junit a.json --baseline b.json", 2),
    Row("error-convert-taken", "convert ../lm/run run --to hf", 2, (("write", "run/x", ""),)),
    Row("error-convert-source", "convert nowhere there --json", 2),
    Row("error-convert-harmful", "convert ckpt.pt there", 2, (("fixture", "harmful/ckpt.pt", "ckpt.pt"),)),
    Row("error-tokenizer-train", "tokenizer train text.txt --tokenizer gpt2 --out made", 2, TEXT_FILE),
    Row("error-tokenizer-compare", "tokenizer compare char nowhere text.txt --json", 2, TEXT_FILE),
    # Where the results go.
    Row("error-closed-stdout", "recipes ls", 0, stdout="closed"),
    Row("error-closed-stdout-json", f"{GENERATE} x --json", 0, stdout="closed"),
    Row("error-full-stdout", "tasks --json", 6, stdout="full"),
)

COMMANDS = (
    *(
        "",
        "pretrain",
        "finetune",
        "generate",
        "eval",
        "convert",
        "tasks",
        "env",
        "recipes",
        "recipes ls",
        "recipes show",
    ),
    *("recipes cp", "tokenizer", "tokenizer train", "tokenizer compare"),
)
HELP = tuple(Row(f"help-{one.replace(' ', '-') or 'gptkit'}", one, help=True) for one in COMMANDS)

ROWS = (*PRETRAINING, *FINETUNING, *GENERATION, *EVALUATION, *OTHERS, *ERRORS, *HELP)
