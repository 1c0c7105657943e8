"""Makes the runs that are kept here, once, with the gptkit that PYTHONPATH names: python make.py [FOLDER].

The runs that are called interrupted got a SIGTERM in their middle, as from a scheduler. `FOLDER` stands in config.yaml
for the folder that they were made in.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

WORDS = ("bottle", "wall", "green", "hang", "fall", "count", "other", "number")
SHAPE = {"model_type": "gptkit", "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2}
COMMON = "--precision fp32 --compile off --device cpu --log-every 20 --dropout 0.05 --micro-batch 8"
PRETRAIN = (
    "pretrain bottles.txt --model shape.json --tokenizer char --steps 160 --tokens-per-step 512 --eval-every 80 "
    f"--learning-rate 0.03 --warmup-steps 5 {COMMON} --recipe few-snapshots.yaml"
)
FINETUNE = (
    "finetune --task rte --data RTE --model finished/model --epochs 4 --batch-size 8 --learning-rate 0.003 "
    f"{COMMON} --recipe no-snapshots.yaml"
)
GENERATE = "generate '100 green bott' --model finished --greedy --max-new-tokens 24 --precision fp32"
INTERRUPTED = """
import os, signal, sys
from gptkit.__main__ import main
from gptkit.commands import training_run
step = training_run._Following._step
def stopping(self, event, progress):
    step(self, event, progress)
    if event.step == STEP:
        os.kill(os.getpid(), signal.SIGTERM)
training_run._Following._step = stopping
main()
"""


def main() -> None:
    here = Path(__file__).parent
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        os.chdir(folder)
        write_data()
        gptkit(f"{PRETRAIN} --out finished")
        interrupted(f"{PRETRAIN} --out interrupted-pretrain", step=80)
        pretrained = json.loads(Path("finished/result.json").read_text())
        tuned = gptkit(f"{FINETUNE} --out tuned")
        interrupted(f"{FINETUNE} --out interrupted-finetune", step=10)
        gptkit("eval --model tuned --output finetune-baseline.json")
        gptkit("eval --model finished --task perplexity --data held-out.jsonl --output perplexity-baseline.json")
        figures = {
            "pretrain": {
                key: pretrained[key] for key in ("steps", "tokens", "train_loss", "val_loss", "bits_per_byte")
            },
            "finetune": {key: tuned[key] for key in ("steps", "tokens", "train_loss", "val_loss", "metrics")},
            "greedy": gptkit(GENERATE)["samples"][0]["token_ids"],
        }
        Path("figures.json").write_text(json.dumps(figures, indent=1) + "\n")
        shutil.rmtree("tuned")
        shutil.rmtree("interrupted-finetune/checkpoints/step-000005")  # the older of two, for room
        for part in ("checkpoints", "snapshots"):
            shutil.rmtree(Path("finished", part))
        for picture in folder.rglob("loss.png"):
            picture.unlink()
        for config in folder.rglob("config.yaml"):
            config.write_text(config.read_text().replace(str(folder), "FOLDER"))
        shutil.copytree(folder, Path(sys.argv[1]) if len(sys.argv) > 1 else here, dirs_exist_ok=True)


def write_data() -> None:
    lines = [f"{i} green bottles, hanging on wall number {i * i};\n" for i in range(120)]
    Path("bottles.txt").write_text("".join(lines))
    texts = [f"{i} green bottles, hanging on wall number {i * i};\n" * 2 for i in range(200, 240)]
    Path("held-out.jsonl").write_text("".join(json.dumps({"text": one}) + "\n" for one in texts))
    Path("shape.json").write_text(json.dumps(SHAPE))
    Path("few-snapshots.yaml").write_text("snapshots: 2\n")
    Path("no-snapshots.yaml").write_text("snapshots: 0\n")
    Path("RTE").mkdir()
    for split, count in (("train", 40), ("dev", 24)):
        rows = [
            f"{i}\t{i} green {WORDS[i % 8]}s\t{'a wall' if i % 2 else 'bottles'} {WORDS[i * 5 % 7]}"
            f"\t{'entailment' if i % 2 else 'not_entailment'}\n"
            for i in range(count)
        ]
        Path("RTE", f"{split}.tsv").write_text("index\tsentence1\tsentence2\tlabel\n" + "".join(rows))


def gptkit(line: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "gptkit", *shlex.split(line), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def interrupted(line: str, *, step: int) -> None:
    script = INTERRUPTED.replace("STEP", str(step))
    code = subprocess.run([sys.executable, "-c", script, *line.split()]).returncode
    assert code == 143, code


if __name__ == "__main__":
    main()
