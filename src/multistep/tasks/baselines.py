"""Baselines as folders of their own, in the format of skops: loading one runs no code, whatever the file holds.

Of such a file only what scikit-learn and numpy have in public is built, and the few types that are named here.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from multistep.core.values.tasks import TASKS
from multistep.errors import PlanError
from multistep.tasks.folders import TASK_FILE, read_task, write_task

FILE = "baseline.skops"
KEY = "baseline"  # of multistep.json: its name is there, and nowhere in a network's
# Beside what skops trusts by itself: what stands for a class that every text of train has, or none.
TRUSTED = ("sklearn.multiclass._ConstantPredictor",)
CONSTANT = "it is a constant and no model"
README = """# {task}: a baseline, which a run of multistep ships

{name}. On the run's validation split it scored better than the network that was trained beside it; the numbers stand
in the run's result.json.

## What it reads
{features}

## Use
```python
import multistep

print(multistep.predict("{folder}", ["..."]))
```
`{file}` is no pickle: it is in the format of skops, and is read back by a list of trusted types. `{about}` says what
the baseline is, its classes, and the versions that it was made with.
"""


def write_fitted(
    folder: Path, task: str, fitted: Mapping[str, Any], *, name: str, features: str, content: Mapping[str, Any]
) -> str:
    """Write what was fitted, with what using it takes. Returns why it cannot be written, or an empty string."""
    try:
        from skops.io import dump
    except Exception as error:  # not installed, or made for another scikit-learn
        return f"saving it safely needs skops ({error}); {_install(task)}"
    dump(dict(fitted), folder / FILE)
    made_with = {key: version(key) for key in ("scikit-learn", "skops", "numpy")}
    write_task(folder, task, {KEY: name, "features": features, **content, "file": FILE, "versions": made_with})
    said = README.format(task=task, name=name, features=features, folder="RUN/baseline", file=FILE, about=TASK_FILE)
    (folder / "README.md").write_text(said, encoding="utf-8")
    return ""


def is_baseline(model: str) -> bool:
    """Whether a model folder holds a baseline."""
    return KEY in read_task(model)


def about(model: str, *keys: str) -> dict[str, Any]:
    """What is said beside a baseline. Raises PlanError if any of these is missing."""
    found = read_task(model)
    if missing := [key for key in keys if key not in found]:
        raise PlanError(f"{Path(model) / TASK_FILE}: damaged, '{missing[0]}' is missing; copy the run's own again")
    return found


def read_fitted(model: str, kinds: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    """What `write_fitted` wrote, each part of one of the types named in `kinds`.

    Raises PlanError where skops is missing, the file is damaged, or it holds any type that is not trusted.
    """
    path = Path(model) / FILE
    try:
        from skops.io import get_untrusted_types, load
    except Exception as error:
        raise PlanError(
            f"{model}: a baseline needs skops ({error}); {_install(str(read_task(model)['task']))}"
        ) from error
    if not path.is_file():
        raise PlanError(f"{path}: no such file; copy the whole folder of the run's baseline again")
    try:
        if strangers := sorted(set(get_untrusted_types(file=path)) - set(TRUSTED)):
            raise PlanError(
                f"{path}: not loaded, since it holds types that no baseline has: {', '.join(strangers)}; the file was "
                "changed: copy the run's own again, and do not trust where this one comes from"
            )
        found = load(path, trusted=list(TRUSTED))
    except PlanError:
        raise
    except (BadZipFile, OSError, LookupError, TypeError, ValueError, AttributeError, ImportError) as error:
        raise PlanError(f"{path}: damaged ({error}); copy the run's own again") from error
    if not isinstance(found, dict) or set(found) != set(kinds):
        raise PlanError(f"{path}: not loaded, since it does not hold {' and '.join(kinds)}; copy the run's own again")
    for name, allowed in kinds.items():
        if type(found[name]) not in allowed:
            raise PlanError(
                f"{path}: not loaded, since its {name} is a {type(found[name]).__name__}; allowed: "
                f"{', '.join(kind.__name__ for kind in allowed)}. Copy the run's own again"
            )
    return found


def _install(task: str) -> str:
    return f"pip install 'multistep[{TASKS[task].family}]'"
