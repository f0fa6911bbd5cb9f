"""Language models of `bench/gpu.py`: GPT of 124 million parameters against a bare loop, and what the preset chooses."""

from __future__ import annotations

import functools
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from gpu_kit import Form, Rows, device_of
from gpu_timing import LENGTHS, Advance, operations_of, rates, timed
from torch import Tensor, nn

from multistep.backends.torch.learner import TorchLearner
from multistep.core.evidence.metric import Evaluation
from multistep.core.values.plan import DataSpec, ModelSpec, Plan
from multistep.core.values.recipe import Recipe
from multistep.core.values.units import Amount, Unit
from multistep.tasks import workshop_for
from multistep.tasks.begun import as_begun, speeds_then
from multistep.tasks.text.lean import LeanConfig, LeanGPT
from multistep.tasks.text.preset import WORK

GPT = {
    "gpu": LeanConfig("gpt2", vocabulary=50_304, layers=12, width=768, heads=12, context=1024),
    "cpu": LeanConfig("gpt2", vocabulary=512, layers=2, width=64, heads=2, context=64),
}
MOST_ROWS = {"gpu": 64, "cpu": 4}  # contexts a step
BYTES_A_TOKEN = 1.3e6  # about what a token of the large one keeps for its gradient, logits included, in bf16
SHARE_OF_MEMORY = 0.4
BUDGET_SECONDS = {"gpu": 300.0, "cpu": 60.0}
MOST_TEXT = {"gpu": 30_000_000, "cpu": 200_000}  # characters of the standard library, for the preset
RATE = 6e-4


def operations_a_token(config: LeanConfig) -> float:
    """Of training: 6 for each parameter in a product, and 12 x layers x width x context for attention.

    Source: PaLM, arXiv 2204.02311, appendix B, as most who report a share of a peak count; the half of attention that
    a causal mask leaves out is counted.
    """
    products = 12 * config.layers * config.width**2 + config.vocabulary * config.width
    return 6.0 * products + 12.0 * config.layers * config.width * config.context


def rows_that_fit(config: LeanConfig, form: Form, memory_bytes: float) -> int:
    """Contexts a step: a power of two, by rule."""
    fit = SHARE_OF_MEMORY * memory_bytes / (BYTES_A_TOKEN * config.context)
    rows = 1
    while rows * 2 <= min(MOST_ROWS[form], fit if form == "gpu" else MOST_ROWS[form]):
        rows *= 2
    return rows


@dataclass
class Tokens:
    """Tokens drawn by lot, and a lean model that reads them. A backends.torch.learner.Domain as far as training goes.

    Batches are made as those of running text are: gathered on the host, pinned, and copied without waiting.
    """

    config: LeanConfig
    examples: int = 2048

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        size = (self.examples * self.config.context + 1,)
        self._stream = torch.randint(self.config.vocabulary, size, generator=generator)
        self._offsets = torch.arange(self.config.context + 1)
        self.seen: list[int] = []  # examples of each pass

    def build(self, seed: int, model: str | None = None) -> nn.Module:
        return LeanGPT(self.config).initialise(seed)

    def origin(self, model: str | None = None) -> None:
        return None

    def batch(self, position: int, size: int, seed: int, device: torch.device) -> tuple[Tensor, ...]:
        starts = (torch.arange(position, position + size) % self.examples) * self.config.context
        tokens = self._stream[starts[:, None] + self._offsets]
        if device.type == "cuda":
            tokens = tokens.pin_memory().to(device, non_blocking=True)
        return tokens[:, :-1], tokens[:, 1:]

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...], label_smoothing: float) -> tuple[Tensor, Tensor]:
        assert isinstance(model, LeanGPT)
        self.seen.append(len(batch[0]))
        tokens, labels = batch
        return model.loss(tokens, labels)

    def configure(self, model: nn.Module, recipe: Recipe) -> int:
        return self.config.context

    def resize(self, resolution: int | None) -> None:
        """Tokens have no size."""

    def evaluate(self, model: nn.Module, split: Any, *, sample: bool, device: torch.device) -> Evaluation:
        """The loss of each of the first examples."""
        tokens, labels = self.batch(0, 8, 0, device)
        logits = model(tokens).float().flatten(0, 1)
        losses = nn.functional.cross_entropy(logits, labels.flatten(), reduction="none").view(len(tokens), -1).sum(1)
        count = torch.full_like(losses, labels.shape[1])
        return Evaluation({"loss": losses.double().cpu().numpy(), "count": count.double().cpu().numpy()})

    def baseline(self, split: Any) -> tuple[str, Evaluation]:
        raise NotImplementedError("tokens drawn by lot have no baseline")

    def write_baseline(self, folder: Path) -> str:
        raise NotImplementedError("tokens drawn by lot have no baseline")

    def exhibits(self, model: nn.Module, device: torch.device) -> Sequence[Any]:
        return ()

    def export(self, model: nn.Module, folder: Path, card: str) -> str:
        raise NotImplementedError("what has seen tokens drawn by lot is of no use")


def gpt_recipe(rows: int, **settings: Any) -> Recipe:
    base = Recipe(optimizer="adamw", learning_rate=RATE, batch_size=rows, weight_decay=0.1, betas=(0.9, 0.95))
    return replace(base, **settings)


def steps_of(learner: TorchLearner, recipe: Recipe, seconds_left: float | None = None) -> Advance:
    """Takes steps at the recipe's rate, from its first weights; what a run does before its first step is done.

    `seconds_left` is what a run would have for what pays only after a while; None: that is left aside.
    """
    learner.initial(recipe, 0)
    if (todo := learner.prepare({}, seconds_left)) is not None:
        todo()
    assert recipe.learning_rate is not None
    rate, resolution = recipe.learning_rate, recipe.resolution[-1] if recipe.resolution else None
    return lambda steps: learner.advance([rate] * steps, resolution=resolution)


def fit_of(learner: TorchLearner) -> dict[str, str]:
    """What was found of how steps are computed best, in words, where it was looked for."""
    return {} if learner.fit is None else {"fit": learner.fit.reason}


def bare_steps(config: LeanConfig, rows: int, device: torch.device, *, compile_it: bool) -> Advance:
    """The loop that a person writes: tokens on the device, autocast, fused AdamW, clipping; nothing else."""
    model = LeanGPT(config).initialise(0).to(device).train()
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.95), fused=True)
    stream = torch.randint(config.vocabulary, (2048 * config.context + 1,), device=device)
    offsets = torch.arange(config.context + 1, device=device)
    loss_of: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = torch.compile(model.loss) if compile_it else model.loss
    reduced = device.type == "cuda"

    def advance(steps: int) -> None:
        for _ in range(steps):
            starts = torch.randint(2048, (rows,), device=device) * config.context
            tokens = stream[starts[:, None] + offsets]
            with torch.autocast(device.type, torch.bfloat16, enabled=reduced):
                loss, _count = loss_of(tokens[:, :-1], tokens[:, 1:])
            (loss / (rows * config.context)).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return advance


def measure(rows: Rows, form: Form) -> None:
    """GPT of 124 million parameters: a bare loop and ours in turn, without the compiler and with it."""
    device, config = device_of(form), GPT[form]
    memory = float(torch.cuda.get_device_properties(device).total_memory) if form == "gpu" else 0.0
    contexts = rows_that_fit(config, form, memory)
    tokens, domain = contexts * config.context, Tokens(config)
    rows.facts = {
        "parameters": config.parameters,
        "layers": config.layers,
        "width": config.width,
        "vocabulary": config.vocabulary,
        "context": config.context,
        "tokens_a_step": tokens,
        "operations_a_token": operations_a_token(config),
    }
    numbers = functools.partial(
        rates, rows=rows, count=tokens, unit="tokens", operations=operations_a_token(config) * tokens
    )

    def run(what: str, make: Callable[[], Advance], beside: dict[str, Any] | None = None) -> dict[str, Any]:
        found: dict[str, Any] = {}
        with rows.attempting(what):
            found = numbers(timed(make, device, LENGTHS[form]))
            if beside:
                found["share_of_bare"] = found["per_second"] / beside["per_second"]
            rows.add(what, **found)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return found

    def ours(what: str, recipe: Recipe, beside: dict[str, Any] | None = None) -> None:
        learner = TorchLearner(domain, lambda: False, device)
        if run(what, lambda: steps_of(learner, recipe), beside):
            rows.rows[-1] |= fit_of(learner)

    plain = gpt_recipe(contexts, precision="bfloat16" if form == "gpu" else "float32")
    off, on = replace(plain, compile=False), replace(plain, compile=True)
    bare = run("bare loop", lambda: bare_steps(config, contexts, device, compile_it=False))
    ours("multistep, AdamW", off, bare)
    ours("multistep, Muon", replace(off, optimizer="muon", learning_rate=0.02, gradient_clip=0.0))
    if form == "cpu":
        rows.leave_out("with the compiler", "it takes longer than this short form")
        return
    # Last, since compiling may take long.
    bare = run("bare loop, compiled whole", lambda: bare_steps(config, contexts, device, compile_it=True))
    ours("multistep, AdamW, compiled", on, bare)
    ours("multistep, Muon, compiled", replace(on, optimizer="muon", learning_rate=0.02, gradient_clip=0.0))


# What the preset chooses ------------------------------------------------------------------------------


def standard_library(most: int) -> str:
    """The source of Python's standard library, which every machine has: up to so many characters."""
    found, size = [], 0
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if "site-packages" in path.parts or "test" in path.parts:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found.append(text)
        size += len(text)
        if size >= most:
            break
    return "\n".join(found)[:most]


def measure_preset(rows: Rows, form: Form) -> None:
    """A text model from nothing as the preset chooses it for five minutes on this device (the short form: for one)."""
    device, budget = device_of(form), BUDGET_SECONDS[form]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "library.txt"
        text = standard_library(MOST_TEXT[form])
        path.write_text(text, encoding="utf-8")
        plan = Plan(
            "text-generation",
            DataSpec(source=str(path)),
            ModelSpec(name="scratch"),
            budget=Amount(budget, Unit.SECONDS),
        )
        with as_begun({}, {}, may_measure=True):  # as a run does: sizes follow the speed that is measured
            learner, ready = workshop_for(plan).open(plan, 0, lambda: False)
            measured = speeds_then()
        assert isinstance(learner, TorchLearner)
        recipe = ready.recipe
        found = timed(lambda: steps_of(learner, recipe, budget), device, LENGTHS[form])
        model: Any = learner._model
        context, size = ready.facts.tokens_per_example, recipe.batch_size or 1
        counted = operations_a_token(model.config) * context * size if isinstance(model, LeanGPT) else None
        rows.facts = {
            "budget_seconds": budget,
            "operations_a_second_as_measured": measured.get(WORK.name, "not measured"),
            "characters": len(text),
            "model": ready.facts.description,
            "parameters": ready.facts.parameters,
            "batch_size": size,
            "tokens_a_step": context * size,
            "optimizer": recipe.optimizer,
        }
        counted = counted or operations_of(lambda: learner.advance([recipe.learning_rate or 0.0]))
        numbers = rates(found, rows, count=context * size, unit="tokens", operations=counted)
        rows.facts["steps_in_the_budget"] = budget / found["seconds_a_step"]
        rows.add("multistep, as the preset chooses", **numbers, **fit_of(learner))
