"""What is done with a finished encoder: score other data, label texts, fill in hidden words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from multistep.backends.torch.devices import pick_device, places_of
from multistep.core.evidence.metric import Evaluation
from multistep.core.values.plan import DataSpec
from multistep.data.class_files import class_files
from multistep.data.dialect import Reading
from multistep.data.files import read_table
from multistep.data.parallel import parallel_texts
from multistep.data.splits import held_out_table
from multistep.data.table import Table, quoted
from multistep.data.text import kind_of
from multistep.errors import DataError, PlanError
from multistep.tasks.as_trained import input_columns_of
from multistep.tasks.baselines import is_baseline
from multistep.tasks.calibrated import Calibrated
from multistep.tasks.folders import read_task, task_of
from multistep.tasks.labelled.answers import of_baseline, predictions, said_by, settled_for
from multistep.tasks.labelled.labels import Labels, kind_of_problem
from multistep.tasks.labelled.scale import Scale
from multistep.tasks.labelled.score import table_of
from multistep.tasks.language.baseline import Baseline, joined
from multistep.tasks.language.classify import logits_of
from multistep.tasks.language.columns import find_columns
from multistep.tasks.language.examples import Examples
from multistep.tasks.language.load import classifier, load_encoder, masked_model
from multistep.tasks.language.long import Holding, held
from multistep.tasks.language.mapped import ReadLate
from multistep.tasks.language.mask import score_spans
from multistep.tasks.language.models import Encoder, Head
from multistep.tasks.language.network import Network
from multistep.tasks.language.rows import columns_like, lines_of, rows_of
from multistep.tasks.language.small import is_small, load_network
from multistep.tasks.language.spans import load_all, read_spans
from multistep.tasks.language.splits import encoded_rows
from multistep.tasks.language.tokenizer import MASK
from multistep.tasks.notes import say
from multistep.tasks.prediction import AT_ONCE, Asked, FindColumns, Prediction, Predictor, Reads, Says
from multistep.tasks.text.corpus import LongTexts

PAIR = "|||"  # between the two texts of a pair


def evaluate_model(model: str, data: DataSpec) -> Evaluation:
    """Score a model folder on all rows of `data`; of several splits, the test split. Notes are logged.

    Raises DataError for labels that the model does not know, PlanError for a folder that is no such model.
    """
    if is_baseline(model):
        baseline, settled = Baseline.read(model), Calibrated.read(model)
        with held(data) as holding:
            examples = examples_of(model, data, baseline.labels, holding)
            return settled.decided(lambda: baseline.score(examples, settled), model)
    device = pick_device()
    if task_of(model) == "fill-mask":
        encoder = load_encoder(model, _context(model))
        head = masked_model(encoder)
        texts = load_all(data)
        say(texts.notes)
        spans = read_spans(encoder.tokenizer, texts, encoder.context)
        with torch.inference_mode():
            return score_spans(head, _ready(head, model, device), spans, None, device)
    network, module, labels = load_classifier(model, device)
    with held(data) as holding, torch.inference_mode():
        examples = examples_of(model, data, labels, holding)
        long = isinstance(examples.texts, LongTexts)
        encoded = ReadLate(network, examples) if long else network.encode(examples.texts, examples.seconds)
        logits = logits_of(network, module, encoded, np.arange(len(examples)), device)
    settled = Calibrated.read(model)
    return settled.decided(lambda: table_of(logits / settled.temperature, examples.labels, labels, Scale()), model)


def examples_of(model: str, data: DataSpec, labels: Labels, holding: Holding) -> Examples:
    """All rows of `data` by the labels that a model knows. Raises DataError where they do not fit."""
    table, about = held_out_table(data, holding.form), read_task(model)
    known = replace(columns_like(data, about.get("columns") or {}, table), labels=labels.kind)
    like = labels.names if labels.kind != "number" else ()
    rows = rows_of(table, known, labelled=True, like=like, hold=holding.hold)
    notes, columns = list(rows.notes), rows.columns
    if columns is not None and not columns.notes:
        pair = f" and '{columns.second}'" if columns.second else ""
        of = f"(of {quoted(table.names)})"
        said = f"text from column '{columns.text}'{pair}, label from '{columns.label}' {of}, as in training"
        notes.insert(len(table.notes), said)
    say(notes)
    paired = about.get("pairs")
    if paired is not None and paired != (rows.seconds is not None):
        raise DataError(
            f"{rows.origin}: {'one text' if paired else 'two texts'} a row, but {model} was trained on "
            f"{'pairs' if paired else 'single texts'}; name data.text_column and data.second_text_column"
        )
    return encoded_rows(rows, labels, rows.names)


def load_predictor(model: str, asked: Asked) -> Predictor:
    """What a model folder makes of texts.

    A pair is written "first ||| second", or as a JSON list of two strings. Of several classes, those with a
    probability of more than half are joined by commas; of numbers there is no probability. A text for fill-mask holds
    [MASK] (or the model's own mask token) once or more.
    """
    if is_baseline(model):
        return _of_baseline(model, asked)
    if task_of(model) == "fill-mask":
        return _of_mask(model, asked)
    device = pick_device()
    network, module, labels = load_classifier(model, device)
    paired, settled = read_task(model).get("pairs"), settled_for(model, labels, asked)

    def says(inputs: Sequence[str]) -> list[Prediction | str]:
        texts, seconds = _pairs(inputs, paired, model)
        encoded = network.encode(texts, seconds)
        at_once = asked.batch_size or len(texts)
        pieces = [np.arange(start, min(start + at_once, len(texts))) for start in range(0, len(texts), at_once)]
        with torch.inference_mode():
            logits_NC = torch.cat([logits_of(network, module, encoded, rows, device) for rows in pieces])
        return [*predictions(inputs, said_by(logits_NC, labels, settled), labels, asked, settled)]

    return _predictor(says, labels, model, paired)


def _of_baseline(model: str, asked: Asked) -> Predictor:
    baseline, paired = Baseline.read(model), read_task(model).get("pairs")
    settled = settled_for(model, baseline.labels, asked)

    def says(inputs: Sequence[str]) -> list[Prediction | str]:
        texts, seconds = _pairs(inputs, paired, model)
        read = joined(Examples(tuple(texts), tuple(seconds) if seconds else None, np.zeros(len(texts))))
        said = of_baseline(baseline.says(read), baseline.labels, settled)
        return [*predictions(inputs, said, baseline.labels, asked, settled)]

    return _predictor(says, baseline.labels, model, paired)


def _predictor(says: Says, labels: Labels, model: str, paired: bool | None) -> Predictor:
    number, several = labels.kind == "number", labels.kind == "classes"
    found, reads = _finder(model, paired), _reader(model)
    return Predictor(
        says, found, _joined, numeric=number, several=several, probable=not number, paired=paired, reads=reads
    )


def _of_mask(model: str, asked: Asked) -> Predictor:
    device = pick_device()
    encoder = load_encoder(model, _context(model))
    head = masked_model(encoder)
    module = _ready(head, model, device)

    def filled(text: str) -> Prediction | str:
        try:
            return _filled(head, module, text, device, asked.told)
        except DataError as error:
            return str(error)

    def says(inputs: Sequence[str]) -> list[Prediction | str]:
        with torch.inference_mode():
            return [filled(text) for text in inputs]

    return Predictor(says, _finder(model, False), _joined, at_once=AT_ONCE // 10, paired=False)


def _finder(model: str, paired: bool | None) -> FindColumns:
    """Which columns of a table are the text and, of a model of pairs, the second; guessed as in training."""

    def find(table: Table, data: DataSpec) -> tuple[str, ...]:
        columns = find_columns(table, data, labelled=False)
        if paired and columns.second is None and len(table.names) == 1 and _holds_pairs(table, columns.text):
            return (columns.text,)
        if paired and columns.second is None:
            raise DataError(
                f"{table.origin}: one text a row, but {model} was trained on pairs; name --text-column and "
                "--second-text-column"
            )
        return (columns.text,) if paired is False or columns.second is None else (columns.text, columns.second)

    return find


def _holds_pairs(table: Table, name: str) -> bool:
    """Whether the first text of a column is a pair, as one writes it by hand."""
    first = next((str(value) for value in table.values(name) if value is not None and str(value).strip()), "")
    return _pair(first) is not None


def _reader(model: str) -> Reads:
    """Tables in forms of labelled texts alone, where they have the texts in the columns of training."""
    wanted = input_columns_of(model)

    def reads(path: Path, reading: Reading) -> Table | None:
        try:
            if path.is_dir():
                table = parallel_texts(path, reading.encoding) or class_files(path, reading.encoding)
            else:
                table = read_table(path, reading) if kind_of(path) == ".txt" else lines_of(path, reading)
        except DataError:  # lines of texts, each with as many commas as it likes
            return None
        there = table is not None and wanted and all(name in table.names for name in wanted)
        return table if there else None

    return reads


def _joined(values: Sequence[object], _folder: Path) -> str:
    """A row's text, or its pair as a JSON list; "" where one is missing."""
    texts = ["" if value is None else str(value) for value in values]
    if not all(text.strip() for text in texts):
        return ""
    return texts[0] if len(texts) == 1 else json.dumps(texts, ensure_ascii=False)


def load_classifier(model: str, device: torch.device) -> tuple[Network, nn.Module, Labels]:
    """The network of a folder or a hub id with its weights, in evaluation, and what its labels are."""
    if is_small(model):
        task = read_task(model)
        labels = Labels.recorded(task)
        network = load_network(model, labels, Scale(), pairs=bool(task.get("pairs")))
        return network, network.build(0).to(device).eval(), labels
    encoder = load_encoder(model, _context(model))
    labels = _labels(model, encoder)
    head = classifier(encoder, labels, Scale())
    return head, _ready(head, model, device), labels


def _context(model: str) -> int | None:
    context = read_task(model).get("context")
    return int(context) if context else None


def _labels(model: str, encoder: Encoder) -> Labels:
    """What the folder's labels are, by what it was exported with, else by its configuration."""
    task = read_task(model)
    if "names" in task:
        return Labels.recorded(task)
    config = encoder.config
    if not any(str(name).endswith("ForSequenceClassification") for name in config.architectures or []):
        raise PlanError(f"{model}: no classifier ({', '.join(config.architectures or ['no architecture named'])})")
    kind = kind_of_problem(getattr(config, "problem_type", None), config.num_labels)
    if kind == "number":
        return Labels("number")
    return Labels(kind, tuple(str(name) for _, name in sorted(config.id2label.items())))


def _ready(head: Head, model: str, device: torch.device) -> nn.Module:
    """The folder's own weights, in evaluation. Raises PlanError where some would have to be made up."""
    if head.fresh:
        raise PlanError(
            f"{model}: the weights of its head are missing (such as {head.fresh[0]}), so it can say nothing"
        )
    module: nn.Module = head.model.to(device).eval()
    return module


def _pairs(inputs: Sequence[str], paired: bool | None, model: str) -> tuple[list[str], list[str] | None]:
    """The texts and, of pairs, their seconds. Raises DataError for an input that is the other kind."""
    if paired is False:
        return list(inputs), None
    split = [_pair(text) for text in inputs]
    if paired is None and not all(split):
        return list(inputs), None
    for text, parts in zip(inputs, split, strict=True):
        if parts is None:
            raise DataError(
                f"{text!r}: {model} was trained on pairs of texts; write 'first {PAIR} second', or a JSON list of two "
                "strings"
            )
        if paired and not all(part.strip() for part in parts):
            raise DataError(f"{text!r}: one of the two texts is empty, and {model} was trained on pairs of texts")
    return [parts[0] for parts in split if parts], [parts[1] for parts in split if parts]


def _pair(text: str) -> tuple[str, str] | None:
    if text.lstrip().startswith("["):
        try:
            parts = json.loads(text)
        except ValueError:
            parts = None
        if isinstance(parts, list) and len(parts) == 2 and all(isinstance(part, str) for part in parts):
            return parts[0], parts[1]
    first, mark, second = text.partition(PAIR)
    return (first.strip(), second.strip()) if mark else None


def _filled(head: Head, module: nn.Module, text: str, device: torch.device, told: int) -> Prediction:
    """A text with its hidden words filled in; the probability is that of all of them, each by itself."""
    encoder = head.encoder
    assert encoder.mask is not None, "masked_model has asked for it"
    token = encoder.tokenizer.id_to_token(encoder.mask) or MASK
    given = text.replace("[MASK]", token)
    encoding = encoder.tokenizer.encode(given)
    ids = encoding.ids[: encoder.context]
    places = [i for i, one in enumerate(ids) if one == encoder.mask]
    if not places:
        raise DataError(f"{text!r}: nothing to fill in; write [MASK] where a word is hidden, near the beginning")
    tokens = torch.tensor([ids], device=device)
    types = torch.tensor([encoding.type_ids[: len(ids)]], device=device)
    hidden = tokens == encoder.mask
    probabilities_NV = head.hidden_logits(module, tokens, torch.ones_like(hidden), types, places_of(hidden, None))
    probabilities_NV = probabilities_NV.float().softmax(-1)
    best = probabilities_NV.topk(min(told, probabilities_NV.shape[1]))
    words = [encoder.tokenizer.decode([i]).strip() for i in best.indices[:, 0].tolist()]
    output = given
    for word in words:
        output = output.replace(token, word, 1)
    others = {}
    if len(places) == 1:
        guesses = [encoder.tokenizer.decode([i]).strip() for i in best.indices[0].tolist()]
        others = dict(zip(guesses, best.values[0].tolist(), strict=True))
    return Prediction(text, output, float(best.values[:, 0].prod()), others)
