"""The rivals of bench/pretrained.py, each run a process of its own, and the scoring of what anybody exported.

    python bench/pretrained_rivals.py classify|instruct MODEL DATA OUT --rate 5e-5 --seed 0 --seconds 120 --began T
    python bench/pretrained_rivals.py score MODEL DATA

classify: `Trainer` of transformers as its documentation has it (DataCollatorWithPadding, AdamW, linear schedule).
instruct: `SFTTrainer` of TRL with peft (LoRA of rank 16, alpha 32, dropout 0.05, as TRL's own script has it, on all
linear layers). Rows are given as prompt and completion in turns, so that the model's own chat template is used and
the completion alone is learnt, which is TRL's default. No packing: without FlashAttention, which no CPU has, TRL warns
that packed rows see each other.

A run has its own number of epochs, or as many steps as end in time: some are timed first, on a model that is thrown
away, together with what scoring and saving take. That is not charged to it, and the schedule is made for the number of
steps that it comes to. TRL works in bfloat16 where matrices are multiplied, its default (of a CPU with AVX-512 BF16 a
step takes 0.7 of the time); in its favour activations are kept, which takes memory instead of time. DATA holds
train.jsonl, validation.jsonl and test.jsonl. Prints one JSON object, last.
"""

import argparse
import gc
import importlib
import json
import random
import shutil
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import processor_time  # before all that asks for the time

EPOCHS = 3
WARM_UP = 0.06  # of the time, at most, goes to timing steps; it is given back
LEAST_TIMED = 4  # steps, beside the first
MOST_TIMED = 60
SPARE = 0.01  # of the time, for what ends a process
Row = dict[str, Any]


def rows_of(folder: Path, split: str) -> list[Row]:
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


class Classifier:
    """A pretrained encoder with a new head, trained whole."""

    def __init__(self, given: argparse.Namespace) -> None:
        from transformers import AutoTokenizer

        self.given = given
        self.tokenizer = AutoTokenizer.from_pretrained(given.model)
        splits = {split: rows_of(given.data, split) for split in ("train", "validation")}
        self.names = sorted({row["label"] for row in splits["train"]})
        self.train, self.validation = self._encoded(splits["train"]), self._encoded(splits["validation"])

    def _encoded(self, rows: list[Row]) -> Any:
        from datasets import Dataset

        numbers = {name: number for number, name in enumerate(self.names)}
        encoded = self.tokenizer([row["text"] for row in rows], truncation=True)
        return Dataset.from_dict({**encoded, "labels": [numbers[row["label"]] for row in rows]})

    def trainer(self, train: Any, callbacks: list[Any], steps: int) -> Any:
        from transformers import (
            AutoModelForSequenceClassification,
            DataCollatorWithPadding,
            Trainer,
            TrainingArguments,
            set_seed,
        )

        set_seed(self.given.seed)
        model = AutoModelForSequenceClassification.from_pretrained(
            self.given.model,
            num_labels=len(self.names),
            id2label=dict(enumerate(self.names)),
            label2id={name: number for number, name in enumerate(self.names)},
        )
        return Trainer(
            model=model,
            args=TrainingArguments(**arguments(self.given, steps), weight_decay=0.01, warmup_steps=0.1),
            train_dataset=train,
            processing_class=self.tokenizer,
            data_collator=DataCollatorWithPadding(self.tokenizer),
            compute_metrics=accuracy,
            callbacks=callbacks,
        )

    def save(self, trainer: Any, out: Path) -> None:
        trainer.save_model(str(out))


class Instructor:
    """A pretrained language model with adapters."""

    def __init__(self, given: argparse.Namespace) -> None:
        from transformers import AutoTokenizer

        self.given = given
        self.tokenizer = AutoTokenizer.from_pretrained(given.model)
        self.train = self._turns(rows_of(given.data, "train"))
        self.validation = self._turns(rows_of(given.data, "validation"))

    def _turns(self, rows: list[Row]) -> Any:
        from datasets import Dataset

        roles = {"prompt": "user", "completion": "assistant"}
        return Dataset.from_list(
            [{part: [{"role": role, "content": row[part]}] for part, role in roles.items()} for row in rows]
        )

    def trainer(self, train: Any, callbacks: list[Any], steps: int) -> Any:
        from peft import LoraConfig
        from transformers import set_seed
        from trl.trainer.sft_config import SFTConfig
        from trl.trainer.sft_trainer import SFTTrainer

        set_seed(self.given.seed)
        lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM")
        return SFTTrainer(
            model=str(self.given.model),
            args=SFTConfig(
                **arguments(self.given, steps),
                warmup_steps=0.03,
                bf16=self.given.bf16,
                gradient_checkpointing=False,
            ),
            train_dataset=train,
            eval_dataset=self.validation,
            processing_class=self.tokenizer,
            peft_config=lora,
            callbacks=callbacks,
        )

    def save(self, trainer: Any, out: Path) -> None:
        """The merged model, as a folder that knows nothing of adapters."""
        trainer.model.merge_and_unload().save_pretrained(str(out))
        self.tokenizer.save_pretrained(str(out))


def arguments(given: argparse.Namespace, steps: int) -> Row:
    """What both have in common. `steps` as given, or all epochs where it is 0."""
    return {
        "output_dir": str(given.out),
        "learning_rate": given.rate,
        "num_train_epochs": EPOCHS,
        "max_steps": steps or -1,
        "per_device_train_batch_size": given.batch,
        "per_device_eval_batch_size": 2 * given.batch,
        "lr_scheduler_type": "linear",
        "seed": given.seed,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "save_strategy": "no",
        "logging_strategy": "no",
        "eval_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "include_num_input_tokens_seen": "non_padding",
    }


def silent(trainer: Any) -> Any:
    """Without the callback that prints every log where there is no bar."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    return trainer


def accuracy(prediction: Any) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def stopwatch(most: float) -> Any:
    """A callback that times steps and ends training after `most` seconds of them; `seconds` are those of each."""
    from transformers import TrainerCallback

    class Stopwatch(TrainerCallback):
        def __init__(self) -> None:
            self.seconds: list[float] = []
            self.began = 0.0

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.began = time.monotonic()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.seconds.append(time.monotonic() - self.began)
            enough = len(self.seconds) > LEAST_TIMED and sum(self.seconds[1:]) > most
            control.should_training_stop = control.should_training_stop or enough

    return Stopwatch()


def measured(rival: Any, given: argparse.Namespace) -> tuple[float, float]:
    """Seconds of a step, and of scoring the validation split and saving."""
    some = random.Random(given.seed).sample(range(len(rival.train)), min(len(rival.train), MOST_TIMED * given.batch))
    watch = stopwatch(WARM_UP * given.seconds)
    trainer = silent(rival.trainer(rival.train.select(some), [watch], MOST_TIMED))
    trainer.train()
    began = time.monotonic()
    read = min(len(rival.validation), 4 * given.batch)
    # SFTTrainer has encoded its own copy.
    validation = trainer.eval_dataset if trainer.eval_dataset is not None else rival.validation
    trainer.evaluate(validation.select(range(read)))
    scoring = (time.monotonic() - began) * len(rival.validation) / read
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=given.out.parent) as folder:
        rival.save(trainer, Path(folder) / "model")
    timed = watch.seconds[1:]
    return sum(timed) / len(timed), scoring + time.monotonic() - began


def run(given: argparse.Namespace) -> Row:
    shutil.rmtree(given.out, ignore_errors=True)
    given.out.mkdir(parents=True)
    # Before the steps that are timed: importing is charged.
    importlib.import_module("transformers.trainer" if given.way == "classify" else "trl.trainer.sft_trainer")
    rival: Any = Classifier(given) if given.way == "classify" else Instructor(given)
    own = -(-len(rival.train) // given.batch) * EPOCHS
    before = time.monotonic()
    step_seconds, end_seconds = measured(rival, given)
    gc.collect()  # a trainer and its model refer to each other
    free = time.monotonic() - before  # loading the model a second time included, so that is not charged twice
    trainer = silent(rival.trainer(rival.train, [], own))  # how long this takes is known once it is done
    began = time.monotonic()
    left = given.seconds * (1 - SPARE) - (began - given.began - free) - end_seconds
    steps = max(1, min(own, int(left / step_seconds)))
    trainer.args.max_steps = steps
    trained = trainer.train()
    train_seconds = time.monotonic() - began
    scores = trainer.evaluate() if given.way == "instruct" else trainer.evaluate(rival.validation)
    rival.save(trainer, given.out / "model")
    return {
        "seconds": time.monotonic() - given.began - free,
        "uncharged": free,
        "train_seconds": train_seconds,
        "train_loss": trained.training_loss,
        "steps": trainer.state.global_step,
        "own_steps": own,
        "step_seconds": step_seconds,
        "rows": trainer.state.global_step * given.batch,
        "tokens": int(trainer.state.num_input_tokens_seen),
        "validation": scores["eval_accuracy"] if given.way == "classify" else scores["eval_loss"],
        "validation_loss": scores["eval_loss"],
    }


# Scoring --------------------------------------------------------------------------------------------


def score(model: Path, data: Path) -> Row:
    """The scores of an exported folder on the test split, in the same way whoever exported it.

    Conversations: what the folder says of itself is replaced by the same for all, so that nobody's are cut elsewhere,
    and fixed answers are compared.
    """
    from multistep import api

    if "prompt" in rows_of(data, "test")[0]:
        write_judge(model, data)
    found = api.evaluate(model, str(data / "test.jsonl"))
    return {"examples": found["examples"], **{name: value["score"] for name, value in found["scores"].items()}}


def write_judge(model: Path, data: Path) -> None:
    from transformers import AutoTokenizer

    from multistep.core.values.plan import DataSpec
    from multistep.tasks.chat.judge import COMPARED, Judge
    from multistep.tasks.chat.load import read_held_out
    from multistep.tasks.chat.template import ChatTemplate
    from multistep.tasks.folders import write_task

    part = read_held_out(DataSpec(source=str(data / "train.jsonl")))
    tokenizer = AutoTokenizer.from_pretrained(model)
    template = ChatTemplate(tokenizer, part.items)
    judge = Judge.of(COMPARED, template, (tokenizer.eos_token_id,), 1024, part.items)
    record = judge.record if judge.fixed else {}
    write_task(model, "text-generation", {"train_on": "assistant", "context": 1024, **record})


def main() -> None:
    parser = argparse.ArgumentParser()
    ways = parser.add_subparsers(dest="way", required=True)
    for name in ("classify", "instruct", "score"):
        way = ways.add_parser(name)
        way.add_argument("model", type=Path)
        way.add_argument("data", type=Path)
        if name == "score":
            continue
        way.add_argument("out", type=Path)
        way.add_argument("--rate", type=float, required=True)
        way.add_argument("--seed", type=int, default=0)
        way.add_argument("--batch", type=int, default=16 if name == "classify" else 8)
        way.add_argument("--seconds", type=float, required=True)
        began = 0.0 if processor_time.ON else time.monotonic()
        way.add_argument("--began", type=float, default=began, help="when, on the monotonic clock")
        way.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    given = parser.parse_args()
    logging: Any = importlib.import_module("transformers.utils.logging")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    print(json.dumps(score(given.model, given.data) if given.way == "score" else run(given)))


if __name__ == "__main__":
    main()
