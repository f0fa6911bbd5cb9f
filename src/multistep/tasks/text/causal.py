"""Causal models of transformers: built for each trial, asked for losses, written as Hugging Face folders."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from multistep.backends.torch.adapters import Origin
from multistep.backends.torch.devices import pick_device
from multistep.backends.torch.recomputing import recompute
from multistep.backends.torch.weights import as_os_errors
from multistep.core.values.recipe import Recipe
from multistep.errors import PlanError
from multistep.tasks.hub import quietly
from multistep.tasks.machine import total_memory
from multistep.tasks.text.lean import head_rate
from multistep.tasks.text.nats import nats_in_all, nats_of_labels
from multistep.tasks.text.tokenizer import END_OF_TEXT, for_transformers, save_tokenizer

TRAINED_CONTEXT = "trained_context"  # a key of our own in config.json; how far a model can read is another matter
PROBED = 8  # tokens, of which a model is asked what it can do
# What a layer keeps of a token for its gradient, in widths and in widths of its feed-forward part: norms, rotations,
# projections. With the logits beside it 3.3 MB a token were measured for a Llama of 30 layers, 576 wide, and this says
# 2.5; a pass that holds too much is slower on a CPU, and halved on a GPU.
KEPT_OF_WIDTH, KEPT_OF_FEED_FORWARD = 20, 6
SHARE_OF_MEMORY = {"cpu": 1 / 12, "cuda": 1 / 3}  # that activations may take
MOST_ON_CPU = 2**31  # bytes; more tokens at once than fit in this bring no speed there


class TransformersMaker:
    """Any causal model that transformers has: of a local folder, of the hub, or an architecture from nothing."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        pretrained: bool,
        context: int | None,
        name: str,
        half: bool = False,
        published: bool = True,
    ) -> None:
        """`published`: others can have the same weights under that name, so that an adapter can be loaded onto them."""
        self._model, self._hub_tokenizer = model, tokenizer
        self.tokenizer = tokenizer.backend_tokenizer if hasattr(tokenizer, "backend_tokenizer") else tokenizer
        config = model.config.get_text_config()
        own = int(getattr(config, "max_position_embeddings", 0) or getattr(config, "n_positions", 0) or 1024)
        self.longest_context: int | None = own
        self.context = min(context or getattr(model.config, TRAINED_CONTEXT, None) or min(own, 512), own)
        self.vocabulary = int(config.vocab_size)
        table = model.get_input_embeddings().weight
        head = model.get_output_embeddings()
        self.looked_up = 0 if head is not None and head.weight is table else table.numel()
        end = getattr(tokenizer, "eos_token_id", None)
        self.end = int(end if end is not None else self.tokenizer.token_to_id(END_OF_TEXT) or 0)
        self.pretrained = pretrained
        source = name if published else None
        self.origin = Origin(source, share=self._shared, half=half) if pretrained else None
        self.own_dropout = max((module.p for module in _dropouts(model)), default=0.0)
        self.architecture = str(config.model_type)
        self.settings = tuple(
            name for name, there in (("dropout", _dropouts(model)), ("context", self.context < own)) if there
        )
        # Asked of the weights as they were loaded: adapters may hold them in bfloat16 later on.
        self._head_is_last, self.packs = self._has_head_last(), self._can_pack()
        self.description = f"{name} ({type(model).__name__}), context {self.context}, vocabulary {self.vocabulary:,}"

    @functools.cached_property
    def hub_tokenizer(self) -> Any:
        found = self._hub_tokenizer
        return found if hasattr(found, "save_pretrained") else for_transformers(found)

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self._model.parameters())

    def reads(self, context: int) -> int | None:
        return self.longest_context

    def _shared(self) -> nn.Module:
        """A module around the very weights that were loaded, for adapters, which leave them as they are."""
        module: nn.Module = copy.deepcopy(self._model, {id(p): p for p in self._model.parameters()})
        return module

    def build(self, seed: int) -> nn.Module:
        if self.pretrained:
            module: nn.Module = copy.deepcopy(self._model)
            return module.float()  # adapters may hold the shared ones in bfloat16
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            fresh: Any = type(self._model)(copy.deepcopy(self._model.config))
        fresh.head_rate = head_rate(fresh.get_output_embeddings().in_features)
        built: nn.Module = fresh
        return built

    def logits(self, model: nn.Module, tokens_BT: Tensor) -> Tensor:
        logits: Tensor = model(input_ids=tokens_BT, use_cache=False).logits
        return logits

    def token_nats(
        self,
        model: nn.Module,
        tokens_BT: Tensor,
        labels_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        label_smoothing: float = 0.0,
        count: int | None = None,
    ) -> Tensor:
        more = {} if positions_BT is None else {"position_ids": positions_BT}
        if not self._head_is_last:
            logits_BTV = model(input_ids=tokens_BT, use_cache=False, **more).logits
            return nats_of_labels(lambda logits: logits, logits_BTV, labels_BT, label_smoothing, count)
        whole: Any = model
        hidden_BTD = whole.base_model(input_ids=tokens_BT, use_cache=False, **more).last_hidden_state
        return nats_of_labels(whole.get_output_embeddings(), hidden_BTD, labels_BT, label_smoothing, count)

    def summed_nats(
        self,
        model: nn.Module,
        tokens_BT: Tensor,
        labels_BT: Tensor,
        *,
        count: int,
        positions_BT: Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        if not self._head_is_last:
            return self.token_nats(
                model, tokens_BT, labels_BT, positions_BT=positions_BT, label_smoothing=label_smoothing, count=count
            ).sum()
        more = {} if positions_BT is None else {"position_ids": positions_BT}
        whole: Any = model
        hidden_BTD = whole.base_model(input_ids=tokens_BT, use_cache=False, **more).last_hidden_state
        return nats_in_all(whole.get_output_embeddings(), hidden_BTD, labels_BT, label_smoothing, count)

    def _has_head_last(self) -> bool:
        """Whether logits are what the output layer makes of the body's last states: some models scale or cap them."""
        return self._alike(lambda model, tokens: model.get_output_embeddings()(model.base_model(tokens)[0]))

    def _can_pack(self) -> bool:
        """Asked of the model itself: those that know no positions, or look further than they say, do not."""
        cut = PROBED // 2
        positions = torch.arange(PROBED) % cut

        def apart(model: Any, tokens: Tensor) -> Tensor:
            both: Tensor = torch.cat([model(tokens[:, :cut]).logits, model(tokens[:, cut:]).logits], 1)
            return both

        return self._alike(apart, position_ids=positions[None].expand(2, -1))

    def _alike(self, other: Callable[[Any, Tensor], Tensor], **more: Tensor) -> bool:
        """Whether another way to logits of two short rows comes to the same as the model's own."""
        model, training = self._model, self._model.training
        tokens = torch.arange(2 * PROBED, device=model.device).view(2, PROBED) % self.vocabulary
        more = {name: tensor.to(model.device) for name, tensor in more.items()}
        model.eval()
        try:
            with torch.inference_mode():
                own = model(tokens, use_cache=False, **more).logits
                return torch.allclose(own, other(model, tokens), rtol=1e-3, atol=1e-4)
        except (TypeError, ValueError, AttributeError, RuntimeError):
            return False  # it has no such parts, or takes no positions
        finally:
            model.train(training)

    def configure(self, model: nn.Module, recipe: Recipe) -> None:
        places = _dropouts(model)
        if recipe.dropout and not places:
            raise PlanError(
                f"recipe.dropout is {recipe.dropout:g}, but {self.architecture} has no dropout; leave it out"
            )
        for module in places:
            module.p = recipe.dropout
        context = recipe.context or self.context
        if self.longest_context is not None and context > self.longest_context:
            raise PlanError(
                f"recipe.context is {context}, but this {self.architecture} reads at most {self.longest_context} "
                f"tokens; ask for {self.longest_context} or less"
            )
        # Where activations of a single row would not fit; beyond that, `backends.torch.fitting` finds what fits.
        if recipe.checkpointing == "auto" and context * self._bytes_per_token > _room():
            recompute(model)
        # Kept with the model, so that whoever scores its export reads as far as it was trained to.
        setattr(model.config, TRAINED_CONTEXT, context)

    def at_once(self, context: int) -> int:
        """How many rows of so many tokens a pass should hold in training, at least one."""
        return max(1, int(_room() / (context * self._bytes_per_token)))

    @property
    def _bytes_per_token(self) -> float:
        """That a pass keeps for the gradient, about."""
        config = self._model.config.get_text_config()
        width = int(getattr(config, "hidden_size", 0) or 1)
        feed_forward = getattr(config, "intermediate_size", None) or 4 * width
        layers = int(getattr(config, "num_hidden_layers", 0) or 1)
        return 4.0 * layers * (KEPT_OF_WIDTH * width + KEPT_OF_FEED_FORWARD * int(feed_forward))

    def write(self, model: nn.Module, folder: Path) -> None:
        with quietly(), as_os_errors():
            model.save_pretrained(folder)  # type: ignore[operator]
        if hasattr(self._hub_tokenizer, "save_pretrained"):
            self._hub_tokenizer.save_pretrained(folder)
        else:
            save_tokenizer(self._hub_tokenizer, folder, getattr(model.config, TRAINED_CONTEXT, self.context))


def _room() -> float:
    """Bytes for activations on the device that is trained on; by rule, so that the same machine does the same."""
    device = pick_device()
    room = SHARE_OF_MEMORY.get(device.type, SHARE_OF_MEMORY["cpu"]) * total_memory(device)
    return min(room, MOST_ON_CPU) if device.type == "cpu" else room


def _dropouts(model: nn.Module) -> list[nn.Dropout]:
    return [module for module in model.modules() if isinstance(module, nn.Dropout)]
