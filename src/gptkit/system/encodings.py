"""Encodings of text: named by --encoding or by a byte order mark, and only guessed for the message of an error."""

from __future__ import annotations

import codecs
import io
import itertools
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from encodings.aliases import aliases
from typing import Any, BinaryIO

from gptkit.errors import GptkitError, InputError, UsageError, nearest
from gptkit.system.terminal import safe_text

UTF8 = "utf-8"
MARK = "\ufeff"
_UNUSABLE = re.compile("[\ufffd\uf8f0-\uf8f3]")  # bytes that are not decoded, and bytes of cp932 without a letter
_CONTINUATION = bytes(range(0x80, 0xC0))  # bytes within a character of UTF-8
_MARKS = {  # in this order, because UTF-32's little-endian mark begins with UTF-16's
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SIGNATURES = {
    b"%PDF": ("a PDF", "extract its text (pdftotext)"),
    b"PK\x03\x04": ("a zip archive, as .docx, .xlsx and .epub are", "unpack it, or export its text"),
    b"\xd0\xcf\x11\xe0": ("an old Office document (.doc, .xls)", "export its text"),
    b"BZh": ("compressed by bzip2", "decompress it (bunzip2)"),
    b"\xfd7zXZ": ("compressed by xz", "decompress it (unxz)"),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", "decompress it (unzstd)"),
    b"\x1f\x8b": ("compressed by gzip", "decompress it (gunzip)"),
    b"PAR1": ("a Parquet file", "rename it to end in .parquet"),
    b"SQLite format 3": ("an SQLite database", "export its text"),
}
# Of the encodings that decode a sample alike the message names one of these, and these before others.
_COMMON = (
    *("cp1252", "cp1251", "gb18030", "big5", "cp950", "big5hkscs", "cp932", "euc_jp", "cp949", "koi8_r", "cp866"),
    *("cp874", "cp1250", "cp1253", "cp1254", "cp1255", "cp1256", "mac_roman"),
)
# Encodings of several bytes a character, each with those that have more characters: files are often named too narrowly.
_FAMILIES = (
    *(("gb2312", "gbk", "gb18030"), ("big5", "cp950", "big5hkscs")),
    *(("shift_jis", "cp932"), ("euc_jp",), ("euc_kr", "cp949"), ("johab",)),
)
_NOT_BY_LETTERS = ["utf_8", "utf_7", "utf_16", "utf_16_le", "utf_16_be", "utf_32", "utf_32_le", "utf_32_be"]
_CHUNK_BYTES = 1 << 16
_CONTEXT_BYTES = 1 << 12
_SHOWN_CHARACTERS = 32
_BEYOND_DOUBT = 20  # characters that are several bytes each: in other encodings at most half of them look like UTF-8
_LIKE_A_LANGUAGE = 0.3  # share of usual letters: 0.4 to 0.8 of texts in their own encoding, 0.1 to 0.2 by accident
_ORDERLY = 0.1  # of characters that do not go together, as charset-normalizer counts them; a wrong encoding has more

_named = UTF8
_warn: Callable[[str], None] | None = None


class UndecodableError(InputError):
    """A file is not text in the encoding that it was read in."""


@contextmanager
def text_encoding(name: str, warn: Callable[[str], None] | None = None) -> Iterator[str]:
    """Read text without a byte order mark in an encoding, and yield its usual name; UsageError for an unknown one.

    `warn` is told if the first text with enough letters to judge by looks misread.
    """
    global _named, _warn
    try:
        "a".encode(name)  # a LookupError also for codecs that do not encode text
        found = codecs.lookup(name).name
        if found in ("idna", "punycode"):
            raise LookupError
    except (LookupError, ValueError):
        known = {word for alias in aliases.items() if not alias[1].endswith("_codec") for word in alias}
        near = nearest(name.lower(), known)
        fix = f"did you mean {near!r}?" if near else "write utf-8, utf-16, gb18030, big5, shift_jis, koi8_r, cp1252 ..."
        raise UsageError(f"unknown encoding {name[:60]!r}", where="--encoding", fix=fix) from None
    before = _named, _warn
    _named, _warn = found, warn
    try:
        yield found
    finally:
        _named, _warn = before


def encoding_of(start: bytes, where: str, default: str | None = None) -> str:
    """Return the encoding of text with these first bytes: that of its mark, else `default`, else that of --encoding.

    InputError for text that is UTF-8 beyond doubt, where --encoding says otherwise: it would be read as other letters.
    """
    marked = next((name for mark, name in _MARKS.items() if start.startswith(mark)), None)
    if marked or default:
        return marked or default or _named
    if _named.startswith(UTF8):
        _refuse_escapes(start, where)
        return _named
    text = _decoded(start, UTF8)
    telling = text if _named.startswith(("utf-16", "utf-32")) else [letter for letter in text if letter > "\x7f"]
    if len(telling) >= _BEYOND_DOUBT and "\0" not in text:
        fix = "leave --encoding out, or convert the files that are not UTF-8"
        raise InputError(f"the text is UTF-8, not {_named}", where=where, fix=fix)
    if _warn is not None and not _named.startswith(("utf", "iso2022", "hz")):
        _warn_of_misread(_decoded(start, _named), where, _warn)
    return _named


def _warn_of_misread(text: str, where: str, warn: Callable[[str], None]) -> None:
    """Warn about text that looks more like language in another encoding."""
    global _warn
    letters = [letter for letter in text if letter > "\x7f" and letter.isalpha()]
    if len(letters) < _BEYOND_DOUBT:
        return
    _warn = None  # once: to judge each of many files takes long
    import charset_normalizer

    raw = text.encode(_named, "ignore")
    matches = charset_normalizer.from_bytes(raw, cp_isolation=[_named, *itertools.chain(*_FAMILIES)])
    best, named = matches.best(), _named.replace("-", "_")
    if best is None:  # of encodings of one byte the better one differs by its language
        best = charset_normalizer.from_bytes(raw, cp_exclusion=_NOT_BY_LETTERS).best()
        if best is None or best.coherence < _LIKE_A_LANGUAGE:
            return
    if any(named in match.could_be_from_charset and match.chaos < best.chaos + _ORDERLY for match in matches):
        return
    if (Counter(letters) & Counter(str(best))).total() < 0.9 * len(letters):  # not only another of the same family
        reads, sample = _excerpt(text, ()), _excerpt(str(best), ())
        right = f'in {_name_of(best)} it reads "{sample}": if that is right, name this encoding'
        warn(f'the text may not be {_named}, in which it reads "{reads}"; {right} ({where})')


def _refuse_escapes(start: bytes, where: str) -> None:
    """Raise InputError for text of escape sequences and ASCII letters that stand for Japanese, Chinese or Korean."""
    if not re.search(rb"\x1b\$(?:[@AB]|[()][A-D])", start):
        return
    for name in ("iso2022_jp", "iso2022_jp_2", "iso2022_jp_ext", "iso2022_kr"):
        text = _decoded(start, name)
        if not text.isascii():
            message = f'the text is {name}, not UTF-8: its escape sequences stand for "{_excerpt(text, ())}"'
            raise InputError(message, where=where, fix=f"pass --encoding {name}")


def unix_lines(text: str) -> str:
    """Return a text with every line end (CR LF or CR) as LF."""
    return io.IncrementalNewlineDecoder(None, translate=True).decode(text, final=True) if "\r" in text else text


def without_marks(text: str) -> str:
    """Return a text without byte order marks, of which joined files have several, and with every line end as LF."""
    return unix_lines(text.replace(MARK, ""))


def decode_text(
    raw: bytes, where: str, *, line: int = 1, default: str | None = None, error: type[GptkitError] = UndecodableError
) -> str:
    """Return the text of a file, or of its `line`, `without_marks`; see `encoding_of` and `undecodable`.

    A file with a `default` is a vocabulary or a recipe rather than running text: only a mark at its start is dropped.
    """
    encoding = encoding_of(raw[:_CHUNK_BYTES], where, default)
    with suppress(UnicodeError):
        text = codecs.getincrementaldecoder(encoding)().decode(raw, True)  # refuses UTF-16 without a mark
        text = unix_lines(text.removeprefix(MARK)) if default else without_marks(text)
        if "\0" not in text:
            return text
    raise undecodable(io.BytesIO(raw), where, encoding, line=line, error=error, has_option=default is None)


def undecodable(
    file: BinaryIO,
    where: str,
    encoding: str,
    *,
    line: int = 1,
    error: type[GptkitError] = UndecodableError,
    has_option: bool = True,
) -> GptkitError:
    """Return the error for a file that is not text in `encoding`, or has a NUL: where, and what it could be instead."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding)(), translate=True)
    start = before = b""
    seen, offset = "", 0
    while True:
        state, chunk = decoder.getstate(), file.read(_CHUNK_BYTES)
        start = start or chunk
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeError:
            break
        if "\0" in text or not chunk:
            break
        seen, before, offset, line = text, chunk, offset + len(chunk), line + text.count("\n")
    decoder.setstate(state)
    name = "UTF-8" if encoding.startswith(UTF8) else encoding
    place, problem = 0, "not text: a NUL byte"
    for place in range(max(1, len(chunk))):  # byte by byte, to find the place
        try:
            text = decoder.decode(chunk[place : place + 1], final=not chunk)
        except UnicodeDecodeError as found:
            bad = found.object[found.start : found.end]
            problem = f"not valid {name}: {' '.join(f'0x{byte:02x}' for byte in bad)} ({found.reason})"
            place += found.start - len(found.object) + bool(chunk)
            break
        except UnicodeError as found:  # UTF-16 without a mark could be either way round
            problem = f"not valid {name}: {found}"
            break
        seen, line = seen + text, line + text.count("\n")
        if "\0" in text:
            break
    read = before + chunk + file.read(_CHUNK_BYTES)
    at = len(before) + place
    around, rest = read[max(0, at - _CONTEXT_BYTES) : at + _CHUNK_BYTES], read[at : at + _CHUNK_BYTES]
    about, fix = _damage(seen, rest, encoding) or _advice(around, start, encoding, has_option)
    return error(f"{problem}{about}", where=f"{where}:{line}, byte {offset + place}", fix=fix)


def _damage(before: str, rest: bytes, encoding: str) -> tuple[str, str] | None:
    """Return what to do about a text that a named encoding decodes but for few bytes, of which `rest` begins with one.

    None if it decodes too little: a wrong one decodes up to 98% of a text, or 99% if its characters are single bytes.
    """
    is_utf8 = not _decoded(rest.lstrip(_CONTINUATION), UTF8).isascii()
    if encoding.startswith("utf") or is_utf8 or b"\0" in rest:
        return None
    if encoding.startswith("iso2022") and rest.isascii():  # the rest alone looks like ASCII
        return f"; the text around it is {encoding}", f"correct the bytes, or drop them: {_drop(encoding)}"
    family = next((names for names in _FAMILIES if encoding in names), None)
    wider = family[family.index(encoding) + 1 :] if family else ()
    texts = {name: rest.decode(name, "replace") for name in (encoding, *wider)}
    best = min(texts, key=lambda name: len(_UNUSABLE.findall(texts[name])))
    damaged, letters = len(_UNUSABLE.findall(texts[best])), sum(letter > "\x7f" for letter in before + texts[best])
    if damaged > (max(letters // 50, letters >= _BEYOND_DOUBT) if family else letters // 200):
        return None
    if not damaged:
        sample = _excerpt(before[-8:] + texts[best], ())
        return f'; could be {best} ("{sample}")', f"pass --encoding {best}, if its sample reads right"
    after = " ".join(safe_text(before[-_SHOWN_CHARACTERS // 2 :]).split())
    return f' after "{after}"; the text around it is {best}', f"correct the bytes, or drop them: {_drop(best)}"


def _drop(encoding: str) -> str:
    """Return the command that drops what is not in an encoding."""
    name = encoding.replace("_", "-").replace("iso2022", "iso-2022")
    return f"iconv -c -f {name} -t utf-8 FILE > NEW"


def _advice(around: bytes, start: bytes, encoding: str, has_option: bool) -> tuple[str, str]:
    """Return what bytes that are not text in `encoding` could be, and the fix."""
    for signature, (kind, fix) in _SIGNATURES.items():
        if start.startswith(signature):
            return f"; the file is {kind}", fix
    is_marked = start.startswith(tuple(_MARKS))
    guesses = None if is_marked else _guesses(around, start, encoding)
    if guesses is None:
        drop = f"drop them: {_drop(UTF8)}" if has_option and b"\0" not in around else "fetch the file again"
        return "; the text around it is UTF-8" * (not is_marked), f"correct the bytes, or {drop}"
    if not guesses:
        return "; no known encoding fits" * (b"\0" not in around), "leave the file out, or correct the bytes"
    shown = " or ".join(f'{name} ("{_excerpt(text, guesses.values())}")' for name, text in guesses.items())
    choice = next(iter(guesses)) if len(guesses) == 1 else "NAME"
    fix = f"pass --encoding {choice}, if its sample reads right" if has_option else "save it as UTF-8"
    return f"; could be {shown}", f"{fix}, or correct the bytes"


def _guesses(around: bytes, start: bytes, encoding: str) -> dict[str, str] | None:
    """Return the encodings that text could be in, best first, with its letters; None if it is damaged UTF-8."""
    rest = around.decode(UTF8, "ignore")
    ascii_bytes = sum(byte <= 0x7F for byte in around)
    foreign, intact = len(around) - ascii_bytes, len(rest.encode()) - ascii_bytes
    if not encoding.startswith(UTF8) and intact == foreign and b"\0" not in around:
        return {UTF8: rest}
    # Of text in other encodings about half at most looks like UTF-8; UTF-16 has control characters, or many zeros.
    if intact >= 0.8 * foreign and not re.search(r"[\x01-\x08]", rest) and 5 * around.count(0) < len(around):
        return None
    if b"\0" in around:
        little = start[1::2].count(0) > start[::2].count(0)
        wide = ("utf-32-le", "utf-32-be", "utf-16-le" if little else "utf-16-be")
        texts = {name: _decoded(start, name) for name in wide}
        return {name: text for name, text in texts.items() if text and not re.search(r"[\x00-\x08]", text)}
    import charset_normalizer

    lines = b"\n".join(line for line in around.splitlines() if not line.isascii())
    found: dict[str, str] = {}
    for match in charset_normalizer.from_bytes(lines, cp_exclusion=_NOT_BY_LETTERS):
        found[_name_of(match)] = str(match)
    if found.keys().isdisjoint(_COMMON) and (text := _decoded(lines, "cp1252")):
        found["cp1252"] = text  # a few quotation marks are too little for the library
    likely = list(_COMMON)
    latin = found.get("cp1250") or found.get("cp1252", "")
    if re.search(r"[^\W\d_][±¶¦©«®»µ][^\W\d_]", latin):  # letters of ISO-8859-2, which the library often misses
        likely.append("iso8859_2")
        found = {"iso8859_2": lines.decode("iso8859_2")} | found
    if 3 * sum(byte > 0x7F for byte in lines) > len(lines) > _BEYOND_DOUBT:  # too dense for accents
        found = {name: text for name, text in found.items() if not _is_accented(text)}
        if found.keys().isdisjoint(itertools.chain(*_FAMILIES)):
            found |= _damaged_guesses(lines, [*itertools.chain(*_FAMILIES)] if found else _COMMON)
    return {name: found[name] for name in sorted(found, key=lambda name: name not in likely)[:4]}


def _name_of(match: Any) -> str:
    """Return the most common name of the encodings that charset-normalizer found alike."""
    return str(next((name for name in _COMMON if name in match.could_be_from_charset), match.encoding))


def _is_accented(text: str) -> bool:
    """Return whether most characters beyond ASCII are Latin letters and signs."""
    foreign = [letter for letter in text if letter > "\x7f"]
    return 2 * sum(letter < "\u0250" or "\u2010" <= letter < "\u2200" for letter in foreign) > len(foreign)


def _damaged_guesses(lines: bytes, names: Collection[str]) -> dict[str, str]:
    """Return those of the common encodings that decode almost all of a text, with the text."""
    import charset_normalizer

    found: dict[str, str] = {}
    for name in (name for name in _COMMON if name in names):
        intact = lines.decode(name, "ignore").encode(name)
        if len(intact) > 0.98 * len(lines):
            match = charset_normalizer.from_bytes(intact, cp_isolation=[name]).best()
            if match is not None and str(match) not in found.values() and not _is_accented(str(match)):
                found[name] = str(match)
    return found


def _decoded(raw: bytes, encoding: str) -> str:
    """Return text that may end within a character, empty if it is not in this encoding."""
    try:
        return codecs.getincrementaldecoder(encoding)().decode(raw)
    except UnicodeError:
        return ""


def _excerpt(text: str, texts: Collection[str]) -> str:
    """Return the part of a text where the candidates differ most, or its first letters beyond ASCII."""
    foreign = [int(letter > "\x7f") for letter in text]
    kinds = [len({*letters}) for letters in zip(*texts, strict=False)] if len(texts) > 1 else foreign
    place = max(0, kinds.index(max(kinds)) - 8) if kinds else 0
    return safe_text(" ".join(text[place : place + _SHOWN_CHARACTERS].split()))
