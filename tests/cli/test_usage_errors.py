"""Errors in a command line come before torch and transformers are imported, which takes seconds."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from generation_toy import write_model

# A command line, and part of its error.
WRONG = {
    "pretrain nofile.txt": "file not found",
    "pretrain a.pdf": "does not read this kind of file",
    "pretrain empty": "no text file found",
    "pretrain --model nope": "neither a preset nor a config.json",
    "pretrain text.txt --model model --sequence-length 5000": "exceed the model's",
    "pretrain --model tiny --tokens-per-step 100": "not a multiple of the sequence length",
    "pretrain --validation 2": "not between 0 and 1",
    "pretrain --validation nofile.txt": "neither a fraction nor a file",
    "pretrain --tokenizer nope": "no such tokenizer directory",
    "pretrain --tokenizer empty": "no tokenizer in this directory",
    "pretrain --tokenizer bpe:3": "at least 257",
    "pretrain --out text.txt": "--out is a file",
    "pretrain --out model": "not a run directory",
    "pretrain --recipe nope": "no recipe or file called",
    "pretrain --resume empty": "no run",
    "pretrain --steps many": "not a whole number",
    "pretrain --num-processes 64 --model tiny --tokens-per-step 256": "too few for 64 processes",
    "pretrain --accelerate-config nofile.yaml": "no such configuration or file",
    "finetune --task nope": "no task is called 'nope'",
    "finetune --task nofile.yaml": "file not found",
    "finetune --task breaking-nli": "for evaluation only",
    "finetune --task rte --model model": "rte needs its data",
    "finetune --task rte --model model --data nodir": "no such file or folder",
    "finetune --task rte --model model --data empty": "no file for the split 'train'",
    "finetune --task demo-cloze": "no finished pretrain run under ./runs",
    "finetune --task demo-cloze --model nope": "no such model directory",
    "finetune --task demo-cloze --model gpt2-small": "is a preset",
    "finetune --task demo-cloze --model model --data empty": "reads no data",
    "finetune --task demo-cloze --model model --predict nope": "no split 'nope'",
    "finetune --task demo-cloze --model model --transfer-layers 99": "not a valid number of layers",
    "finetune --task demo-cloze --model model --study ablation --lm-coef 0": "varies this itself",
    "eval": "no finished run under ./runs",
    "eval --task nope": "unknown task 'nope'",
    "eval --task nofile.yaml": "file not found",
    "eval --model nope": "no such model directory",
    "eval --model model": "no config.yaml of that run",
    "eval --model model --task rte": "has no zero-shot protocol",
    "eval --model model --task lambada": "lambada needs its data",
    "eval --model model --task lambada --data nodir": "no such file or folder",
    "eval --model model --task lambada --data empty": "no file for lambada",
    "eval --model model --task lambada --data bad.jsonl": "not valid JSON",
    "eval --suite nofile.yaml": "file not found",
    "eval --baseline nofile.json": "file not found",
    "eval --baseline model/config.json": "no schema",
    "eval --floor 0.1": "--floor needs a baseline",
    "eval --all-checkpoints nodir": "no such run",
    "eval --model model --task perplexity --data text.txt --junit out.xml": "no verdict to report",
    "eval --model model --task perplexity --data text.txt --contamination nofile.txt": "file not found",
    "eval --output nodir/scores.json": "its folder does not exist",
    "generate --model nope": "no such model directory",
    "generate --model model --prompts nofile.txt": "file not found",
    "generate --temperature cold": "is not a number",
    "generate --model model --steer 0.1": "'0.1' does not name a unit and a value",
    "generate --model model --steer 0.1=inf": "does not name a unit and a value",
    "generate --model model --steer 9.1=2": "the model has no unit 9.1",
    "generate --model model --steer 0.9999=2": "the model has no unit 0.9999",
    "generate --model model --steer 0.1=2 --compile on --device cpu": "--steer holds a unit in torch",
    "score": "no text to score",
    "score x --model nope": "no such model directory",
    "score --texts nofile.txt --model model": "file not found",
    "score x --precision int8": "int8 need quantized weights",
    "predict": "no text to label",
    "predict x": "no finished finetune run under ./runs",
    "predict x --model model": "the model is not fine-tuned",
    "predict x --output out.jsonl": "--output is only for --inputs",
    "inspect a --model nope": "no such model directory",
    "inspect '' --model model": "the text is empty",
    "inspect a --model model --head 9.0": "has no head '9.0'",
    "inspect a --model model --out nodir/a.html": "its folder does not exist",
    "inspect '0123456789 0123456789 0123456789' --model model": "but the model has 24",
    "probe --task nope": "no task is called 'nope'",
    "probe --task stsb": "the labels of stsb are scores, not classes",
    "probe --task demo-cloze": "the labels of demo-cloze are choices, not classes",
    "probe --task breaking-nli": "has no split 'train'",
    "probe --task rte --data empty": "no file for the split 'train'",
    "probe --model nope": "no such model directory",
    "probe --model model --out model": "destination already exists",
    "convert nope new": "no such model directory",
    "convert model model": "already exists",
    "convert model new --tokenizer nope": "no such tokenizer directory",
    "convert model new --to hf --dtype q4_0": "hf holds no q4_0",
    "convert model new --adapter nope": "file not found",
    "tokenizer train nofile.txt": "file not found",
    "tokenizer train --tokenizer nope": "cannot be trained",
    "tokenizer compare char nope": "no such tokenizer directory",
    "tokenizer compare char bpe:300 nofile.txt": "file not found",
    "tokenizer compare char bpe:300 --data text.txt": "pass it as an argument: gptkit tokenizer compare A B DATA",
    "pretrain --model runs/novle": "did you mean 'runs/novel'?",
    "generate --model novel": "did you mean 'runs/novel'?",
    "generate --model runs/novle": "did you mean 'runs/novel'?",
    "eval --all-checkpoints runs/novle": "did you mean 'runs/novel'?",
    "tokenizer compare novel char": "did you mean 'runs/novel'?",
    "tokenizer encode x --model novel": "did you mean 'runs/novel'?",
    "tokenizer encode x --model nope": "no such directory",
    "tokenizer decode 1 --tokenizer nope": "no such directory",
    "tasks show nope": "no task is called",
    "runs show nope": "no such run",
    "recipes show nope": "no recipe is called",
}
SCRIPT = """
import json, sys
from gptkit.cli.main import main
for words in json.load(sys.stdin):
    code = main(words)
    print("", json.dumps([code, [name for name in ("torch", "transformers") if name in sys.modules]]), flush=True)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, list[str], str]]:
    """The exit code of each wrong command line, what heavy libraries were imported by then, and its error."""
    folder = tmp_path_factory.mktemp("wrong")
    write_model(folder / "model", "bpe:300")
    (folder / "empty").mkdir()
    (folder / "runs/novel/start").mkdir(parents=True)
    for name, text in (("a.pdf", "Some text.\n"), ("text.txt", "Some text.\n"), ("bad.jsonl", '{"text": \n')):
        (folder / name).write_text(text)
    lines = [[*shlex.split(line), "--json"] for line in WRONG]
    environment = {**os.environ, "GPTKIT_CACHE": str(folder / "cache")}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
    )
    assert run.returncode == 0, run.stderr
    errors, found = (
        [json.loads(line) for line in run.stdout.splitlines() if line.startswith(first)] for first in ("{", " ")
    )
    parts = ("message", "where", "fix")
    messages = [" ".join(str(one["error"][part]) for part in parts) if "error" in one else "" for one in errors]
    return {line: (*ended, message) for line, ended, message in zip(WRONG, found, messages, strict=True)}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_command_line_is_refused_before_torch_is_imported(
    line: str, answers: dict[str, tuple[int, list[str], str]]
) -> None:
    code, imported, message = answers[line]
    assert code == 2
    assert WRONG[line] in message
    assert imported == []


def test_the_commands_with_a_check_take_wrong_lines() -> None:
    from gptkit.cli.commands import COMMANDS

    assert {row.name.split()[0] for row in COMMANDS if row.check} <= {line.split()[0] for line in WRONG}
    assert not Path("new").exists()
