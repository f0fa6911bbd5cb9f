"""Bytes of a file -> its text, and what the name of a file says."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from multistep.data.encodings import LOOKED_AT, find_encoding, what_it_is
from multistep.errors import DataError, nearest

TABLES = (".jsonl", ".ndjson", ".parquet", ".csv", ".tsv", ".xlsx", ".json", ".arrow", ".feather")
COLUMNAR = frozenset({".parquet", ".arrow", ".feather"})  # that hold images and sounds themselves, in shards
PACKED = (".gz", ".zst")  # files that are read as they are, without being unpacked
_BLOCK = 2**20  # bytes


def kind_of(path: Path) -> str:
    """The suffix that says how to read a file, without .gz or .zst, in lower case; "" if it has none."""
    return Path(path.stem if path.suffix.lower() in PACKED else path.name).suffix.lower()


def opened_bytes(path: Path, raw: IO[bytes] | None = None) -> IO[bytes]:
    """A file's bytes as a stream, unpacked where it ends in .gz or .zst; `raw` is the file if it is open already.

    Raises OSError.
    """
    match path.suffix.lower():
        case ".gz":
            return gzip.open(raw or path)  # type: ignore[return-value]  # which reads as any file does
        case ".zst":
            return io.BufferedReader(_Zstandard(raw or path.open("rb")), _BLOCK)
        case _:
            return raw or path.open("rb")


class _Zstandard(io.RawIOBase):
    """The bytes of a .zst file. It can be set back to its beginning alone."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._before: list[Any] = []  # streams that would close the file if they went
        self.seek(0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        import pyarrow

        if offset or whence != io.SEEK_SET:
            raise io.UnsupportedOperation("a packed file is read from its beginning")
        self._raw.seek(0)
        self._stream: Any = pyarrow.CompressedInputStream(pyarrow.PythonFile(self._raw, "r"), "zstd")
        self._before.append(self._stream)
        return 0

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._raw.close()
        super().close()


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
        with opened_bytes(existing_file(path)) as stream:
            data = stream.read()
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


def text_pieces(path: Path, encoding: str | None = None) -> Iterator[str]:
    """`read_text` of a file that memory should not hold, some megabytes at a time; joined, they are the same text."""
    found, at, behind, empty = "", 0, "", True
    try:
        with opened_bytes(existing_file(path)) as stream:
            data = stream.read(LOOKED_AT)
            found, _ = encoding_of(path, data, encoding)
            decoder = codecs.getincrementaldecoder("utf-8-sig" if found == "utf-8" else found)()
            while True:
                _refuse_zero(path, data, at, found)
                try:
                    text = behind + decoder.decode(data, final=not data)
                except UnicodeDecodeError as error:
                    # What it had left of the block before stands in front; a mark it has taken off.
                    begins = at + len(data) - len(error.object)
                    _refuse_byte(path, found, begins + error.start, error.object[error.start])
                at += len(data)
                behind = "\r" if data and text.endswith("\r") else ""  # whose newline may come next
                text = (text[:-1] if behind else text).replace("\r\n", "\n")
                empty = empty and not text.strip()
                if text:
                    yield text
                if not data:
                    break
                data = stream.read(_BLOCK)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    if empty:
        raise DataError(f"{path}: the file is empty; name one with text in it")


def decoded(path: Path, data: bytes, at: int = 0, encoding: str = "utf-8") -> str:
    """The text of a part of a file that begins at byte `at`, CRLF as LF. Raises DataError that names the byte."""
    _refuse_zero(path, data, at, encoding)
    marked = not at and encoding in ("utf-8", "utf-8-sig")
    try:
        return data.decode("utf-8-sig" if marked else "utf-8" if encoding == "utf-8-sig" else encoding).replace(
            "\r\n", "\n"
        )
    except UnicodeDecodeError as error:
        # "utf-8-sig" counts from behind the mark.
        bad = error.start + (3 if marked and data.startswith(b"\xef\xbb\xbf") else 0)
        _refuse_byte(path, encoding, at + bad, data[bad])


def _refuse_zero(path: Path, data: bytes, at: int, encoding: str) -> None:
    one_byte = not encoding.startswith(("utf-16", "utf_16", "utf-32", "utf_32"))
    if one_byte and (zero := data.find(b"\0")) >= 0:
        allowed = "text, " + ", ".join(TABLES)
        raise DataError(f"{path}: byte {at + zero} is NUL, so this is not a text file; allowed: {allowed}")


def _refuse_byte(path: Path, encoding: str, at: int, byte: int) -> NoReturn:
    shown = "UTF-8" if encoding.startswith("utf-8") else encoding
    raise DataError(
        f"{path}: byte {at} is not {shown} (0x{byte:02x}); name the file's encoding with data.encoding, or mend it"
    ) from None
