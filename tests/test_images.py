"""Image classifiers: augmentation by lot, sizes that grow, and models that other libraries can load."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases_images import LARGER, RECIPE, SHAPES, accuracy, opened, picture, planned, write_folders
from PIL import Image
from torch import Tensor

from multistep import api
from multistep.core.values.plan import DataSpec
from multistep.errors import DataError, PlanError
from multistep.tasks.images.augment import augment, draw, mix
from multistep.tasks.images.decode import Form
from multistep.tasks.images.preset import ImageFacts, choose, products
from multistep.tasks.images.splits import load_splits, look_through
from multistep.tasks.images.task import ImageWorkshop, resized, score
from multistep.tasks.predicting import predict
from multistep.tasks.prediction import Asked

SIDE = LARGER


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("images")
    write_folders(made, {"train": 30, "val": 10, "test": 10}, SIDE)
    return made


# Augmentation ---------------------------------------------------------------------------------------


def batch(count: int = 32, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, SIDE, SIDE), generator=generator).float()


def lots_of(indices: range | list[int], epoch: int = 0, seed: int = 0) -> Tensor:
    numbers = np.array(indices, np.int64)
    return draw(seed, np.full(len(numbers), epoch), numbers)


FILL = torch.full((1, 3, 1, 1), 7.0)


def test_lots_are_a_function_of_seed_epoch_and_index() -> None:
    one = lots_of(range(1000))
    assert torch.equal(one[[3, 500]], lots_of([3, 500]))
    assert 0 <= one.min() < 0.01
    assert 0.99 < one.max() < 1
    assert (one.mean(0) - 0.5).abs().max() < 0.04
    assert (torch.corrcoef(one.T) - torch.eye(one.shape[1])).abs().max() < 0.15
    others = (lots_of(range(1000), epoch=1), lots_of(range(1000), seed=1), lots_of(range(1, 1001)))
    assert all((one == other).float().mean() < 0.01 for other in others)


@pytest.mark.parametrize("channels", [1, 3])
def test_no_strength_changes_nothing_and_more_changes_more(channels: int) -> None:
    pixels, lots, fill = batch(200, channels), lots_of(range(200)), FILL[:, :channels]
    same = augment(pixels, lots, 0.0, mirror=False, fill=fill)
    torch.testing.assert_close(same, pixels, atol=0.02, rtol=0)
    assert torch.equal(mix(pixels, lots, 0.0)[0], pixels)
    changed = [(augment(pixels, lots, s, mirror=False, fill=fill) - pixels).abs().mean() for s in (0.05, 0.5, 1.0)]
    assert changed[0] < changed[1] < changed[2]
    out = augment(pixels, lots, 1.0, mirror=True, fill=fill)
    assert out.min() >= 0
    assert out.max() < 255.01


def test_mirrors_and_crops_move_whole_pixels() -> None:
    pixels, lots = batch(64), lots_of(range(64))
    lots[:, 0] = lots[:, 2] = 0.999  # of the policy, an operation
    lots[:, 1] = lots[:, 3] = 0.5  # of no magnitude
    lots[:, 5], lots[:, 6], lots[:, 7] = 0.99, 0.5, 1.0
    moved = augment(pixels, lots, 1.0, mirror=True, fill=FILL)
    left = lots[:, 4] < 0.5
    torch.testing.assert_close(moved[~left][:, :, :, :-2], pixels[~left][:, :, :, 2:], atol=0.05, rtol=0)
    torch.testing.assert_close(moved[left][:, :, :, 2:], pixels[left].flip(3)[:, :, :, :-2], atol=0.05, rtol=0)
    assert 10 < int(left.sum()) < 54


def test_mixing_keeps_a_share_that_is_told() -> None:
    pixels = torch.arange(256.0)[:, None, None, None].expand(256, 1, SIDE, SIDE)
    mixed, kept = mix(pixels, lots_of(range(256)), 1.0)
    own, other = torch.arange(256.0), torch.arange(256.0).roll(1)
    torch.testing.assert_close(mixed.mean((1, 2, 3)), kept * own + (1 - kept) * other, atol=1e-2, rtol=0)
    assert 0.3 < kept.mean() < 0.7
    assert ((mixed == own[:, None, None, None]) | (mixed == other[:, None, None, None])).all((1, 2, 3)).sum() > 64


def test_every_picture_is_augmented_by_its_own_lots_whatever_else_is_in_the_batch() -> None:
    pixels, lots = batch(), lots_of(range(32))
    whole = augment(pixels, lots, 1.0, mirror=True, fill=FILL)
    torch.testing.assert_close(whole[5:9], augment(pixels[5:9], lots[5:9], 1.0, mirror=True, fill=FILL))


# Training -------------------------------------------------------------------------------------------


def test_it_learns_at_growing_sizes_and_scores_at_the_last(folder: Path) -> None:
    learner, ready = opened(folder, {"name": "resnet-small", "width": 8})
    assert ready.metrics[0] == "accuracy"
    assert set(ready.facts.settings) == {"label_smoothing", "augmentation", "dropout", "resolution"}
    recipe = replace(RECIPE, resolution=(8, SIDE), augmentation=0.3)
    learner.initial(recipe, 0)
    seen: list[tuple[int, ...]] = []
    learner._model.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[2:])))
    learner.advance([0.05] * 20, resolution=8)
    learner.advance([0.05] * 20, resolution=SIDE)
    assert set(seen) == {(8, 8), (SIDE, SIDE)}
    table = learner.evaluate("validation", sample=False)
    assert accuracy(table) > 0.8
    assert len(table) == 30


def test_averaged_weights_are_scored_with_statistics_of_their_own(folder: Path, tmp_path: Path) -> None:
    """Those of training are of other weights, smaller images and augmented ones."""
    learner, _ = opened(folder, {"name": "resnet-small", "width": 8})
    recipe = replace(RECIPE, averaging=0.5, augmentation=1.0, batch_size=90, learning_rate=0.2)
    learner.initial(recipe, 0)
    learner.advance([0.2] * 12, resolution=8)
    scored = learner.evaluate("validation", sample=False)
    average: Any = learner._average
    model: Any = learner._model
    domain: Any = learner._domain
    pixels = torch.from_numpy(domain.splits.train.images).permute(0, 3, 1, 2).float()
    expected = average.body[0][0]((pixels - average.mean) / average.std).mean((0, 2, 3))
    torch.testing.assert_close(average.body[0][1].running_mean, expected.detach(), atol=1e-3, rtol=1e-2)
    trained = model.body[0][1].running_mean
    assert (trained - expected).abs().max() > 10 * (average.body[0][1].running_mean - expected).abs().max()
    learner.save(tmp_path)
    learner.load(tmp_path, recipe, 0)
    again = learner.evaluate("validation", sample=False)
    assert all(np.array_equal(scored.columns[name], again.columns[name]) for name in scored.columns)


@pytest.mark.parametrize("name", ["cnn", "resnet-small"])
def test_small_nets_by_name(folder: Path, name: str) -> None:
    learner, ready = opened(folder, {"name": name, "width": 8})
    learner.initial(RECIPE, 0)
    learner.advance([0.05] * 25)
    assert accuracy(learner.evaluate("test", sample=False)) > 0.7
    assert ready.facts.description.startswith(name)
    shown = learner.exhibits()
    assert shown[0].rows
    assert [exhibit.title.split()[0] for exhibit in shown][-2:] == ["Confusion:", "By"]


def test_what_is_shown_of_the_test_split_is_not_scored_a_second_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took as long as the scoring, and nobody had kept time for it."""
    learner, _ = opened(folder, {"name": "cnn", "width": 8})
    learner.initial(RECIPE, 0)
    learner.evaluate("test", sample=False)
    scored = []

    def counted(*given: Any, **more: Any) -> Any:
        scored.append(given)
        return score(*given, **more)

    monkeypatch.setattr("multistep.tasks.images.task.score", counted)
    first = learner.exhibits()
    assert not scored
    learner.advance([0.05] * 2)
    assert learner.exhibits() != first, "of other weights"
    assert len(scored) == 1


@pytest.mark.parametrize("sizes", [(4, SIDE), (4,)])
def test_sizes_that_a_net_cannot_read_are_named(folder: Path, sizes: tuple[int, ...]) -> None:
    learner, ready = opened(folder, {"name": "cnn", "width": 8})
    domain: Any = learner._domain
    domain._maker._config = replace(domain._maker._config, stages=3)
    with pytest.raises(PlanError, match=r"recipe\.resolution: images of 4 x 4 cannot be read by this cnn \(.*larger"):
        learner.initial(replace(ready.recipe, resolution=sizes), 0)
    learner.initial(replace(ready.recipe, resolution=(8, SIDE)), 0)
    assert learner._model.training


def test_a_net_goes_on_with_other_classes(folder: Path, tmp_path: Path) -> None:
    learner, _ = opened(folder, {"name": "cnn", "width": 8})
    learner.initial(RECIPE, 0)
    learner.advance([0.05] * 3)
    learner.export(tmp_path, "")
    blocks = np.random.default_rng(0).integers(0, 255, (40, 9, 9), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=blocks, labels=np.arange(40) % 2)
    other, ready = opened(tmp_path / "data.npz", str(tmp_path))
    other.initial(ready.recipe, 0)
    domain: Any = other._domain
    assert domain.splits.form == Form(3, SIDE, SIDE)
    assert domain.splits.classes == ("0", "1")
    trained, fresh = dict(learner._average.named_parameters()), dict(other._model.named_parameters())
    assert torch.equal(trained["body.0.0.weight"], fresh["body.0.0.weight"])
    assert not fresh["head.weight"].any()


# Use ------------------------------------------------------------------------------------------------


def test_phases_of_other_sizes_have_the_same_held_out_images(tmp_path: Path) -> None:
    """The cut hung on the pixels as they were read, so that a larger size was tested on what a smaller one learnt."""
    write_folders(tmp_path / "all", {"train": 30})
    (tmp_path / "all/train").rename(tmp_path / "data")
    seen = look_through(DataSpec(source=str(tmp_path / "data")))
    small, large = (load_splits(seen, seen.form.sized(side)) for side in (6, SIDE))
    for name in ("validation", "test"):
        of_large = getattr(large, name).images
        shrunk = resized(torch.from_numpy(of_large[:]).permute(0, 3, 1, 2), 6, 6).round()
        assert np.array_equal(getattr(small, name).labels, getattr(large, name).labels)
        assert (shrunk.permute(0, 2, 3, 1).numpy() - getattr(small, name).images[:]).__abs__().mean() < 12


def test_a_run_that_goes_on_in_its_second_phase_has_the_net_of_the_first(folder: Path, tmp_path: Path) -> None:
    choose = np.random.default_rng(1)
    for number in range(40):
        for shape in SHAPES:
            (tmp_path / "other" / shape).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(shape, choose, 24)).save(tmp_path / "other" / shape / f"{number}.png")
    phases = [{"data": str(folder), "until": "1 epochs"}, {"data": str(tmp_path / "other"), "until": "1 epochs"}]
    plan = planned("auto", folder, phases=phases)
    straight, again = ImageWorkshop(), ImageWorkshop()
    straight.open(plan, 0, lambda: False)
    there = straight.open(plan, 1, lambda: False)[1]
    here = again.open(plan, 1, lambda: False)[1]
    assert (here.facts.parameters, here.fingerprint) == (there.facts.parameters, there.fingerprint)


def test_a_standard_resnet_reads_grey_images_in_colours(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(24):
        for name in ("dark", "light"):
            (tmp_path / "grey" / name).mkdir(parents=True, exist_ok=True)
            level = rng.integers(0, 100, (16, 16)) + 100 * (name == "light")
            Image.fromarray(level.astype(np.uint8)).save(tmp_path / "grey" / name / f"{number}.png")
    _, ready = opened(tmp_path / "grey", "resnet-18")
    assert any("images are read as 16 x 16, RGB" in note for note in ready.facts.notes)


@pytest.mark.parametrize("label", ["NaN", ""])
def test_a_missing_label_is_no_class(label: str, tmp_path: Path) -> None:
    choose = np.random.default_rng(0)
    rows = []
    for number in range(12):
        Image.fromarray(picture(SHAPES[number % 2], choose)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{SHAPES[number % 2] if number else label}")
    (tmp_path / "a.csv").write_text("\n".join(["file,label", *rows]) + "\n")
    with pytest.raises(DataError, match="'label' is empty; each row needs its label"):
        look_through(DataSpec(source=str(tmp_path / "a.csv")))


def test_an_image_that_cannot_be_read_is_named(folder: Path, tmp_path: Path) -> None:
    learner, _ = opened(folder, {"name": "cnn", "width": 8})
    learner.initial(RECIPE, 0)
    learner.export(tmp_path, "")
    image = tmp_path / "one.jpg"
    Image.fromarray(picture("disc", np.random.default_rng(5), 40)).save(image)
    found = predict(str(tmp_path), [str(image)], Asked())[0]
    assert found.output in SHAPES
    assert sum(found.others.values()) == pytest.approx(1)
    with pytest.raises(DataError, match=r"none.png: no such file; name an image file"):
        predict(str(tmp_path), [str(image), str(tmp_path / "none.png")], Asked())
    image.write_bytes(b"")
    with pytest.raises(DataError, match=r"one.jpg: empty"):
        predict(str(tmp_path), [str(image)], Asked())
    np.savez(tmp_path / "data.npz", images=np.zeros((4, 9, 9), np.uint8), labels=list("xxyy"))
    with pytest.raises(DataError, match=r"label 'x' is unknown to the model; it has 'bars', 'disc', 'stripes'"):
        api.evaluate(tmp_path, str(tmp_path / "data.npz"))


def test_what_cannot_be_scored_is_said(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    learner, _ = opened(folder, {"name": "cnn", "width": 8})
    learner.initial(RECIPE, 0)
    learner.export(tmp_path, "")
    shutil.copytree(folder / "test", tmp_path / "some")
    (tmp_path / "some/disc/003.png").write_bytes(b"")
    caplog.clear()
    assert api.evaluate(tmp_path, str(tmp_path / "some"))["examples"] == 29
    assert caplog.messages == [f"data: images skipped that cannot be read: 1: {tmp_path}/some/disc/003.png (empty)"]


def test_mistakes_in_a_plan_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"is neither a preset \(cnn, resnet-small, .*Did you mean 'resnet-18'"):
        opened(folder, "resnet-19")
    with pytest.raises(PlanError, match=r"model.heads is for text; of resnet-small, width, layers or parameters"):
        opened(folder, {"name": "auto", "heads": 4})
    with pytest.raises(PlanError, match=r"model.width: resnet-50 has a standard form"):
        opened(folder, {"name": "resnet-50", "width": 8})
    with pytest.raises(PlanError, match=r"holds neither config.json nor multistep.json"):
        opened(folder, str(tmp_path))
    learner, ready = opened(folder, {"name": "resnet-18"})
    with pytest.raises(PlanError, match=r"recipe.dropout is 0.1, but resnet has none"):
        learner.initial(replace(ready.recipe, dropout=0.1), 0)
    with pytest.raises(PlanError, match=r"recipe.context is for text"):
        learner.initial(replace(ready.recipe, context=8), 0)


def test_more_time_and_fewer_images_bear_a_wider_net() -> None:
    def width(budget: str, images: int, **model: Any) -> int:
        plan = planned({"name": "auto", **model}, budget=budget)
        net = choose(plan, ImageFacts(images, Form(1, 28, 28), 10), {}, "cpu", 1.4e11).net
        assert net is not None
        assert net.stages == 3
        return net.width

    assert width("1m", 60_000) < width("10m", 60_000) < width("10m", 6_000)
    assert width("1m", 60_000, width=20) == 20
    assert width("1m", 60_000, parameters=400_000) > 30
    small = choose(planned("auto"), ImageFacts(100, Form(1, 8, 8), 10), {}, "cpu", 9e10)
    assert small.net is not None
    assert small.net.stages <= 2
    assert products(small.net, small.form) > 0


def test_sizes_are_made_by_averaging() -> None:
    pixels = torch.tensor([[0, 100], [200, 100]], dtype=torch.uint8).repeat_interleave(4, 0).repeat_interleave(4, 1)
    small = resized(pixels[None, None], 2, 2)
    assert small.flatten().tolist() == pytest.approx([25, 100, 175, 100], abs=26)
    assert torch.equal(resized(pixels[None, None], 8, 8), pixels[None, None].float())
