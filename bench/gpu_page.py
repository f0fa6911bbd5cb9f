"""The page that `bench/gpu.py` writes of what it measured, `docs/gpu.md`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

GPU_MARK = "<!-- measured on a GPU -->"
TITLES = {
    "language": "GPT of 124 million parameters",
    "preset": "The preset's own model for five minutes",
    "images": "Pictures of CIFAR's size",
    "encoder": "Tuning an encoder of MiniLM's size",
}
AIMS = {
    "language": "Aim: 50% of the peak on an H100 or H200.",
    "images": "Aim: 0.8 of the bare loop.",
    "encoder": "Aim: 0.95 of the bare loop.",
}
SHORT = {
    "language": "GPT",
    "preset": "The preset's own model for a minute",
    "encoder": "Tuning an encoder",
}  # titles of the CPU form, whose net is another one


def replaces(page: Path, record: Mapping[str, Any]) -> bool:
    """Whether a record's page may be written over the one that is there: no CPU's over a GPU's."""
    there = page.read_text(encoding="utf-8") if page.exists() else ""
    return record["form"] == "gpu" or GPU_MARK not in there


def page_of(record: Mapping[str, Any]) -> str:
    """Markdown, from what gpu.json holds."""
    on_gpu = record["form"] == "gpu"
    parts: list[str] = ["# A GPU, measured", *([GPU_MARK] if on_gpu else [])]
    if on_gpu:
        parts.append(f"Measured by `make gpu` on {record['started']}, in {record['seconds']:.0f} s.")
    else:
        parts.append(
            "**No GPU has run this yet.** What stands here is the short form of `make gpu` on a CPU, with tiny nets: "
            "it shows that the kit works and says nothing of a GPU. Where there is one, `make gpu` writes it anew."
        )
    parts += [_about(record), _how()]
    parts += [_ceilings(record)]
    if tests := record["parts"].get("tests"):
        parts.append(_tests(tests))
    parts += [_speeds(name, record["parts"][name], on_gpu) for name in TITLES if name in record["parts"]]
    parts.append(_left_out(record))
    return "\n\n".join(part for part in parts if part) + "\n"


def _about(record: Mapping[str, Any]) -> str:
    device = record["device"]
    rows = [
        ("device", device.get("name")),
        ("memory", f"{device.get('memory_bytes', 0) / 2**30:.0f} GiB"),
        ("driver", device.get("driver") or "none"),
        ("torch", f"{device.get('torch')}, CUDA {device.get('cuda') or 'none'}"),
        ("Python", device.get("python")),
        ("cores", device.get("cores")),
        ("peak, bf16", _operations(device.get("peak")) or "not known of this device: shares of it are left out"),
        ("measured", record["started"]),
        ("command", f"`{record['commands'][-1]}`"),
    ]
    if record["form"] != "gpu":
        rows = [row for row in rows if row[0] not in ("driver", "peak, bf16")]
    return table(("what", "value"), rows)


def _how() -> str:
    return (
        "Milliseconds a step are the median of the windows, with the fastest and the slowest beside it. The share of "
        "the peak counts six operations for each parameter in a product and token, and 12 x layers x width x context "
        "for attention (PaLM, arXiv 2204.02311); of other nets what torch counts in the bare loop. A wait is a copy "
        "for which the host waits until the device has done all before it: per step, and per window beside that. The "
        "start is what comes before: the model, its compiling, the first steps. "
        "Memory is what tensors took at most (on a CPU: the whole process until then). `multistep` also averages the "
        "weights and reads its data from the host; the bare loops do neither."
    )


def _ceilings(record: Mapping[str, Any]) -> str:
    rows = []
    for row in record["parts"].get("device", {}).get("rows", ()):
        bandwidth = row.get("bytes_a_second")
        reached = f"{bandwidth / 1e9:,.0f} GB/s" if bandwidth else _operations(row.get("operations_a_second"))
        rows.append((row["what"], reached))
    return "## What the device reaches\n" + table(("what", "reached"), rows) if rows else ""


def _tests(part: Mapping[str, Any]) -> str:
    facts = part["facts"]
    told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(facts.get("outcomes", {}).items()))
    lines = [
        "## Tests that need CUDA",
        f"`python -m pytest tests/test_cuda.py`: {told or 'none ended'}{_status(part)}.",
    ]
    if failed := [row for row in part["rows"] if row.get("outcome") in ("failed", "error")]:
        lines.append(table(("failed", "why"), [(row["what"], row.get("why", "")) for row in failed]))
    if bits := [row for row in part["rows"] if "bits" in row]:
        lines.append(
            "Whether three steps, a checkpoint and three more end in the bits of six steps. Where not, some kernel "
            "adds in another order each time; with torch's deterministic algorithms all are the same, or it says which "
            "has none."
        )
        lines.append(table(("task", "precision", "resumed"), [(r["what"], r["precision"], r["bits"]) for r in bits]))
    if waits := [row for row in part["rows"] if row.get("waits_a_step", 0) > 0]:
        lines.append("Tasks whose steps wait for the device, and where in a window.")
        lines.append(table(("task", "waits", "at"), [(row["what"], _waits(row), _places(row)) for row in waits]))
    return "\n\n".join(lines)


def _speeds(name: str, part: Mapping[str, Any], on_gpu: bool) -> str:
    facts = ", ".join(_fact(key, value) for key, value in part.get("facts", {}).items())
    head = TITLES[name] if on_gpu else SHORT.get(name, TITLES[name])
    lines = [f"## {head}", *([facts + "."] if facts else [])]
    if on_gpu and name in AIMS:
        lines.append(AIMS[name])
    if part["status"] != "done":
        lines.append(f"This part did not come to its end{_status(part)}.")
    if part["rows"]:
        unit = part["rows"][0]["unit"]
        columns = ("what", f"{unit} a second", "ms a step", "share of the peak", "of the bare loop", "memory, GiB")
        lines.append(table((*columns, "start, s", "waits"), map(_speed, part["rows"])))
    if fits := [f"- {row['what']}: {row['fit']}." for row in part["rows"] if row.get("fit")]:
        lines.append("\n".join(fits))
    if notes := [_note(row) for row in part["rows"] if row.get("waits_a_step", 0) > 0 and on_gpu]:
        lines.append("\n".join(notes))
    return "\n\n".join(lines)


def _speed(row: Mapping[str, Any]) -> tuple[str, ...]:
    share = row.get("share_of_bare")
    mfu = row.get("mfu")
    steps = [row[name] * 1e3 for name in ("seconds_a_step", "fastest", "slowest")]
    return (
        row["what"],
        f"{row['per_second']:,.0f}",
        "{:.2f} ({:.2f} to {:.2f})".format(*steps),
        f"{mfu:.1%}" if mfu else "",
        f"{share:.2f}" if share else "",
        f"{row['peak_bytes'] / 2**30:.2f}",
        f"{row['start_seconds']:.1f}",
        _waits(row),
    )


def _waits(row: Mapping[str, Any]) -> str:
    return f"{row['waits_a_step']:g} a step, {row['waits_a_window']:g} a window"


def _places(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{place} ({count})" for place, count in row["waits_at"].items())


def _note(row: Mapping[str, Any]) -> str:
    return f"- {row['what']} waits at {_places(row)}."


def _fact(key: str, value: Any) -> str:
    shown = f"{value:,.0f}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
    return f"{key.replace('_', ' ')}: {shown}"


def _left_out(record: Mapping[str, Any]) -> str:
    if not record["left_out"]:
        return ""
    lines = ["## Left out", table(("what", "why"), [(one["what"], one["why"]) for one in record["left_out"]])]
    if record["missing"]:
        lines.append(f"Not installed there: {', '.join(f'`{name}`' for name in record['missing'])}.")
    return "\n\n".join(lines)


def _status(part: Mapping[str, Any]) -> str:
    return "" if part["status"] == "done" else f" ({part['why'] or part['status']})"


def _operations(per_second: float | None) -> str:
    if not per_second:
        return ""
    return f"{per_second / 1e12:,.0f} TFLOPS" if per_second >= 1e13 else f"{per_second / 1e9:,.1f} GFLOPS"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; columns of which all cells are empty are left out."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    shown = [place for place in range(len(head)) if not cells or any(row[place] for row in cells)]
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join("| " + " | ".join(line[place] for place in shown) + " |" for line in lines)
