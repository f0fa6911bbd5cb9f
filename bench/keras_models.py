"""Keras models: `multistep.train` beside `model.fit` as Keras' documentation advises it, at equal time.

    python bench/keras_models.py run --rows a,b --seeds 0,1,2 --seconds 180 --out build/bench-keras
    python bench/keras_models.py report build/bench-keras
    python bench/keras_models.py overhead --row a

Row a is a small CNN on Fashion-MNIST, row b a text CNN on SST-2 (from MULTISTEP_DATA). The rival is Adam with
EarlyStopping and ReduceLROnPlateau, whose best of three rates on validation is taken: each rate has the whole time, so
the rival has three times as much. Each cell is a process of its own; one that is done is not done again. `overhead` is
what a step takes in the learner beside a bare loop of the same compiled step on the same batches.
(The file is not called keras.py: it would be imported instead of Keras.)
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import processor_time  # noqa: F401  (before all that asks for the time)
from data_sets import data_folder

RATES = (3e-4, 1e-3, 3e-3)
WAYS = ("multistep", *(f"fit-{rate:g}" for rate in RATES))
WORDS, LENGTH = 10_000, 48
BATCH = 64


def data_of(row: str) -> dict[str, Any]:
    """Train, validation and test as (inputs, targets); of texts the validation split is a tenth of train."""
    if row == "a":
        folder = data_folder("fashion-mnist") / "fashion-mnist"
        images, labels = (_idx(folder / f"train-{kind}.gz") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"))
        tested, wanted = (_idx(folder / f"t10k-{kind}.gz") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"))
        order = np.random.default_rng(0).permutation(len(images))
        pairs = {"train": order[6000:], "validation": order[:6000]}
        found: dict[str, Any] = {
            name: (images[rows][..., None].astype(np.float32) / 255, labels[rows].astype(np.int64))
            for name, rows in pairs.items()
        }
        return found | {"test": (tested[..., None].astype(np.float32) / 255, wanted.astype(np.int64))}
    texts, labels_ = _sst2("train")
    held, wanted_ = _sst2("dev")
    order = np.random.default_rng(0).permutation(len(texts))
    cut = len(texts) // 10
    return {
        "train": (texts[order[cut:]], labels_[order[cut:]]),
        "validation": (texts[order[:cut]], labels_[order[:cut]]),
        "test": (held, wanted_),
    }


def _idx(path: Path) -> Any:
    with gzip.open(path) as file:
        content = file.read()
    axes = content[3]
    shape = np.frombuffer(content, ">i4", axes, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _sst2(split: str) -> tuple[Any, Any]:
    """Sentences and whether they are positive: the columns sentence and label."""
    path = data_folder("sst2") / "sst2" / f"{split}.tsv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return np.array([row["sentence"] for row in rows], dtype=object), np.array([int(row["label"]) for row in rows])


def model_of(row: str, data: dict[str, Any], seed: int) -> tuple[Any, dict[str, Any]]:
    """The model, and the data as it takes them: of texts the words' numbers, looked up once for both ways."""
    import keras

    keras.utils.set_random_seed(seed)
    layers = keras.layers
    if row == "a":
        body = [
            *(layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D()),
            *(layers.Conv2D(64, 3, activation="relu"), layers.MaxPooling2D()),
            *(layers.Flatten(), layers.Dropout(0.3), layers.Dense(10, activation="softmax")),
        ]
        return keras.Sequential([keras.Input((28, 28, 1)), *body]), data
    vectorize = layers.TextVectorization(max_tokens=WORDS, output_sequence_length=LENGTH)
    vectorize.adapt(data["train"][0])
    found = {name: (np.asarray(vectorize(texts)).astype(np.int32), labels) for name, (texts, labels) in data.items()}
    body = [
        *(layers.Embedding(WORDS, 64), layers.Dropout(0.3), layers.Conv1D(64, 5, activation="relu")),
        *(layers.GlobalMaxPooling1D(), layers.Dropout(0.3), layers.Dense(2, activation="softmax")),
    ]
    return keras.Sequential([keras.Input((LENGTH,), dtype="int32"), *body]), found


def cell(row: str, way: str, seed: int, seconds: float, out: Path) -> dict[str, Any]:
    """One training: its accuracies on validation and test."""
    model, data = model_of(row, data_of(row), seed)
    began = time.perf_counter()
    if way == "multistep":
        import multistep

        result = multistep.train(
            model=model,
            loss="sparse_categorical_crossentropy",
            metric="accuracy",
            budget=f"{seconds:g}s",
            seed=seed,
            out=out / f"{row}-{seed}-{seconds:g}",
            batch_size=BATCH,
            progress=False,
            **data,
        )
        assert result.test is not None
        validation, test = result.validation.score, result.test.score
    else:
        validation, test = fit(model, data, float(way.removeprefix("fit-")), seconds)
    told = {"row": row, "way": way, "seed": seed, "seconds": seconds, "took": round(time.perf_counter() - began, 1)}
    return told | {"validation": float(validation), "test": float(test)}


def fit(model: Any, data: dict[str, Any], rate: float, seconds: float) -> tuple[float, float]:
    """As Keras' guides have it; it ends by itself or with the time, at the best weights that there were by then."""
    import keras

    began = time.perf_counter()

    class Ends(keras.callbacks.Callback):  # type: ignore[misc, unused-ignore]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if time.perf_counter() - began > seconds:
                self.model.stop_training = True

    callbacks = [
        keras.callbacks.EarlyStopping(patience=5, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau(patience=2),
        Ends(),
    ]
    model.compile(keras.optimizers.Adam(rate), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(
        *data["train"],
        validation_data=data["validation"],
        batch_size=BATCH,
        epochs=1000,
        callbacks=callbacks,
        verbose=0,
    )
    scores = [model.evaluate(*data[split], batch_size=256, verbose=0)[1] for split in ("validation", "test")]
    return scores[0], scores[1]


def overhead(row: str, steps: int = 200, rounds: int = 5) -> dict[str, Any]:
    """Milliseconds a step: in the learner, and in a bare loop of tf.function over the same batches."""
    import keras
    import tensorflow as tf

    from multistep.tasks.keras.request import read_request

    model, data = model_of(row, data_of(row), 0)
    loss = keras.losses.SparseCategoricalCrossentropy()
    request = read_request(
        None, {"model": model, "loss": loss, "batch_size": BATCH, **data, "phases": [{"until": "1 steps"}]}
    )
    learner, ready = request.workshop.open(request.plan, 0, lambda: False)
    recipe = ready.recipe
    learner.initial(recipe, 0)
    inputs, targets = data["train"]
    optimizer = keras.optimizers.AdamW(recipe.learning_rate, weight_decay=recipe.weight_decay, global_clipnorm=1.0)
    bare, _ = model_of(row, data_of(row), 0)
    optimizer.build(bare.trainable_variables)

    @tf.function  # type: ignore[untyped-decorator, unused-ignore]
    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            value = loss(y, bare(x, training=True))
        optimizer.apply(tape.gradient(value, [v.value for v in bare.trainable_variables]), bare.trainable_variables)
        return value

    def loop() -> None:
        order = np.random.default_rng(0).permutation(len(inputs))
        for i in range(steps):
            rows = order[i * BATCH % (len(order) - BATCH) :][:BATCH]
            value = step(inputs[rows], targets[rows])
        float(value)

    def ours() -> None:
        learner.advance((recipe.learning_rate or 1e-3,) * steps)

    times: dict[str, list[float]] = {"bare": [], "multistep": []}
    for number in range(rounds + 1):  # the first compiles
        for name, run in (("bare", loop), ("multistep", ours)):
            began = time.perf_counter()
            run()
            if number:
                times[name].append((time.perf_counter() - began) / steps * 1000)
    least = {name: min(each) for name, each in times.items()}
    return {"row": row, **least, "overhead": least["multistep"] / least["bare"] - 1}


def run(rows: list[str], seeds: list[int], ways: list[str], seconds: float, out: Path) -> None:
    """Each cell in a process of its own, one after the other."""
    out.mkdir(parents=True, exist_ok=True)
    for row in rows:
        for seed in seeds:
            for way in ways:
                path = out / f"{row}-{way}-{seed}-{seconds:g}.json"
                if path.exists():
                    continue
                asked = ["cell", "--row", row, "--way", way, "--seed", str(seed), "--seconds", f"{seconds:g}"]
                command = [sys.executable, __file__, *asked, "--out", str(out)]
                env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
                done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
                path.write_text(done.stdout.splitlines()[-1] + "\n", encoding="utf-8")
                print(done.stdout.splitlines()[-1], flush=True)


def report(out: Path) -> str:
    """A line a row and budget: test accuracy, mean over seeds, of multistep and of the best rate on validation."""
    cells = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("*.json"))]
    lines = ["| row | seconds | seeds | multistep | fit, best of three rates |", "|---|---|---|---|---|"]
    for row, seconds in sorted({(c["row"], c["seconds"]) for c in cells}):
        some = [c for c in cells if (c["row"], c["seconds"]) == (row, seconds)]
        ours, theirs = [], []
        for seed in sorted({c["seed"] for c in some}):
            own = [c for c in some if c["seed"] == seed and c["way"] == "multistep"]
            fits = [c for c in some if c["seed"] == seed and c["way"] != "multistep"]
            if own and fits:
                ours.append(own[0]["test"])
                theirs.append(max(fits, key=lambda c: c["validation"])["test"])
        if ours:
            lines.append(f"| {row} | {seconds:g} | {len(ours)} | {np.mean(ours):.2%} | {np.mean(theirs):.2%} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    of_run, of_cell, of_report, of_overhead = (verbs.add_parser(name) for name in ("run", "cell", "report", "overhead"))
    of_run.add_argument("--rows", default="a,b")
    of_run.add_argument("--seeds", default="0,1,2")
    of_run.add_argument("--ways", default=",".join(WAYS))
    for each in (of_run, of_cell):
        each.add_argument("--seconds", type=float, default=180.0)
        each.add_argument("--out", type=Path, default=Path("build/bench-keras"))
    of_cell.add_argument("--row", required=True)
    of_cell.add_argument("--way", required=True, choices=WAYS)
    of_cell.add_argument("--seed", type=int, required=True)
    of_report.add_argument("out", type=Path)
    of_overhead.add_argument("--row", default="a")
    given = parser.parse_args()
    match given.verb:
        case "run":
            seeds = [int(seed) for seed in given.seeds.split(",")]
            run(given.rows.split(","), seeds, given.ways.split(","), given.seconds, given.out)
        case "cell":
            print(json.dumps(cell(given.row, given.way, given.seed, given.seconds, given.out)))
        case "report":
            print(report(given.out))
        case "overhead":
            print(json.dumps(overhead(given.row)))


if __name__ == "__main__":
    main()
