"""`gptkit score`: eval's nll of every token, which text of a pair is preferred, in a second and in flat memory."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch

from generation_toy import POSITIONS, TEXT, write_model
from gpt_toy import FAMILIES, toy
from gptkit.cli.main import main
from gptkit.decoding.text_options import TextModelOptions
from gptkit.text.tokenizers.kinds import train_tokenizer
from gptkit.text.tokenizers.loading import load_tokenizer
from gptkit.use.likelihood import TextScorer

TEXTS = ["First Citizen", "before we proceed any further, hear me speak " * 4, "hear", " me\n\nspeak  é 数据"]
HEAVY = {"torch", "transformers"}


@pytest.fixture(scope="module", params=FAMILIES, ids=["gpt2", "gpt1"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer("bpe:300", [TEXT])
    toy(request.param, vocab_size=len(tokenizer) + 7, n_positions=POSITIONS).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def scored(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    """Return the lines that a command writes into a pipe."""
    assert main(["score", *words]) == 0, capsys.readouterr().err
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def by_eval(folder: Path, texts: list[str], protocol: str, place: Path) -> list[float]:
    """Return the nll of each text that `gptkit eval` writes."""
    data, output = place / "texts.jsonl", place / "scores.json"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    line = ["eval", "--model", str(folder), "--task", f"perplexity/{protocol}", "--data", str(data)]
    assert main([*line, "--device", "cpu", "--output", str(output)]) == 0
    items = json.loads(output.read_text())["items"][f"perplexity/{protocol}"]
    found: dict[int, float] = defaultdict(float)
    for name, nll in zip(items["ids"], items["columns"]["nll"], strict=True):
        found[int(name.partition(":")[0])] += nll
    return [found[number] for number in range(len(texts))]


def test_the_nll_is_evals_over_any_number_of_windows(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each text after the separator: a document of its own, and as the only text of a stream."""
    expected = by_eval(folder, TEXTS, "documents", tmp_path)
    streams = [by_eval(folder, [text], "sliding", tmp_path)[0] for text in TEXTS]
    capsys.readouterr()
    results = scored(capsys, *TEXTS, "--model", str(folder), "--device", "cpu")
    assert max(result["num_tokens"] for result in results) > 2 * POSITIONS
    found = [result["nll"] for result in results]
    assert found == pytest.approx(expected, rel=1e-5)
    assert found == pytest.approx(streams, rel=1e-5)
    for text, result in zip(TEXTS, results, strict=True):
        assert result["perplexity"] == pytest.approx(math.exp(result["nll"] / result["num_tokens"]))
        assert result["bits_per_byte"] == pytest.approx(result["nll"] / math.log(2) / len(text.encode()))
        assert result["bits_per_character"] == pytest.approx(result["nll"] / math.log(2) / len(text))


def test_openais_tokenizer_of_gpt1_too(test_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = load_tokenizer(str(test_data / "tokenizers" / "gpt1"))
    model = tmp_path / "model"
    toy(False, vocab_size=len(tokenizer), n_positions=POSITIONS).save_pretrained(model)
    tokenizer.save_pretrained(model)
    expected = by_eval(model, TEXTS, "documents", tmp_path)
    capsys.readouterr()
    results = scored(capsys, *TEXTS, "--model", str(model), "--device", "cpu")
    assert [result["nll"] for result in results] == pytest.approx(expected, rel=1e-5)


def test_tokens_have_the_nll_and_rank_that_the_models_logits_give(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (result,) = scored(capsys, "hear me speak", "--model", str(folder), "--tokens", "--device", "cpu")
    scorer = TextScorer(folder, TextModelOptions(device="cpu", compile="off"), print)
    ids = [scorer.encoder.separator, *(token["id"] for token in result["tokens"])]
    from gptkit.model.loading import load_model

    with torch.inference_mode():
        log_probs = load_model(folder).eval()(torch.tensor([ids])).logits[0].log_softmax(-1)
    for token, row in zip(result["tokens"], log_probs, strict=False):
        assert token["nll"] == pytest.approx(-row[token["id"]].item(), abs=1e-5)
        assert token["rank"] == row.argsort(descending=True).tolist().index(token["id"]) + 1
    assert "".join(token["piece"] for token in result["tokens"]) == "hear me speak"
    assert sum(token["nll"] for token in result["tokens"]) == pytest.approx(result["nll"])


def test_torch_gives_the_same_scores(folder: Path) -> None:
    """Where there is no compiler, or on a GPU."""
    native, by_torch = (
        TextScorer(folder, TextModelOptions(device="cpu", compile=compile), print).score(TEXTS)
        for compile in ("on", "off")
    )
    for one, other in zip(native, by_torch, strict=True):
        assert one.ids.tolist() == other.ids.tolist()
        assert one.nll == pytest.approx(other.nll, abs=1e-5)
        assert one.ranks.tolist() == other.ranks.tolist()


def test_of_a_pair_the_likelier_text_is_preferred(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("hear me\thear me speak me hear\nhear me speak me hear\thear me\n\nhear\thear\n")
    results = scored(capsys, "--texts", str(pairs), "--model", str(folder), "--device", "cpu")
    assert [result["preferred"] for result in results] == ["first", "second", "tie"]
    single = scored(capsys, "hear me", "hear me speak me hear", "--model", str(folder), "--device", "cpu")
    assert [results[0]["first"]["nll"], results[0]["second"]["nll"]] == pytest.approx([one["nll"] for one in single])


def test_quotes_of_a_spreadsheet_are_not_part_of_a_pair(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text('hear me\tspeak\n"say ""hear"""\t"two\nlines"\n')
    results = scored(capsys, "--texts", str(pairs), "--model", str(folder), "--device", "cpu")
    assert [result["first"]["text"] for result in results] == ["hear me", 'say "hear"']
    assert results[1]["second"]["text"] == "two\nlines"
    pairs.write_text('"Me," he said\t"Me," I said\n')
    results = scored(capsys, "--texts", str(pairs), "--model", str(folder), "--device", "cpu")
    assert results[0]["first"]["text"] == '"Me," he said'


def test_json_wraps_the_lines_and_a_file_has_a_text_a_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, keyed = tmp_path / "texts.txt", tmp_path / "texts.jsonl"
    plain.write_text("hear me\n \nspeak\n")
    keyed.write_text('{"text": "hear me", "id": 3}\n{"text": "speak"}\n')
    model = ["--model", str(folder), "--device", "cpu"]
    lines = scored(capsys, "hear me", "speak", *model)
    assert scored(capsys, "--texts", str(plain), *model) == scored(capsys, "--texts", str(keyed), *model) == lines
    assert main(["score", "hear me", "speak", *model, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"model": str(folder), "results": lines}


def test_bits_are_unknown_where_the_tokenizer_does_not_know_the_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_model(tmp_path / "model", "char")
    assert main(["score", "hear", "he数r", "--model", str(model), "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    known, unknown = map(json.loads, printed.out.splitlines())
    assert known["bits_per_byte"] is not None
    assert unknown["bits_per_byte"] is unknown["bits_per_character"] is None
    assert "1 of 8 tokens" in printed.err


BAD = {
    "": "no text to score",
    "hear ''": "TEXT 2",
    "hear --texts good.txt": "--texts provides the texts",
    "--texts nofile.txt": "file not found",
    "--texts good.csv": "neither .txt nor .jsonl nor .tsv",
    "--texts empty.txt": "no text in this file",
    "--texts three.tsv": "three.tsv:2",
    "--texts half.tsv": "half.tsv:1",
    "--texts keys.jsonl": "keys.jsonl:2",
    "--texts bytes.txt": "bytes.txt:2",
    "hear --precision int8": "int8 need quantized weights",
    "- -": "stdin has only one text",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_refused_in_one_line(
    line: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import shlex

    monkeypatch.chdir(tmp_path)
    files: dict[str, bytes] = {
        "good.txt": b"hear\n",
        "good.csv": b"hear\n",
        "empty.txt": b"\n \n",
        "three.tsv": b"a\tb\na\tb\tc\n",
        "half.tsv": b"a\t \n",
        "keys.jsonl": b'{"text": "a"}\n{"prompt": "a"}\n',
        "bytes.txt": b"a\n\xff\n",
    }
    for name, content in files.items():
        Path(name).write_bytes(content)
    assert main(["score", *shlex.split(line), "--model", str(folder), "--device", "cpu"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert BAD[line] in printed.err


def cold(model: Path, *words: str) -> tuple[set[str], int]:
    """Return the packages that a process of its own imported, and its peak memory in kB."""
    script = "import resource, sys; from gptkit.cli.main import main; code = main(sys.argv[1:]); "
    script += "print({name.partition('.')[0] for name in sys.modules}, file=sys.stderr); "
    script += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
    line = [sys.executable, "-c", script, "score", *words, "--model", str(model), "--device", "cpu"]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    *_, imported, peak = done.stderr.splitlines()
    return {name for name in HEAVY if f"'{name}'" in imported}, int(peak)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_ten_thousand_lines_take_the_memory_of_a_thousand_and_no_torch(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", "bpe:300")
    cold(model, "compile the engine")
    peaks = []
    for count in (1_000, 10_000):
        texts = tmp_path / "texts.txt"
        texts.write_text("".join(f"before we proceed any further {number}\n" for number in range(count)))
        imported, peak = cold(model, "--texts", str(texts))
        assert imported == set()
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 4_000, peaks
