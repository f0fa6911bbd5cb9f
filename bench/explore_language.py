"""Which network and recipe tells texts apart soonest from nothing: the experiments behind the language defaults.

    MULTISTEP_DATA=... python bench/explore_language.py key=value,value ...    every combination, one line of JSON each
    MULTISTEP_DATA=... python bench/explore_language.py set=sst2,chnsenticorp model=bag,cnn,bert epochs=4,16

Keys: set, model, width, epochs, seed, and those of a recipe. Scores are of the whole validation split (dev, dev_clean)
after each quarter of the epochs, the last quarter cooling down; the test split is not read. Seconds are the process's
own, so that other work on the machine does not count.
"""

import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from multistep.backends.torch.learner import TorchLearner
from multistep.core.evidence.metric import metric_named
from multistep.core.values.recipe import Segment
from multistep.engine.planfile import plan_from
from multistep.tasks.language.task import LanguageWorkshop

FILES = {"sst2": "dev", "chnsenticorp": "dev_clean"}
OWN = ("set", "model", "width", "epochs", "seed")
QUARTERS = 4


def train(settings: dict[str, Any]) -> dict[str, Any]:
    """Open the data, train for the epochs asked for, and score after each quarter."""
    name, seed = settings.get("set", "sst2"), int(settings.get("seed", 0))
    folder = Path(os.environ["MULTISTEP_DATA"]) / name
    model = {"name": settings.get("model", "bag")}
    if "width" in settings:
        model["width"] = settings["width"]
    given = {
        "task": "text-classification",
        "data": {"train": str(folder / "train.tsv"), "validation": str(folder / f"{FILES[name]}.tsv")},
        "model": model,
        "recipe": {key: value for key, value in settings.items() if key not in OWN},
        "budget": f"{settings.get('epochs', 8)} epochs",
    }
    began = time.process_time()
    learner, ready = LanguageWorkshop().open(plan_from(given), 0, lambda: False)
    assert isinstance(learner, TorchLearner)
    recipe, examples = ready.recipe, ready.facts.train_examples
    assert recipe.batch_size is not None
    assert recipe.learning_rate is not None
    learner.initial(recipe, seed)
    opened = time.process_time()
    steps = max(1, round(float(settings.get("epochs", 8)) * examples / recipe.batch_size / QUARTERS))
    curve = []
    for quarter in range(QUARTERS):
        shape = "linear" if quarter == QUARTERS - 1 else "constant"
        learner.advance(Segment(steps, shape, recipe.learning_rate, 0.0, 1.0).rates())  # type: ignore[arg-type]
        table = learner.evaluate("validation", sample=False)
        curve.append([round(metric_named(metric).score(table), 4) for metric in ("accuracy", "loss")])
    return {
        "accuracy": curve[-1][0],
        "loss": curve[-1][1],
        "quarters": curve[:-1],
        "cpu_seconds": round(time.process_time() - opened, 1),
        "cpu_seconds_to_open": round(opened - began, 1),
        "parameters": ready.facts.parameters,
    }


def main(arguments: list[str]) -> None:
    torch.set_num_threads(1)
    pairs = [argument.partition("=") for argument in arguments]
    for chosen in itertools.product(*[[(key, value) for value in values.split(",")] for key, _, values in pairs]):
        settings: dict[str, Any] = dict(chosen)
        print(json.dumps({**train(settings), **settings}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
