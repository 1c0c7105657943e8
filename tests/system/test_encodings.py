"""Text is read by its mark or by --encoding; of anything else an error lists what it could be, without certainty."""

from __future__ import annotations

import codecs
import re
import subprocess
from functools import partial
from pathlib import Path

import pytest

from gptkit.errors import InputError, UsageError
from gptkit.system.encodings import decode_text, text_encoding, unix_lines, without_marks
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
    samples = re.findall(r'\("(?:plain )?([^"]*)', refusal.value.message)
    assert any(sample in text for sample in samples)
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
    with text_encoding("gbk"), pytest.raises(InputError, match=r'could be utf-8 \("'):
        decode_text(b"plain " * 20000 + ("春天来了花。" * 99).encode(), "x")
    with text_encoding("ascii"), pytest.raises(InputError, match=r'could be utf-8 \("café'):
        decode_text("café\n".encode(), "x")


CHINESE = "台灣的天氣很好，我們去台北看電影。學習語言模型是一件有趣的事情，老師說：「今天我們要讀一本小說。」\n" * 40
JAPANESE = "今日は天気がいいです。東京へ行きました。先生は本を読んでいます。\n" * 40


def advice(raw: bytes, encoding: str) -> tuple[str, str]:
    with text_encoding(encoding), pytest.raises(InputError) as refusal:
        decode_text(raw, "x")
    return refusal.value.message, str(refusal.value.fix)


@pytest.mark.parametrize("flaw", [b"\xff", b"\xa5"], ids=["stray byte", "cut character"])
def test_a_damaged_byte_under_the_right_name_is_dropped_by_the_advice(tmp_path: Path, flaw: bytes) -> None:
    (tmp_path / "FILE").write_bytes(CHINESE.encode("big5") + "春天來了".encode("big5") + flaw)
    message, fix = advice((tmp_path / "FILE").read_bytes(), "big5")
    assert message.endswith('一本小說。」 春天來了"; the text around it is big5')
    subprocess.run(fix.partition(": ")[2], shell=True, cwd=tmp_path)
    assert (tmp_path / "NEW").read_text(encoding="utf-8") == CHINESE + "春天來了"


def test_a_damaged_byte_is_shown_after_the_letters_before_it_wherever_they_begin() -> None:
    for start in ("a", "ab"):  # what is shown is read from the start, not from within a character
        raw = (start + "我们去北京看长城。" * 9000).encode("gbk")
        message, _ = advice(raw + b"\xff" + "春天".encode("gbk") * 9, "gbk")
        assert 'after "去北京看长城。我们去北京看长城。"' in message


@pytest.mark.parametrize(
    ("text", "encoding", "flaw"),
    [
        (JAPANESE, "cp932", b"\xff"),
        ("วันนี้อากาศดีมาก เราไปกรุงเทพฯ กัน\n" * 40, "cp874", b"\xff"),
        ("Il a été très ému.\n" * 99, "cp1252", b"\x81"),
    ],
)
def test_damage_under_other_right_names(text: str, encoding: str, flaw: bytes) -> None:
    raw = text.encode(encoding) + flaw + b" " + text.encode(encoding)
    if encoding != "cp1252":  # which others decode as well
        assert f'{encoding} ("' in advice(raw, "utf-8")[0]
    if flaw != b"\xff" or encoding != "cp932":
        message, fix = advice(raw, encoding)
        assert message.endswith(f"; the text around it is {encoding}")
        assert "iconv -c -f " in fix


@pytest.mark.parametrize(
    ("text", "encoding", "named"),
    [
        (CHINESE + "屋子裏很冷", "cp950", "big5"),
        (CHINESE + "我喺度食緊嘢", "big5hkscs", "big5"),
        ("我们去北京看长城。" * 40 + "朱镕基", "gbk", "gb2312"),
        (JAPANESE + "①番目の髙島屋", "cp932", "shift_jis"),
    ],
)
def test_a_name_that_is_too_narrow_is_widened(text: str, encoding: str, named: str) -> None:
    message, fix = advice(text.encode(encoding), named)
    assert f'; could be {encoding} ("' in message
    assert fix == f"pass --encoding {encoding}, if its sample reads right"
    with text_encoding(encoding):
        assert decode_text(text.encode(encoding), "x") == text


@pytest.mark.parametrize(("text", "encoding"), [(CHINESE, "big5"), (JAPANESE, "cp932"), (JAPANESE, "euc_jp")])
def test_damaged_cjk_could_not_be_accented_latin(text: str, encoding: str) -> None:
    for flaw in (b"", b"\xff"):
        message, _ = advice(flaw.join([text.encode(encoding)] * 2), "utf-8")
        assert f'{encoding} ("' in message
        assert "cp1252" not in message


KOREAN = "오늘은 날씨가 좋습니다. 서울에 갔습니다. 할머니는 웃으며 말씀하셨다.\n" * 40
RUSSIAN = "Сегодня хорошая погода. Мы поехали в Москву и смотрели на реку.\n" * 40
THAI = "วันนี้อากาศดีมาก เราไปกรุงเทพฯ กัน แม่น้ำเจ้าพระยาสวยงาม\n" * 40
POLISH = "Mądry źrebak będzie już tęsknił, więc się ukaże. Śnieg przykrył łąkę.\n"


@pytest.mark.parametrize(
    ("text", "encoding", "named", "cure"),
    [
        (CHINESE, "big5", "gb18030", '; in big5 it reads "plain 台灣的天氣很好'),
        (JAPANESE, "euc_jp", "gb2312", '; in euc_jp it reads "plain 今日は'),
        (JAPANESE, "cp932", "koi8_r", '; in cp932 it reads "plain 今日は'),
        (KOREAN, "cp949", "euc_jp", '; in cp949 it reads "plain 오늘은'),
        (RUSSIAN, "cp1251", "koi8_r", '; in cp1251 it reads "plain Сегодня'),
        (THAI, "cp874", "cp1252", '; in cp874 it reads "plain วันนี้'),
    ],
)
def test_a_wrong_name_that_decodes_is_warned_about(text: str, encoding: str, named: str, cure: str) -> None:
    said: list[str] = []
    with text_encoding(named, said.append) as name:
        decode_text(b"plain\r\n" + text.encode(encoding), "x")
        decode_text(text.encode(encoding), "another")
    assert len(said) == 1
    assert said[0].startswith(f"the text may not be {name}, in which it reads")
    assert cure in said[0]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (CHINESE, ("big5", "cp950", "big5hkscs", "gbk", "gb18030")),
        (JAPANESE, ("shift_jis", "cp932", "shift_jis_2004", "euc_jp", "iso2022_jp")),
        (KOREAN, ("euc_kr", "cp949", "johab")),
        (RUSSIAN, ("cp1251", "koi8_r", "cp866", "mac_cyrillic", "iso8859_5", "utf-16-le")),
        (THAI, ("cp874", "iso8859_11")),
        (POLISH * 40, ("cp1250", "iso8859_2")),
        ("张伟,李娜,王芳,刘洋,陈静,杨磊,赵敏,黄勇\n" * 4, ("gbk", "gb18030")),
        ("①②③ ★☆●○ ℃ № ※ → ← ↑ ↓\n" * 10, ("gbk", "cp932")),
        ("╔══════╗\n║ menu ║\n╚══════╝\n" * 20, ("cp437", "cp866")),
        ("Il a été ému.\n" * 40, ("cp1252", "latin-1", "cp437", "mac_roman")),
    ],
)
def test_a_right_name_is_not_warned_about(text: str, names: tuple[str, ...]) -> None:
    for encoding in names:
        said: list[str] = []
        with text_encoding(encoding, said.append):
            assert decode_text(text.encode(encoding), "x") == text
        assert said == []


def test_letters_of_iso_8859_2_are_offered_first() -> None:
    message, _ = advice((POLISH * 40).encode("iso8859_2"), "utf-8")
    assert re.search(r'could be iso8859_2 \("[^"]*[ąśź][^"]*"\) or cp125[02] \("', message)


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


@pytest.mark.parametrize(("named", "right"), [("utf-16", "utf-16-be"), ("utf-32", "utf-32-le")])
def test_what_needs_a_mark_and_has_none_is_told_which_way_round_it_is(tmp_path: Path, named: str, right: str) -> None:
    raw = "plain text\n".encode(right) * 9
    with text_encoding(named):
        for read in (partial(read_bytes, tmp_path, raw), partial(decode_text, raw, "x")):
            with pytest.raises(InputError, match=f'does not start with BOM; could be {right} \\("'):
                read()


def test_line_ends_and_marks() -> None:
    assert unix_lines("a\r\nb\rc\n\r") == "a\nb\nc\n\n"
    assert without_marks("\ufeffa\r\n\ufeffb") == "a\nb"


def test_marks_of_joined_files_are_dropped_from_text_but_kept_in_a_vocabulary(tmp_path: Path) -> None:
    assert read_bytes(tmp_path, "\ufeff\ufeffa\n\ufeffb".encode()) == "a\nb"
    assert decode_text("\ufeff\ufeffa\n\ufeffb".encode(), "x") == "a\nb"
    assert decode_text("\ufeffa\n\ufeff\n".encode(), "x", default="utf-8") == "a\n\ufeff\n"


@pytest.mark.parametrize(
    ("encoding", "text"), [("iso2022_jp", "今日は天気がいいです。\n"), ("iso2022_kr", "오늘은 날씨가 좋습니다.\n")]
)
def test_escape_sequences_for_letters_are_not_ascii_text(tmp_path: Path, encoding: str, text: str) -> None:
    with pytest.raises(InputError, match=f"the text is {encoding}, not UTF-8") as refusal:
        read_bytes(tmp_path, text.encode(encoding) * 9)
    assert refusal.value.fix == f"pass --encoding {encoding}"
    assert text[:6] in refusal.value.message
    with text_encoding(encoding):
        assert read_bytes(tmp_path, text.encode(encoding) * 9) == text * 9
    colours = "\x1b[1mplain\x1b[0m \x1b$x\n"
    assert read_bytes(tmp_path, colours.encode()) == colours
