"""The verbs for a finished model. No logic: options in, a call of the api, something to read out."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

import typer

from multistep import completing
from multistep.cli.options import Device, Json, print_json, require

ModelFolder = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A model folder, or a run directory, whose model is used.", autocompletion=completing.runs
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option(help="What stands between the columns of a table: one character, or tab, comma, semicolon."),
]
Header = Annotated[
    bool | None, typer.Option("--header/--no-header", help="Whether the first row of a table names its columns.")
]
Encoding = Annotated[str | None, typer.Option(help="The encoding of text files, such as cp1252.")]
Root = Annotated[str | None, typer.Option(help="The folder that paths in a table are relative to.")]
Temperature = Annotated[float, typer.Option(help="How freely tokens are drawn; 0 always takes the likeliest.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="The random seed with which tokens are drawn.")]


def evaluate(
    model: ModelFolder,
    data: Annotated[str, typer.Option(help="The data to score the model on: a file, a folder, or a data set id.")],
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="A metric by its name; may be given several times. Without it: all.",
            autocompletion=completing.metrics,
        ),
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="The column that holds the text.")] = None,
    label_column: Annotated[str | None, typer.Option(help="The column that holds the label.")] = None,
    path_column: Annotated[str | None, typer.Option(help="The column that names image or audio files.")] = None,
    delimiter: Delimiter = None,
    header: Header = None,
    encoding: Encoding = None,
    root: Root = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Score a model on data, each metric with its 95% interval."""
    from multistep.api import evaluate as evaluate_model
    from multistep.core.values.plan import DataSpec

    columns: Any = {"text_column": text_column, "label_column": label_column, "path_column": path_column}
    spec = DataSpec(source=data, **columns, delimiter=delimiter, header=header, encoding=encoding, root=root)
    scores = evaluate_model(model, spec, metric=metric or None, device=device)
    if as_json:
        print_json(scores)
        return
    from multistep.report.check import print_scores

    print_scores(scores)


def predict(
    model: ModelFolder,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[INPUT]...",
            help="What to predict: tables, folders, image or audio files, texts or prompts; - for standard input.",
        ),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--input", help="A table or a folder; the same as naming it without --input.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(help="Where to write the rows with their predictions: a .csv, .tsv, .jsonl or .parquet file."),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="How many classes to give for each input, with their probabilities.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="How many inputs go through the model at once.")] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="The probability above which a label, or the second of two classes, is predicted."
        ),
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="The column that holds the text or the prompt.")] = None,
    second_text_column: Annotated[str | None, typer.Option(help="The column of the second text of a pair.")] = None,
    path_column: Annotated[str | None, typer.Option(help="The column that names image or audio files.")] = None,
    delimiter: Delimiter = None,
    header: Header = None,
    encoding: Encoding = None,
    root: Root = None,
    tokens: Annotated[int, typer.Option(min=1, help="The longest answer to a prompt, in tokens.")] = 256,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Predict classes, transcripts or answers. Texts, images and sounds are given here, in tables or in folders."""
    from multistep import api
    from multistep.report.bar import progress_bar
    from multistep.report.check import print_predictions
    from multistep.tasks.inputs import holds_rows

    given = [*(inputs or ()), *([source] if source else ())]
    require(bool(given), "name something to predict: a table, a folder, files, texts, or - for standard input")
    how: Any = {"top_k": top_k, "batch_size": batch_size, "threshold": threshold, "tokens": tokens, "device": device}
    columns: Any = {"text_column": text_column, "second_text_column": second_text_column, "path_column": path_column}
    reading: Any = {"delimiter": delimiter, "header": header, "encoding": encoding, "root": root}
    if output is None and not any(map(holds_rows, given)):
        found = api.predict(model, given, **how)
        if as_json:
            print_json({"model": model, "predictions": found})
        else:
            print_predictions(found, top_k)
        return
    require(not as_json or output is not None, "--json tells what was written; name a file with --output")
    # A bar would stand between the answers that a terminal shows.
    show = partial(print_predictions, top_k=top_k) if output is None and sys.stdout.isatty() else None
    with progress_bar("rows", shown=show is None) as on_progress:
        done = api.predict_file(model, given, output, **columns, **reading, on_progress=on_progress, show=show, **how)
    if as_json:
        print_json({"model": model, "input": given[0] if len(given) == 1 else given, **asdict(done)})
    elif output is not None:
        print(f"{done.rows:,} rows written to {output}", file=sys.stderr)


def serve(
    model: ModelFolder,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes any that is free.")
    ] = 8000,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="The probability above which a label, or the second of two classes, is predicted."
        ),
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="The longest answer to a prompt, in tokens.")] = 256,
    limit_mb: Annotated[float, typer.Option(min=0.001, help="The largest request, in megabytes.")] = 32.0,
    device: Device = None,
) -> None:
    """Serve a model over HTTP until Ctrl-C. POST /predict answers, and /docs describes it."""
    from multistep.api import serve as serve_model

    serve_model(model, host=host, port=port, threshold=threshold, tokens=tokens, limit_mb=limit_mb, device=device)


def generate(
    model: ModelFolder,
    prompt: Annotated[str, typer.Option(help="The text to go on from.")] = "",
    tokens: Annotated[int, typer.Option(min=1, help="How many tokens to write.")] = 200,
    temperature: Temperature = 0.8,
    seed: Seed = 0,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Write text with a model."""
    from multistep.api import generate as generate_text

    _require_temperature(temperature)
    text = generate_text(model, prompt, tokens=tokens, temperature=temperature, seed=seed, device=device)
    if as_json:
        print_json({"prompt": prompt, "text": text})
    else:
        print(text)


def chat(
    model: ModelFolder,
    system: Annotated[
        str | None,
        typer.Option(help="The instructions that the model gets before the conversation begins (the system prompt)."),
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="The longest answer, in tokens.")] = 512,
    temperature: Temperature = 0.7,
    seed: Seed = 0,
    device: Device = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for each turn and its answer.")
    ] = False,
) -> None:
    """Talk with a model. /reset starts over, /quit or Ctrl-D ends; from a pipe, each line is one turn."""
    from multistep.api import chat as talk_with

    _require_temperature(temperature)
    talk = talk_with(model, system=system, tokens=tokens, temperature=temperature, seed=seed, device=device)
    from multistep.tasks.chat.terminal import converse  # takes seconds, and comes after what may be wrong

    converse(talk, as_json=as_json)


def export(
    model: ModelFolder,
    folder: Annotated[
        str | None,
        typer.Argument(help="A new or empty folder to write to; with --to RUN/FORMAT, where none is named."),
    ] = None,
    output: Annotated[str | None, typer.Option(help="The folder, said as an option.")] = None,
    to: Annotated[
        str | None,
        typer.Option(
            help="Another format: onnx, tensorflow or elasticsearch. Without it, the model folder is copied as it is.",
            autocompletion=completing.formats,
        ),
    ] = None,
    quantize: Annotated[
        bool, typer.Option("--quantize", help="Also write an ONNX graph with weights of 8 bits, and score it.")
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(help="Labelled data to check and score by, where the run's validation split is not to be had."),
    ] = None,
    hub_model_id: Annotated[
        str | None, typer.Option(help="Of elasticsearch: what the model is called there, NAME or OWNER/NAME.")
    ] = None,
    task_type: Annotated[
        str | None,
        typer.Option(help="Of elasticsearch: its task where there are several, such as text_embedding of fill-mask."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Take a model out of its run: as it is, or for another runtime, checked against it."""
    from multistep import api

    require(folder is None or output is None, "the folder is named twice; leave --output out")
    folder = folder or output
    if to is None:
        require(folder is not None, "name the folder that the model is copied to, or a format with --to onnx")
        require(not quantize and data is None, "--quantize and --data are for another format; add --to onnx")
        require(not hub_model_id and not task_type, "--hub-model-id and --task-type are for --to elasticsearch; add it")
        copied = api.export(model, str(folder))
        print_json({"model": model, "folder": str(copied)}) if as_json else print(copied)
        return
    more: dict[str, Any] = {"hub_model_id": hub_model_id, "task_type": task_type}
    found = api.export_to(model, folder, to=to, quantize=quantize, data=data, **more)
    if as_json:
        print_json({"model": model, **asdict(found), "folder": str(found.folder)})
        return
    from multistep.report.check import print_export

    print_export(found)


def _require_temperature(temperature: float) -> None:
    require(0 <= temperature < math.inf, f"--temperature is {temperature:g}; allowed: 0 or more")


VERBS = (evaluate, predict, serve, generate, chat, export)
