"""Other programs on the models that gptkit writes: do they read them, and compute the same?

    [GPTKIT_TEST_DATA=...] python benchmarks/interop.py [--only PEER ...] [--out docs/interop.md]

small models, trained here -> what gptkit computes -> for each peer an environment of its own, thrown away afterwards,
in which interop_peers.py runs it -> the table in docs/interop.md

`make interop` runs it all: 15 minutes on two cores, most of them pip's. A peer that cannot be installed, or for which
there are no data, is "not run", with the reason; one that computes something else fails the run: exit 1.
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
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from interop_peers import LAMBADA_FILE, PASSAGES
from side_by_side import machine

from gptkit.convert.formats import EXPORTS

SOURCES = Path(__file__).parents[1] / "src"
LONGEST = 180  # seconds that an installation, or a peer, may take
TORCH = os.environ.get("TORCH", f"torch=={version('torch')}").split()  # as the Makefile has it


@dataclass(frozen=True)
class Peer:
    """What to install, the distribution whose version counts, and the format of convert that it reads.

    `beside`: on top of gptkit's own environment, whose torch and transformers it sees; pip adds only what is missing.
    Otherwise nothing but `packages` is there. `data`: it needs GPTKIT_TEST_DATA.
    """

    packages: Sequence[str]
    counts: str
    reads: str = "hf"
    beside: bool = True
    data: bool = False


PEERS = {  # the names are those of the functions in interop_peers.py
    "transformers 5": Peer([], "transformers"),
    "transformers 4.57": Peer([*TORCH, "transformers==4.57.*"], "transformers", beside=False),
    "PEFT": Peer(["peft"], "peft"),
    "TRL": Peer(["trl"], "trl"),
    "lm-eval": Peer(["lm-eval[hf]"], "lm_eval", data=True),
    "llama.cpp": Peer(["gguf", "xllamacpp"], "xllamacpp", "gguf"),
    "onnxruntime": Peer(["onnx", "onnxscript", "onnxruntime"], "onnxruntime", "onnx"),
    "CTranslate2": Peer(["ctranslate2"], "ctranslate2", "ctranslate2"),
    "mlx-lm": Peer(["mlx-lm", "mlx[cpu]"], "mlx-lm", beside=False),
}

SHAPE = {"n_layer": 2, "n_head": 4, "n_embd": 64, "n_positions": 256}
RECIPE = {"steps": 80, "tokens-per-step": 2048, "optimizer": "muon", "learning-rate": 0.02, "eval-every": 80}
TRAINED = [f"--{name}={value}" for name, value in RECIPE.items()]
MODELS: dict[str, tuple[dict[str, Any], str | None]] = {  # what the table calls it -> its config.json, its tokenizer
    "GPT-2, bpe:1024": (SHAPE, "bpe:1024"),
    "GPT-2, its own tokenizer": (SHAPE, None),  # from GPTKIT_TEST_DATA, trained on what lm-eval will ask for
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
    began, rows = time.perf_counter(), list[Row]()
    with tempfile.TemporaryDirectory(prefix="interop-") as folder:
        make_models(Path(folder))
        for name in options.only or [name for name, peer in PEERS.items() if peer.reads in EXPORTS]:
            rows += rows_of(name, Path(folder))
            print(*(" | ".join(row) for row in rows if row.peer == name), sep="\n", flush=True)
    minutes = (time.perf_counter() - began) / 60
    options.out.write_text(page(rows, minutes), encoding="utf-8")
    return int(any(row.difference.startswith("FAILED") for row in rows))


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(PEERS))
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "interop.md")
    return parser.parse_args()


def make_models(folder: Path) -> None:
    """Train the models, export them, and write what gptkit computes; models.json lists them for the peers."""
    data, made = os.environ.get("GPTKIT_TEST_DATA"), []
    for number, (name, (shape, tokenizer)) in enumerate(MODELS.items()):
        if tokenizer is None and data is None:
            continue
        config, run, hf = folder / f"{number}.json", folder / f"run-{number}", folder / f"hf-{number}"
        config.write_text(json.dumps(shape))
        learnt = ["--tokenizer", tokenizer] if tokenizer else passages_and_tokenizer(Path(str(data)), folder)
        gptkit("pretrain", *learnt, "--model", config, "--out", run, *TRAINED)
        gptkit("convert", run, hf, "--to", "hf")
        files = {"model": run / "model", "hf": hf, "expected": folder / f"{number}.pkl"}
        files["expected"].write_bytes(pickle.dumps(what_gptkit_computes(files["model"])))
        made.append({"name": name, **{what: str(path) for what, path in files.items()}})
    (folder / "models.json").write_text(json.dumps(made))


def passages_and_tokenizer(data: Path, folder: Path) -> list[str | Path]:
    """Return arguments for GPT-2's tokenizer and the passages that lm-eval will ask for, to get some of them right."""
    lines = (data / LAMBADA_FILE).read_text(encoding="utf-8").splitlines(keepends=True)
    passages = folder / "passages.jsonl"
    passages.write_text("".join(lines[:PASSAGES]), encoding="utf-8")
    return [passages, "--tokenizer", data / "tokenizers" / "gpt2"]


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


def rows_of(name: str, folder: Path) -> list[Row]:
    """Return a peer's rows of the table, one that says why if there is none."""
    peer, began = PEERS[name], time.perf_counter()
    if peer.data and "GPTKIT_TEST_DATA" not in os.environ:
        return [Row(name, "", "", "not run: GPTKIT_TEST_DATA is not set")]
    with tempfile.TemporaryDirectory(prefix="peer-", dir=folder) as environment:
        python = make_environment(Path(environment), beside=peer.beside)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", "-U"]
        if peer.packages and (reason := failure([*install, *peer.packages])):
            return [Row(name, "", "", f"not run: pip could not install it: {reason}")]
        installed, result = time.perf_counter(), folder / "result.json"
        result.unlink(missing_ok=True)
        script = str(Path(__file__).with_name("interop_peers.py"))
        if reason := failure([python, script, name, peer.counts, str(folder)]):
            return [Row(name, "", "", f"FAILED: {reason}")]
        print(f"{name}: {installed - began:.0f} s of installing, {time.perf_counter() - installed:.0f} s of running")
        release, rows = json.loads(result.read_text(encoding="utf-8"))
        return [Row(name, release, *row) for row in rows]


def make_environment(folder: Path, *, beside: bool) -> str:
    """Make an environment and return its Python; `beside`: it also sees the packages of this one, after its own."""
    venv.create(folder, with_pip=True, symlinks=os.name != "nt")
    paths = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)}, scheme="venv")
    if beside:
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
        f"Written by `make interop` on {today}, in {minutes:.0f} minutes. {machine('torch', 'transformers')}.",
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
