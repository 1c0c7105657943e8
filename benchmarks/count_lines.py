"""Count the lines of code in src/ by package: comments, docstrings and blank lines apart.

python benchmarks/count_lines.py [DIRECTORY] [--files]
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from pathlib import Path

LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def python_lines(text: str) -> int:
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            docstrings |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in LAYOUT:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


def c_lines(text: str) -> int:
    """Count the lines of C or JavaScript."""
    text = re.sub(r"/\*.*?\*/", lambda found: "\n" * found.group().count("\n"), text, flags=re.DOTALL)
    return sum(1 for line in text.splitlines() if line.strip() and not line.strip().startswith("//"))


COUNTERS = {".py": python_lines, ".c": c_lines, ".h": c_lines, ".js": c_lines}


def main() -> None:
    folders = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    root = Path(folders[0]) if folders else Path(__file__).parents[1] / "src" / "gptkit"
    lines: Counter[str] = Counter()
    files: Counter[str] = Counter()
    for path in sorted(root.rglob("*")):
        if path.suffix not in COUNTERS:
            continue
        count = COUNTERS[path.suffix](path.read_text(encoding="utf-8"))
        package = path.relative_to(root).parent.as_posix()
        lines[package] += count
        files[package] += 1
        if "--files" in sys.argv:
            print(f"{count:6}  {path.relative_to(root)}")
    for package in sorted(lines):
        print(f"{lines[package]:6} lines {files[package]:4} files  {package}")
    print(f"{lines.total():6} lines {files.total():4} files  in all")


if __name__ == "__main__":
    main()
