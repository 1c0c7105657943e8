from __future__ import annotations

from pathlib import Path

import pytest

from gptkit.errors import UsageError
from gptkit.evaluate.jobs import TaskSpec, read_suite


def test_a_suite_with_paths_relative_to_its_file(tmp_path: Path) -> None:
    path = tmp_path / "ci.yaml"
    path.write_text(
        "tasks:\n"
        "- {task: lambada, data: data/l.jsonl, limit: 500, floor: 0.01, minimum: 0.4}\n"
        "- {task: wikitext2, data: 'hf:wikitext:x'}\n"
        "- task: my.yaml\n"
        f"  data: {tmp_path / 'absolute'}\n"
    )
    folder = tmp_path.resolve()
    assert read_suite(path) == (
        TaskSpec("lambada", str(folder / "data/l.jsonl"), 500, 0.01, 0.4, f"{path}:2"),
        TaskSpec("wikitext2", "hf:wikitext:x", None, None, None, f"{path}:3"),
        TaskSpec(str(folder / "my.yaml"), str(tmp_path / "absolute"), None, None, None, f"{path}:4"),
    )


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "no 'tasks' in the suite"),
        ("- lambada", 1, "does not begin with `tasks:` .* write the list under it"),
        ("task: lambada", 1, r"unknown key 'task' in the suite .* did you mean 'tasks'"),
        ("tasks: lambada", 1, "tasks is not a list"),
        ("tasks: []", 1, r"tasks is empty .* write tasks: \[{task: lambada}\]"),
        ("tasks:\n- lambada", 2, "this task of the suite contains no `key: value` lines"),
        ("tasks:\n- {data: x}", 2, "no 'task' in a task"),
        ("tasks:\n- task: lambada\n  minumum: 1", 3, r"unknown key 'minumum' .* did you mean 'minimum'"),
        ("tasks:\n- task: lambada\n- task: lambada", 3, "the task 'lambada' appears twice .* use two suites"),
        ("tasks:\n- {task: lambada, limit: 0}", 2, "limit is not a whole number of at least 1"),
        ("tasks:\n- {task: lambada, limit: 1.5}", 2, "limit is not a whole number"),
        ("tasks:\n- {task: lambada, floor: -1}", 2, "floor is not a number of at least 0"),
        ("tasks:\n- {task: lambada, floor: .nan}", 2, "floor is not a number"),
        ("tasks:\n- {task: lambada, minimum: high}", 2, "minimum is not a number"),
        ("tasks:\n- {task: lambada, data: [a, b]}", 2, "data is not one word"),
        ("tasks:\n- {task: lambada, data: }", 2, "data is not one word"),
        ('tasks:\n- {task: lambada, data: "a\\0b"}', 2, "NUL"),
        ("tasks:\n- {task: lambada, limit: [}", 2, "not YAML"),
        ("tasks:\n- {task: !!python/name:os.system lambada}", 2, "the suite must not contain tags"),
        ("tasks: &a [*a]", 1, "the suite must not contain anchors or aliases"),
    ],
)
def test_whatever_is_wrong_is_one_line_with_its_place(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = tmp_path / "ci.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as found:
        read_suite(path)
    assert found.value.where == f"{path}:{line}"
    assert found.value.fix


def test_files_that_are_no_suite(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"#" * 1_000_001)
    large = "the suite is larger than 1 MB"
    for name, message in (("missing", "file not found"), ("", "not a regular file"), ("large", large)):
        with pytest.raises(UsageError, match=message):
            read_suite(tmp_path / name)
