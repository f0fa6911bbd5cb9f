"""The language reference that ships with Python: a real English text on every machine, without a download."""

from __future__ import annotations

import re

from multistep.errors import DataError

MANUAL = "python-manual"


def python_manual() -> tuple[str, ...]:
    """`pydoc`'s topics as documents, in the order of their names: 78 of them and 0.37 M characters in 3.11.

    Topics quote each other at length, so a paragraph that an earlier topic holds is dropped, whatever its
    indentation: nothing then stands in two splits. The text differs from one Python version to the next.
    Raises DataError where the interpreter comes without it.
    """
    advice = "python.org's and most other builds have it; name a text file instead"
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise DataError(f"{MANUAL}: this Python comes without pydoc_data.topics; {advice}") from None
    if not isinstance(topics, dict) or not all(isinstance(text, str) for text in topics.values()):
        raise DataError(f"{MANUAL}: pydoc_data.topics is not the table of texts it used to be; {advice}")
    seen: set[str] = set()
    documents = []
    for name in sorted(topics):
        paragraphs = re.split(r"\n\s*\n", topics[name].replace("\r\n", "\n").strip("\n"))
        words = [" ".join(paragraph.split()) for paragraph in paragraphs]
        new = [p for p, key in zip(paragraphs, words, strict=True) if key and key not in seen]
        seen.update(words)
        if new:
            documents.append("\n\n".join(new) + "\n")
    if not documents:
        raise DataError(f"{MANUAL}: pydoc_data.topics is empty in this Python; {advice}")
    return tuple(documents)
