"""Files that hold no rows for us: what they are, and what to do with them."""

from __future__ import annotations

import re
from pathlib import Path

from multistep.data.encodings import what_it_is
from multistep.errors import DataError

_PICKLE = "a pickle, which could run anything when it is opened; save it anew by pandas: frame.to_parquet(...)"
# What is told by its name; the rest by its first bytes.
_BY_NAME = {
    ".xls": "an old Excel file; save it as .xlsx or .csv",
    ".ods": "an OpenDocument spreadsheet; save it as .xlsx or .csv",
    ".numbers": "a spreadsheet of Numbers; export it as .csv",
    ".docx": "a Word document; save its text as .txt",
    ".doc": "a Word document; save its text as .txt",
    ".odt": "an OpenDocument text; save it as .txt",
    ".rtf": "a rich text; save it as .txt",
    ".epub": "an e-book; convert it to .txt",
    ".mobi": "an e-book; convert it to .txt",
    ".pkl": _PICKLE,
    ".pickle": _PICKLE,
    ".h5": "an HDF5 file; save its table as .parquet or .csv",
    ".hdf5": "an HDF5 file; save its table as .parquet or .csv",
    ".mat": "a MATLAB file; save its table as .csv",
    ".rds": "an R object; save its table as .csv",
    ".rdata": "R objects; save the table as .csv",
    ".sav": "an SPSS file; save its table as .csv",
    ".dta": "a Stata file; save its table as .csv",
    ".db": "a database; export the table as .csv",
    ".sqlite": "a database; export the table as .csv",
    ".xml": "XML; make a table with a row a text of it",
    ".html": "a web page; make a table with a row a text of it",
    ".yml": "YAML; make a table with a row a text of it",
    ".yaml": "YAML; make a table with a row a text of it",
    ".conllu": "sentences of tagged words (CoNLL-U); make a table with a row a sentence of it",
}
_TAG = re.compile(r"O|[BIESLU]-\S+")
_LOOKED_AT = 200  # lines


def what_else(path: Path) -> str | None:
    """What a file is that we do not read, and what to do with it; None where that is not known."""
    if (said := _BY_NAME.get(path.suffix.lower())) is not None:
        return said
    with path.open("rb") as file:
        return what_it_is(file.read(64))


def refuse_pages(path: Path, text: str) -> None:
    """Raises DataError for a web page under the name of a table, as a click on "save" leaves it."""
    if text[:200].lstrip().lower().startswith(("<!doctype html", "<html")):
        raise DataError(f'{path}: a web page (HTML), not a table; download the file itself (on GitHub: "Raw")')


def tagged_words(text: str) -> str | None:
    """That a text is one tagged word a line, as of CoNLL, if it is."""
    lines = [line.split() for line in text.split("\n")[:_LOOKED_AT]]
    words = [line for line in lines if line]
    if (
        len(words) < len(lines)
        and words
        and sum(len(w) > 1 and bool(_TAG.fullmatch(w[-1])) for w in words) > 0.8 * len(words)
    ):
        return (
            "a tagged word a line, as CoNLL files have it; labels here are of whole texts: make a table with a row a "
            "sentence and a column for its label"
        )
    return None
