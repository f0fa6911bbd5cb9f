"""The numbers that decisions rest on: every numeric constant of the core, with what its comment says.

    python bench/constants.py

A number without a comment is listed first: it is the next to be explained or removed. What follows from another by
arithmetic is not counted. What it costs to move them: bench/moved.py.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

CORE = Path(__file__).parent.parent / "src/multistep/core"


def constants(path: Path) -> Iterator[tuple[str, str, str]]:
    """Name, value and comment of each constant with a number in it; the comment behind it, or the lines above."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for node in ast.parse(text).body:
        if not isinstance(node, ast.Assign) or not any(
            isinstance(n, ast.Constant) and type(n.value) in (int, float) for n in ast.walk(node.value)
        ):
            continue
        targets = [name for t in node.targets for name in (t.elts if isinstance(t, ast.Tuple) else [t])]
        names = [name.id for name in targets if isinstance(name, ast.Name) and name.id.isupper()]
        value = ast.unparse(node.value)
        if not names or len(value) > 60:  # a table, not a number
            continue
        if isinstance(node.value, ast.BinOp) and any(
            isinstance(n, ast.Name) and n.id.isupper() for n in ast.walk(node.value)
        ):
            continue  # follows from another
        behind = lines[node.end_lineno - 1].partition("  # ")[2] if node.end_lineno else ""
        above: list[str] = []
        for line in reversed(lines[: node.lineno - 1]):
            if not line.startswith("# "):
                break
            above.insert(0, line.removeprefix("# "))
        yield ", ".join(names), value, " ".join([*above, behind]).strip()


def main() -> None:
    found = [(path, *row) for path in sorted(CORE.rglob("*.py")) for row in constants(path)]
    found.sort(key=lambda row: (bool(row[3]), str(row[0])))
    many, unexplained = sum(len(row[1].split(", ")) for row in found), sum(not row[3] for row in found)
    print(f"{many} numbers, {unexplained} lines unexplained\n")
    print("| where | name | value | why |\n|---|---|---|---|")
    for path, names, value, why in found:
        print(f"| {path.relative_to(CORE)} | {names} | {value} | {why} |")


if __name__ == "__main__":
    main()
