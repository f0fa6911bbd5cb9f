"""The verbs for a finished model: a run's, or a model folder.

Their keyword `device` is that of `train`: where this call computes ("cpu", "cuda:1"); without it the one that is found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multistep.core.values.plan import DataSpec
from multistep.errors import PlanError
from multistep.interface.device import on_device

if TYPE_CHECKING:
    from multistep.tasks.chat.talk import Talk
    from multistep.tasks.predicting import OnProgress, PredictedFile, Show


def evaluate(
    model: str | Path,
    data: Any,
    *,
    metric: str | Sequence[str] | Callable[..., float] | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Score a model folder, or what a run ships, on data: every metric with its 95% interval, as plain values.

    Args
        model: a run directory, or a model folder.
        data: what `train` takes as such: files, or objects in memory; of a module of your own what it takes for
            validation.
        metric: one metric, or several; without it all that apply, but for those that need answers written.
        text_column, label_column: guessed where that is obvious.
        device: as in `train`.

    Returns
        A dict: `scores` has a dict for each metric with `score`, `low`, `high`, `n`, `unit` and `goal`; `examples` is
        their number; of files that come in splits, `split` says which was scored; `notes` tell of rows left out,
        columns guessed, and data that the run was trained on.

    Raises
        PlanError: no model there, or a metric that there is not or that cannot be measured here.
        DataError: data that cannot be read.

    >>> evaluate("RUN", "more.csv", metric="macro_f1")["scores"]["macro_f1"]["score"]  # doctest: +SKIP
    0.871
    """
    from multistep.interface.using import evaluate as score

    with on_device(device):
        return score(model, data, metric=metric, text_column=text_column, label_column=label_column)


def predict(
    model: str | Path,
    inputs: Any,
    *,
    top_k: int | None = None,
    batch_size: int | None = None,
    threshold: float | None = None,
    tokens: int = 256,
    text_column: str | None = None,
    second_text_column: str | None = None,
    path_column: str | None = None,
    device: str | None = None,
) -> Any:
    """What a run or a model folder says of inputs: a list of predictions in their order; of a DataFrame, the frame with
    its answers as more columns.

    Args
        model: a run directory, or a model folder.
        inputs: one of these or a list of them: a text, a pair of texts or a prompt; the path of an image or audio file,
            of a folder of such or of a table; a uint8 image (H, W) or (H, W, C), or one of Pillow's; a sound as
            {"array": samples, "sampling_rate": hertz}; turns of a conversation. Or a DataFrame of pandas or polars.
        top_k: how many of the likeliest classes `others` holds (at least 5).
        batch_size: how many inputs go through the model at once; without it as many as fit.
        threshold: the probability from which a label is said, 0 to 1; docs/how-to/predict.md.
        tokens: the most that an answer to a prompt has.
        text_column, second_text_column, path_column: of a DataFrame, where training had others.
        device: as in `train`.

    Returns
        A list of predictions in the order of the inputs, each with `input`, `output`, `probability` and `others`; of a
        DataFrame the frame with the answers as more columns.

    Raises
        PlanError: no model there, or a keyword that does not fit it.
        DataError: inputs that cannot be read.

    >>> predict("RUN", ["a joy from start to finish"])[0].output  # doctest: +SKIP
    'positive'
    """
    from multistep.interface.using import predict as predict_inputs
    from multistep.tasks.prediction import Asked

    asked = Asked(tokens, top_k, batch_size, threshold)
    columns = DataSpec(text_column=text_column, second_text_column=second_text_column, path_column=path_column)
    with on_device(device):
        return predict_inputs(model, inputs, asked=asked, columns=columns)


def predict_file(
    model: str | Path,
    data: str | Path | DataSpec | Sequence[str | Path],
    output: str | Path | None = None,
    *,
    top_k: int | None = None,
    batch_size: int | None = None,
    threshold: float | None = None,
    tokens: int = 256,
    text_column: str | None = None,
    second_text_column: str | None = None,
    path_column: str | None = None,
    delimiter: str | None = None,
    header: bool | None = None,
    encoding: str | None = None,
    root: str | None = None,
    on_progress: OnProgress = lambda rows, share: None,
    show: Show | None = None,
    device: str | None = None,
) -> PredictedFile:
    """Write what a model folder says of each row of a table, behind the row's own columns; however long the table is.

    Args
        model: a run directory, or a model folder.
        data: a table (.csv, .tsv, .jsonl, .parquet, .txt with a text a line), a folder of images, sounds or texts, "-"
            for standard input, or several of these; a DataSpec may name their columns.
        output: a .csv, .tsv, .jsonl or .parquet file, all but the last also with .gz or .zst behind it; None for JSON
            lines on standard output, or for `show`.
        on_progress: called with the rows done and their share of all, where that is known.
        show: called with the predictions of some rows at a time, instead of writing them.
        delimiter, header, encoding, root: how tables are read, as in a plan's data; found in the files, or else those
            of training, where they are None.
        top_k, batch_size, threshold, tokens, text_column, second_text_column, path_column, device: as in `predict`.

    Returns
        The number of `rows`, of those `without` an answer, and the `output`.

    Raises
        PlanError: no model there, or an output that cannot be written.
        DataError: data that cannot be read.
    """
    from multistep.tasks import predict_file as predict_rows
    from multistep.tasks.prediction import Asked

    named = DataSpec(
        text_column=text_column,
        second_text_column=second_text_column,
        path_column=path_column,
        delimiter=delimiter,
        header=header,
        encoding=encoding,
        root=root,
    )
    spec = data if isinstance(data, DataSpec) else named
    sources = [data.source] if isinstance(data, DataSpec) else [data] if isinstance(data, str | Path) else list(data)
    if not sources or not all(sources):
        raise PlanError("data: nothing to read; name one source")
    asked = Asked(tokens, top_k, batch_size, threshold)
    target = None if output is None else str(output)
    with on_device(device):
        return predict_rows(str(model), sources, target, spec, asked, on_progress, show)


def serve(
    model: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    tokens: int = 256,
    threshold: float | None = None,
    limit_mb: float = 32.0,
    device: str | None = None,
) -> None:
    """Answer requests over HTTP by what a run ships, or by a model folder, until Ctrl-C; docs/how-to/predict.md.

    Args
        model: a run directory, or a model folder.
        host, port: where to listen; port 0 is any that is free.
        tokens: the most that an answer to a prompt has.
        threshold: as in `predict`.
        limit_mb: how large a request may be, in millions of bytes.
        device: as in `train`.

    Raises
        PlanError: FastAPI or uvicorn is missing (`pip install "multistep[serve]"`), or the port is taken.
    """
    from multistep.tasks import serve as serve_model

    with on_device(device):
        serve_model(str(model), host=host, port=port, tokens=tokens, threshold=threshold, limit_mb=limit_mb)


def generate(
    model: str | Path,
    prompt: str,
    *,
    tokens: int = 200,
    temperature: float = 0.8,
    seed: int = 0,
    device: str | None = None,
) -> str:
    """The prompt and what the model writes after it; of a model that was trained on conversations its answer alone.

    Args
        model: a run directory, a model folder or a hub id.
        prompt: the text to go on from.
        tokens: how many are written at most.
        temperature: how freely they are drawn; 0 takes the likeliest.
        seed: with which they are drawn.
        device: as in `train`.

    Returns
        The text.

    Raises
        PlanError: no model there, or one that writes no text.
    """
    from multistep.tasks import generate_text

    with on_device(device):
        return generate_text(str(model), prompt, tokens=tokens, temperature=temperature, seed=seed)


def chat(
    model: str | Path,
    *,
    system: str | None = None,
    tokens: int = 512,
    temperature: float = 0.7,
    seed: int = 0,
    device: str | None = None,
) -> Talk:
    """A conversation with what a run came to, or with a model folder or hub id: `chat("RUN").say("Hello")` answers.

    A model that was not trained on conversations goes on with each text by itself, which is told.

    Args
        model: a run directory, a model folder or a hub id.
        system: instructions that come before the conversation.
        tokens: the most that an answer has.
        temperature, seed, device: as in `generate`.

    Returns
        The conversation; `say(text)` answers, `reset()` begins anew.

    Raises
        PlanError: no model there, or one that writes no text.
    """
    from multistep.tasks.folders import existing
    from multistep.tasks.notes import say
    from multistep.tasks.reach import Named, within_reach

    with on_device(device), within_reach([Named(existing(str(model)), "model")]):
        from multistep.tasks.chat.talk import Talk, load_writer

        writer = load_writer(str(model))
    if not writer.answers:
        say([f"{model}: was not trained on conversations; it goes on with what you write, each time anew"])
    elif not writer.chats:
        say([f"{model}: was trained on prompts and completions; it answers each line by itself"])
    return Talk(writer, system, temperature, tokens, seed)
