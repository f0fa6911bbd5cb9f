"""Whether the sizes that a budget chooses lie at the bottom of the U: language models from nothing.

    python bench/sizes.py run --sets tiny,songci,stdlib --seconds 60,300 --out build/bench-sizes
    python bench/sizes.py report build/bench-sizes
    python bench/sizes.py defaults

`run` trains, of each set and budget, the size that is chosen, half and twice as many parameters in the blocks at the
same vocabulary, context and tokens a step, and what was chosen until 2026-11-28. Each gets the steps that its
operations leave it at `--rate` operations a second (default: measured here first), so that other work on the machine
changes nothing; a trunk, and a cooldown over the last half, without moves. A training that was interrupted is taken
up again from `--out`; what has run stands in bench/sizes.jsonl. `report` prints bits a byte on validation.
`defaults` prints what is chosen on some machines, also of encoders, nets for images and for speech.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sysconfig
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from multistep import api
from multistep.core.values.plan import DataSpec, ModelSpec, Plan
from multistep.core.values.units import Amount, Unit
from multistep.tasks.images import preset as image_preset
from multistep.tasks.images.decode import Form
from multistep.tasks.language import preset as encoder_preset
from multistep.tasks.speech import preset as speech_preset
from multistep.tasks.speeds import TRAINED_SHARE, Work
from multistep.tasks.text.preset import (
    TextFacts,
    batch_size,
    characters_a_token,
    choose_preset,
    default_dropout,
    expected_tokens,
)
from multistep.tasks.text.sizes import Shape, all_parameters, heads_for, ladder, of_blocks, operations_per_token

SETS = ("tiny", "songci", "stdlib")
LEFT_OUT = {"site-packages", "test", "tests", "idlelib", "turtledemo", "lib2to3", "__pycache__"}
STEP_SECONDS = 0.012  # of one core, that a step takes beside its operations
MACHINES = (  # name, device, operations a second, bytes of memory
    ("laptop, 2 cores", "cpu", 9e10, 8 * 2**30),
    ("workstation, 16 cores", "cpu", 7e11, 64 * 2**30),
    ("one GPU of 24 GB", "cuda", 6e13, 24 * 2**30),
    ("one H100", "cuda", 4e14, 80 * 2**30),
)
TEXTS = (("1 MB of English", TextFacts(10**6, 90)), ("10 GB of English", TextFacts(10**10, 200)))


@dataclass(frozen=True)
class Case:
    """One training: which set, at which budget, which way, and the sizes."""

    data: str
    seconds: float
    way: str
    vocabulary: int
    layers: int
    width: int
    heads: int
    context: int
    rows: int

    @property
    def shape(self) -> Shape:
        return Shape(self.layers, self.width, self.heads, self.context)


def source_of(name: str, folder: Path) -> tuple[str, TextFacts]:
    """The set's path, and what the preset asks of its training part (nine tenths)."""
    data = Path(os.environ["MULTISTEP_DATA"])
    if name == "stdlib":
        root, out = Path(sysconfig.get_paths()["stdlib"]), folder / "stdlib"
        files = [p for p in sorted(root.rglob("*.py")) if not LEFT_OUT & set(p.relative_to(root).parts)]
        out.mkdir(exist_ok=True)
        texts = [path.read_text(encoding="utf-8", errors="ignore") for path in files]
        lines = [json.dumps({"text": text}) for text in texts if text.strip()]
        (out / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")
        path, whole = str(out / "train.jsonl"), texts
    elif name == "songci":
        path, whole = str(data / "songci"), [(data / "songci/train.txt").read_text(encoding="utf-8")]
    else:
        path, whole = str(data / "tinyshakespeare/input.txt"), [(data / "tinyshakespeare/input.txt").read_text()]
    share = 1.0 if name == "songci" else 0.9
    return path, TextFacts(int(share * sum(map(len, whole))), len(set().union(*whole)))


def cases(name: str, seconds: float, facts: TextFacts, rate: float) -> Iterator[Case]:
    """The chosen size, its neighbours, and what was chosen before."""
    # Without moves, as `train` has it: the size of a run that keeps its schedule, and has dropout.
    plan = Plan("text-generation", DataSpec("x"), budget=Amount(seconds, Unit.SECONDS), moves=())
    preset = choose_preset(ModelSpec(), facts, plan, rate)
    vocabulary, chosen = preset.vocabulary or facts.alphabet, preset.shape
    text = facts.characters / characters_a_token(facts, preset.vocabulary)
    tokens = expected_tokens(plan, a_token=operations_per_token(chosen, vocabulary), tokens=text, rate=rate)
    rows = batch_size(tokens, text, chosen.context, "cpu")

    def case(way: str, shape: Shape, vocabulary: int = vocabulary, rows: int = rows) -> Case:
        return Case(name, seconds, way, vocabulary, shape.layers, shape.width, shape.heads, shape.context, rows)

    def times(factor: float) -> Shape:
        return min(ladder(chosen.context), key=lambda s: abs(math.log(of_blocks(s) / (factor * of_blocks(chosen)))))

    yield case("chosen", chosen)
    yield case("half", times(0.5))
    yield case("double", times(2.0))
    yield case("before", *before(facts, seconds))


def before(facts: TextFacts, seconds: float) -> tuple[Shape, int, int]:
    """What was chosen until 2026-11-28, whatever the machine: shape, vocabulary, rows a step."""
    blocks = min(max(0.75e6 * math.sqrt(max(1.0, seconds / 60)), 2e5), 1e5 + 2.0 * facts.characters, 1e8)
    layers = max(2, min(12, round(2 * (blocks / 8e5) ** 0.4)))
    width = max(32, round(math.sqrt(blocks / (12 * layers)) / 16) * 16)
    vocabulary = 8192 if facts.alphabet > 2000 else 1024 if facts.characters < 5_000_000 else 4096
    return Shape(layers, width, heads_for(width), 64), vocabulary, 12


def train(case: Case, path: str, facts: TextFacts, rate: float, seed: int, folder: Path) -> dict[str, Any]:
    """Bits a byte on the validation split after the steps that the case's operations leave it."""
    a_step = operations_per_token(case.shape, case.vocabulary) * case.rows * case.context
    steps = int(TRAINED_SHARE * case.seconds / (STEP_SECONDS + a_step / rate))
    tokens = facts.characters / characters_a_token(facts, case.vocabulary)
    epochs = steps * case.rows * case.context / tokens
    dropout = default_dropout(epochs, all_parameters(case.shape, case.vocabulary), tokens)
    shape = {name: getattr(case, name) for name in ("layers", "width", "heads", "context", "vocabulary")}
    result = api.train(
        {
            "task": "text-generation",
            "data": path,
            "model": {"name": "nanochat", "tokenizer": "bpe", **shape},
            "metric": "bits_per_byte",
            "budget": f"{steps} steps",
            "recipe": {
                "batch_size": case.rows,
                "dropout": dropout,
                "learning_rate": 0.01,
            },
            "moves": [],
            "ship": "network",
            "seed": seed,
        },
        out=folder,
        progress=False,
    )
    blocks, parameters = of_blocks(case.shape), all_parameters(case.shape, case.vocabulary)
    score = {"bits_per_byte": round(result.validation.score, 4), "epochs": round(epochs, 2), "steps": steps}
    return {**asdict(case), "seed": seed, "blocks": blocks, "parameters": parameters, **score}


def measured_rate() -> float:
    """Operations a second of this machine now, of a small model."""
    from multistep.tasks.text.preset import Preset
    from multistep.tasks.text.timed import preset_speed

    return preset_speed(Preset("nanochat", "bpe", 2048, Shape(2, 128, 4, 64)), 2048, 16, 3.0)


def run(args: argparse.Namespace) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    rate = args.rate or measured_rate()
    file = args.out / "results.jsonl"
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    known = {(d["data"], d["seconds"], d["way"], d["seed"]) for d in done}
    for name in args.sets:
        path, facts = source_of(name, args.out)
        for seconds in args.seconds:
            for case in cases(name, seconds, facts, rate):
                for seed in range(args.seeds):
                    if (name, seconds, case.way, seed) in known or (args.ways and case.way not in args.ways):
                        continue
                    folder = args.out / f"{name}-{seconds:g}-{case.way}-{seed}"
                    found = {**train(case, path, facts, rate, seed, folder), "rate": rate}
                    shutil.rmtree(folder)
                    with file.open("a") as lines:
                        lines.write(json.dumps(found) + "\n")
                    print(json.dumps(found), flush=True)


def report(args: argparse.Namespace) -> None:
    """One row a set and budget: sizes and bits a byte of each way, the best marked."""
    rows: dict[tuple[str, float], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for line in (args.folder / "results.jsonl").read_text().splitlines():
        found = json.loads(line)
        rows[found["data"], found["seconds"]][found["way"]].append(found)
    print("| set | budget | half | chosen | double | before |\n|---|---|---|---|---|---|")
    for (name, seconds), ways in sorted(rows.items()):
        means = {way: sum(f["bits_per_byte"] for f in some) / len(some) for way, some in ways.items()}
        cells = []
        for way in ("half", "chosen", "double", "before"):
            if way not in ways:
                cells.append("")
                continue
            one = ways[way][0]
            mark = "**" if means[way] == min(means.values()) else ""
            cells.append(f"{mark}{means[way]:.3f}{mark} ({one['layers']} x {one['width']}, {one['vocabulary']:,})")
        print(f"| {name} | {seconds:g} s | " + " | ".join(cells) + " |")


def defaults(_: argparse.Namespace) -> None:
    """What is chosen on some machines."""
    print("| machine | text | budget | model | parameters | context | vocabulary | tokens a step | epochs |")
    print("|---|---|---|---|---|---|---|---|---|")
    for machine, device, rate, memory in MACHINES:
        for text, facts in TEXTS:
            for budget, seconds in (("5m", 300.0), ("1h", 3600.0)):
                plan = Plan("text-generation", DataSpec("x"), budget=Amount(seconds, Unit.SECONDS))
                preset = choose_preset(ModelSpec(), facts, plan, rate, memory)
                vocabulary, shape = preset.vocabulary or facts.alphabet, preset.shape
                whole = facts.characters / characters_a_token(facts, preset.vocabulary)
                a_token = operations_per_token(shape, vocabulary)
                tokens = expected_tokens(plan, a_token=a_token, tokens=whole, rate=rate)
                rows = batch_size(tokens, whole, shape.context, device)
                print(
                    f"| {machine} | {text} | {budget} | {shape.layers} layers of {shape.width} | "
                    f"{all_parameters(shape, vocabulary) / 1e6:.3g} M | {shape.context:,} | {vocabulary:,} | "
                    f"{rows * shape.context:,} | {_epochs(tokens / whole)} |"
                )
    encoders()
    images()
    speech()


def encoders() -> None:
    print("\n| machine | text | budget | model | parameters of the blocks | epochs |\n|---|---|---|---|---|---|")
    for machine, rate, _, seconds, budget in _settings(encoder_preset.WORK):
        for text, tokens in (("30,000 tokens", 30_000), ("a million tokens", 10**6), ("a billion tokens", 10**9)):
            plan = Plan("text-classification", DataSpec("x"), budget=Amount(seconds, Unit.SECONDS))
            s = encoder_preset.choose_shape(ModelSpec(), plan, tokens=tokens, vocabulary=16_000, rate=rate)
            blocks = 12 * s.layers * s.width**2
            read = encoder_preset.expected_epochs(plan, blocks=blocks, tokens=tokens, examples=tokens // 20, rate=rate)
            what = f"{s.layers} {'layer' if s.layers == 1 else 'layers'} of {s.width}"
            print(f"| {machine} | {text} | {budget} | {what} | {blocks / 1e6:.2g} M | {_epochs(read)} |")


def images() -> None:
    print("\n| machine | images | budget | pixels | width | stages | parameters | epochs |")
    print("|---|---|---|---|---|---|---|---|")
    for machine, rate, device, seconds, budget in _settings(image_preset.WORK):
        for what, count, side in (
            ("1,000 photos", 1000, 400),
            ("60,000 of 28 x 28", 60_000, 28),
            ("a million photos", 10**6, 400),
        ):
            plan = Plan("image-classification", DataSpec("x"), budget=Amount(seconds, Unit.SECONDS))
            facts = image_preset.ImageFacts(count, Form(3, side, side), 10)
            found = image_preset.choose(plan, facts, {}, device, rate)
            net, parameters = found.net, image_preset.parameters(found.net) if found.net else 0.0
            assert net is not None, "nobody asked for a standard form"
            print(
                f"| {machine} | {what} | {budget} | {found.form.height} | {net.width} | {net.stages} | "
                f"{parameters / 1e6:.2g} M | {_epochs(found.epochs)} |"
            )


def speech() -> None:
    print("\n| machine | sound | budget | net | parameters | epochs |\n|---|---|---|---|---|---|")
    for machine, rate, _, seconds, budget in _settings(speech_preset.WORK):
        for hours in (0.1, 3, 300, 10_000):
            plan = Plan("speech-recognition", DataSpec("x"), budget=Amount(seconds, Unit.SECONDS))
            facts = speech_preset.SpeechFacts(hours * 3600, max(1, int(hours * 720)))
            s = speech_preset.choose_shape(ModelSpec(), facts, plan, rate=rate)
            (size,) = (
                size for layers, width, size in speech_preset.SIZES[s.kind] if (layers, width) == (s.layers, s.width)
            )
            heard = speech_preset.expected_epochs(plan, size, facts, rate)
            what = f"{s.layers} layers of {s.width}"
            print(f"| {machine} | {hours:,g} h | {budget} | {what} | {size / 1e6:.2g} M | {_epochs(heard)} |")


def _settings(work: Work) -> Iterator[tuple[str, float, str, float, str]]:
    """Machines with the speed that a kind of work has there as a rule, on an H100 five times that of a GPU."""
    for (machine, device, *_), cores in zip(MACHINES, (2, 16, 0, 0), strict=True):
        rate = work.by_rule(device, cores) * (5 if machine.endswith("H100") else 1)
        for budget, seconds in (("5m", 300.0), ("1h", 3600.0)):
            yield machine, rate, device, seconds, budget


def _epochs(count: float) -> str:
    return f"{count:,.0f}" if count >= 10 else f"{count:.2g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    one = verbs.add_parser("run")
    one.add_argument("--sets", type=lambda s: s.split(","), default=list(SETS))
    one.add_argument("--seconds", type=lambda s: [float(x) for x in s.split(",")], default=[60.0, 300.0])
    one.add_argument("--ways", type=lambda s: s.split(","), default=[])
    one.add_argument("--seeds", type=int, default=1)
    one.add_argument("--rate", type=float)
    one.add_argument("--out", type=Path, default=Path("build/bench-sizes"))
    one.set_defaults(do=run)
    two = verbs.add_parser("report")
    two.add_argument("folder", type=Path)
    two.set_defaults(do=report)
    verbs.add_parser("defaults").set_defaults(do=defaults)
    args = parser.parse_args()
    args.do(args)


if __name__ == "__main__":
    main()
