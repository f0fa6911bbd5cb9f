"""A talk in the terminal, or through a pipe: each line is a user's turn."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

from multistep.errors import DataError
from multistep.tasks.chat.talk import Talk
from multistep.tasks.notes import say


def converse(talk: Talk, *, as_json: bool = False) -> None:
    """Answer the lines of standard input until they end or one is /quit; /reset forgets what was said.

    Answers are shown while they are written; with `as_json` each turn is one object on a line of its own, once it is
    complete. Blank lines are passed over. On a terminal Ctrl-C ends an answer, and the conversation goes on.
    """
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if terminal:
        print(f"{talk.writer.described}; /reset begins anew, /quit or Ctrl-D ends", file=sys.stderr)
    for line in _lines("> " if terminal else None):
        text = line.encode("utf-8", "surrogateescape").decode("utf-8", "replace").strip()
        if text in ("/quit", "/exit"):
            break
        if text == "/reset":
            talk.reset()
            say(["what was said is forgotten"])
        elif text:
            try:
                _answer(talk, text, as_json)
            except DataError as error:
                say([str(error)])
            except KeyboardInterrupt:
                if not terminal:
                    raise
                print()


def _answer(talk: Talk, text: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"user": text, "assistant": talk.say(text)}, ensure_ascii=False), flush=True)
        return
    talk.say(text, lambda piece: print(piece, end="", flush=True))
    print(flush=True)


def _lines(prompt: str | None) -> Iterator[str]:
    """The lines of standard input; on a terminal they can be edited and called back."""
    if prompt is None:
        yield from sys.stdin
        return
    import readline  # noqa: F401  # importing it is what gives `input` a history

    while True:
        try:
            yield input(prompt)
        except EOFError:
            print()
            return
