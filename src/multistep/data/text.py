"""Bytes of a file -> its text, and what the name of a file says."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from multistep.errors import DataError, nearest

TABLES = (".jsonl", ".ndjson", ".parquet", ".csv", ".tsv")


def kind_of(path: Path) -> str:
    """The suffix that says how to read a file, without .gz, in lower case; "" if it has none."""
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()


def names_in(folder: Path) -> list[str]:
    """What a folder holds; empty if there is none."""
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def existing_file(path: Path) -> Path:
    """The path. Raises DataError with the nearest name if there is nothing."""
    if not path.exists():
        here = path.parent
        hint = nearest(path.name, names_in(here)) if here.is_dir() else f" There is no folder {here} either."
        raise DataError(f"{path}: no such file or folder; check the path.{hint}")
    return path


def read_text(path: Path) -> str:
    """A file's text: UTF-8 without its byte-order mark, CRLF as LF. Raises DataError, for an empty file too."""
    try:
        data = existing_file(path).read_bytes()
        if path.suffix.lower() == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    text = decoded(path, data)
    if not text.strip():
        raise DataError(f"{path}: the file is empty; name one with text in it")
    return text


def decoded(path: Path, data: bytes, at: int = 0) -> str:
    """The text of a part of a file that begins at byte `at`, as `read_text` gives it. Raises DataError."""
    begin = at
    if begin == 0 and data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: the file is UTF-16; save it as UTF-8, for instance with iconv")
    if (at := data.find(b"\0")) >= 0:
        allowed = "text, " + ", ".join(TABLES)
        raise DataError(f"{path}: byte {begin + at} is NUL, so this is not a text file; allowed: {allowed}")
    try:
        return data.decode("utf-8" if begin else "utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        # "utf-8-sig" counts from behind the mark.
        at = error.start + (3 if not begin and data.startswith(b"\xef\xbb\xbf") else 0)
        raise DataError(
            f"{path}: byte {begin + at} is not UTF-8 (0x{data[at]:02x}); save the file as UTF-8, for instance with "
            "`iconv -f ITS_ENCODING -t UTF-8`"
        ) from None
