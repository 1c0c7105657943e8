"""Write JSON and YAML as people read them: letters of any script as they are, escapes only where one is needed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptkit.system.terminal import UNSAFE

# Line separators end lines for some readers of JSON lines, and PyYAML would read them as spaces.
_ESCAPED = re.compile(f"[{UNSAFE}\u2028\u2029]")


def json_text(value: Any, **layout: Any) -> str:
    """Return strict JSON that any UTF-8 file can hold; `layout` goes to json.dumps."""
    text = json.dumps(value, **{"ensure_ascii": False, "allow_nan": False, **layout})
    return _ESCAPED.sub(lambda match: json.dumps(match[0])[1:-1], text)


def json_line(payload: Mapping[str, Any], *, ascii_only: bool = False) -> str:
    """Return one line of JSON for scripts; non-finite numbers become null, paths strings."""
    return json_text(_finite(payload), ensure_ascii=ascii_only)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def yaml_text(values: Mapping[str, Any], **layout: Any) -> str:
    """Return YAML with the keys in their order; `layout` goes to yaml.safe_dump."""
    import yaml

    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, **layout)
    return yaml.safe_dump(values, sort_keys=False, **layout) if _ESCAPED.search(text) else text
