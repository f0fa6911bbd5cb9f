"""Adapters: little matrices beside frozen weights, through peft.

LoRA, arXiv 2106.09685; DoRA, 2402.09353; rank-stabilised, 2312.03732; on weights of four bits, 2305.14314. They are put
into the very module that a task built, so that a task needs to know nothing of them, and merged into its weights before
it is exported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from multistep.backends.torch.four_bits import in_full, quantise
from multistep.backends.torch.weights import as_os_errors
from multistep.core.values.recipe import AdapterKind, Recipe
from multistep.errors import PlanError, nearest

FOLDER = "adapter"  # of an exported model: what peft loads onto the base


@dataclass(frozen=True)
class Origin:
    """Where a model's pretrained weights are from: a folder or hub id (None: a module that the user gave).

    `fresh` names the parameters that they lack, a new head's, which are trained whole whatever is frozen. `share`
    makes a module around the weights themselves, for whoever does not write to them. `half` tells that they were
    published in bfloat16, so that they lose nothing by being held in it. `within` is where the published model hangs in
    the module that is trained, with a dot at its end; empty where it is that module. `frozen` names the parameters that
    the user's own module keeps as they are.
    """

    source: str | None
    fresh: tuple[str, ...] = ()
    share: Callable[[], nn.Module] | None = None
    half: bool = False
    within: str = ""
    frozen: tuple[str, ...] = ()


@dataclass(frozen=True)
class Adapter:
    """What a recipe says of adapters. `targets` are ends of module names, as peft reads them; none for all layers."""

    kind: AdapterKind
    rank: int
    alpha: float
    targets: tuple[str, ...] = ()

    @classmethod
    def of(cls, recipe: Recipe) -> Adapter | None:
        if recipe.adapter == "none":
            return None
        return cls(recipe.adapter, recipe.adapter_rank, recipe.alpha, recipe.adapter_targets)

    @classmethod
    def read(cls, saved: Mapping[str, Any] | None) -> Adapter | None:
        return None if saved is None else cls(**{**saved, "targets": tuple(saved["targets"])})

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def scale(self) -> float:
        """What the product of the two matrices is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.kind == "rslora" else self.rank)

    def grows_into(self, other: Adapter | None) -> bool:
        """Whether matrices of this rank, with zeros beside them, are the same function under another recipe."""
        if other is None or (self.kind, self.targets) != (other.kind, other.targets):
            return False
        return self.rank <= other.rank and math.isclose(self.scale, other.scale)


def inject(model: nn.Module, adapter: Adapter, origin: Origin, seed: int) -> None:
    """Put adapters beside the model's linear layers and freeze all else but what is `fresh`.

    The function is as before: one of each two matrices begins at zero, the other with bits that follow from the seed.
    Raises PlanError where peft is missing, or where no layer is named so.
    """
    peft = _peft()
    targets = _targets(model, adapter.targets, origin.fresh, origin.frozen)
    config = peft.LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        target_modules=targets,
        use_dora=adapter.kind == "dora",
        use_rslora=adapter.kind == "rslora",
    )
    if adapter.kind == "qlora":
        quantise(model, targets)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(config, model)
    for name in origin.fresh:
        model.get_parameter(name).requires_grad_(True)


def merge(model: nn.Module) -> nn.Module:
    """The model with its adapters added to the weights and its modules as they were; it is changed in place."""
    for parent, name, layer in list(_layers(model)):
        layer.base_layer = in_full(layer.base_layer)
        layer.merge()
        setattr(parent, name, layer.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config  # or the next adapter would count as a second one
    return model


def fixed_names(model: nn.Module) -> frozenset[str]:
    """The weights that adapters leave as they are, which nobody needs to save or to average."""
    return frozenset(name for name, p in model.named_parameters() if not p.requires_grad)


def hold_in_half(model: nn.Module, fixed: Set[str]) -> None:
    """Keep frozen matrices in bfloat16: half the memory, and the very numbers where they were published so."""
    for name, parameter in model.named_parameters():
        if name in fixed and parameter.ndim > 1 and parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.bfloat16)


def write_adapter(model: nn.Module, adapter: Adapter, origin: Origin, folder: Path) -> None:
    """Write what peft loads: PeftModel.from_pretrained(base, folder)."""
    from safetensors.torch import save_file

    peft = _peft()

    def published(name: str) -> str:
        return name.removeprefix(origin.within)

    folder.mkdir()
    config = peft.LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        target_modules=[published(name) for name in _targets(model, adapter.targets, origin.fresh, origin.frozen)],
        use_dora=adapter.kind == "dora",
        use_rslora=adapter.kind == "rslora",
        base_model_name_or_path=origin.source,
        inference_mode=True,
        modules_to_save=sorted({published(name.rpartition(".")[0]) for name in origin.fresh}) or None,
    )
    config.save_pretrained(str(folder))
    # A head by the name of lm_head is no embedding that has grown, for which peft would save it whole.
    tensors = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors |= {name: model.get_parameter(name) for name in origin.fresh}
    on_cpu = {f"base_model.model.{published(name)}": t.detach().cpu().contiguous() for name, t in tensors.items()}
    with as_os_errors():
        save_file(on_cpu, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise PlanError(
            "recipe.adapter needs the package peft; install it with pip install 'multistep[adapters]', or set "
            "recipe.adapter to none"
        ) from error
    return peft


def _layers(model: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    """Each layer with an adapter, where it hangs."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for path, module in model.named_modules():
        if isinstance(module, BaseTunerLayer):
            parent, _, name = path.rpartition(".")
            yield model.get_submodule(parent), name, module


def _targets(model: nn.Module, wanted: Sequence[str], fresh: Sequence[str], frozen: Sequence[str]) -> list[str]:
    """The full names of the linear layers that get an adapter: all but the head, or those whose names end so; none that
    a user froze.

    Not convolutions, though peft knows them: torch 2.13 crashed in a backward pass through a ResNet that had them.
    """
    asked = getattr(model, "get_output_embeddings", lambda: None)()
    whole = {name.rpartition(".")[0] for name in fresh}
    names = [
        path.removesuffix(".base_layer")
        for path, module in model.named_modules()
        if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
        and module is not asked
        and path not in whole
        and ".lora_" not in path
        and f"{path}.weight" not in frozen
    ]
    if not names:
        raise PlanError(
            "recipe.adapter: this model has no linear layer beside its head that could get one; set it to none"
        )
    for end in wanted:
        if not any(name == end or name.endswith(f".{end}") for name in names):
            ends = sorted({name.rpartition(".")[2] for name in names})
            raise PlanError(
                f"recipe.adapter_targets: no linear layer is named '{end}'; there are {', '.join(ends)}."
                f"{nearest(end, ends)}"
            )
    if not wanted:
        return names
    return [name for name in names if any(name == end or name.endswith(f".{end}") for end in wanted)]
