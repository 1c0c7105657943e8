"""Text is read by its mark or by --encoding; of anything else an error lists what it could be, without certainty."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from gptkit.errors import InputError, UsageError
from gptkit.system.encodings import decode_text, text_encoding, unix_lines, without_mark
from gptkit.system.reading import open_text
from gptkit.text.readers import read_pieces

# Sentences in a language, and encodings that its files come in.
TEXTS = {
    "中国人民生活在这片土地上,春天来了,花开了。我们去北京看长城。": ("gbk", "gb18030"),
    "台灣的天氣很好,我們去台北看電影。學習語言模型。": ("big5",),
    "今日は天気がいいです。東京へ行きました。カタカナもあります。": ("shift_jis", "euc_jp"),
    "오늘은 날씨가 좋습니다. 서울에 갔습니다. 언어 모델을 배웁니다.": ("euc_kr",),
    "Сегодня хорошая погода. Мы поехали в Москву и смотрели на реку.": ("koi8_r", "cp1251"),
    "วันนี้อากาศดีมาก เราไปกรุงเทพฯ กัน": ("cp874",),
    "He said “yes” — it’s a test of smart quotes in plain English text here.": ("cp1252", "mac_roman"),
    "Bugün hava çok güzel, şarkı söylüyoruz.": ("cp1254",),
    "Zażółć gęślą jaźń, a potem idź spać.": ("cp1250",),
}
CASES = [(text, encoding) for text, encodings in TEXTS.items() for encoding in encodings]


def read_bytes(folder: Path, raw: bytes) -> str:
    (folder / "t.txt").write_bytes(raw)
    return "".join(piece.text for piece in read_pieces(folder / "t.txt"))


@pytest.mark.parametrize(("text", "encoding"), CASES, ids=[encoding for _, encoding in CASES])
def test_an_unmarked_file_could_be_in_its_encoding_and_is_read_with_it(
    tmp_path: Path, text: str, encoding: str
) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes(f"plain\r\n{text}\r\n".encode(encoding))
    with pytest.raises(InputError, match="; could be ") as refusal, open_text(path) as file:
        file.read()
    assert f'("{text[:20]}' in refusal.value.message or text[8:20] in refusal.value.message
    assert "--encoding" in str(refusal.value.fix)
    assert "iconv" not in str(refusal.value)
    assert str(refusal.value.where).startswith(f"{path}:2, byte ")
    with text_encoding(encoding), open_text(path) as file:
        assert file.read() == f"plain\n{text}\n"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_zero_bytes_tell_unmarked_utf16(tmp_path: Path, encoding: str) -> None:
    for text in ("Сегодня хорошая погода. " * 9, "plain text " * 9):
        with pytest.raises(InputError, match=f'could be {encoding} \\("'):
            read_bytes(tmp_path, text.encode(encoding))
    text = "春天来了, 花开了 a\n"
    with pytest.raises(InputError, match=f'could be {encoding} \\("春天来了') as refusal:
        decode_text(text.encode(encoding), "x")
    assert refusal.value.fix == f"pass --encoding {encoding}, if its sample reads right, or correct the bytes"
    with text_encoding(encoding):
        assert decode_text(text.encode(encoding), "x") == text


@pytest.mark.parametrize(
    ("raw", "message", "place"),
    [
        ("春天\n".encode() * 9 + b"caf\xe9 au lait\n" + "春天".encode(), "the text around it is UTF-8", ":10, byte 66"),
        ("春天来了\n".encode()[:-2], "unexpected end of data); the text around it is UTF-8", ":1, byte 9"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "the file is a PDF", ":2, byte 10"),
        (b"PK\x03\x04\x14\x00", "a zip archive", ":1, byte 5"),
        ("春天\n".encode("utf-16")[:-1], "not valid utf-16: 0x0a (truncated data)", ":1, byte 6"),
        (b"\xef\xbb\xbfcaf\xe9\n", "not valid UTF-8: 0xe9", ":1, byte 6"),
        (b"one\ntwo \x00 three\n", "not text: a NUL byte; the text around it is UTF-8", ":2, byte 8"),
        ("春天\0来了花开".encode(), "not text: a NUL byte; the text around it is UTF-8", ":1, byte 6"),
        ("春天来了花开".encode().replace(b"\x9d", b"\x9d\0"), "the text around it is UTF-8", ":1, byte 6"),
    ],
)  # fmt: skip
def test_what_is_in_no_other_encoding(tmp_path: Path, raw: bytes, message: str, place: str) -> None:
    with pytest.raises(InputError) as refusal:
        read_bytes(tmp_path, raw)
    assert message in refusal.value.message
    assert "could be" not in refusal.value.message
    assert refusal.value.where == f"{tmp_path}/t.txt{place}"


def test_text_that_is_not_in_the_encoding_given_is_refused_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes("中国人民\r春天来了".encode("gbk") + b"\xff\n")
    with text_encoding("GBK") as name, pytest.raises(InputError) as refusal, open_text(path) as file:
        file.read()
    assert name == "gbk"
    assert refusal.value.message.startswith("not valid gbk: 0xff")
    assert refusal.value.where == f"{path}:2, byte 17"
    with text_encoding("cp1252"), pytest.raises(InputError, match=r'could be utf-16-le \("plain'):
        decode_text("plain".encode("utf-16-le"), "x")
    with text_encoding("ascii"), pytest.raises(InputError, match=r'could be utf-8 \("café'):
        decode_text("café\n".encode(), "x")


def test_a_mark_outweighs_the_encoding_given() -> None:
    with text_encoding("gbk"):
        for mark, encoding in ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_BE, "utf-16-be")):
            assert decode_text(mark + "中国\r\n".encode(encoding), "x") == "中国\n"


def test_utf8_is_not_read_as_other_letters(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    for name, text in (("gbk", "春天来了,花开了。" * 4), ("cp1252", "né " * 30), ("utf-16", "plain ascii text " * 9)):
        path.write_text(text, encoding="utf-8")
        with text_encoding(name), pytest.raises(InputError, match=f"the text is UTF-8, not {name}") as refusal:
            list(read_pieces(path))
        assert "leave --encoding out" in str(refusal.value.fix)
    with text_encoding("gbk"):
        assert decode_text("联通".encode("gbk") * 9, "x") == "联通" * 9  # also UTF-8, if of unlikely letters
        assert decode_text(b"plain ascii text " * 9, "x") == "plain ascii text " * 9


@pytest.mark.parametrize(("name", "near"), [("gb1830", "gb18030"), ("gbkk", "gbk"), ("base64", "utf"), ("", "utf")])
def test_an_unknown_encoding_is_refused_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UsageError, match="unknown encoding") as refusal, text_encoding(name):
        pass
    assert refusal.value.where == "--encoding"
    assert near in str(refusal.value.fix)


def test_line_ends_and_marks() -> None:
    assert unix_lines("a\r\nb\rc\n\r") == "a\nb\nc\n\n"
    assert without_mark("\ufeffa\r\n") == "a\n"
