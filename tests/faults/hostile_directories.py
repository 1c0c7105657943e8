"""What an enemy may do to a model directory."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Payload:
    """What unpickling would run."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


@dataclass(frozen=True)
class Attack:
    """A change to a good directory; `refused` False where it is harmless as it stands, and the model is used."""

    name: str
    make: Callable[[Path, Path], object]  # directory, canary
    refused: bool = True
    base: str = "own"
    commands: tuple[str, ...] = ()  # those that it concerns; () = all


def pickled(folder: Path, name: str, canary: Path) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(pickle.dumps({"model_args": Payload(canary), "model": Payload(canary)}))


def only_pickled(name: str) -> Callable[[Path, Path], None]:
    def make(folder: Path, canary: Path) -> None:
        (folder / "model.safetensors").unlink()
        pickled(folder, name, canary)

    return make


def edited(file: str, **changes: Any) -> Callable[[Path, Path], None]:
    """Set keys of a JSON file; {canary} in a text is the canary's path."""

    def make(folder: Path, canary: Path) -> None:
        path = folder / file
        content = json.loads(path.read_text()) if path.exists() else {}
        text = json.dumps(content | changes).replace("{canary}", str(canary))
        path.write_text(text)

    return make


def added(file: str, text: str) -> Callable[[Path, Path], None]:
    def make(folder: Path, canary: Path) -> None:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(text.replace("{canary}", str(canary)))

    return make


def replaced(file: str, make: Callable[[Path], object], *, there: bool = True) -> Callable[[Path, Path], None]:
    def change(folder: Path, canary: Path) -> None:
        (folder / file).unlink(missing_ok=not there)
        make(folder / file)

    return change


def socket_at(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def vast_file(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)


ODD: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "/dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "a socket": socket_at,
    "a folder": Path.mkdir,
    "a terabyte": vast_file,
}


def header(text: bytes | str, *, length: int | None = None, size: int = 0) -> Callable[[Path], None]:
    """Write a safetensors file with this header, perhaps with another length said, grown with zeros to `size`."""

    def make(path: Path) -> None:
        raw = text.encode() if isinstance(text, str) else text
        path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw)
        if size:
            os.truncate(path, size)

    return make


def lying(**changes: Any) -> Callable[[Path, Path], None]:
    """Change what the header says of the embedding."""

    def make(folder: Path, canary: Path) -> None:
        path = folder / "model.safetensors"
        raw = path.read_bytes()
        length = struct.unpack("<Q", raw[:8])[0]
        facts = json.loads(raw[8 : 8 + length])
        facts["transformer.wte.weight"] |= changes
        text = json.dumps(facts).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])

    return make


def vast(folder: Path, canary: Path) -> None:
    """An embedding of 100 GB, most of which is a hole in the file."""
    size = 100 * 2**30
    tensor = {"dtype": "F32", "shape": [size // 64, 16], "data_offsets": [0, size]}
    text = json.dumps({"transformer.wte.weight": tensor})
    replaced("model.safetensors", header(text, size=8 + len(text) + size))(folder, canary)


def vast_half(folder: Path, canary: Path) -> None:
    size = 100 * 2**30
    tensor = {"dtype": "F16", "shape": [size // 32, 16], "data_offsets": [0, size]}
    text = json.dumps({"transformer.wte.weight": tensor})
    replaced("model.safetensors", header(text, size=8 + len(text) + size))(folder, canary)


def shards(*names: Any) -> Callable[[Path, Path], None]:
    def make(folder: Path, canary: Path) -> None:
        shutil.copy(folder / "model.safetensors", folder.parent / "outside.safetensors")
        (folder / "model.safetensors").unlink()
        where = {f"tensor{number}": name for number, name in enumerate(names)}
        text = json.dumps({"metadata": {}, "weight_map": where}).replace("{outside}", str(folder.parent))
        (folder / "model.safetensors.index.json").write_text(text)

    return make


def many_tensors(path: Path) -> None:
    facts = {f"t{number}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for number in range(140_000)}
    header(json.dumps(facts, separators=(",", ":")))(path)


def vocabulary(change: Callable[[dict[str, Any]], object]) -> Callable[[Path, Path], None]:
    def make(folder: Path, canary: Path) -> None:
        path = folder / "tokenizer.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return make


def arrays(folder: Path, canary: Path) -> None:
    """OpenAI's params with a pickled object in an array."""
    for path in folder.iterdir():
        path.unlink()
    (folder / "params_shapes.json").write_text(json.dumps([[24, 64], [100, 64], *[[1]] * 12]))
    np.save(folder / "params_0.npy", np.array([Payload(canary)], dtype=object), allow_pickle=True)


def nanogpt(folder: Path, canary: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    torch.save({"model_args": Payload(canary), "model": {}}, folder / "ckpt.pt")


def functions_of_numpy(folder: Path, canary: Path) -> None:
    """nanoGPT's checkpoint with an array of objects, which numpy would unpickle."""
    nanogpt(folder, canary)
    torch.save({"model_args": np.array([Payload(canary)], dtype=object), "model": {}}, folder / "ckpt.pt")


def tensorflow(pointer: str, index: bytes = b"") -> Callable[[Path, Path], None]:
    """OpenAI's GPT-2, whose newest checkpoint is `pointer`, with an index of nonsense."""

    def make(folder: Path, canary: Path) -> None:
        for path in folder.iterdir():
            path.unlink()
        sizes = {"n_vocab": 100, "n_ctx": 24, "n_embd": 16, "n_head": 2, "n_layer": 1}
        (folder / "hparams.json").write_text(json.dumps(sizes))
        (folder / "checkpoint").write_text(f'model_checkpoint_path: "{pointer}"\n')
        (folder / "model.ckpt.index").write_bytes(index)

    return make


PICKLES = ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "model.pkl", "custom_checkpoint_0.pkl"]
BESIDE = ["training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "custom_checkpoint_0.pkl", "ckpt.pt"]
CODE = "import os; os.system('touch {canary}')\ndef generate(*a, **k): pass\n"
JINJA = "{{ ''.__class__.__mro__[1].__subclasses__() }}{{ cycler.__init__.__globals__.os.system('touch {canary}') }}"
ATTACKS = [
    *(Attack(f"{name} alone", only_pickled(name)) for name in PICKLES),
    *(
        Attack(f"{name} beside", lambda folder, canary, name=name: pickled(folder, name, canary), False)
        for name in BESIDE
    ),
    Attack(
        "training_args.bin beside gpt2",
        lambda folder, canary: pickled(folder, "training_args.bin", canary),
        False,
        "gpt2",
    ),
    Attack("pickle in ckpt.pt", nanogpt, commands=("convert",)),
    Attack("pickle in params", arrays, commands=("convert",)),
    Attack("numpy's functions in ckpt.pt", functions_of_numpy, commands=("convert",)),
    Attack("a TensorFlow checkpoint elsewhere", tensorflow("/etc/passwd"), commands=("convert",)),
    Attack("a TensorFlow index of nonsense", tensorflow("model.ckpt", b"\xff" * 1000), commands=("convert",)),
    Attack(
        "a TensorFlow index that ends right",
        tensorflow("model.ckpt", b"\xff" * 1000 + bytes.fromhex("57fb808b247547db")),
        commands=("convert",),
    ),
    Attack("auto_map", edited("config.json", auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"})),
    Attack("auto_map of gpt2", edited("config.json", auto_map={"AutoModelForCausalLM": "evil.M"}), base="gpt2"),
    Attack("auto_map of the tokenizer", edited("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]})),
    Attack("code beside", added("evil.py", CODE), False),
    Attack("modeling code beside gpt2", added("modeling_gpt2.py", CODE), False, "gpt2"),
    Attack("custom_generate", added("custom_generate/generate.py", CODE), False, "gpt2"),
    Attack("sitecustomize beside", added("sitecustomize.py", CODE), False),
    Attack("kernels", edited("config.json", _attn_implementation="someone/evil", use_kernels=True), False, "gpt2"),
    Attack("attention of the hub", edited("config.json", attn_implementation="someone/evil"), False, "gpt2"),
    Attack(
        "another name", edited("config.json", _name_or_path="someone/evil", name_or_path="http://x/y"), False, "gpt2"
    ),
    Attack("model_type", edited("config.json", model_type="../../evil")),
    Attack("architectures", edited("config.json", architectures=["os.system"]), False),
    Attack(
        "adapter",
        added("adapter_config.json", '{"base_model_name_or_path": "someone/evil", "peft_type": "LORA"}'),
        False,
        "gpt2",
    ),
    Attack(
        "generation settings",
        added("generation_config.json", '{"trust_remote_code": true, "custom_generate": "."}'),
        False,
        "gpt2",
    ),
    Attack("jinja file", added("chat_template.jinja", JINJA), False),
    Attack("jinja", edited("tokenizer_config.json", chat_template=JINJA), False),
    Attack("class of the tokenizer", edited("tokenizer_config.json", tokenizer_class="os.system"), False),
    Attack("tokenizer file elsewhere", edited("tokenizer_config.json", tokenizer_file="/etc/passwd"), False),
    Attack(
        "special token",
        edited("tokenizer_config.json", eos_token={"__type": "os.system", "content": "{canary}"}),
        False,
    ),
    Attack("shard above", shards("../outside.safetensors")),
    Attack("shard elsewhere", shards("{outside}/outside.safetensors")),
    Attack("shard in a folder", shards("sub/../../outside.safetensors")),
    Attack("shard with backslash", shards("..\\outside.safetensors")),
    Attack("shard that is a pickle", shards("model.bin")),
    Attack("shard that is none", shards(None, 3, ["a"])),
    Attack("shard missing", shards("model-00001-of-00002.safetensors")),
    Attack("weights are /etc/passwd", replaced("model.safetensors", lambda path: path.symlink_to("/etc/passwd"))),
    Attack("weights are /dev/zero", replaced("model.safetensors", lambda path: path.symlink_to("/dev/zero"))),
    Attack("weights are a pipe", replaced("model.safetensors", os.mkfifo)),
    Attack("weights are a folder", replaced("model.safetensors", Path.mkdir)),
    Attack("settings are a pipe", replaced("config.json", os.mkfifo)),
    Attack("settings are /dev/zero", replaced("config.json", lambda path: path.symlink_to("/dev/zero"))),
    Attack("settings are a loop", replaced("config.json", lambda path: path.symlink_to(path.name))),
    Attack(
        "tokenizer is a pipe",
        replaced("tokenizer.json", os.mkfifo),
        commands=("generate", "eval", "finetune", "pretrain"),
    ),
    Attack("tokenizer's settings are gone", lambda folder, canary: (folder / "tokenizer_config.json").unlink(), False),
    Attack("tokenizer's settings are a pipe", replaced("tokenizer_config.json", os.mkfifo)),
    *(
        Attack(f"{name} is {what}", replaced(name, make, there=False), False)
        for what, make in ODD.items()
        for name in ("notes.txt", "other.safetensors", "generation_config.json", "chat_template.jinja", "evil.json")
    ),
    *(
        Attack(f"{name} is {what}", replaced(name, make, there=False), commands=("generate", "eval", "finetune"))
        for what, make in ODD.items()
        for name in ("special_tokens_map.json", "added_tokens.json")
    ),
    Attack("a header of 100 MB", replaced("model.safetensors", header("{}", length=100_000_000, size=100_000_100))),
    Attack("a header of 2^63", replaced("model.safetensors", header("{}", length=2**63))),
    Attack("a header of 140,000 tensors", replaced("model.safetensors", many_tensors)),
    Attack("no header", replaced("model.safetensors", header(b""))),
    Attack("a deep header", replaced("model.safetensors", header("[" * 1_000_000))),
    Attack(
        "a key twice",
        replaced("model.safetensors", header('{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{}}')),
    ),
    Attack("a shape beyond the file", lying(shape=[2**40, 16])),
    Attack("a negative shape", lying(shape=[-1, 16])),
    Attack("a shape that overflows", lying(shape=[2**63, 2**63])),
    Attack("integers", lying(dtype="I32")),
    Attack("unknown numbers", lying(dtype="F4096")),
    Attack("offsets beyond the file", lying(data_offsets=[0, 2**50])),
    Attack("offsets that overlap", lying(data_offsets=[0, 0])),
    Attack("a tensor of 100 GB", vast),
    Attack("a tensor of 100 GB in fp16", vast_half),
    Attack("a model of 100 layers", edited("config.json", n_layer=100)),
    Attack("a vocabulary of 10^12", edited("config.json", vocab_size=10**12)),
    Attack("a width of 10^9", edited("config.json", n_embd=10**9, n_inner=10**9)),
    Attack("positions of 10^12", edited("config.json", n_positions=10**12)),
    Attack("a smaller vocabulary", edited("config.json", vocab_size=3)),
    Attack("a deep tokenizer", added("tokenizer.json", "[" * 200_000)),
    Attack("a tokenizer of no kind", added("tokenizer.json", '{"model": {"type": "os.system"}}')),
    Attack("an id of 4 billion", vocabulary(lambda content: content["model"]["vocab"].update({"zz": 4_000_000_000}))),
    Attack(
        "an added id of 4 billion",
        vocabulary(
            lambda content: content["added_tokens"].append(
                {**content["added_tokens"][0], "id": 4_000_000_000, "content": "<zz>"}
            )
        ),
        False,
    ),
]
