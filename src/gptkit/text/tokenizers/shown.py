"""Show single tokens: the bytes of one that is no whole character, and the white space of the others."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Iterable

from gptkit.system.terminal import safe_text
from gptkit.text.tokenizers.any_tokenizer import AnyTokenizer

# GPT-2's alphabet of the bytes: a printable character stands for itself, the n-th other byte is character 256 + n.
_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = (byte for byte in range(256) if byte not in _PRINTABLE)
_BYTES = {chr(byte): byte for byte in _PRINTABLE} | {chr(256 + number): byte for number, byte in enumerate(_OTHERS)}

_UNSHOWN = re.compile(r"[^\S ]|\xad|^[\u200c\u200d]+")  # joiners only where they join nothing


def _as_hexadecimal(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "".join(f"<{byte:02X}>" for byte in error.object[error.start : error.end]), error.end


codecs.register_error("gptkit-hexadecimal", _as_hexadecimal)


def pieces_of(tokenizer: AnyTokenizer, ids: Iterable[int]) -> list[str]:
    """Return the text of each token, with bytes that are no whole character as <E4><BD>."""
    return [token_bytes(tokenizer, id).decode("utf-8", "gptkit-hexadecimal") for id in ids]


def token_bytes(tokenizer: AnyTokenizer, id: int) -> bytes:
    """Return the bytes that a token stands for in UTF-8 text; of a byte-level one they may be part of a character."""
    entry = str(tokenizer.convert_ids_to_tokens(id))
    if hasattr(tokenizer, "encode_text"):  # GPT-1's, whose decoding drops the space at the end
        return entry.replace("</w>", "" if entry.startswith("\n") else " ").encode()
    text = str(tokenizer.decode([id], clean_up_tokenization_spaces=False))
    if "\N{REPLACEMENT CHARACTER}" not in text or not set(entry) <= _BYTES.keys():
        return text.encode()
    return bytes(_BYTES[symbol] for symbol in entry)


def visible(piece: str) -> str:
    """Return a piece for a screen: spaces as ␣, whatever else shows nothing or controls the terminal as escapes."""
    is_mark = unicodedata.category(piece[:1] or " ").startswith("M")  # which would combine with what is before it
    escaped = _UNSHOWN.sub(lambda match: match[0].encode("unicode_escape").decode(), safe_text(piece))
    return "\N{DOTTED CIRCLE}" * is_mark + escaped.replace(" ", "␣")
