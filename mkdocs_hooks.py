"""What the docs take from the code when they are built: the command line's page, the schema, docstrings' shape."""

from __future__ import annotations

import json
import re
from typing import Any

import griffe

COMMAND_LINE = "reference/command-line.md"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put what `--help` says of every verb behind the text of the command line's page."""
    if page.file.src_uri != COMMAND_LINE:
        return markdown
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    from multistep.cli import app

    command: Any = get_command(app)
    with command.make_context("multistep", [], resilient_parsing=True) as context:
        verbs: str = get_docs_for_click(obj=command, ctx=context, name="multistep")
    return f"{markdown}\n{verbs.partition('**Commands**')[2].partition('## ')[1]}{verbs.partition('## ')[2]}"


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Publish the schema of plan files beside the page of their keys, as `multistep schema` prints it."""
    from mkdocs.structure.files import File

    from multistep.engine.schema import FILE_NAME, plan_schema

    content = json.dumps(plan_schema(), indent=1, ensure_ascii=False) + "\n"
    files.append(File.generated(config, f"reference/{FILE_NAME}", content=content))
    return files


class Sections(griffe.Extension):
    """Docstrings are written to be read in a terminal; what they hold besides paragraphs becomes Markdown here."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            text = re.sub(r"<(?=\w)", "&lt;", obj.docstring.value)
            text = re.sub(r"(?:^>>> .*\n?)+", _example, text, flags=re.MULTILINE)
            text = re.sub(r"^(\w[^\n]*)\n((?: {4}[^\n]*\n?)+)", _section, text, flags=re.MULTILINE)
            obj.docstring.value = text


def _example(found: re.Match[str]) -> str:
    return "```python\n" + re.sub(r"^>>> |  # doctest.*", "", found.group(0), flags=re.MULTILINE).rstrip() + "\n```\n"


def _section(found: re.Match[str]) -> str:
    """A title with `name: text` indented below it, as a heading and a list; anything else as it stands."""
    title, body = found.groups()
    lines = re.sub(r"\n {8,}", " ", body).splitlines()
    entries = [re.fullmatch(r" {4}([\w, ()]+): (.*)", line) for line in lines]
    if not all(entries):
        return found.group(0)
    return f"**{title}**\n\n" + "".join(f"- `{one[1]}`: {one[2]}\n" for one in entries if one) + "\n"
