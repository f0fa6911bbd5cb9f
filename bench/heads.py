"""What a new last layer should begin as, and what it should read: drawn or probed, of texts and of speech.

    MULTISTEP_DATA=... HF_HUB_OFFLINE=1 MULTISTEP_BENCH_CLOCK=processor python bench/heads.py texts [--seconds 60]
        [--seeds 2] [--out FOLDER]
    MULTISTEP_DATA=... MULTISTEP_BENCH_CLOCK=processor python bench/heads.py speech [...]

texts: MiniLM (MULTISTEP_ENCODER, or an installed package) on SST-2: {first token, mean layer} x {drawn, probed}, and
nothing pretrained (`scratch`). speech: a wav2vec 2.0 of 460,000 parameters that learns the digits zero to four for 170
s, and is tuned on five to nine, which are written in other letters: probed, drawn, and `scratch`. Each is one run of
`multistep` as it comes, in a process of its own; a line of JSON a run, which is kept in FOLDER/heads.jsonl and not
made again.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import data_sets
import processor_time

PRETRAINING_SECONDS = 170
KNOWN = ("zero", "one", "two", "three", "four")
TEXTS = {
    "first token, drawn": {"head": "random"},
    "first token, probed": {"head": "linear-probe"},
    "mean layer, drawn": {"head": "random"},
    "mean layer, probed": {"head": "linear-probe"},
    "scratch": {},
}
SPEECH = {"probed": {"head": "linear-probe"}, "drawn": {"head": "random"}, "scratch": {}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("texts", "speech"))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("build/bench-heads"))
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    parser.add_argument("--plan", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.cell:
        one(given.cell, json.loads(given.plan), given.out)
        return
    out: Path = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    done = out / "heads.jsonl"
    known = [json.loads(line) for line in done.read_text().splitlines()] if done.exists() else []
    cells = TEXTS if given.what == "texts" else SPEECH
    about = texts() if given.what == "texts" else speech(out)
    for seed in range(given.seeds):
        for cell, recipe in cells.items():
            key = {"what": given.what, "cell": cell, "seed": seed, "seconds": given.seconds}
            if any(key.items() <= line.items() for line in known):
                continue
            plan = {**about, "recipe": recipe, "seed": seed, "budget": f"{given.seconds}s"}
            if cell == "scratch":
                plan["model"] = "scratch"
            folder = out / f"{given.what}-{cell.replace(', ', '-').replace(' ', '-')}-{given.seconds}-{seed}"
            found = {**key, **run(given.what, cell, plan, folder)}
            print(json.dumps(found), flush=True)
            with done.open("a") as file:
                file.write(json.dumps(found) + "\n")


def run(what: str, cell: str, plan: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The scores of a run in a process of its own, and what its first judged trial, the untouched model, has."""
    command = [sys.executable, __file__, what, "--cell", cell, "--plan", json.dumps(plan), "--out", str(folder)]
    began = processor_time.of_children()
    with folder.with_suffix(".log").open("w") as log:
        subprocess.run(
            command, check=True, stdout=log, stderr=log, env={**os.environ, "MULTISTEP_CACHE": f"{folder}.cache"}
        )
    record = json.loads((folder / "result.json").read_text())
    base = record.get("base") or {}
    return {
        "scores": record["scores"],
        "leader": record["leader"]["trial"],
        "base": {split: base[split]["score"] for split in ("validation", "test") if base.get(split)},
        "steps": record["steps"],
        "used": round(processor_time.of_children() - began, 1),
    }


def one(cell: str, plan: dict[str, Any], folder: Path) -> None:
    """Within that process: the run, whose last layer reads what the cell says."""
    from multistep import api
    from multistep.engine.planfile import plan_from

    if cell.startswith(("first", "mean")):
        read_by(cell)
    api.train(plan_from(plan), out=folder)


def read_by(cell: str) -> None:
    """Have texts known by what the cell says, which the product ties to the probe."""
    from multistep.tasks.language import task
    from multistep.tasks.language.mean import add_mean_layer

    if cell == "first token, probed":
        setattr(task, "wants_mean", lambda *_: False)  # noqa: B010 - another's name
    elif cell == "mean layer, drawn":

        def only_mean(_: object, plan: object, phase: int, head: Any, *more: object) -> None:
            add_mean_layer(head.model)

        setattr(task.LanguageWorkshop, "_probed", only_mean)  # noqa: B010 - another's method


def texts() -> dict[str, Any]:
    source = data_sets.data_folder("sst2")
    encoder = data_sets.minilm() or sys.exit("bench/heads.py: set MULTISTEP_ENCODER to the folder of MiniLM")
    return {"task": "text-classification", "data": data_sets.sst2(source), "model": encoder}


def speech(out: Path) -> dict[str, Any]:
    """The plan of the digits that the encoder has not heard; it is trained the first time."""
    source = data_sets.data_folder("fsdd")
    folder, lists = data_sets.spoken_digits(source, out), {}
    for name, mine in (("known", True), ("new", False)):
        lists[name] = folder / f"{name}.csv"
        with lists[name].open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "text", "split"])
            for row in data_sets.spoken_rows(source):
                if (row["text"] in KNOWN) is mine:
                    take = int(row["index"])
                    writer.writerow(
                        [row["path"], row["text"], "test" if take < 8 else "validation" if take < 16 else "train"]
                    )
    plan = {
        "task": "speech-recognition",
        "data": str(lists["known"]),
        "model": str(nothing(out / "nothing")),
        "moves": [],
    }
    recipe = {"learning_rate": 1e-3, "frozen": [], "batch_size": 16, "augmentation": 0.3}
    if not (out / "encoder" / "config.json").is_file():
        print(
            json.dumps(
                run("speech", "encoder", {**plan, "recipe": recipe, "budget": f"{PRETRAINING_SECONDS}s"}, out / "first")
            )
        )
        from transformers import AutoFeatureExtractor, AutoModelForCTC

        read: Any = AutoFeatureExtractor
        read.from_pretrained(out / "first" / "model").save_pretrained(out / "encoder")
        AutoModelForCTC.from_pretrained(out / "first" / "model").base_model.save_pretrained(out / "encoder")
    return {"task": "speech-recognition", "data": str(lists["new"]), "model": str(out / "encoder")}


def nothing(folder: Path) -> Path:
    """A small wav2vec 2.0 with drawn weights."""
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=256,
        conv_dim=(64,) * 4,
        conv_stride=(5, 4, 4, 2),
        conv_kernel=(10, 8, 4, 4),
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        feat_extract_norm="layer",
        conv_bias=True,
        do_stable_layer_norm=True,
    )
    Wav2Vec2Model(config).save_pretrained(folder)
    make: Any = Wav2Vec2FeatureExtractor
    make(sampling_rate=8000, return_attention_mask=True).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
