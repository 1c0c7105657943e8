"""R22: a model directory made by an enemy runs nothing, writes nowhere else, and is refused quickly in one line.

Each directory is given to real commands in a process of its own, where a hook listens to what Python does: a program
started, an unpickled name, code run from the directory, a file written outside the working directory, a connection.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest
from children import Child, start
from hostile_directories import ATTACKS, Attack
from in_process import Ended, complaints
from transformers import GPT2Config, GPT2LMHeadModel

from generation_toy import TEXT, write_model
from gptkit.model.configuration_gpt import quiet_transformers

SLOWEST, LARGEST = 5.0, 1000.0  # seconds, MB
WATCHED = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "pickle.find_class",
    "ctypes.dlopen",
)
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request")
# What gptkit and its libraries do with a good directory too: they ask for the processor, and compile the decoder once.
OURS = re.compile(r"^\(None,\)$|'uname'|gptkit/decoding/native/gpt\.c|/native/[0-9a-f]{32}\.so'|libc\.so")


# --- the process that is attacked ---


def attacked(words: Sequence[str], folder: str, hostile: str, record: str) -> NoReturn:
    """Run a command line in `folder` and write down what happened beside its output."""
    happened: list[str] = []
    os.chdir(folder)

    def listen(event: str, facts: tuple[Any, ...]) -> None:
        if (event in WATCHED or event in NETWORK) and not OURS.search(str(facts)):
            happened.append(f"{event} {str(facts)[:200]}")
        elif event == "exec" and str(getattr(facts[0], "co_filename", "")).startswith(hostile):
            happened.append(f"ran {facts[0].co_filename}")
        elif event == "open" and _writes(facts) and not _may_be_written(str(facts[0]), folder):
            happened.append(f"wrote {facts[0]}")

    from gptkit.cli.main import main

    sys.addaudithook(listen)
    began = time.monotonic()
    code = main(list(words))
    seconds = time.monotonic() - began
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {"happened": happened[:], "seconds": seconds, "megabytes": megabytes}
    Path(record).write_text(json.dumps(found))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _writes(facts: tuple[Any, ...]) -> bool:
    _, mode, flags = facts
    return any(one in (mode or "") for one in "wax+") or bool((flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def _may_be_written(path: str, folder: str) -> bool:
    allowed = (folder, os.environ["GPTKIT_CACHE"], "/dev/null", "/dev/tty")
    if path.isdigit():  # a descriptor
        return True
    return os.path.abspath(path).startswith(allowed) or "gptkit-error-" in path


COMMANDS = ("generate", "convert", "eval", "finetune", "pretrain")


def words_of(command: str, folder: Path) -> list[str]:
    """Return a command line that uses the model directory `model` beside the working folder."""
    model, text = str(folder / "model"), str(folder / "text.txt")
    lines = {
        "generate": ["generate", "First", "--model", model, "--max-new-tokens", "2"],
        "convert": ["convert", model, "made", "--to", "hf"],
        "eval": ["eval", "--model", model, "--task", "perplexity", "--data", text, "--limit", "1"],
        "finetune": ["finetune", "--task", "demo-classification", "--model", model, "--dry-run"],
        "pretrain": [
            "pretrain",
            text,
            "--model",
            model,
            "--steps",
            "1",
            "--sequence-length",
            "8",
            "--tokens-per-step",
            "8",
        ],
    }
    return [*lines[command], "--json"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Good directories: a model of ours, and one of transformers' with a tokenizer."""
    folder = tmp_path_factory.mktemp("bases")
    own = write_model(folder / "own")
    shutil.copytree(own, folder / "gpt2")
    config = GPT2Config(vocab_size=100, n_positions=24, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    with quiet_transformers():
        GPT2LMHeadModel(config).save_pretrained(folder / "gpt2")
    return {"own": own, "gpt2": folder / "gpt2"}


def trials(attacks: Sequence[Attack], all_commands: bool) -> Iterator[tuple[Attack, str]]:
    for number, attack in enumerate(attacks):
        suited = attack.commands or COMMANDS
        yield from ((attack, one) for one in (suited if all_commands else [suited[number % len(suited)]]))


def begin(attack: Attack, command: str, bases: dict[str, Path], root: Path) -> Child:
    (root / "here").mkdir(parents=True)
    shutil.copytree(bases[attack.base], root / "model")
    (root / "text.txt").write_text(TEXT)
    attack.make(root / "model", root / "canary")
    facts = (words_of(command, root), str(root / "here"), str(root / "model"), str(root / "record"))
    return start(attacked, *facts, log=root / "log")


def harm(attack: Attack, child: Child, root: Path) -> list[str]:
    """Return what the attack did, and what is wrong with how it was refused."""
    try:
        code = child.wait(SLOWEST + 25)
    except TimeoutError:
        return ["hangs"]
    if not (root / "record").exists():
        return [f"died with {code}: {child.err[-300:]}"]
    found = json.loads((root / "record").read_text())
    wrong = [f"{one}" for one in found["happened"]]
    wrong += ["the canary is there"] if (root / "canary").exists() else []
    wrong += [f"{found['megabytes']:.0f} MB"] if found["megabytes"] > LARGEST else []
    if attack.refused:
        wrong += complaints(Ended(code, child.out, child.err, 0.0))
        wrong += [f"{found['seconds']:.1f} s"] if found["seconds"] > SLOWEST else []
    elif code:
        wrong += [f"not used: {child.err[-300:]}"] if code != 2 else complaints(Ended(code, child.out, child.err, 0.0))
    return wrong


def test_a_hostile_directory_does_nothing(tmp_path: Path, bases: dict[str, Path], count: Any, figure: Any) -> None:
    chosen = [*trials(ATTACKS[:: count(6, 1)], bool(count(0, 1)))]
    failures, refused = [], 0
    for number, (attack, command) in enumerate(chosen):
        root = tmp_path / str(number)
        wrong = harm(attack, begin(attack, command, bases, root), root)
        refused += attack.refused
        failures += [f"{attack.name}, {command}: {one}" for one in wrong]
    told = f"{refused} refused in one line, {len(chosen) - refused} harmless as they lie; 0 programs, 0 files elsewhere"
    figure("R22", "hostile model directories given to commands", len(chosen), told, bound="0 run, 5 s, 1 GB")
    assert not failures, "\n".join(failures)
