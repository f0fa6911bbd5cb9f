"""What only a GPU shows: every task's contract in two precisions, memory that runs out, the compiler, waiting.

Skipped where there is none; `make gpu` runs them where there is. MULTISTEP_REHEARSE=cpu runs on the CPU those that can
be, to try the tests themselves. MULTISTEP_CUDA_REPORT names a file to which is written what no test asserts: whose
kernels keep their order, so that a resumed run ends in the same bits.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from gpu_language import Tokens, gpt_recipe, steps_of
from gpu_timing import waits
from safetensors.torch import load_file
from torch import Tensor

from multistep.backends.torch.learner import TorchLearner
from multistep.backends.torch.weights import COUNTERS, STATE
from multistep.core.evidence.metric import Evaluation
from multistep.core.values.events import Entry, WindowDone
from multistep.core.values.history import History
from multistep.core.values.plan import DataSpec
from multistep.core.values.recipe import Precision, Recipe
from multistep.errors import DataError, PlanError
from multistep.tasks.text.lean import LeanConfig

if TYPE_CHECKING:
    from contract import Case

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic products ask for
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
pytestmark = pytest.mark.skipif(
    not CUDA and os.environ.get("MULTISTEP_REHEARSE") != "cpu", reason="no CUDA device here; `make gpu` is for one"
)
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "float16")
TWO: tuple[Precision, ...] = ("float32", "bfloat16")
SMALL = LeanConfig("gpt2", vocabulary=512, layers=4, width=128, heads=4, context=128)
NO_DETERMINISTIC = re.compile(r"(\S+) does not have a deterministic implementation")


def _cases() -> tuple[Case, ...]:
    """Those of the contract, and preferences; none where even reading them needs what is not installed."""
    try:
        import test_preference as preference
        from cases_chat import small_llama
        from contract import CASES, Case
    except ImportError:
        return ()

    def write(folder: Path) -> DataSpec:
        splits = {"train": 64, "validation": 24, "test": 24}
        made = {
            name: preference.lines(folder / f"{name}.jsonl", *preference.sentences(rows, seed))
            for seed, (name, rows) in enumerate(splits.items())
        }
        return DataSpec(train=made["train"], validation=made["validation"], test=made["test"])

    settings = {"recipe": preference.RECIPE}
    return (*CASES, Case("preference", "preference", write, settings, model=small_llama))


ALL = _cases()
FIRST = tuple({case.task: case for case in reversed(ALL)}.values())  # of each task


@pytest.mark.skipif(not ALL, reason="the contract's cases need packages that are not installed")
def test_there_are_cases_of_every_task() -> None:
    from multistep.core.values.tasks import TASKS

    assert {case.task for case in ALL} == set(TASKS)


@contextmanager
def or_skipped() -> Iterator[None]:
    """A task whose packages are not here is skipped, and the reason says which."""
    try:
        yield
    except (ImportError, PlanError, DataError) as error:
        if isinstance(error, ImportError) or "pip install" in str(error):
            pytest.skip(str(error).splitlines()[0])
        raise


def report(**entry: object) -> None:
    if path := os.environ.get("MULTISTEP_CUDA_REPORT"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


# Every task's contract --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Opened:
    name: str
    learner: Any
    recipe: Recipe

    def advance(self, recipe: Recipe, steps: int = 3) -> None:
        resolution = recipe.resolution[0] if recipe.resolution else None
        self.learner.advance([recipe.learning_rate or 1e-3] * steps, resolution=resolution)

    def ended(self, recipe: Recipe, folder: Path, *, through_a_checkpoint: bool) -> Mapping[str, Tensor]:
        """Six steps, in one go or with all forgotten and loaded after three."""
        self.learner.initial(recipe, 0)
        self.advance(recipe)
        if through_a_checkpoint:
            (folder / "middle").mkdir(parents=True, exist_ok=True)
            self.learner.save(folder / "middle")
            self.learner.initial(recipe, 5)
            torch.manual_seed(11)
            self.learner.load(folder / "middle", recipe, 0)
        self.advance(recipe)
        (folder / "end").mkdir(parents=True, exist_ok=True)
        self.learner.save(folder / "end")
        return {
            **load_file(folder / "end" / STATE),
            COUNTERS: torch.tensor(list((folder / "end" / COUNTERS).read_bytes())),
        }


@pytest.fixture(scope="module", params=ALL, ids=lambda case: case.name)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    case: Case = request.param
    folder = tmp_path_factory.mktemp(case.name)
    with or_skipped():
        learner, ready = case.open(folder, case.prepare(folder))
    dropout = 0.2 if "dropout" in ready.facts.settings else 0.0
    return Opened(case.name, learner, replace(ready.recipe, averaging=0.3, dropout=dropout))


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def apart(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """How far the averaged weights of two are from each other, as a share of their size."""
    names = [name for name in one if name.startswith("average.") and one[name].is_floating_point()]
    between = sum(float((one[name].double() - other[name].double()).square().sum()) for name in names)
    return float((between / sum(float(one[name].double().square().sum()) for name in names)) ** 0.5)


def in_order(run: Callable[[], Any]) -> tuple[Any, set[str]]:
    """What comes of `run` with torch's deterministic algorithms, and the names of what has none.

    Only where something has none it is run with those that there are; attention, too, then takes its usual ones.
    """
    torch.use_deterministic_algorithms(True)
    try:
        return run(), set()
    except Exception as error:
        if (lacking := NO_DETERMINISTIC.search(_whole(error))) is None:
            raise
    finally:
        torch.use_deterministic_algorithms(False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            found = run()
        finally:
            torch.use_deterministic_algorithms(False)
    named = {one[1] for each in caught if (one := NO_DETERMINISTIC.search(str(each.message)))}
    return found, named | {lacking[1]}


def _whole(error: BaseException | None) -> str:
    """What an exception and those behind it say."""
    return "" if error is None else f"{error} {_whole(error.__cause__ or error.__context__)}"


def states() -> tuple[Any, ...]:
    numpy: Any = np.random.get_state()
    on_device = torch.cuda.get_rng_state().tolist() if CUDA else []
    return torch.get_rng_state().tolist(), numpy[1].tolist(), on_device


def mean_loss(table: Evaluation) -> float | None:
    return float(np.mean(table.columns["loss"])) if "loss" in table.columns else None


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_task_resumes_exactly_and_evaluating_changes_nothing(
    opened: Opened, precision: Precision, tmp_path: Path
) -> None:
    learner, recipe = opened.learner, replace(opened.recipe, precision=precision)
    straight = opened.ended(recipe, tmp_path / "straight", through_a_checkpoint=False)
    assert learner._model is not None
    assert next(learner._model.parameters()).device.type == DEVICE.type
    assert all(bool(tensor.isfinite().all()) for tensor in straight.values() if tensor.is_floating_point())

    before = states()
    one, again = (learner.evaluate("validation", sample=False) for _ in range(2))
    assert states() == before
    (tmp_path / "evaluated").mkdir()
    learner.save(tmp_path / "evaluated")
    assert torch.equal(load_file(tmp_path / "evaluated" / STATE)[_any(straight)], straight[_any(straight)])
    for name in one.columns:
        np.testing.assert_allclose(again.columns[name], one.columns[name], rtol=1e-4, atol=1e-4)

    resumed = opened.ended(recipe, tmp_path / "resumed", through_a_checkpoint=True)
    bits = "the same bits"
    if not same(straight, resumed):
        assert apart(straight, resumed) < 0.05
        ways = {"straight": False, "resumed": True}
        (straight, resumed), lacking = in_order(
            lambda: [opened.ended(recipe, tmp_path / way, through_a_checkpoint=torn) for way, torn in ways.items()]
        )
        kept = same(straight, resumed)
        assert kept or lacking, "every kernel keeps its order, and yet a resumed run ends in other bits"
        bits = (
            "the same bits with deterministic algorithms"
            if kept
            else f"close; no deterministic form of {', '.join(sorted(lacking))}"
        )
    report(what=opened.name, precision=precision, bits=bits)


def _any(state: Mapping[str, Tensor]) -> str:
    return next(name for name in state if name.startswith("model."))


def test_half_the_bits_give_nearly_the_same_loss(opened: Opened) -> None:
    losses = []
    for precision in TWO:
        recipe = replace(opened.recipe, precision=precision, dropout=0.0)
        opened.learner.initial(recipe, 0)
        opened.advance(recipe)
        losses.append(mean_loss(opened.learner.evaluate("validation", sample=True)))
    if losses[0] is None or losses[1] is None:
        pytest.skip("its evaluations hold no loss")
    assert losses[1] == pytest.approx(losses[0], rel=0.1, abs=0.05)


@pytest.mark.parametrize("case", FIRST, ids=lambda case: case.task)
def test_a_whole_run_is_killed_and_goes_on(case: Case, tmp_path: Path) -> None:
    from runs import Killed

    tries = itertools.count()

    def both() -> tuple[Any, Any]:
        folder, windows = tmp_path / str(next(tries)), itertools.count(1)
        folder.mkdir()

        def die(entry: Entry, _history: History) -> None:
            if isinstance(entry.event, WindowDone) and next(windows) == 2:
                raise Killed

        data = case.prepare(folder)
        calm = case.run(folder, data, folder / "calm")
        with pytest.raises(Killed):
            case.run(folder, data, folder / "torn", die)
        return calm, case.run(folder, data, folder / "torn")

    with or_skipped():
        (calm, torn), lacking = in_order(both)
    assert calm.record["steps"] == torn.record["steps"] == case.steps
    assert torn.record["kills_survived"] == 1
    if not lacking:
        assert torn.record["weights_sha256"] == calm.record["weights_sha256"]
    assert torn.test.score == pytest.approx(calm.test.score, rel=0.1, abs=0.1)


# Memory -----------------------------------------------------------------------------------------------


@pytest.fixture
def cut_memory() -> Iterator[Callable[[float], None]]:
    """Leaves this process so many bytes of the device's memory, until the test is over."""
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    yield lambda left: torch.cuda.set_per_process_memory_fraction(left / total, DEVICE)
    torch.cuda.set_per_process_memory_fraction(1.0, DEVICE)


@pytest.mark.skipif(not CUDA, reason="memory that runs out is not provoked on a CPU")
def test_a_batch_that_does_not_fit_is_halved_until_it_does(cut_memory: Callable[[float], None]) -> None:
    """The memory of this process is cut below what the whole batch takes; the gradient stays what it was."""
    rows = 256
    recipe = gpt_recipe(rows, precision="float32", learning_rate=1e-3)
    found: list[tuple[Any, int, list[int]]] = []
    for share in (1.0, 0.5):
        domain = Tokens(SMALL)
        learner = TorchLearner(domain, lambda: False, DEVICE)
        learner.initial(recipe, 0)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(DEVICE)
        if share < 1.0:
            cut_memory(share * found[0][1])
        progress = learner.advance([1e-3] * 2)
        found.append((progress, torch.cuda.max_memory_reserved(DEVICE), list(domain.seen)))
        del learner
    (whole, _, seen), (halved, _, pieces) = found
    assert seen == [rows, rows]
    piece = pieces[-1]
    assert piece < rows
    assert pieces[-(rows // piece) :] == [piece] * (rows // piece), "the whole batch, in pieces"
    assert halved.loss == pytest.approx(whole.loss, rel=1e-5)
    assert halved.gradient_norm == pytest.approx(whole.gradient_norm, rel=1e-3)


@pytest.mark.skipif(not CUDA, reason="memory that runs out is not provoked on a CPU")
def test_what_fits_is_found_before_the_first_step(cut_memory: Callable[[float], None]) -> None:
    rows = 256
    recipe = gpt_recipe(rows, precision="float32")
    torch.cuda.reset_peak_memory_stats(DEVICE)
    steps_of(TorchLearner(Tokens(SMALL), lambda: False, DEVICE), recipe)(1)
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_reserved(DEVICE)
    torch.cuda.empty_cache()
    cut_memory(0.5 * peak)
    domain = Tokens(SMALL)
    advance = steps_of(TorchLearner(domain, lambda: False, DEVICE), recipe)
    domain.seen.clear()
    advance(2)
    assert max(domain.seen) < rows
    assert sum(domain.seen) == 2 * rows, "no pass was in vain"


# The compiler -----------------------------------------------------------------------------------------


def curve(recipe: Recipe) -> list[float]:
    advance: Any = steps_of(TorchLearner(Tokens(SMALL, examples=8), lambda: False, DEVICE), recipe)
    return [advance(5).loss for _ in range(6)]


@pytest.mark.skipif(not CUDA, reason="compiling takes a minute on a CPU, where tests/test_fitting.py does it")
@pytest.mark.filterwarnings("default")  # of the compiler's own imports
@pytest.mark.parametrize("precision", TWO)
def test_compiled_or_not_the_curve_is_the_same(precision: Precision) -> None:
    base = gpt_recipe(8, precision=precision)
    plain, fast = (curve(replace(base, compile=on)) for on in (False, True))
    assert plain[-1] < 0.8 * plain[0], "it learns"
    np.testing.assert_allclose(fast, plain, rtol=1e-3 if precision == "float32" else 2e-2)


# Waiting ----------------------------------------------------------------------------------------------


def test_nothing_waits_for_the_device_within_a_window(opened: Opened) -> None:
    opened.learner.initial(opened.recipe, 0)
    opened.advance(opened.recipe)
    a_step, a_window, places = waits(lambda steps: opened.advance(opened.recipe, steps), DEVICE, 3)
    report(what=opened.name, waits_a_step=a_step, waits_a_window=a_window, waits_at=places)
    if not CUDA:
        pytest.skip("on a CPU a number that is read from data on the host cannot be told from one that is waited for")
    assert a_step == 0, f"waits at {places}"
    assert a_window <= 1, f"waits at {places}"
