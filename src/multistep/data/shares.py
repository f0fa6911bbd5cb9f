"""Which splits are cut from train, and how much of it each gets."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from multistep.errors import DataError


def to_cut(shares: Mapping[str, float], given: Collection[str], usual: float, origin: str) -> dict[str, float]:
    """The splits that the data lack, with the plan's share of train for each, or the usual one.

    Without a share by the plan, a test split is cut only where validation is, too: whoever brings validation and no
    test wants none. A share of 0 is no split. Raises DataError for a share of a split that the data bring themselves.
    """
    for name, share in shares.items():
        if share and name in given:
            raise DataError(
                f"{origin}: brings a {name} split of its own, so data.{name}: {share:g} would have no meaning; leave "
                "that out, or name the file of train alone"
            )
    usual_of_test = usual if set(given) <= {"train"} else 0.0
    wanted = {"validation": shares.get("validation", usual), "test": shares.get("test", usual_of_test)}
    return {name: share for name, share in wanted.items() if share and name not in given}
