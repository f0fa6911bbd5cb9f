"""Which networks a phase of text classification can train: those the plan names, or the task's own in their order."""

from __future__ import annotations

from multistep.core.values.plan import ModelSpec, Plan
from multistep.errors import PlanError
from multistep.tasks.language.nets import BAG, CNN
from multistep.tasks.language.preset import seconds_of

BERT = "bert"
SMALL = (BAG, CNN)
OF_BERT = ("parameters", "layers", "heads")  # sizes that a small net does not have
SIZES = (*OF_BERT, "width", "vocabulary")
MANY_EXAMPLES, ENOUGH_EPOCHS = 100_000, 2.0  # above both, a BERT goes first
# With less time no BERT: in a minute it was never tried, and making it ready took a tenth of that, a quarter on a slow
# machine.
RACED_SECONDS = 120.0
# Python that loads what an encoder is exported to.
USAGES = {
    "text-classification": """from transformers import pipeline
classify = pipeline("text-classification", {model})
print(classify("It is as good as it can be.", truncation=True))""",
    "fill-mask": """from transformers import pipeline
fill = pipeline("fill-mask", {model})
print(fill(f"It is as good as it can {fill.tokenizer.mask_token}.")[0]["sequence"])""",
}
PAIR_USAGE = """from transformers import pipeline
classify = pipeline("text-classification", {model})
print(classify({"text": "It is raining.", "text_pair": "It is dry."}, truncation=True))"""


def named_network(plan: Plan) -> str | None:
    """The network that the user chose, by its name or by sizes and tasks that only one has; None leaves it open.

    A folder or a hub id is a choice too, under its own name. Raises PlanError for two that contradict each other.
    """
    spec, wanted = plan.model, {plan.phase(i).recipe.get("model") for i in range(plan.phase_count)} - {None}
    if len(wanted) > 1:
        raise PlanError("recipe.model differs between phases, which share one network; name one")
    recipe = str(next(iter(wanted))) if wanted else None
    if spec.name in SMALL:
        _require_own_sizes(spec, spec.name)
        if recipe not in (None, spec.name):
            raise PlanError(f"recipe.model is {recipe}, but model is {spec.name}; name one of them alone")
        return spec.name
    if spec.name != "auto":
        return spec.name
    sized = [name for name in SIZES if getattr(spec, name) is not None]
    others = any(plan.phase(i).task != "text-classification" for i in range(plan.phase_count))
    if recipe in SMALL:
        _require_own_sizes(spec, recipe)
    if recipe is None and (sized or spec.tokenizer != "auto" or others):
        return BERT
    return recipe


def require_no_sizes(spec: ModelSpec) -> None:
    """What a folder or a hub id says to sizes. Raises PlanError."""
    if given := [name for name in SIZES if getattr(spec, name) is not None]:
        raise PlanError(f"model.{given[0]}: '{spec.name}' has its own, which cannot be changed; leave it out")
    if spec.tokenizer != "auto":
        raise PlanError(f"model.tokenizer: '{spec.name}' has its own, which cannot be changed; leave it out")


def _require_own_sizes(spec: ModelSpec, name: str) -> None:
    given = [name for name in OF_BERT if getattr(spec, name) is not None]
    if spec.tokenizer != "auto":
        given.append("tokenizer")
    if given:
        raise PlanError(f"model.{given[0]}: '{name}' has none; allowed: width, vocabulary, context")


def open_order(plan: Plan, examples: int, epochs: float) -> tuple[str, ...]:
    """The networks of a plan that names none, the first choice first; `epochs` are what a BERT would have.

    Up to a hundred thousand examples the bag leads by what was measured (docs/appendix/measured-tasks.md); that a BERT
    takes over beyond them, if there is time to read them twice, was not.
    """
    if examples > MANY_EXAMPLES and epochs >= ENOUGH_EPOCHS:
        return (BERT, BAG, CNN)
    return (BAG, CNN, BERT) if seconds_of(plan) >= RACED_SECONDS else (BAG, CNN)
