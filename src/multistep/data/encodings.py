"""Which encoding the bytes of a text are in."""

from __future__ import annotations

import codecs
import re

LOOKED_AT = 1_000_000  # bytes
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What tells itself by its bytes, and what a statistic of letters tells well; of the code pages of Latin letters none
# does (a page of French passes for Polish), so that these two are told apart here.
_TOLD = ["gb18030", "big5", "cp932", "euc_jp", "euc_kr", "cp1251", "koi8_r", "cp1253", "cp1255", "cp1256", "cp874"]
_LATIN = ("cp1252", "cp1250")
_LETTERS = (
    ("cp932", re.compile("[\u3040-\u30ff]")),
    ("euc_jp", re.compile("[\u3040-\u30ff]")),
    ("euc_kr", re.compile("[\uac00-\ud7af]")),
)
_BETWEEN = "’‘–—·"  # signs that stand between letters in words
_KINDS = (
    (b"version https://git-lfs", "a pointer of Git LFS to the data; fetch them with `git lfs pull`"),
    (b"%PDF", "a PDF document; save its text"),
    (b"PK\x03\x04", "a ZIP archive (or a document made of one, such as .docx or .xlsx); unpack it, or save it as text"),
    (b"\x1f\x8b", "gzip-compressed; name it .gz"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\xd0\xcf\x11\xe0", "an old Office document (.xls, .doc); save it as .xlsx or .csv"),
    (b"SQLite format 3", "an SQLite database; export the table as .csv"),
    (b"PAR1", "a parquet file; name it .parquet"),
    (b"ARROW1", "an Arrow file; name it .arrow"),
)


def find_encoding(data: bytes) -> tuple[str, bool] | None:
    """The encoding of the beginning of a text, and whether that is a guess; None where it is none that we know.

    A byte-order mark tells; else it is UTF-8 if it can be, also where few bytes are damaged; else what the statistic
    of charset-normalizer says, or a Western or Central European code page.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding, False
    if (wide := _without_mark(data)) is not None:
        return wide, True
    seen = data[:LOOKED_AT]
    try:
        codecs.getincrementaldecoder("utf-8")().decode(seen)  # the last character may be cut off
    except UnicodeDecodeError:
        pass
    else:
        return "utf-8", False
    text = seen.decode("utf-8", "surrogateescape")
    bad = sum("\udc80" <= sign <= "\udcff" for sign in text[:-4])  # the last character may be cut off
    good = sum(sign > "\x7f" for sign in text) - bad
    if bad <= good:
        return "utf-8", False
    from charset_normalizer import from_bytes

    latin = _is_latin(seen)
    if (best := from_bytes(seen, cp_isolation=_TOLD).best()) is not None and not latin:
        return best.encoding, True
    if not latin and (by_letters := _by_letters(seen)) is not None:  # too little, or too alike, for a statistic
        return by_letters, True
    signs = {encoding: _signs_in_words(seen, encoding) for encoding in _LATIN}
    known = {encoding: count for encoding, count in signs.items() if count is not None}
    return (min(known, key=lambda encoding: known[encoding]), True) if known else None


def _by_letters(data: bytes) -> str | None:
    """The encoding in which most signs are kana or hangul, which no other reading of the bytes gives."""
    for encoding, letters in _LETTERS:
        text = data.decode(encoding, "ignore")
        others = [sign for sign in text if sign > "\x7f"]
        undecoded = len(data) - len(text.encode(encoding, "ignore"))
        if others and undecoded <= 2 and sum(bool(letters.match(sign)) for sign in others) > 0.5 * len(others):
            return encoding
    return None


def what_it_is(data: bytes) -> str | None:
    """What a file that is no text seems to be, and what to do with it."""
    return next((said for mark, said in _KINDS if data.startswith(mark)), None)


def _without_mark(data: bytes) -> str | None:
    """UTF-16 without its mark: every second byte of plain text is zero."""
    seen = data[:4096]
    if len(seen) < 8:
        return None
    for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if seen[first::2].count(0) > 0.4 * len(seen) / 2 and seen[1 - first :: 2].count(0) == 0:
            return encoding
    return None


def _is_latin(data: bytes) -> bool:
    """Whether most letters are those of ASCII, so that the others are accents and signs among them."""
    letters = sum(byte < 0x80 and chr(byte).isalpha() for byte in data)
    lone = len(re.findall(rb"(?<![\x80-\xff])[\x80-\xff](?![\x80-\xff])", data))
    others = sum(byte >= 0x80 for byte in data)
    return letters > others and lone > 0.6 * others


def _signs_in_words(data: bytes, encoding: str) -> int | None:
    """How often a sign that no word holds stands between letters, read in an encoding; None where it cannot be."""
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return None
    threes = zip(text, text[1:], text[2:], strict=False)
    return sum(
        sign > "\x7f" and not sign.isalpha() and sign not in _BETWEEN and a.isalpha() and b.isalpha()
        for a, sign, b in threes
    )
