"""`gptkit convert` goes there and back bit for bit, proves what it wrote, and leaves nothing behind when it fails."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args, get_type_hints

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from gptkit.cli.commands import COMMANDS
from gptkit.console import Console
from gptkit.convert import command, own
from gptkit.convert.dtypes import NAMES, TORCH
from gptkit.convert.formats import FORMATS, Exporter, Format, Importer
from gptkit.convert.options import ConvertOptions
from gptkit.convert.proof import Peer
from gptkit.convert.torch_peer import TorchPeer
from gptkit.errors import GptkitError, InputError, UsageError
from gptkit.finetune.inputs import add_task_head, head_config
from gptkit.model.configuration_gpt import GPTConfig
from gptkit.model.loading import build_model, load_model, save_model
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.tasks.own import write_task
from gptkit.tasks.table import find_task
from gptkit.text.tokenizers.encoding import encode_pieces
from gptkit.text.tokenizers.kinds import train_tokenizer
from gptkit.text.tokenizers.loading import load_tokenizer

TEXT = "First Citizen: before we proceed any further, hear me speak.\n" * 30
VOCABULARY = 300


def write_model(
    folder: Path, tokenizer_spec: str | None = None, dtype: torch.dtype = torch.float32, **sizes: Any
) -> Path:
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2, **sizes}
    model = GPTForCausalLM(GPTConfig(**sizes, initializer_range=0.2)).to(dtype)
    save_model(model, folder)
    if tokenizer_spec is not None:
        train_tokenizer(tokenizer_spec, [TEXT]).save_pretrained(folder)
    return folder


def converted(source: Path, destination: Path, **options: Any) -> tuple[dict[str, Any], str, str]:
    """Return the result, stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    given = ConvertOptions(source=str(source), destination=destination, **options)
    return command.run(given, Console(stdout=out, stderr=err, environment={})), out.getvalue(), err.getvalue()


@pytest.mark.parametrize("pre_norm", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_there_and_back_is_bitwise_equal(pre_norm: bool, dtype: torch.dtype, tmp_path: Path) -> None:
    source = write_model(tmp_path / "source", dtype=dtype, pre_norm=pre_norm)
    there, out, err = converted(source, tmp_path / "new" / "there", to="hf")
    back, back_out, _ = converted(tmp_path / "new" / "there", tmp_path / "back", to="gptkit")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "back" / name).read_bytes() == (source / name).read_bytes()
        assert (tmp_path / "back" / name).stat().st_mode == (tmp_path / "back" / "config.json").stat().st_mode
    parameters = sum(tensor.numel() for tensor in GPTForCausalLM.from_pretrained(source).parameters())
    for result in (there, back):
        assert result["parameters"] == parameters
        assert result["dtype"] == NAMES[dtype]
        assert result["peer"].startswith("transformers 5.")
        assert result["greedy_equal"]
        assert 0 <= result["max_logit_difference"] < 1e-4
    assert there["to"] == "hf"
    assert there["destination"] == str(tmp_path / "new" / "there")
    assert f"{parameters:,} parameters" in out
    assert re.search(r"^h\.N\.mlp\.c_fc\.weight\W+16 x 64 ", out, re.MULTILINE)  # (in, out), as transformers has it
    assert re.search(r"transformer\.h\.N\.mlp\.c_fc\.weight\W+64 x 16 ", back_out)
    assert ("tokens_embed" in out) == (not pre_norm)
    assert "no tokenizer" in err
    assert not there["tokenizer"]


def test_weights_of_several_dtypes_are_not_rounded(tmp_path: Path) -> None:
    source = write_model(tmp_path / "source")
    state = load_file(source / "model.safetensors")
    state["transformer.wte.weight"] = state["transformer.wte.weight"].bfloat16()
    save_file(state, source / "model.safetensors")
    result, _, _ = converted(source, tmp_path / "made")
    assert result["dtype"] == "f32"
    made = load_file(tmp_path / "made" / "model.safetensors")
    assert all(torch.equal(made[name], tensor.float()) for name, tensor in state.items())


def test_a_fine_tuned_model_keeps_its_head_with_us_and_drops_it_elsewhere(tmp_path: Path) -> None:
    markers = (VOCABULARY, VOCABULARY + 1, VOCABULARY + 2)
    head = head_config(task="rte", format="entailment", labels=("yes", "no"), markers=markers)
    pretrained = load_model(write_model(tmp_path / "pretrained"))
    save_model(add_task_head(pretrained, head, seed=0), tmp_path / "tuned")
    (tmp_path / "mine.yaml").write_text("name: rte-2\nformat: entailment\nlabels: [yes, no]\n")
    write_task(tmp_path / "tuned", find_task(str(tmp_path / "mine.yaml")))
    _, _, err = converted(tmp_path / "tuned", tmp_path / "ours", to="gptkit")
    assert "head" not in err
    for name in ("model.safetensors", "config.json", "task.yaml"):
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "tuned" / name).read_bytes()
    result, _, err = converted(tmp_path / "tuned", tmp_path / "theirs", to="hf")
    assert "the head for rte is dropped" in err
    assert "task.yaml" in err
    assert not (tmp_path / "theirs" / "task.yaml").exists()
    assert result["max_logit_difference"] < 1e-4
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "theirs")
    assert type(theirs).__name__ == "GPT2LMHeadModel"
    assert theirs.config.vocab_size == VOCABULARY + 3


@pytest.mark.parametrize("tokenizer_spec", ["char", "bpe:280"])
def test_plain_transformers_loads_what_is_exported(tokenizer_spec: str, tmp_path: Path) -> None:
    source = write_model(tmp_path / "source", tokenizer_spec)
    result, _, _ = converted(source, tmp_path / "exported", to="hf")
    assert result["tokenizer"]
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path / "exported")).__name__ == "GPT2LMHeadModel"
    theirs = AutoTokenizer.from_pretrained(tmp_path / "exported")
    for name in ("config.json", "generation_config.json"):
        said = json.loads((tmp_path / "exported" / name).read_text())
        assert said["bos_token_id"] == said["eos_token_id"] == theirs.eos_token_id
    text = "hear, me  speak\n"
    (ids,) = encode_pieces(load_tokenizer(str(source)), [text])
    assert theirs.encode(text) == ids.tolist()
    assert theirs.decode(ids.tolist()) == text


def test_a_run_directory_and_an_empty_destination_do(tmp_path: Path) -> None:
    write_model(tmp_path / "run" / "model", "char")
    (tmp_path / "exported").mkdir()
    result, _, _ = converted(tmp_path / "run", tmp_path / "exported", to="hf")
    assert result["tokenizer"]
    assert (tmp_path / "exported" / "model.safetensors").is_file()


def test_nanogpt_is_imported_with_a_tokenizer_from_elsewhere(tmp_path: Path) -> None:
    model = GPTForCausalLM(
        GPTConfig(vocab_size=VOCABULARY, n_positions=16, n_embd=8, n_layer=1, n_head=2, activation_function="gelu")
    )
    arguments = {"vocab_size": VOCABULARY, "block_size": 16, "n_layer": 1, "n_head": 2, "n_embd": 8, "bias": True}
    torch.save({"model": model.state_dict(), "model_args": arguments}, tmp_path / "ckpt.pt")
    train_tokenizer("char", [TEXT]).save_pretrained(tmp_path / "tokenizer")
    result, _, err = converted(tmp_path / "ckpt.pt", tmp_path / "imported", tokenizer=str(tmp_path / "tokenizer"))
    assert result["max_logit_difference"] == 0
    assert "no tokenizer" not in err
    assert (
        load_tokenizer(str(tmp_path / "imported")).get_vocab()
        == load_tokenizer(str(tmp_path / "tokenizer")).get_vocab()
    )


def test_pytorch_model_bin_is_imported_and_compared_with_transformers(tmp_path: Path) -> None:
    theirs = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_positions=16, n_embd=8, n_layer=1, n_head=2))
    theirs.config.save_pretrained(tmp_path / "source")
    torch.save(theirs.state_dict(), tmp_path / "source" / "pytorch_model.bin")
    train_tokenizer("char", [TEXT]).save_pretrained(tmp_path / "source")
    result, _, _ = converted(tmp_path / "source", tmp_path / "imported")
    assert result["max_logit_difference"] < 1e-4
    assert torch.equal(load_model(tmp_path / "imported").transformer.wpe.weight, theirs.transformer.wpe.weight)
    ended = load_model(tmp_path / "imported").config.eos_token_id
    assert ended == load_tokenizer(str(tmp_path / "imported")).eos_token_id


def test_gpt1s_tokenizer_is_exported_as_transformers_own(tmp_path: Path) -> None:
    pytest.importorskip("ftfy")
    pytest.importorskip("spacy")
    from gptkit.text.tokenizers.gpt1 import GPT1Tokenizer

    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = ["<unk>", *letters, *(f"{letter}</w>" for letter in letters), "he", "hear</w>", "\n</w>"]
    merges = [("h", "e"), ("a", "r</w>"), ("he", "ar</w>")]
    pieces.insert(-1, "ar</w>")
    source = write_model(tmp_path / "source", pre_norm=False)
    GPT1Tokenizer({piece: id for id, piece in enumerate(pieces)}, merges).save_pretrained(source)
    _, _, err = converted(source, tmp_path / "exported", to="hf")
    assert "ids differ" in err
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "exported").config.eos_token_id == pieces.index("\n</w>")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "exported")
    assert type(theirs).__name__ == "OpenAIGPTTokenizer"
    assert theirs.encode("Hear a") == [pieces.index("hear</w>"), pieces.index("a</w>")]
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path / "exported")).__name__ == "OpenAIGPTLMHeadModel"
    _, _, err = converted(tmp_path / "exported", tmp_path / "back")
    assert err == ""
    assert isinstance(load_tokenizer(str(tmp_path / "back")), GPT1Tokenizer)


def test_a_destination_that_holds_something_is_refused(tmp_path: Path) -> None:
    source = write_model(tmp_path / "source")
    with pytest.raises(UsageError, match="already exists"):
        converted(source, source, to="hf")
    with pytest.raises(UsageError, match="already exists"):
        converted(source, source / "config.json", to="hf")


def other_weights(
    model: GPTForCausalLM, tokenizer: Any, folder: Path, dtype: str, console: Console, write: Any = own.write
) -> None:
    """A writer with a fault: one number of one tensor."""
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.bias[3] += 0.1
    write(model, tokenizer, folder, dtype, console)
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.bias[3] -= 0.1


def not_finite(folder: Path) -> None:
    model = GPTForCausalLM.from_pretrained(folder)
    torch.nn.init.constant_(model.transformer.h[0].ln_1.bias, float("nan"))
    save_model(model, folder)


@pytest.mark.parametrize(
    ("damage", "options", "error", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), {}, InputError, "model.safetensors"),
        (lambda folder: (folder / "config.json").unlink(), {}, InputError, "no model"),
        (not_finite, {}, InputError, r"tensor transformer\.h\.0\.ln_1\.bias is not finite"),
        (lambda folder: train_tokenizer("bpe:280", [TEXT]).save_pretrained(folder), {}, InputError, "entries"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), {}, InputError, "JSON"),
        (lambda folder: None, {"tokenizer": "nowhere"}, InputError, "no such tokenizer directory"),
        (None, {}, GptkitError, "logits differ"),
    ],
)
def test_a_failure_leaves_nothing_behind(
    damage: Callable[[Path], object] | None,
    options: dict[str, Any],
    error: type[GptkitError],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = write_model(tmp_path / "source", vocab_size=260)
    if damage is None:
        monkeypatch.setattr(own, "EXPORTER", replace(own.EXPORTER, write=other_weights))
    else:
        damage(source)
    with pytest.raises(error, match=message):
        converted(source, tmp_path / "new", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


class Toy:
    """A format of one pickle, whose other program has a fault: it adds `error` to a logit."""

    def __init__(self, config: GPTConfig, error: float = 0.0, missing: str = "") -> None:
        self.config, self.error, self.missing = config, error, missing

    def write(self, model: GPTForCausalLM, tokenizer: Any, folder: Path, dtype: str, console: Console) -> None:
        torch.save({name: tensor.to(TORCH[dtype]) for name, tensor in model.state_dict().items()}, folder / "model.bin")
        (folder / "notes").touch()

    def open_peer(self, folder: Path) -> Peer:
        if self.missing:
            raise ModuleNotFoundError(name=self.missing)
        state = torch.load(folder / "model.bin", weights_only=True)
        model = build_model(self.config, state, torch.float32, GPTForCausalLM)

        def forward(ids: torch.Tensor) -> torch.Tensor:
            logits = model(ids).logits[0]
            logits[-1, 3] += self.error
            return logits

        return TorchPeer(model, None, name="toy", version="1", forward=forward)


def toy_format(monkeypatch: pytest.MonkeyPatch, source: Path, **faults: Any) -> None:
    toy = Toy(load_model(source).config, **faults)
    module = SimpleNamespace(EXPORTER=Exporter(toy.write, toy.open_peer))
    monkeypatch.setitem(sys.modules, "toy_format", module)  # type: ignore[arg-type]
    monkeypatch.setitem(FORMATS, "toy", Format("toy_format", dtypes=("f32", "bf16"), suffix=".bin"))


def test_the_destination_is_a_directory_or_the_one_file_of_its_suffix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_format(monkeypatch, source := write_model(tmp_path / "source"))
    result, _, _ = converted(source, tmp_path / "exported", to="toy")
    assert result["peer"] == "toy 1"
    assert result["max_logit_difference"] == 0
    assert result["tokenizer_ids_equal"] is None
    assert {path.name for path in (tmp_path / "exported").iterdir()} == {"model.bin", "notes"}
    converted(source, tmp_path / "one.bin", to="toy")
    assert (tmp_path / "one.bin").read_bytes() == (tmp_path / "exported" / "model.bin").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"source", "exported", "one.bin"}


def test_a_lesser_dtype_says_what_it_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy_format(monkeypatch, source := write_model(tmp_path / "source"))
    result, out, _ = converted(source, tmp_path / "exported", to="toy", dtype="bf16")
    assert result["dtype"] == "bf16"
    assert 1e-4 < result["max_logit_difference"] < 0.5
    assert 0 < abs(result["nll_difference"]) < 0.02
    assert f"NLL by {result['nll_difference']:+.1e} nats per token" in out


@pytest.mark.parametrize("destination", ["new", "new.bin"])
def test_a_proof_that_fails_leaves_nothing_behind(
    destination: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_format(monkeypatch, source := write_model(tmp_path / "source"), error=0.01)
    with pytest.raises(GptkitError, match=r"toy 1 computes something else: logits differ by 1\.0e-02") as failed:
        converted(source, tmp_path / destination, to="toy")
    assert failed.value.exit_code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_without_the_other_program_the_figures_are_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy_format(monkeypatch, source := write_model(tmp_path / "source"), missing="toylib")
    result, _, err = converted(source, tmp_path / "exported", to="toy")
    assert "toylib is not installed, so nothing is proven: pip install 'gptkit[export]'" in err
    figures = ("peer", "max_logit_difference", "nll_difference", "tokenizer_ids_equal", "greedy_equal")
    assert [result[name] for name in figures] == [None] * 5


def test_a_weight_that_overflows_f16_is_refused_by_name(tmp_path: Path) -> None:
    model = load_model(write_model(tmp_path / "source"))
    torch.nn.init.constant_(model.transformer.h[1].mlp.c_fc.bias, -70000.0)
    save_model(model, tmp_path / "large")
    with pytest.raises(InputError, match=r"tensor transformer\.h\.1\.mlp\.c_fc\.bias holds -70000, .*f16"):
        converted(tmp_path / "large", tmp_path / "new", to="hf", dtype="f16")
    assert not (tmp_path / "new").exists()


NEXT = [
    ("gptkit", None, "gptkit generate --model {destination}"),
    ("gptkit", "classification", "gptkit predict 'A man sleeps.' --model {destination}"),
    ("gptkit", "entailment", "gptkit predict 'A man sleeps.' 'Nobody sleeps.' --model {destination}"),
    ("gptkit", "multiple-choice", ""),
    ("hf", None, "gptkit generate --model {destination}"),
    ("gguf", None, "llama-completion -m {destination}/model.gguf -p 'Once upon a time' -n 40"),
    ("onnx", "similarity", "cat {destination}/README.md"),
]


@pytest.mark.parametrize(("to", "format", "line"), NEXT)
def test_the_next_command_is_the_one_that_the_format_is_for(
    to: str, format: str | None, line: str, tmp_path: Path
) -> None:
    [row] = [row for row in COMMANDS if row.name == "convert"]
    assert callable(row.next)
    result = {"tokenizer": True, "destination": str(tmp_path), "to": to, "format": format}
    assert row.next(result, []) == line
    assert row.next(result | {"tokenizer": False}, []) == ""


def test_a_file_is_named_by_its_own_path(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").touch()
    [row] = [row for row in COMMANDS if row.name == "convert"]
    assert callable(row.next)
    result = {"tokenizer": True, "destination": str(tmp_path / "a.gguf"), "to": "gguf", "format": None}
    assert row.next(result, []).startswith("llama-completion -m {destination} -p")


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_a_row_and_a_module_that_has_what_the_row_says(name: str) -> None:
    row = FORMATS[name]
    is_export = row.writes is not None
    assert row.reads is None or isinstance(row.importer(), Importer)
    assert not is_export or isinstance(row.exporter(), Exporter)
    assert ("f32" in row.dtypes) == is_export
    assert (name in get_args(get_type_hints(ConvertOptions)["to"])) == is_export
