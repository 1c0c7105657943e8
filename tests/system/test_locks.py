"""Lock files that the members of a group share: their mode, and those of another user."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import gptkit
from gptkit.system.cache import cached_file
from gptkit.system.files import LOCK, RunLock, lock_holder, open_lock_file

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither modes nor a umask")

NOBODY = 65534
# Only root can become another user; anyone else is refused their own file of mode 444.
AS_ANOTHER = f"""
import os, sys
from pathlib import Path
from gptkit.system.cache import cached_file
from gptkit.errors import GptkitError
from gptkit.system.files import RunLock, lock_holder
import encodings.idna, filelock
if os.getuid() == 0:
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
try:
    WORK
except (OSError, GptkitError) as error:
    print(f"{{type(error).__name__}}: {{error}}")
"""


@pytest.fixture(params=[0o777, 0o1777], ids=["shared", "sticky"])
def folder(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Give a directory that everyone may write to; pytest's own are closed to other users."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(request.param)
        yield Path(name)


def as_another(work: str, *arguments: object) -> str:
    environment = {**os.environ, "PYTHONPATH": str(Path(gptkit.__file__).parents[1])}
    line = [sys.executable, "-c", AS_ANOTHER.replace("WORK", work), *map(str, arguments)]
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def make_anothers(path: Path) -> None:
    path.write_text("process 1 on elsewhere\n")
    path.chmod(0o644 if os.getuid() == 0 else 0o444)


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o664), (0o022, 0o644), (0o077, 0o600)])
def test_the_umask_says_who_may_write_to_a_lock_file(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        os.close(open_lock_file(tmp_path / "plain"))
        RunLock(tmp_path).release()
        modes: list[int] = []

        def write(writer: object) -> dict[str, int]:
            modes.append(stat.S_IMODE((tmp_path / "cached.lock").stat().st_mode))
            return {}

        cached_file(tmp_path / "cached", write, need=lambda writer: 0)  # type: ignore[arg-type]
    finally:
        os.umask(before)
    made = [tmp_path / name for name in ("plain", LOCK, "cached", "cached.json")]
    assert {*modes, *(stat.S_IMODE(path.stat().st_mode) for path in made)} == {mode}


def test_another_users_lock_file_can_be_locked_and_is_respected(folder: Path) -> None:
    make_anothers(folder / LOCK)
    lock = "held = RunLock(Path(sys.argv[1])); print('held')"
    assert as_another(lock, folder) == "held"
    held = RunLock(folder)
    assert as_another(lock, folder).startswith("InputError: the run is in use by process ")
    held.release()
    assert as_another(lock, folder) == "held"


def test_asking_who_holds_a_lock_changes_nothing(folder: Path) -> None:
    assert lock_holder(folder) is None
    assert not list(folder.iterdir())
    make_anothers(folder / LOCK)
    assert as_another("print(lock_holder(Path(sys.argv[1])))", folder) == "None"
    assert (folder / LOCK).read_text() == "process 1 on elsewhere\n"
    held = RunLock(folder)
    assert as_another("print(lock_holder(Path(sys.argv[1])))", folder).startswith(f"process {os.getpid()} on ")
    assert lock_holder(folder) == (folder / LOCK).read_text().strip()
    held.release()
    assert lock_holder(folder) is None


def test_what_another_user_left_in_a_shared_cache_stops_nobody(folder: Path) -> None:
    is_sticky = bool(folder.stat().st_mode & stat.S_ISVTX)
    make_anothers(folder / "data.lock")
    if not is_sticky:  # where each removes only their own files, this one is in the way for good
        make_anothers(folder / "data.tmp")
    build = "cached_file(Path(sys.argv[1]), lambda file: file.write(b'made') or {}, need=lambda file: 4); print('done')"
    assert as_another(build, folder / "data") == "done"
    assert (folder / "data").read_bytes() == b"made"


@pytest.mark.skipif(os.getuid() != 0 if hasattr(os, "getuid") else True, reason="only root can become another user")
def test_a_directory_that_cannot_be_written_to_is_named_as_such(folder: Path) -> None:
    folder.chmod(0o755)
    said = as_another("RunLock(Path(sys.argv[1]))", folder)
    assert said == f"PermissionError: [Errno 13] Permission denied: '{folder / LOCK}'"
