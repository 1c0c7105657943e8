"""`gptkit generate` prints and returns the decoder's text, takes the newest run, and refuses bad input on one line."""

from __future__ import annotations

import io
import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from generation_toy import POSITIONS, write_model
from gptkit.cli.main import main
from gptkit.console import Console
from gptkit.decoding.sampling import SamplingRules
from gptkit.decoding.text import never_sampled, stop_ids
from gptkit.decoding.text_options import check_settings, full_prompt
from gptkit.decoding.torch_engine import generate
from gptkit.errors import InputError, UsageError
from gptkit.generate.command import run
from gptkit.generate.options import GenerateOptions
from gptkit.model.loading import load_model
from gptkit.recipes import find_recipe, read_recipe
from gptkit.system.encodings import text_encoding
from gptkit.text.tokenizers.any_tokenizer import separator_id
from gptkit.text.tokenizers.loading import load_tokenizer
from gptkit.training.finished_runs import NEEDED


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def generated(stdout: io.StringIO | None = None, **options: Any) -> tuple[dict[str, Any], str, str]:
    """Return the result, stdout and stderr."""
    out, err = stdout or io.StringIO(), io.StringIO()
    if "model" in options:
        options["model"] = str(options["model"])
    console = Console(json=options.get("json", False), stdout=out, stderr=err, environment={})
    return run(GenerateOptions(device="cpu", **options), console), out.getvalue(), err.getvalue()


@pytest.mark.parametrize("tokenizer_spec", ["char", "bpe:280"])
def test_what_is_printed_is_what_is_returned(tokenizer_spec: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path, tokenizer_spec)
    result, out, err = generated(model=folder, prompt="First", max_new_tokens=60, num_samples=3, seed=4)
    assert result["model"] == str(folder)
    tokenizer = load_tokenizer(str(folder))
    told = ""
    for number, sample in enumerate(result["samples"], start=1):
        assert sample["prompt"] == "First"
        assert sample["text"] == tokenizer.decode(sample["token_ids"])
        assert sample["num_tokens"] == len(sample["token_ids"])
        assert sample["finish_reason"] == "length" if sample["num_tokens"] == 60 else "stop"
        told += f"{f' sample {number} ':=^80}\nFirst{sample['text']}\n"
    assert out == told
    assert err.count("exceeded the context") == 1
    assert "tokens/s" in err
    both = io.StringIO()  # as on a terminal: no line of the log breaks the text
    console = Console(stdout=both, stderr=both, environment={})
    run(
        GenerateOptions(device="cpu", model=str(folder), prompt="First", max_new_tokens=60, num_samples=3, seed=4),
        console,
    )
    assert both.getvalue().startswith(f"{told}warning: the text exceeded the context of {POSITIONS} tokens")
    assert generated(model=folder, max_new_tokens=1)[0]["compile_seconds"] == 0.0  # compiled already
    total = sum(sample["num_tokens"] for sample in result["samples"])
    assert result["tokens_per_second"] == pytest.approx(total / result["decode_seconds"])
    assert result["prefill_seconds"] > 0


def test_the_text_is_the_decoders(model_folder: Path) -> None:
    """Unconditional text starts from the separator; no id beyond the tokenizer comes, which half the rows would be."""
    result, out, _ = generated(model=model_folder, max_new_tokens=100, top_k=20, top_p=0.99, temperature=2.0, seed=1)
    tokenizer, model = load_tokenizer(str(model_folder)), load_model(model_folder)
    forbidden = never_sampled(tokenizer, model.config.vocab_size)
    assert {len(tokenizer), model.config.vocab_size - 1, tokenizer.unk_token_id} <= forbidden
    assert stop_ids(tokenizer) == {separator_id(tokenizer)}
    (sample,) = generate(
        model,
        [[separator_id(tokenizer)]],
        max_new_tokens=100,
        rules=SamplingRules(top_k=20, top_p=0.99, temperature=2.0),
        seed=1,
        stop_ids=stop_ids(tokenizer),
        forbidden_ids=forbidden,
    )
    assert result["samples"][0]["token_ids"] == sample.token_ids
    assert out == tokenizer.decode(sample.token_ids) + "\n"


def test_a_sample_is_the_same_beside_others(model_folder: Path) -> None:
    alone, _, _ = generated(model=model_folder, prompt="hear", max_new_tokens=40)
    beside, _, _ = generated(model=model_folder, prompt="hear", max_new_tokens=40, num_samples=5)
    assert beside["samples"][0] == alone["samples"][0]
    assert len({sample["text"] for sample in beside["samples"]}) == 5


def test_temperature_0_is_greedy(model_folder: Path) -> None:
    texts = [
        generated(model=model_folder, prompt="hear", max_new_tokens=9, **rules)[0]["samples"][0]["text"]
        for rules in ({"greedy": True}, {"temperature": 0.0, "seed": 5}, {"top_k": 1, "seed": 6})
    ]
    assert len(set(texts)) == 1


def test_a_sample_that_ends_at_once_is_explained(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    model, separator = load_model(folder), separator_id(load_tokenizer(str(folder)))
    with torch.no_grad():  # ln_f gives the separator's own direction whatever it reads
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.copy_(1000 * model.transformer.wte.weight[separator])
    model.save_pretrained(folder)
    _, _, err = generated(model=folder, prompt="hear", num_samples=2, seed=1)
    assert "2 of 2 samples are empty: the model's first token ended the text" in err


def test_bf16_generates(model_folder: Path) -> None:
    result, _, _ = generated(model=model_folder, prompt="hear", max_new_tokens=40, precision="bf16", json=True)
    assert result["samples"][0]["num_tokens"] > 0


def test_control_bytes_reach_a_pipe_but_no_terminal(model_folder: Path) -> None:
    options: dict[str, Any] = {"model": model_folder, "max_new_tokens": 200, "temperature": 3.0, "seed": 2}
    result, piped, _ = generated(**options)
    _, shown, _ = generated(stdout=Terminal(), **options)
    assert "\x1b" in result["samples"][0]["text"]
    assert piped == result["samples"][0]["text"] + "\n"
    assert shown == piped.replace("\x1b", "\\x1b")


@pytest.mark.parametrize(
    ("typed", "prompt"),
    [
        (b"hear me\n", "hear me"),
        (b"hear me\r\n", "hear me"),
        (b"a\n\n", "a\n"),
        (b"\xef\xbb\xbfhear\r\nme\r\n", "hear\nme"),
        (b"hear\rme", "hear\nme"),
        ("hear me\r\n".encode("utf-16"), "hear me"),
    ],
)
def test_a_dash_reads_stdin(model_folder: Path, monkeypatch: pytest.MonkeyPatch, typed: bytes, prompt: str) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(typed)))
    result, out, _ = generated(model=model_folder, prompt="-", max_new_tokens=2)
    assert result["samples"][0]["prompt"] == prompt
    assert out.startswith(prompt)


def test_a_prompt_is_read_without_mark_and_cr_and_in_the_encoding_given(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, _, _ = generated(model=model_folder, prompt="\ufeffhear\r\nme\r", max_new_tokens=1)
    assert result["samples"][0]["prompt"] == "hear\nme\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("caf\u00e9\n".encode("cp1252"))))
    with text_encoding("cp1252"):
        assert generated(model=model_folder, prompt="-", max_new_tokens=1)[0]["samples"][0]["prompt"] == "caf\u00e9"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("one\ncaf\u00e9\n".encode("cp1252"))))
    with pytest.raises(InputError, match="could be") as refusal:
        generated(model=model_folder, prompt="-")
    assert refusal.value.where == "stdin:2, byte 7"


def test_unknown_characters_are_told(model_folder: Path) -> None:
    assert (
        "the prompt: 1 of 3 tokens (33.3%) are unknown"
        in generated(model=model_folder, prompt="h\u03a9e", max_new_tokens=1)[2]
    )
    assert "unknown" not in generated(model=model_folder, prompt="he", max_new_tokens=1)[2]


def test_without_a_model_the_newest_finished_pretrain_run_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="no finished pretrain run") as caught:
        generated()
    assert "gptkit pretrain" in str(caught.value)
    Path("runs/stopped/start").mkdir(parents=True)
    with pytest.raises(UsageError, match="; runs/stopped is unfinished: gptkit runs show stopped"):
        generated()
    runs = {"old": ("pretrain", 1), "new": ("pretrain", 3), "other": ("finetune", 5), "unfinished": None}
    for name, finished in runs.items():
        write_model(Path("runs", name, "model"))
        if finished is not None:
            command, hour = finished
            row = dict.fromkeys(NEEDED) | {"command": command, "finished_at": f"2026-01-01T0{hour}:00:00+00:00"}
            Path("runs", name, "result.json").write_text(json.dumps(row))
    result, _, err = generated(max_new_tokens=1)
    assert result["model"] == os.path.join("runs", "new", "model")
    assert f"{os.path.join('runs', 'new')}: the newest finished pretrain run" in err
    named, _, _ = generated(model=Path("runs", "old"), max_new_tokens=1)  # a run directory names its model
    assert named["model"] == os.path.join("runs", "old", "model")


def test_a_top_k_beyond_the_vocabulary_keeps_all(model_folder: Path) -> None:
    every, beyond = (generated(model=model_folder, max_new_tokens=20, seed=2, top_k=k)[0] for k in (0, 10**30))
    assert every["samples"] == beyond["samples"]


def test_the_smallest_temperatures_are_greedy_and_warn_of_nothing(model_folder: Path) -> None:
    shared = {"model": model_folder, "max_new_tokens": 20, "repetition_penalty": 1e38}
    greedy, *sampled = (generated(**shared, temperature=t)[0] for t in (0.0, 5e-324, 1e-45, 1e-38))
    assert all(result["samples"] == greedy["samples"] for result in sampled)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([""], "the prompt is empty"),
        (["e" * (POSITIONS + 1)], "learned positions end at 24"),
        (["h\udcff"], "not UTF-8"),
        (["h", "--top-p", "0"], "--top-p"),
        (["h", "--greedy", "--temperature", "0.5"], "--greedy, --temperature"),
        (["h", "--top-p", "1.5"], "--top-p"),
        (["h", "--top-k", "-1"], "--top-k"),
        (["h", "--temperature", "1e39"], "between 0 and 1e+38"),
        (["h", "--temperature", "inf"], "between 0 and 1e+38"),
        (["h", "--repetition-penalty", "1e39"], "between 0.01 and 1e+38"),
        (["h", "--beams", "2", "--top-k", "3"], "--beams, --top-k"),
        (["h", "--beams", "2", "--num-samples", "2"], "--beams, --num-samples"),
        (["h", "--beams", "2", "--quantize", "int8"], "--beams, --quantize"),
        (["h", "--prompts", "p.txt"], "PROMPT, --prompts"),
        (["h", "--interactive"], "PROMPT, --interactive"),
        (["h", "--output", "s.jsonl"], "--output is only for"),
        (["--prompts", "nowhere.txt"], "file not found"),
        (["--prompts", "p.txt", "--output", "p.txt"], "must be .jsonl"),
        (["--prompts", "p.txt", "--stream"], "--prompts, --stream"),
        (["--prompts", "p.txt"], "p.txt:2"),
        (["--recipe", "tldr"], "the template needs a prompt"),
        (["h", "--model", "nowhere"], "no such model directory"),
        (["h", "--model", "empty"], "file not found"),
        (["h", "--model", "broken"], "damaged"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    arguments: list[str],
    message: str,
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("p.txt").write_text(f"h\n{'e' * (POSITIONS + 1)}\n")
    write_model(Path("broken"))
    weights = Path("broken", "model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    capsys.readouterr()
    if "--model" not in arguments:
        arguments = [*arguments, "--model", str(model_folder)]
    assert main(["generate", *arguments]) == 2
    assert not list(Path().glob("*.samples.jsonl"))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err
    assert " - " in err  # the cure


def test_a_directory_without_a_tokenizer_is_named_and_one_called_char_is_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_model(Path("char"))
    assert generated(model=folder, max_new_tokens=1)[0]["model"] == "char"
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"no tokenizer in this directory \(char\)"):
        generated(model=folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "options",
    [
        *(
            {"compile": compile, "quantize": weights}
            for compile in ("auto", "off")
            for weights in ("none", "int8", "int4")
        ),
        {"precision": "bf16"},
        {"beams": 3},
    ],
)
def test_damaged_weights_are_refused(options: dict[str, Any], value: float, tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["transformer.h.0.mlp.c_fc.weight"][0, 0] = value
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"^(the model's logits are|tensor \S*c_fc.weight is) not finite \("):
        generated(model=folder, prompt="hear", **options)


@pytest.mark.parametrize("stream", [True, False])
def test_a_stop_string_ends_a_text_before_it(model_folder: Path, stream: bool) -> None:
    options: dict[str, Any] = {"model": model_folder, "prompt": "hear", "max_new_tokens": 200, "num_samples": 2}
    free, _, _ = generated(**options)
    stop = free["samples"][0]["text"][5:7]
    result, out, _ = generated(**options, stop=(stop,), stream=stream)
    for sample, whole in zip(result["samples"], free["samples"], strict=True):
        assert sample["text"] == whole["text"].partition(stop)[0]
        assert sample["token_ids"] == whole["token_ids"][: sample["num_tokens"]]
        assert stop not in sample["text"]
        assert f"hear{sample['text']}\n" in out
    assert result["samples"][0]["finish_reason"] == "stop"
    lines, _, _ = generated(model=model_folder, prompt="hear", max_new_tokens=200, stop=(r"\n",), temperature=2.0)
    assert "\n" not in lines["samples"][0]["text"]


def test_the_end_of_a_document_can_be_ignored(model_folder: Path) -> None:
    options: dict[str, Any] = {"model": model_folder, "max_new_tokens": 40, "num_samples": 6, "temperature": 3.0}
    ended, _, _ = generated(**options)
    assert "stop" in {sample["finish_reason"] for sample in ended["samples"]}
    separator = separator_id(load_tokenizer(str(model_folder)))
    for sample in generated(**options, ignore_eos=True)[0]["samples"]:
        assert (sample["num_tokens"], sample["finish_reason"]) == (40, "length")
        assert separator not in sample["token_ids"]


def test_probabilities_are_numbers_in_the_result_and_a_table_on_the_screen(model_folder: Path) -> None:
    result, out, _ = generated(model=model_folder, prompt="hear", max_new_tokens=3, show_probs=True, greedy=True)
    (sample,) = result["samples"]
    model = load_model(model_folder)
    tokenizer = load_tokenizer(str(model_folder))
    ids = [*tokenizer.encode("hear", add_special_tokens=False), *sample["token_ids"]]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    logits[:, sorted(never_sampled(tokenizer, model.config.vocab_size))] = float("-inf")
    assert len(sample["tokens"]) == len(sample["token_ids"]) == 3
    for place, token in enumerate(sample["tokens"], start=3):
        probabilities = logits[place].softmax(-1)
        assert token["probability"] == pytest.approx(float(probabilities[ids[place + 1]]), rel=1e-4)
        assert token["rank"] == 1
        best = probabilities.topk(5)
        assert [one["token_id"] for one in token["alternatives"]] == best.indices.tolist()
        assert [one["probability"] for one in token["alternatives"]] == pytest.approx(best.values.tolist(), rel=1e-4)
        assert "".join(one["text"] for one in sample["tokens"]) == sample["text"]
    assert out.startswith(f"hear{sample['text']}\n")
    assert len(out.splitlines()) >= 6
    assert f"{sample['tokens'][0]['probability']:.4f}" in out
    assert "tokens" not in generated(model=model_folder, prompt="hear", max_new_tokens=3)[0]["samples"][0]


def test_beams_find_what_is_likelier_as_a_whole(model_folder: Path) -> None:
    greedy, _, _ = generated(model=model_folder, prompt="hear", max_new_tokens=6, greedy=True, ignore_eos=True)
    found, out, _ = generated(model=model_folder, prompt="hear", max_new_tokens=6, beams=8, ignore_eos=True)
    model, prompt = load_model(model_folder), load_tokenizer(str(model_folder)).encode("hear")

    def log_probability(ids: list[int]) -> float:
        with torch.no_grad():
            rows = model(torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
        return sum(float(rows[len(prompt) - 1 + place, token]) for place, token in enumerate(ids))

    better, plain = (one["samples"][0]["token_ids"] for one in (found, greedy))
    assert log_probability(better) >= log_probability(plain) - 1e-5
    assert out == f"hear{found['samples'][0]['text']}\n"


def test_with_a_template_the_answer_alone_is_printed(model_folder: Path) -> None:
    whole, _, _ = generated(model=model_folder, prompt="hear me:", max_new_tokens=9)
    result, out, _ = generated(model=model_folder, prompt="me", max_new_tokens=9, template="hear {prompt}:")
    assert result["samples"] == [whole["samples"][0] | {"prompt": "me"}]
    assert out == result["samples"][0]["text"] + "\n"


@pytest.mark.parametrize("name", ["tldr", "translation", "question-answering"])
def test_the_papers_recipes_are_whole(name: str) -> None:
    options = GenerateOptions(**read_recipe(find_recipe(f"generate/{name}").path, GenerateOptions))
    check_settings(options)
    assert full_prompt(options, "{x} it").count("{x} it") == 1
    assert full_prompt(options, "x")[-1] in ":="  # a space after it would split the answer's first token


def test_next_lines_run_as_printed(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    line = f"gptkit generate --model {model_folder}"
    for destination in ("exported", "exported-2"):  # from generate to convert and back, twice
        assert main([*shlex.split(line)[1:], "--max-new-tokens", "2"]) == 0
        line = capsys.readouterr().err.splitlines()[-1].removeprefix("next: ")
        assert line.endswith(f" {destination} --to hf")
        assert main(shlex.split(line)[1:]) == 0
        line = capsys.readouterr().err.splitlines()[-1].removeprefix("next: ")
        assert line == f"gptkit generate --model {destination}"
    Path("exported/tokenizer.json").unlink()
    assert main(["convert", "exported", "without"]) == 0
    assert "next:" not in capsys.readouterr().err  # what cannot generate is not said to


def test_the_command_line_ends_with_the_next_command(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["generate", "hear", "--model", str(model_folder), "--max-new-tokens", "3"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("hear")
    assert err.splitlines()[-1] == f"next: gptkit convert {model_folder} exported --to hf"
    assert main(["generate", "hear", "--model", str(model_folder), "--max-new-tokens", "3", "--json"]) == 0
    out, _ = capsys.readouterr()
    assert set(json.loads(out)) == {
        "model", "samples", "compile_seconds", "prefill_seconds", "decode_seconds", "tokens_per_second",
    }  # fmt: skip
