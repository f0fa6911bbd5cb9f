"""Finding how a machine computes a recipe's steps best: in which pieces, and whether compiled.

What is found is a `Fit`, which the journal keeps; a run that goes on repeats it instead of measuring again.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from multistep.backends.torch.compiling import cannot_compile, compile_regions, regions, released
from multistep.backends.torch.passes import Passes
from multistep.backends.torch.recomputing import recompute
from multistep.backends.torch.rehearsal import Rehearsal, pieces_that_fit
from multistep.core.values.recipe import Recipe
from multistep.core.values.trial import Fit

# Settings that change what a pass holds or what code it needs.
MATTERS = (
    *("model", "batch_size", "context", "resolution", "precision", "optimizer", "sharpness", "dropout", "frozen"),
    *("adapter", "adapter_rank", "adapter_targets", "micro_batch", "compile", "checkpointing"),
)
TIMED = 5  # steps with and without compiled blocks
# What compiling was seen to take and to save on GPUs elsewhere; it is tried where it would save twice what it takes.
EXPECTED_SECONDS, EXPECTED_SAVING, WORTH = 40.0, 0.2, 2.0
LEAST_SAVING = 0.03  # of a step, that compiled blocks are kept for, and activations computed again
# Pieces of a batch from which on they may be so small that the device is not filled by them: then larger ones, whose
# activations are computed again, are timed beside them. A third more operations have to be won back.
SMALL_PIECES, TIMED_PIECES = 4, 2


def fit_key(recipe: Recipe, device: torch.device) -> str:
    """What a fit is of: the settings that matter and are not as they are by default, and the device."""
    plain = Recipe()
    settings = [f"{name}={value}" for name in MATTERS if (value := getattr(recipe, name)) != getattr(plain, name)]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return ", ".join([name, *settings])


@dataclass(frozen=True)
class Questions:
    """What a recipe leaves to the machine: how large a pass is, and whether blocks are compiled.

    `timed` tells that the clock may have its say.
    """

    size: bool
    compile: bool
    timed: bool = False

    @classmethod
    def of(cls, recipe: Recipe, device: torch.device, seconds_left: float | None) -> Questions:
        """On a CPU passes have the size that the task says, since there memory is not what decides."""
        there = device.type == "cuda"
        worth = seconds_left is not None and seconds_left * EXPECTED_SAVING > WORTH * EXPECTED_SECONDS
        wanted = recipe.compile if recipe.compile != "auto" else there and worth
        return cls(there and recipe.micro_batch == "auto", bool(wanted), seconds_left is not None)

    def __bool__(self) -> bool:
        return self.size or self.compile


class Fitting:
    """How the steps of one placed recipe are computed: by rule, as it was found before, or as it is found now."""

    def __init__(
        self,
        model: nn.Module,
        passes: Passes,
        recipe: Recipe,
        device: torch.device,
        rehearsal: Callable[[], Rehearsal],
        reserve: Callable[[], int],
        sharded: bool = False,
    ) -> None:
        """`rehearsal` gives passes for measuring; `reserve` tells the bytes that a step takes beside a pass.

        Where the model is `sharded`, nothing is measured: processes compute each pass together, and one that did not
        have the memory would leave the others waiting.
        """
        self._sharded = sharded
        self._model, self._passes, self._recipe = model, passes, recipe
        self._device, self._rehearsal, self._reserve = device, rehearsal, reserve
        self._found: Fit | None = None

    @property
    def fit(self) -> Fit | None:
        """None by rule alone."""
        if not self._passes.halved:
            return self._found
        fit, size = self._found or Fit(fit_key(self._recipe, self._device)), self._passes.micro_batch
        return replace(fit, micro_batch=size, reason=f"memory ran out, so that passes hold {size:,} examples")

    def prepare(self, known: Mapping[str, Fit], seconds_left: float | None) -> Callable[[], None] | None:
        """What is to be done before the next step, as `engine.learner.Learner` says."""
        of = fit_key(self._recipe, self._device) + (", sharded" if self._sharded else "")
        if fit := known.get(of):
            return None if fit == self.fit else functools.partial(self._follow, fit)
        questions = Questions.of(self._recipe, self._device, seconds_left)
        if self._sharded:
            questions = Questions(size=False, compile=self._recipe.compile is True)
        return functools.partial(self._find, of, questions) if questions and self._found is None else None

    def _find(self, of: str, questions: Questions) -> None:
        self._found = _find_fit(
            of,
            questions,
            self._recipe,
            self._model,
            self._passes,
            self._rehearsal(),
            reserve=self._reserve(),
        )

    def _follow(self, fit: Fit) -> None:
        """Compute steps as it was found before."""
        self._passes.micro_batch, self._passes.halved = fit.micro_batch, False
        if fit.recomputed:
            recompute(self._model)
        compiled = self._found is not None and self._found.compiled
        if fit.compiled and not compiled:
            rehearsal = self._rehearsal()
            _compile_blocks(self._model, rehearsal, fixed=rehearsal.same_shapes())
        self._found = fit


def _find_fit(
    of: str,
    questions: Questions,
    recipe: Recipe,
    model: nn.Module,
    passes: Passes,
    rehearsal: Rehearsal,
    *,
    reserve: int,
) -> Fit:
    """Measure what is asked, and have the passes done so. `reserve` bytes are kept free for the optimizer's state.

    Raises PlanError where `recipe.compile` is on and cannot be.
    """
    said: list[str] = []
    recomputed = False
    if questions.size:
        size, recomputed = _size_that_fits(recipe, model, passes, rehearsal, reserve, questions.timed, said)
        passes.micro_batch = None if size == recipe.batch_size else size
    fit = Fit(of, passes.micro_batch, recomputed=recomputed)
    if not questions.compile:
        return _with_reason(fit, said)
    fixed = rehearsal.same_shapes()
    if recipe.compile == "auto":
        fit = _timed(fit, model, rehearsal, fixed, said)
    else:
        _compile_blocks(model, rehearsal, fixed)
        fit = replace(fit, compiled=True)
        said.append("blocks are compiled, as recipe.compile says")
    return _with_reason(fit, said)


def _compile_blocks(model: nn.Module, rehearsal: Rehearsal, fixed: bool) -> None:
    """Compile now rather than in the first step. Raises PlanError where that fails."""
    compile_regions(model, fixed=fixed)
    try:
        rehearsal.seconds(1)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of whatever compiler
        released(model)
        raise cannot_compile(error) from error


def _size_that_fits(
    recipe: Recipe,
    model: nn.Module,
    passes: Passes,
    rehearsal: Rehearsal,
    reserve: int,
    timed: bool,
    said: list[str],
) -> tuple[int, bool]:
    """The examples of a pass, and whether activations are computed again for its gradient.

    They are where not one example fits otherwise; and, where the clock may say so, where only small pieces of the batch
    fit otherwise and a step of larger ones is faster.
    """
    whole = recipe.batch_size
    assert whole is not None, "a resolved recipe has a batch size"

    def that_fit() -> int | None:
        return pieces_that_fit(whole, lambda size: rehearsal.fits(size, reserve=reserve))

    def seconds(size: int) -> float:
        passes.micro_batch = size
        rehearsal.seconds(1)
        return rehearsal.seconds(TIMED_PIECES)

    size = that_fit()
    small = size is None or (timed and -(-whole // size) >= SMALL_PIECES)
    if not small or recipe.checkpointing != "auto" or not recompute(model):
        said.append(f"passes of {size or 1:,} of {whole:,} examples fit")
        return size or 1, False
    larger = that_fit() or 1
    said.append(f"passes of {larger:,} of {whole:,} examples fit where activations are computed again for the gradient")
    if size is None:
        return larger, True
    ratio = math.inf
    if larger >= 2 * size:
        again = seconds(larger)
        recompute(model, False)
        ratio = again / seconds(size)
        said.append(f"a step of them takes {ratio:.0%} of the seconds of one in passes of {size:,}")
    pays = ratio < 1.0 - LEAST_SAVING
    recompute(model, pays)
    said.append("they are computed again" if pays else f"they are kept, and passes hold {size:,}")
    return (larger if pays else size), pays


def _timed(fit: Fit, model: nn.Module, rehearsal: Rehearsal, fixed: bool, said: list[str]) -> Fit:
    """With compiled blocks if a step is faster by them, or as they are."""
    if not fixed or not regions(model):
        said.append("nothing is compiled: " + ("the model repeats no blocks" if fixed else "batches differ in shape"))
        return fit
    rehearsal.seconds(1)
    plain = rehearsal.seconds(TIMED)
    began = time.perf_counter()
    compile_regions(model, fixed=True)
    try:
        rehearsal.seconds(1)
        took = time.perf_counter() - began - plain
        ratio = rehearsal.seconds(TIMED) / plain
    except Exception as error:  # of whatever compiler; nobody asked for it
        released(model)
        said.append(f"nothing is compiled: {cannot_compile(error)}")
        return fit
    pays = ratio < 1.0 - LEAST_SAVING
    if not pays:
        released(model)
    kept = "compiled blocks are kept" if pays else "blocks are left as they are"
    said.append(f"{kept}: a step takes {ratio:.0%} of its seconds compiled, which took {took:.0f} s")
    return replace(fit, compiled=pays, compile_seconds=round(took, 1), ratio=round(ratio, 3))


def _with_reason(fit: Fit, said: list[str]) -> Fit:
    return replace(fit, reason="; ".join(said))
