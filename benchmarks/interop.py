"""Other programs on the models that gptkit writes: do they read them, and compute the same?

    [GPTKIT_TEST_DATA=...] [LLM_C=llm.c/test_gpt2] python benchmarks/interop.py [--only PEER ...] [--out FILE]

small models, trained here -> what gptkit computes -> for each peer of interop_peers.py an environment of its own, on
top of gptkit's and thrown away afterwards -> the table in docs/interop.md

`make interop` runs it all: 15 minutes on two cores, most of them pip's. A peer that cannot be installed, or for which
something else is missing, is "not run", with the reason; one that computes something else fails the run: exit 1.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pickle
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from interop_peers import DATA, GPT2_TOKENIZER, LAMBADA_FILE, PASSAGES, PEERS, Model
from side_by_side import machine

from gptkit.system.files import plain_name

SOURCES = Path(__file__).parents[1] / "src"
LONGEST = 300  # seconds that an installation, or a peer, may take

SHAPE = {"n_layer": 2, "n_head": 4, "n_embd": 64, "n_positions": 256}
SHAPE |= dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), 0)  # TRL's loss while it trains is compared
RECIPE = {"steps": 200, "tokens-per-step": 512, "optimizer": "muon", "learning-rate": 0.02, "eval-every": 200}
TRAINED = [f"--{name}={value}" for name, value in RECIPE.items()]
MODELS: dict[str, tuple[dict[str, Any], str]] = {  # what the table calls it -> its config.json, its tokenizer
    "GPT-2, bpe:1024": (SHAPE, "bpe:1024"),
    GPT2_TOKENIZER: (SHAPE, f"{os.environ.get(DATA)}/tokenizers/gpt2"),
    "GPT-1's post-norm, bpe:1024": (SHAPE | {"pre_norm": False}, "bpe:1024"),
}


class Row(NamedTuple):
    peer: str
    release: str
    compared: str
    difference: str


def main() -> int:
    options = parsed_options()
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(SOURCES)}
    os.environ["OMP_NUM_THREADS"] = "1"  # of each of the two that run at a time
    began, rows = time.perf_counter(), list[Row]()
    with tempfile.TemporaryDirectory(prefix="interop-") as folder, ThreadPoolExecutor(2) as pool:
        names = [name for name in MODELS if name != GPT2_TOKENIZER or DATA in os.environ]
        models = list(pool.map(partial(make_model, Path(folder)), names))
        Path(folder, "models.json").write_text(json.dumps(models))
        for found in pool.map(partial(rows_of, Path(folder)), options.only or PEERS):
            print(*(" | ".join(row) for row in found), sep="\n", flush=True)
            rows += found
    options.out.write_text(page(rows, (time.perf_counter() - began) / 60), encoding="utf-8")
    return int(any(row.difference.startswith("FAILED") for row in rows))


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(PEERS))
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "interop.md")
    return parser.parse_args()


def make_model(folder: Path, name: str) -> Model:
    """Train a model, export it, and write what gptkit computes; return the row of models.json, which peers read."""
    shape, tokenizer = MODELS[name]
    files = Model(name, *(str(folder / f"{plain_name(name)}{end}") for end in ("/model", "-hf", ".pkl")))
    config = Path(files.expected).with_suffix(".json")
    config.write_text(json.dumps(shape))
    run = Path(files.model).parent
    gptkit("pretrain", *passages(run), "--tokenizer", tokenizer, "--model", config, "--out", run, *TRAINED)
    gptkit("convert", run, files.hf, "--to", "hf")
    Path(files.expected).write_bytes(pickle.dumps(what_gptkit_computes(run / "model")))
    return files


def passages(run: Path) -> list[Path]:
    """Return the text to learn: half of what lm-eval will ask for, to get that right; nothing without the data."""
    if DATA not in os.environ:
        return []
    lines = Path(os.environ[DATA], LAMBADA_FILE).read_text(encoding="utf-8").splitlines(keepends=True)
    text = run.with_suffix(".jsonl")
    text.write_text("".join(lines[: PASSAGES // 2]), encoding="utf-8")
    return [text]


def gptkit(*arguments: str | Path) -> None:
    if reason := failure([sys.executable, "-m", "gptkit", *map(str, arguments)]):
        sys.exit(reason)


def what_gptkit_computes(folder: Path) -> Any:
    """Return the questions of convert's proof and our answers to them."""
    from gptkit.convert.proof import language_questions, observe, proof_text
    from gptkit.convert.torch_peer import own_peer
    from gptkit.model.loading import load_model
    from gptkit.text.tokenizers.encoding import encode_pieces
    from gptkit.text.tokenizers.loading import tokenizer_in

    model, tokenizer, text = load_model(folder), tokenizer_in(folder), proof_text()
    sizes = {name: getattr(model.config, name) for name in ("n_positions", "vocab_size")}
    [ids] = encode_pieces(tokenizer, [text])
    questions = language_questions(ids.tolist(), text, parameters=model.num_parameters(), **sizes)
    return questions, observe(own_peer(model, tokenizer), questions, with_gaps=True)


def rows_of(folder: Path, name: str) -> list[Row]:
    """Return a peer's rows of the table, one that says why if there is none."""
    peer, began = PEERS[name], time.perf_counter()
    if peer.data and DATA not in os.environ:
        return [Row(name, "", "", f"not run: {DATA} is not set")]
    with tempfile.TemporaryDirectory(prefix="peer-", dir=folder) as environment:
        python = make_environment(Path(environment))
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", python]
        steps = [[*pip, "install", "--no-compile", "-U", *peer.packages]] if peer.packages else []
        if source := peer.source:
            steps.append([*pip, "download", "--no-deps", f"--no-binary={source}", "-d", environment, source])
        for step in steps:
            if reason := failure(step):
                return [Row(name, "", "", f"not run: pip could not install it: {reason}")]
        installed = time.perf_counter()
        script = str(Path(__file__).with_name("interop_peers.py"))
        if reason := failure([python, script, name, str(folder), environment]):
            return [Row(name, "", "", f"FAILED: {reason}")]
        print(f"{name}: {installed - began:.0f} s of installing, {time.perf_counter() - installed:.0f} s of running")
        return [Row(name, *row) for row in json.loads(Path(environment, "result.json").read_text(encoding="utf-8"))]


def make_environment(folder: Path) -> str:
    """Make an environment that also sees the packages of this one, after its own, and return its Python."""
    venv.create(folder, symlinks=os.name != "nt")
    paths = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)}, scheme="venv")
    Path(paths["purelib"], "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return str(Path(paths["scripts"], "python"))


def failure(command: Sequence[str]) -> str | None:
    """Run a command and return the last line of its complaint if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        return f"it took more than {LONGEST} seconds"
    lines = done.stderr.strip().splitlines()
    return None if done.returncode == 0 else (lines or [f"exit code {done.returncode}"])[-1].strip()


def page(rows: Iterable[Row], minutes: float) -> str:
    """Return the page: what was done where and when, and the table."""
    today = datetime.datetime.now(datetime.UTC).date()
    lines = [
        "# Interoperability: what other programs make of gptkit's models",
        "",
        f"Written by `make interop` on {today}, in {minutes:.0f} minutes, {sum(os.times()[:4]) / 60:.0f} of CPU time.",
        f"{machine('torch', 'transformers')}.",
        "",
        *__doc__.split("\n\n")[0].splitlines(),
        "",
        "| peer | version | what was compared | difference |",
        "|---|---|---|---|",
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
