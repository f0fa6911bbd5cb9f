"""From the same pretrained model on one clock: `multistep` as it comes against what people use today.

    MULTISTEP_DATA=... MULTISTEP_MODELS=... HF_HUB_OFFLINE=1 python bench/pretrained.py run [--sets sst2,docstrings]
        [--seconds 120] [--seeds 3] [--threads 1] [--out FOLDER]
    python bench/pretrained.py report [--out FOLDER]

| set | model | rows | rival |
|---|---|---|---|
| sst2, docstrings | MiniLM (MULTISTEP_ENCODER, or an installed package) | texts and classes | `Trainer` |
| asked-sst2, asked-chnsenticorp, continued-songci | SmolLM2-135M-Instruct | prompts and completions | TRL with LoRA |

The rival runs at its usual rate and at the best of three, by the validation score of seed 0. Each run has the same
seconds on the wall, of a process from its start to its end: `multistep` as its budget, the rival for loading, three
epochs or as many steps as fit (bench/pretrained_rivals.py says how), scoring the validation split and saving. Both get
the train and the validation split. The test split is scored afterwards, outside of that time, from the exported
folders and by one code. Conversations: the loss in nats for each trained token and, for fixed answers, how often the
likeliest answer is the right one; "untouched" is the model before training.

Memory is the peak of a run's process. results.jsonl has rows and tokens, too, each as who ran it counts: `multistep`
packed rows and the tokens it learnt, TRL conversations and all tokens that are read. Results are kept in
FOLDER/results.jsonl and used again, so that a benchmark that was interrupted goes on; models are deleted once they are
scored. Sets that need TRL, peft or accelerate, which are no requirements of the project, are left out with a sentence
where these are missing. Cores must be free: steps are timed once, and a rival whose core is shared later ends late.
Otherwise MULTISTEP_BENCH_CLOCK=processor counts the seconds that each process computes, for one thread.
"""

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import data_sets
import processor_time
from pretrained_table import CONVERSED, ENCODED, Result, kind_of, print_table

RIVALS = Path(__file__).with_name("pretrained_rivals.py")
PROGRAM = Path(__file__).with_name("processor_time.py")  # the command line, by the clock that is asked for
LANGUAGE_MODEL = "SmolLM2-135M-Instruct"


class Bench:
    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.out: Path = given.out.resolve()
        self.path = self.out / "results.jsonl"
        self.out.mkdir(parents=True, exist_ok=True)
        known = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        self.results: list[Result] = [json.loads(line) for line in known]

    def data(self, name: str) -> Path:
        sizes = {"train": self.given.train_rows, "validation": self.given.validation_rows, "test": self.given.test_rows}
        longest, folder = self.given.longest, self.out / "data"
        if name == "docstrings":
            return data_sets.labelled_docstrings(folder, sizes)
        source = data_sets.data_folder("sst2")
        if name == "sst2":
            return data_sets.labelled_sst2(source, folder, sizes)
        # Scoring a language model takes minutes; those who only say a word need not wait for all rows.
        sizes = {**sizes, "validation": sizes["validation"] or self.given.chat_rows}
        sizes = {**sizes, "test": sizes["test"] or 3 * self.given.chat_rows}
        if name == "asked-sst2":
            return data_sets.asked_sst2(source, folder, sizes)
        make = data_sets.asked_chnsenticorp if name == "asked-chnsenticorp" else data_sets.continued_songci
        return make(source, folder, sizes, longest)

    def model(self, name: str) -> Path | None:
        if name in ENCODED:
            found = data_sets.minilm()
            return Path(found) if found else None
        folder = Path(os.environ.get("MULTISTEP_MODELS", "")) / LANGUAGE_MODEL
        return folder.resolve() if (folder / "config.json").is_file() else None

    # Runs --------------------------------------------------------------------------------------

    def trained(self, name: str, rate: float | None, seed: int) -> Result:
        """A run of ours (`rate` None) or of the rival; its folder stands until it is scored."""
        if known := self.known("run", name, rate, seed):
            return known
        kind, data, model = kind_of(name), self.data(name), self.model(name)
        folder = self.out / "runs" / self._folder(name, rate, seed)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        began, spent = time.monotonic(), processor_time.of_children()
        if rate is None:
            plan = {
                "task": kind.task,
                "data": {split: str(data / f"{split}.jsonl") for split in ("train", "validation")},
                "model": str(model),
                "budget": f"{self.given.seconds:g}s",
                "seed": seed,
            }
            (folder / "plan.yaml").write_text(json.dumps(plan, indent=1), encoding="utf-8")  # JSON is YAML
            program = [sys.executable, PROGRAM, "train", folder / "plan.yaml", "--json", "--out", folder / "run"]
            record, memory = self._child(program, folder)
            found = of_ours(record)
        else:
            command = [sys.executable, RIVALS, kind.way, model, data, folder, "--rate", rate, "--seed", seed]
            command += ["--seconds", self.given.seconds]
            # By the processor's clock a process's time begins with the process.
            command += [] if processor_time.ON else ["--began", began]
            command += ["--no-bf16"] if self.given.full_precision and kind.way == "instruct" else []
            found, memory = self._child(command, folder.with_name(f"{folder.name}.log"))
        wall = processor_time.of_children() - spent - found.get("uncharged", 0.0)
        key = self._key("run", name, rate, seed)
        return self._keep({**key, **found, "wall": wall, "gigabytes": memory})

    def scored(self, name: str, rate: float | None, seed: int) -> Result:
        """The test scores of a run; its models are deleted then."""
        if known := self.known("score", name, rate, seed):
            return known
        record = self.trained(name, rate, seed)
        folder = self.out / "runs" / self._folder(name, rate, seed)
        model = folder / "run" / record["model"] if rate is None else folder / "model"
        if not model.is_dir():  # deleted by somebody; the run is needed again
            self.results.remove(record)
            return self.scored(name, rate, seed)
        found, _ = self._child([sys.executable, RIVALS, "score", model, self.data(name)], folder)
        kept = self._keep({**self._key("score", name, rate, seed), **found})
        self._delete(name, rate, seed)
        return kept

    def untouched(self, name: str) -> Result:
        """The test scores of a language model before training."""
        key = {"what": "untouched", "set": name, "sizes": self._sizes()}
        if known := self._known(key):
            return known
        folder, source = self.out / "runs" / f"{name}-untouched", self.model(name)
        assert source is not None, "asked for once the model is known to be there"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for path in source.iterdir():
            if path.name != "multistep.json":  # which scoring writes
                (folder / path.name).symlink_to(path)
        found, _ = self._child([sys.executable, RIVALS, "score", folder, self.data(name)], folder)
        return self._keep({**key, **found})

    def best_rate(self, name: str) -> float:
        """Of the rival's three, by the validation score of seed 0."""
        kind = kind_of(name)
        runs = {rate: self.trained(name, rate, 0) for rate in kind.rates}
        sign = 1 if kind.larger else -1
        best = max(runs, key=lambda rate: (sign * runs[rate]["validation"], -runs[rate]["validation_loss"]))
        for rate in set(kind.rates) - {best, kind.rates[0]}:
            self._delete(name, rate, 0)  # nobody will score it
        return best

    def known(self, what: str, name: str, rate: float | None, seed: int) -> Result | None:
        return self._known(self._key(what, name, rate, seed))

    # Beneath -----------------------------------------------------------------------------------

    def _sizes(self) -> list[int | None]:
        given = self.given
        return [given.train_rows, given.validation_rows, given.test_rows, given.chat_rows, given.longest]

    def _key(self, what: str, name: str, rate: float | None, seed: int) -> Result:
        own = {"what": what, "set": name, "rate": rate, "seed": seed, "sizes": self._sizes()}
        return {**own, "T": self.given.seconds, "threads": self.given.threads}

    def _folder(self, name: str, rate: float | None, seed: int) -> str:
        way = "multistep" if rate is None else f"rival-{rate:g}"
        return f"{name}-{way}-{seed}-{self.given.seconds:g}s-{self.given.threads}"

    def _delete(self, name: str, rate: float | None, seed: int) -> None:
        folder = self.out / "runs" / self._folder(name, rate, seed)
        for heavy in (folder / "model", *(folder / "run" / part for part in ("model", "adapter", "checkpoints"))):
            shutil.rmtree(heavy, ignore_errors=True)

    def _known(self, key: Result) -> Result | None:
        """The last one: a run whose model was lost before it was scored is done again."""
        found = (r for r in reversed(self.results) if all(k in r and r[k] == v for k, v in key.items()))
        return next(found, None)

    def _keep(self, result: Result) -> Result:
        self.results.append(result)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
        print(json.dumps(result), file=sys.stderr, flush=True)
        return result

    def _child(self, command: list[Any], log: Path) -> tuple[Result, float]:
        """The JSON object that a process prints last, and its peak memory in gigabytes."""
        log = log / "log.txt" if log.is_dir() else log
        quiet = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
        quiet |= {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        threads = {"OMP_NUM_THREADS": str(self.given.threads), "MKL_NUM_THREADS": str(self.given.threads)}
        words = [str(word) for word in command]
        with log.open("w", encoding="utf-8") as errors:
            child = subprocess.Popen(
                words, stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | quiet | threads
            )
            assert child.stdout is not None, "a pipe was asked for"
            said = child.stdout.read()
            # Of this child alone; what getrusage says of children is the most that any ever had.
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            sys.exit(f"{' '.join(words)}\n{log.read_text(encoding='utf-8')[-3000:]}")
        # Ours prints one object in several lines; what libraries print before a rival's is left.
        record: Result = json.loads(said if said.startswith("{\n") else said.splitlines()[-1])
        return record, usage.ru_maxrss / 2**20  # from kibibytes


def of_ours(record: Result) -> Result:
    spent = record["seconds"]
    return {
        "model": record["model"],
        "seconds": spent["total"],
        "train_seconds": spent["train"],
        "spent": spent,
        "steps": record["steps"],
        "rows": record["examples"],
        "tokens": record["tokens"],
        "validation": record["validation"]["score"],
        "stopped": record["stopped"],
        "led": [t["move"] or t["kind"] for t in record["trials"] if t["leads"]],
    }


def rows_so_far(bench: Bench, name: str) -> dict[str, dict[int, Result]]:
    """What is known of each way and seed, scores and the run's own numbers together."""
    usual, *others = kind_of(name).rates
    rates = {"multistep": None, f"rival at {usual:g}, usual": usual, **{f"rival at {rate:g}": rate for rate in others}}
    found: dict[str, dict[int, Result]] = {way: {} for way in ("untouched", *rates)}
    for result in bench.results:
        if result["what"] == "untouched" and result["set"] == name:
            found["untouched"] = {0: result}
    for way, rate in rates.items():
        for seed in range(bench.given.seeds):
            run, score = bench.known("run", name, rate, seed), bench.known("score", name, rate, seed)
            if run and score:
                found[way][seed] = {**run, **score}
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=("run", "report"), nargs="?", default="run")
    parser.add_argument("--sets", default=",".join((*ENCODED, *CONVERSED)))
    parser.add_argument("--seconds", type=float, default=120, help="of each run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--train-rows", type=int, help="at most; likewise of the other splits")
    parser.add_argument("--validation-rows", type=int)
    parser.add_argument("--test-rows", type=int)
    parser.add_argument(
        "--chat-rows", type=int, default=100, help="of a language model's validation; three times as many in its test"
    )
    parser.add_argument("--longest", type=int, default=60, help="characters of a Chinese review or poem")
    parser.add_argument("--full-precision", action="store_true", help="TRL in float32; its default is bfloat16")
    parser.add_argument("--out", type=Path, default=Path("build/bench-pretrained"))
    given = parser.parse_args()
    bench = Bench(given)
    sets = given.sets.split(",")
    if unknown := set(sets) - {*ENCODED, *CONVERSED}:
        parser.error(f"unknown set {', '.join(sorted(unknown))}; allowed: {', '.join((*ENCODED, *CONVERSED))}")
    ready = [name for name in sets if given.verb == "report" or can_run(bench, name)]
    for seed in range(given.seeds if given.verb == "run" else 0):
        for name in ready:
            bench.scored(name, None, seed)
            bench.scored(name, kind_of(name).rates[0], seed)
            bench.scored(name, bench.best_rate(name), seed)
            if name in CONVERSED:
                bench.untouched(name)
    print_table({name: rows_so_far(bench, name) for name in ready})


def can_run(bench: Bench, name: str) -> bool:
    """Whether all is there that a set needs; what is missing is said."""
    kind = kind_of(name)
    missing = [package for package in kind.needs if importlib.util.find_spec(package) is None]
    if missing:
        print(f"bench/pretrained.py: {name} is left out: pip install {' '.join(missing)}", file=sys.stderr)
    elif bench.model(name) is None:
        where = "MULTISTEP_ENCODER" if name in ENCODED else f"MULTISTEP_MODELS (a folder with {LANGUAGE_MODEL})"
        print(f"bench/pretrained.py: {name} is left out: no model; set {where}", file=sys.stderr)
        return False
    return not missing


if __name__ == "__main__":
    main()
