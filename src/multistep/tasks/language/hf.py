"""The small text nets, and what they read, as models and tokenizers of transformers; `multistep.hf` registers them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizer
from transformers.modeling_outputs import SequenceClassifierOutput

from multistep.tasks.folders import write_task
from multistep.tasks.labelled.labels import PROBLEMS
from multistep.tasks.language.nets import (
    BAG,
    CNN,
    NOTHING,
    UNKNOWN,
    Bag,
    Reader,
    TextNet,
    TextNetConfig,
    initialise,
    make,
    vocabulary_in,
)
from multistep.tasks.language.small import MODEL_TYPE, TASK, VOCABULARY

DEFAULT_NET = {"kind": BAG, "outputs": 2, "vocabulary": UNKNOWN + 1, "short": 0, "width": 8}
PAD, OTHER = "[PAD]", "[UNK]"  # no word of a text is one of these: marks are words by themselves


class MultistepTextConfig(PreTrainedConfig):
    """The sizes of a small net, as `TextNetConfig` has them, and its classes."""

    model_type = MODEL_TYPE

    def __init__(self, net: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.net = {**DEFAULT_NET, **(net or {}), "outputs": self.num_labels}
        self.vocab_size, self.pad_token_id = self.net["vocabulary"], NOTHING


class MultistepForSequenceClassification(PreTrainedModel):
    """A bag of n-grams or a convolutional net: ids as its tokenizer makes them -> logits."""

    config_class = MultistepTextConfig
    main_input_name = "input_ids"

    def __init__(self, config: MultistepTextConfig) -> None:
        super().__init__(config)
        self.net = make(TextNetConfig(**config.net))
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput | tuple[Tensor, ...]:
        """(B, ids) -> logits (B, outputs); `token_type_ids` are 1 in the second text of a pair.

        With labels also the loss: cross-entropy of class numbers (B), binary cross-entropy of several (B, outputs),
        the mean squared error of numbers (B).
        """
        ids = input_ids if attention_mask is None else input_ids * attention_mask
        logits = self.net(ids, torch.zeros_like(ids) if token_type_ids is None else token_type_ids)
        loss = self._loss(logits, labels) if labels is not None else None
        if return_dict is False:
            return (logits,) if loss is None else (loss, logits)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        kind: Any = self.config.problem_type
        if kind == PROBLEMS["number"]:
            return nn.functional.mse_loss(logits.reshape(-1), labels.reshape(-1).to(logits))
        if kind == PROBLEMS["classes"]:
            return nn.functional.binary_cross_entropy_with_logits(logits, labels.to(logits))
        return nn.functional.cross_entropy(logits, labels)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Write a folder that `multistep` reads too, once the tokenizer is saved beside it."""
        super().save_pretrained(save_directory, **kwargs)
        config: Any = self.config
        kind = next((name for name, problem in PROBLEMS.items() if problem == config.problem_type), "class")
        names = [] if kind == "number" else [config.id2label[i] for i in range(config.num_labels)]
        about = {"labels": kind, "names": names, "pairs": bool(config.net.get("pairs")), "net": config.net}
        write_task(Path(save_directory), TASK, about)

    def _init_weights(self, module: nn.Module) -> None:
        """First weights as training from nothing has them: of what a folder does not bring."""
        if isinstance(module, TextNet):
            with torch.no_grad():
                initialise(module, 0)
                if isinstance(module, Bag):
                    module.weights.fill_(1.0)


class MultistepTextTokenizer(PreTrainedTokenizer):
    """Texts -> the ids of a small net: the n-grams of a bag, each once, or the words of a convolutional net in order.

    Of a pair the ids of the first text come first; `token_type_ids` tell them apart. More than the net reads of a text
    is cut.
    """

    vocab_files_names = {"vocab_file": VOCABULARY}  # noqa: RUF012
    model_input_names = ["input_ids", "token_type_ids", "attention_mask"]  # noqa: RUF012

    def __init__(self, vocab_file: str | None = None, net: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self._config = TextNetConfig(**{**DEFAULT_NET, **(net or {})})
        self._reader = Reader(self._config, vocabulary_in(Path(vocab_file)) if vocab_file else ())
        kwargs = {**kwargs, "pad_token": PAD, "unk_token": OTHER}
        super().__init__(net=net or DEFAULT_NET, **kwargs)

    @property
    def vocab_size(self) -> int:
        return UNKNOWN + 1 + len(self._reader.vocabulary)

    def get_vocab(self) -> dict[str, int]:
        return {PAD: NOTHING, OTHER: UNKNOWN, **{key: i for i, key in enumerate(self._reader.vocabulary, UNKNOWN + 1)}}

    def tokenize(self, text: str, *_: Any, **__: Any) -> list[str]:
        """The n-grams or words that are known, [UNK] for others; a text is taken as it is, no mark in it is special."""
        return [self._convert_id_to_token(i) for i in self._reader.ids(text)[: self._config.longest]]

    def _convert_token_to_id(self, token: str) -> int:
        return self._reader.id_of(token)

    def _convert_id_to_token(self, index: int) -> str:
        if index <= UNKNOWN:
            return (PAD, OTHER)[index]
        return self._reader.vocabulary[index - UNKNOWN - 1]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return ("" if self._config.kind == CNN and self._config.spaceless else " ").join(tokens)

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        return [*token_ids_0, *(token_ids_1 or ())]

    def create_token_type_ids_from_sequences(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        return [0] * len(token_ids_0) + [1] * len(token_ids_1 or ())

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        path = Path(save_directory) / (f"{filename_prefix}-{VOCABULARY}" if filename_prefix else VOCABULARY)
        path.write_bytes("".join(f"{key}\n" for key in self._reader.vocabulary).encode())
        return (str(path),)
