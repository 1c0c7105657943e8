"""Whatever is wrong with a file is one error with its cure."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptkit.errors import InputError
from gptkit.system.reading import open_text, read_json, require_regular

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d7a' * 16}\nsize 12345\n"


@pytest.mark.parametrize("read", [require_regular, read_json, lambda path: open_text(path).__enter__()])
def test_a_pointer_of_git_lfs_is_named(read: object, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(POINTER)
    with pytest.raises(InputError, match=r"a Git LFS pointer.*run git lfs pull"):
        read(tmp_path / "file")  # type: ignore[operator]
