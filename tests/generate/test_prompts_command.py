"""`gptkit generate --prompts`: the finished file is the same however often the work was interrupted."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from generation_toy import write_model
from gptkit.console import Console
from gptkit.errors import InputError, UsageError
from gptkit.generate import prompts_file
from gptkit.generate.command import run
from gptkit.generate.options import GenerateOptions
from gptkit.generate.prompts_file import SamplesFile

SECONDS = ("compile_seconds", "prefill_seconds", "decode_seconds", "tokens_per_second")
LINES = ["hear me", "", "First", "any further, hear me", "h", "First"]


def generated(model: Path, prompts: Path, **options: Any) -> tuple[dict[str, Any], str, str]:
    """Return the result, stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    console = Console(json=options.get("json", False), stdout=out, stderr=err, environment={})
    asked = GenerateOptions(device="cpu", model=str(model), prompts=prompts, **{"max_new_tokens": 12, **options})
    return run(asked, console), out.getvalue(), err.getvalue()


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(LINES))
    return path


def test_every_line_has_its_samples(model_folder: Path, prompts: Path) -> None:
    result, out, err = generated(model_folder, prompts, num_samples=2, seed=3)
    output = prompts.with_name("prompts.samples.jsonl")
    assert out == f"{output}\n"
    assert "samples 10/10" in err
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(row["line"], row["sample"]) for row in rows] == [(n, i) for n in (1, 3, 4, 5, 6) for i in (0, 1)]
    assert [row["prompt"] for row in rows[::2]] == [line for line in LINES if line]
    assert result["samples"] == [{key: value for key, value in row.items() if key != "settings"} for row in rows]
    assert result["output"] == str(output)
    alone = run(
        GenerateOptions(
            device="cpu", model=str(model_folder), prompt="hear me", num_samples=2, seed=3, max_new_tokens=12
        ),
        Console(stdout=io.StringIO(), stderr=io.StringIO(), environment={}),
    )
    facts = ("prompt", "text", "token_ids", "num_tokens", "finish_reason")
    assert [{key: row[key] for key in facts} for row in rows[:2]] == alone["samples"]
    again = [row for row in rows if row["prompt"] == rows[2]["prompt"] and row["line"] != rows[2]["line"]]
    assert len({tuple(row["token_ids"]) for row in [*rows[2:4], *again]}) == 4  # an equal line is another request


@pytest.mark.parametrize("lines", [28 * ["\u4e00\u4e01"], [chr(0x4E00 + n) + chr(0x4E20 + n) for n in range(28)]])
def test_lines_have_independent_random_numbers(lines: list[str], tmp_path: Path) -> None:
    """First tokens of 28 prompts of equal length, all but uniform over 301: 26.8 different ones are expected."""
    model = write_model(tmp_path / "model", text="".join(map(chr, range(0x4E00, 0x4E00 + 300))))
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(lines))
    texts = {}
    for size in (1, 5, None):
        output = tmp_path / f"{size}.jsonl"
        found, _, _ = generated(model, prompts, max_new_tokens=1, batch_size=size, output=output)
        texts[size] = [row["text"] for row in found["samples"]]
    counts = Counter(texts[None])
    assert len(counts) >= 20
    assert max(counts.values()) <= 4
    assert texts[1] == texts[5] == texts[None]


@pytest.mark.parametrize("options", [{}, {"greedy": True}, {"temperature": 0.0}, {"beams": 2, "max_new_tokens": 3}])
def test_samples_of_an_older_version_are_not_mixed_with_new_ones(
    options: dict[str, Any], model_folder: Path, prompts: Path
) -> None:
    """It wrote the hash of the settings alone, and drew every line with the same random numbers."""
    generated(model_folder, prompts, **options)
    output = prompts.with_name("prompts.samples.jsonl")
    older = output.read_text().replace("-by-line", "")
    assert (older == output.read_text()) == bool(options)
    output.write_text("".join(older.splitlines(keepends=True)[:-1]))
    if options:  # samples without random numbers are the same today
        generated(model_folder, prompts, **options)
        assert output.read_text() == older
        return
    partial = output.read_bytes()
    refusal = r"different settings, or from a different model or an older gptkit .* - choose another"
    with pytest.raises(InputError, match=refusal):
        generated(model_folder, prompts)
    assert output.read_bytes() == partial


def test_an_interrupted_file_is_completed_to_the_same_bytes(
    model_folder: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prompts.with_name("whole.jsonl")
    result, _, _ = generated(model_folder, prompts, output=whole, json=True)
    output = prompts.with_name("prompts.samples.jsonl")
    append = SamplesFile.append
    for allowed in (2, 1):

        def interrupted(file: SamplesFile, *facts: Any, left: list[int] = [allowed]) -> None:  # noqa: B006
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            append(file, *facts)

        monkeypatch.setattr(SamplesFile, "append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            generated(model_folder, prompts)
    with output.open("a") as file:
        file.write('{"line": 4, "sam')
    assert output.read_bytes() != whole.read_bytes()
    monkeypatch.setattr(SamplesFile, "append", append)
    resumed, _, err = generated(model_folder, prompts, json=True)
    assert "3 of 5 samples are already done" in err
    assert output.read_bytes() == whole.read_bytes()
    assert resumed["samples"] == result["samples"]
    again, _, err = generated(model_folder, prompts, json=True)
    assert again["samples"] == result["samples"]
    assert again["decode_seconds"] == 0
    assert output.read_bytes() == whole.read_bytes()


CHOICES: list[tuple[dict[str, Any], str]] = [
    ({}, "fp32"),
    ({"quantize": "int8"}, "int8"),
    ({"quantize": "int4", "precision": "fp32"}, "fp32"),
    ({"precision": "bf16"}, "bf16"),
    ({"compile": "off"}, "fp32"),
    ({"compile": "off", "quantize": "int4"}, "bf16"),
    ({"beams": 2, "max_new_tokens": 3}, "fp32"),
]


@pytest.mark.parametrize(("options", "precision"), CHOICES)
def test_a_finished_file_is_known_without_its_weights(
    options: dict[str, Any], precision: str, model_folder: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What --precision auto chooses, on which the samples depend, is known before."""
    result, _, _ = generated(model_folder, prompts, **options)
    with monkeypatch.context() as patched:
        patched.setattr(prompts_file, "TextModel", None)
        again, _, _ = generated(model_folder, prompts, **options)
        assert again == result | dict.fromkeys(SECONDS, 0.0)
        same, _, _ = generated(model_folder, prompts, **options | {"precision": precision})
        assert same["samples"] == result["samples"]
    other = {"fp32": "bf16", "bf16": "fp32", "int8": "fp32"}[precision]
    with pytest.raises(InputError, match="different settings"):
        generated(model_folder, prompts, **options | {"precision": other})


def test_a_compiler_that_fails_changes_the_choice(
    model_folder: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then torch multiplies quantized weights with activations in bf16: these samples are not mixed with the others."""
    generated(model_folder, prompts, quantize="int8")
    monkeypatch.setenv("CC", "false")
    with pytest.raises(InputError, match="different settings"):
        generated(model_folder, prompts, quantize="int8")
    _, _, err = generated(model_folder, prompts, quantize="int8", output=tmp_path / "by-torch.jsonl")
    assert err.count("not compiling (--compile auto)") == 1


def test_a_changed_line_is_made_anew_and_other_settings_are_refused(model_folder: Path, prompts: Path) -> None:
    first, _, _ = generated(model_folder, prompts)
    prompts.write_text("\n".join([*LINES[:4], "e"]))
    second, _, err = generated(model_folder, prompts)
    assert "2 samples of changed lines" in err
    assert second["samples"][:3] == first["samples"][:3]
    assert [row["prompt"] for row in second["samples"]] == ["hear me", "First", "any further, hear me", "e"]
    for change in ({"seed": 1}, {"top_k": 3}, {"template": "{prompt} h"}):
        with pytest.raises(InputError, match="different settings"):
            generated(model_folder, prompts, **change)


@pytest.mark.parametrize("output", ["samples.txt", "same.jsonl"])
def test_a_file_that_cannot_be_meant_is_refused(output: str, model_folder: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "same.jsonl"
    prompts.write_text('{"prompt": "h"}\n')
    with pytest.raises(UsageError, match="--output"):
        generated(model_folder, prompts, output=tmp_path / output)
    assert prompts.read_text() == '{"prompt": "h"}\n'


def test_beams_and_probabilities_go_into_a_file_too(model_folder: Path, prompts: Path) -> None:
    found, _, _ = generated(model_folder, prompts, beams=2, max_new_tokens=3)
    assert [row["num_tokens"] <= 3 for row in found["samples"]] == [True] * 5
    shown, _, _ = generated(model_folder, prompts, show_probs=True, output=prompts.with_name("shown.jsonl"))
    assert all(len(row["tokens"]) == row["num_tokens"] for row in shown["samples"])
