"""CNN/Daily Mail in the forms that people have; what is wrong with a file is told with its line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from gptkit.errors import InputError, UsageError
from gptkit.tasks.benchmarks.cnn_dailymail import CNN_DM, cnn_dailymail

ROWS = [
    {"article": "Cats sleep. Dogs bark.", "highlights": "Cats sleep .\nDogs bark .", "id": "a1"},
    {"article": "It rains.", "highlights": "Rain", "id": "b2"},
]


def write_lines(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_hub_files_give_the_same_examples_as_json_lines_and_as_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "hub" / "cnn-dm").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "hub" / "cnn-dm" / "test-00000-of-00001.parquet")
    lines = write_lines(tmp_path / "test.jsonl", *map(json.dumps, ROWS))
    by_parquet, by_lines = cnn_dailymail(str(tmp_path / "hub")), cnn_dailymail(str(lines))
    assert len(by_lines.examples[0].fields) == len(CNN_DM.fields)
    assert [one.fields for one in by_lines.examples] == [(row["article"], row["highlights"]) for row in ROWS]
    assert [one.identifier for one in by_parquet.examples] == ["a1", "b2"]
    assert by_lines.examples[1].where == f"{lines}:2"
    assert by_parquet.sha256 == by_lines.sha256


def test_stories_come_in_the_order_of_their_list(tmp_path: Path) -> None:
    urls = ["http://a.example/1", "http://b.example/2"]
    names = [hashlib.sha1(url.encode()).hexdigest() for url in urls]
    write_lines(tmp_path / "all_test.txt", *urls)
    story = ["(CNN) -- One.", "", "Two", "", "@highlight", "", "First", "", "@highlight", "", "Second"]
    write_lines(tmp_path / "dailymail" / "stories" / f"{names[0]}.story", *story)
    write_lines(tmp_path / "cnn" / "stories" / f"{names[1]}.story", "Three.", "@highlight", "Third")
    found = cnn_dailymail(str(tmp_path)).examples
    assert [one.fields for one in found] == [("(CNN) -- One.\nTwo", "First\nSecond"), ("Three.", "Third")]
    (tmp_path / "cnn" / "stories" / f"{names[1]}.story").unlink()
    with pytest.raises(InputError, match=r"no story for this URL \(.*all_test\.txt:2\)"):
        cnn_dailymail(str(tmp_path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"article": "A."}', r"no key 'highlights' \(keys: 'article'\) \(.*test\.jsonl:2\)"),
        ('{"article": "A.", "highlights": 3}', r"'highlights' is 3, not a string \(.*test\.jsonl:2\)"),
        ('{"article": " ", "highlights": "B"}', r"'article' is empty \(.*test\.jsonl:2\)"),
        ('{"article": "A."', r"not valid JSON: .* \(.*test\.jsonl:2\)"),
        ("[1]", r"a JSON array, but an object is needed \(.*test\.jsonl:2\)"),
        (json.dumps(ROWS[0]), r"duplicate id 'a1', first seen at .*test\.jsonl:1 \(.*test\.jsonl:2\)"),
    ],
)
def test_a_bad_row_is_told_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    write_lines(tmp_path / "test.jsonl", json.dumps(ROWS[0]), line)
    with pytest.raises(InputError, match=message):
        cnn_dailymail(str(tmp_path))


def test_what_is_looked_for_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"cnn-dm needs its data \(--data\) - pass --data DIR, a folder with test\*\.par"
    ):
        cnn_dailymail(None)
    write_lines(tmp_path / "train.txt", "x")
    with pytest.raises(InputError, match=r"looked for test\*\.parquet; .*; found train\.txt"):
        cnn_dailymail(str(tmp_path))
    write_lines(tmp_path / "test.jsonl")
    with pytest.raises(InputError, match=r"the file is empty \(.*test\.jsonl:1\)"):
        cnn_dailymail(str(tmp_path))
    write_lines(tmp_path / "test2.jsonl")
    with pytest.raises(InputError, match=r"test\.jsonl and test2\.jsonl both match test\*\.jsonl"):
        cnn_dailymail(str(tmp_path))
    with pytest.raises(InputError, match="no such file or folder"):
        cnn_dailymail(str(tmp_path / "none"))
