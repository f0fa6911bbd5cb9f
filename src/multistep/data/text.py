"""Bytes of a file -> its text, and what the name of a file says."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from multistep.data.encodings import find_encoding, what_it_is
from multistep.errors import DataError, nearest

TABLES = (".jsonl", ".ndjson", ".parquet", ".csv", ".tsv", ".xlsx", ".json", ".arrow", ".feather")
COLUMNAR = frozenset({".parquet", ".arrow", ".feather"})  # that hold images and sounds themselves, in shards


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


def read_text(path: Path, encoding: str | None = None) -> str:
    """A file's text without its byte-order mark, CRLF as LF. Raises DataError, for an empty file too."""
    return read_said(path, encoding)[0]


def read_said(path: Path, encoding: str | None = None) -> tuple[str, tuple[str, ...]]:
    """A file's text, and a note where its encoding (None: to be found) was guessed. Raises DataError."""
    try:
        data = existing_file(path).read_bytes()
        if path.suffix.lower() == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    encoding, notes = encoding_of(path, data, encoding)
    text = decoded(path, data, encoding=encoding)
    if not text.strip():
        raise DataError(f"{path}: the file is empty; name one with text in it")
    return text, notes


def encoding_of(path: Path, data: bytes, given: str | None = None) -> tuple[str, tuple[str, ...]]:
    """The encoding of the beginning of a file, and a note where it was guessed. Raises DataError if it is no text."""
    if given is not None:
        return given, ()
    if (kind := what_it_is(data)) is not None:
        raise DataError(f"{path}: not a text file but {kind}; allowed: text, {', '.join(TABLES)}")
    found = find_encoding(data)
    if found is None:
        return "utf-8", ()  # whose decoder names the byte
    encoding, guessed = found
    said = f"{path}: not UTF-8; read as {encoding}, which fits its letters best; data.encoding=NAME names another"
    return encoding, (said,) if guessed else ()


def decoded(path: Path, data: bytes, at: int = 0, encoding: str = "utf-8") -> str:
    """The text of a part of a file that begins at byte `at`, CRLF as LF. Raises DataError that names the byte."""
    one_byte = not encoding.startswith(("utf-16", "utf_16", "utf-32", "utf_32"))
    if one_byte and (zero := data.find(b"\0")) >= 0:
        allowed = "text, " + ", ".join(TABLES)
        raise DataError(f"{path}: byte {at + zero} is NUL, so this is not a text file; allowed: {allowed}")
    marked = not at and encoding in ("utf-8", "utf-8-sig")
    try:
        return data.decode("utf-8-sig" if marked else "utf-8" if encoding == "utf-8-sig" else encoding).replace(
            "\r\n", "\n"
        )
    except UnicodeDecodeError as error:
        # "utf-8-sig" counts from behind the mark.
        bad = error.start + (3 if marked and data.startswith(b"\xef\xbb\xbf") else 0)
        shown = "UTF-8" if encoding.startswith("utf-8") else encoding
        raise DataError(
            f"{path}: byte {at + bad} is not {shown} (0x{data[bad]:02x}); name the file's encoding with data.encoding, "
            "or mend it"
        ) from None
