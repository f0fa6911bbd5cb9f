"""What `simulate --devices` prints: what a budget buys, and where each number is from."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from multistep.core.values.plan import Plan
from multistep.core.values.units import format_seconds
from multistep.engine.scaling import Bought, Scaled, chosen


def print_scaled(plan: Plan, found: Scaled, console: Console) -> None:
    """The two ways to use many devices, and the numbers that they rest on."""
    console.print(f"What a budget of {plan.budget} would buy. Reckoned, not run.", highlight=False)
    _print("One model on all devices (torchrun)", "steps of the model", found.one_model, console)
    best = chosen(found.one_model)
    if best.devices != found.one_model[-1].devices:
        said = f"With more than about {best.devices:,} devices one model takes fewer steps, not more."
        console.print(said, highlight=False)
    _print("Trials side by side (--parallel)", "steps of all trials", found.lanes, console)
    table = Table("what", "value", "from", title="What this rests on", title_justify="left")
    for given in found.given:
        table.add_row(given.name, given.words, given.source)
    console.print(table)
    for note in found.notes:
        console.print(f"- {note}", highlight=False, markup=False)


def _print(title: str, counted: str, rows: Sequence[Bought], console: Console) -> None:
    right = {"justify": "right"}
    table = Table(title=title, title_justify="left")
    for name in ("devices", "a step", "summing gradients", "failures", "saved every", "useful", counted):
        table.add_column(name, **right)  # type: ignore[arg-type]
    for row in rows:
        every = format_seconds(row.save_every_seconds) if row.save_every_seconds else "never"
        table.add_row(
            f"{row.devices:,}",
            f"{row.step_seconds:.3g} s",
            f"{row.communicating:.0%}",
            f"{row.failures:,.3g}",
            every,
            f"{row.useful:.0%}",
            f"{row.steps:,.0f}",
        )
    console.print(table)
