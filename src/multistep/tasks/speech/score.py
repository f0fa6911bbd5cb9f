"""What a recogniser hears in utterances, and how far that is from what was said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn

from multistep.core.evidence.metric import Evaluation, Floats
from multistep.errors import DataError
from multistep.tasks.fitting import brought, that_fit
from multistep.tasks.sending import sent
from multistep.tasks.speech.corpus import Clips, Ints
from multistep.tasks.speech.decode import best_path
from multistep.tasks.speech.models import Maker

MOST_UTTERANCES, MOST_FRAMES = 64, 8_000_000  # of a batch; frames times their width
UNKNOWN_NATS = 13.9  # for a character that the alphabet lacks: a million others could have been meant
ENOUGH_BLOCKS = 10  # speakers, below which resampling them would say little


@dataclass(frozen=True)
class Heard:
    """Transcripts, and the nats of what was said under the model; one each an utterance."""

    texts: tuple[str, ...]
    loss: Floats


def summed_loss(logits_BTV: Tensor, lengths_B: Tensor, labels: Tensor, counts_B: Tensor, blank: int) -> Tensor:
    """Nats of each transcript, summed over all alignments (shape: B), on the logits' device.

    Labels and lengths stay on the CPU. Transcripts that do not fit were left out when they were read, so an infinite
    loss is a fault that must be seen, and is not set to zero.
    """
    log_probs_TBV = logits_BTV.float().log_softmax(-1).transpose(0, 1)
    device = log_probs_TBV.device
    if device.type == "mps":  # has no CTC
        log_probs_TBV = log_probs_TBV.cpu()
    labels = sent(labels, log_probs_TBV.device)
    losses = F.ctc_loss(log_probs_TBV, labels, lengths_B, counts_B, blank=blank, reduction="none")
    return losses.to(device)


def listen(maker: Maker, model: nn.Module, clips: Clips, indices: Ints, device: torch.device, *, search: bool) -> Heard:
    """What the model makes of some utterances: by beam search, or by the best path alone."""
    texts = [""] * len(indices)

    def scored(places: Ints) -> tuple[Tensor, Tensor, Tensor]:
        chosen = indices[places]
        frames, lengths = clips.gather(chosen)
        logits_BTV, steps = maker.logits(model, sent(frames, device).float(), lengths)
        labels, counts = clips.padded_labels(chosen)
        loss_B = summed_loss(logits_BTV, steps, labels, counts, maker.alphabet.blank)
        return loss_B, logits_BTV.float().log_softmax(-1), steps

    def write(places: Ints, log_probs_BTV: Tensor, steps: Tensor) -> None:
        for place, row, length in zip(places, log_probs_BTV.cpu().numpy(), steps.tolist(), strict=True):
            own = row[:length]
            path = maker.decoder(own) if search else best_path(own, maker.alphabet)
            texts[place] = maker.alphabet.decode(path)

    batches: list[Ints] = []
    losses: list[Tensor] = []
    waiting: tuple[Ints, Tensor, Tensor] | None = None
    for places, (loss_B, log_probs_BTV, steps) in that_fit(
        heard_together(clips.lengths[indices], clips.frames.shape[1], alone=maker.alone), scored
    ):
        # The device has its next batch already, while letters are searched for in the one before.
        if waiting is not None:
            write(*waiting)
        waiting = places, log_probs_BTV, steps
        batches.append(places)
        losses.append(loss_B)
    if waiting is not None:
        write(*waiting)
    loss = np.zeros(len(indices))
    for places, each in zip(batches, brought(losses), strict=True):
        loss[places] = each
    loss += UNKNOWN_NATS * clips.unknown[indices]
    return Heard(tuple(texts), loss)


def heard_together(lengths: Ints, width: int, *, alone: bool) -> list[NDArray[np.intp]]:
    """Places of utterances to be heard together: of about one length, within memory."""
    order = np.argsort(-lengths, kind="stable")
    if alone:
        return list(order[:, None])
    found, at = [], 0
    while at < len(order):
        size = max(1, min(MOST_UTTERANCES, MOST_FRAMES // int(lengths[order[at]] * width)))
        found.append(order[at : at + size])
        at += size
    return found


def table_of(clips: Clips, indices: Ints, texts: Sequence[str], loss: Floats) -> Evaluation:
    """The evaluation of transcripts, one row an utterance; a block is a speaker where at least ten are known.

    `heard_characters` is the length of what came out: all zeros while nothing but blanks has been learnt, when word and
    character errors stand still at all there are, whatever the loss does.
    """
    said = [clips.texts[i] for i in indices]
    columns = {
        "errors": word_errors(said, texts),
        "words": [len(one.split()) for one in said],
        "character_errors": character_errors(said, texts),
        "characters": [len(one) for one in said],
        "heard_characters": [len(one) for one in texts],
        "loss": loss,
        "count": [len(one) for one in said],
        "block": _blocks([clips.speakers[i] for i in indices]),
    }
    return Evaluation({name: np.asarray(column, np.float64) for name, column in columns.items()})


def _blocks(speakers: Sequence[str | None]) -> Sequence[int]:
    known = {speaker: i for i, speaker in enumerate(dict.fromkeys(speakers))}
    if None in known or len(known) < ENOUGH_BLOCKS:
        return range(len(speakers))
    return [known[speaker] for speaker in speakers]


def word_errors(said: Sequence[str], heard: Sequence[str]) -> list[int]:
    """The words of each utterance that were put in, left out, or taken for others, as jiwer counts them."""
    return _errors(_jiwer().process_words(list(said), list(heard)))


def character_errors(said: Sequence[str], heard: Sequence[str]) -> list[int]:
    """The same of characters, spaces too."""
    return _errors(_jiwer().process_characters(list(said), list(heard)))


def _errors(output: Any) -> list[int]:
    """jiwer's alignments, of which it tells the totals alone, counted by utterance."""
    return [
        sum(
            max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
            for chunk in chunks
            if chunk.type != "equal"
        )
        for chunks in output.alignments
    ]


def _jiwer() -> Any:
    try:
        import jiwer
    except Exception as error:
        raise DataError(
            'scoring speech needs the package jiwer; install it with `pip install "multistep[speech]"`'
        ) from error
    return jiwer
