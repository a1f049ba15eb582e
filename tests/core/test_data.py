"""Splits, models and evaluation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from absld_search.core import data, evaluation, models
from absld_search.words import UsageError
from absld_search.workloads import DIGITS


def test_digits_are_all_there_once_and_stratified() -> None:
    train, val = data.load("digits", DIGITS.split, "cpu")
    test = data.load_test("digits", DIGITS.split, "cpu")
    ids = torch.cat([train.ids, val.ids, test.ids])
    assert sorted(ids.tolist()) == list(range(1797))
    for split, share in ((train, 0.40), (val, 0.25), (test, 0.35)):
        assert len(split) / 1797 == pytest.approx(share, abs=0.01)
        counts = torch.bincount(split.labels)
        assert counts.min() / counts.max() > 0.9
        assert split.images.min() >= 0 and split.images.max() <= 1 and split.images.shape[1:] == (1, 8, 8)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=200), st.integers(0, 99))
def test_stratified_is_a_partition_in_proportion(labels: list[int], seed: int) -> None:
    found = data.stratified(np.array(labels), {"a": 0.5, "b": 0.3, "c": 0.2}, seed)
    assert sorted(np.concatenate(list(found.values())).tolist()) == list(range(len(labels)))
    for label in set(labels):
        total = labels.count(label)
        assert abs(sum(labels[i] == label for i in found["a"]) - 0.5 * total) <= 1


@given(
    st.lists(st.integers(0, 3), min_size=8, max_size=120),
    st.lists(st.floats(0.01, 0.45), min_size=2, max_size=3),
    st.integers(0, 10_000),
)
def test_splits_never_overlap(labels: list[int], shares: list[float], seed: int) -> None:
    total = max(1.0, sum(shares))
    over = 1 - sum(shares) / total
    fractions = {f"part{i}": share / total for i, share in enumerate(shares)} | {"unused": over}
    ids = np.concatenate(list(data.stratified(np.array(labels), fractions, seed).values()))
    assert len(np.unique(ids)) == len(ids) == len(labels)


def test_every_image_is_seen_once_an_epoch() -> None:
    train, _ = data.load("digits", DIGITS.split, "cpu")
    seen = torch.cat([batch.index for batch in train.batches(100, 3, 1)])
    assert sorted(seen.tolist()) == sorted(train.ids.tolist())


def test_unknown_names() -> None:
    with pytest.raises(UsageError, match="digits"):
        data.load("digit", DIGITS.split, "cpu")
    with pytest.raises(UsageError, match="cnn-8"):
        models.build("cnn8", 10, 1, 0)

    with pytest.raises(UsageError, match="dataset 'cifar11' is unknown. Did you mean 'cifar10'?"):
        data.shape("cifar11")


@pytest.mark.parametrize(
    ("dataset", "split", "said"),
    [
        (
            "digits",
            {"train": 0.5, "val": 0.3, "test": 0.35},
            "train + val + test = 0.5 + 0.3 + 0.35; they are shares of",
        ),
        (
            "cifar10",
            {"train": 0.9, "val": 0.2, "test": 1.0},
            "train + val = 0.9 + 0.2; they are shares of the official",
        ),
        ("cifar10", {"train": 0.9, "val": 0.1, "test": 1.5}, "test = 1.5; they are shares of the official test part"),
        ("cifar10", {"train": 0.9, "val": -0.1, "test": 1.0}, "train + val = 0.9 + -0.1"),
    ],
)
def test_shares_that_are_not_there_to_be_given_are_refused_before_any_file_is_read(
    dataset: str, split: dict[str, float], said: str
) -> None:
    for read in (data.facts, data.look, lambda *words: data.load(*words[:2], "cpu", words[2])):
        with pytest.raises(UsageError) as refused:
            read(dataset, split, "/nowhere")
        assert f"split of {dataset}: {said}" in str(refused.value)


def test_model_is_a_function_of_its_seed_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first, second, other = (models.build("cnn-8", 10, 1, seed) for seed in (4, 4, 5))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first.linear.weight, second.linear.weight)
    assert not torch.equal(first.linear.weight, other.linear.weight)
    convolutions, norms, linear = 9 * (1 * 8 + 8 * 16 + 16 * 16), 2 * (8 + 16 + 16), 10 * (64 + 1)
    assert sum(p.numel() for p in first.parameters()) == convolutions + norms + linear
    assert first(torch.rand(3, 1, 8, 8)).shape == (3, 10)


class Threshold(nn.Module):
    """Class 1 where the mean is above a half: robust exactly where |mean - 0.5| > eps."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean((1, 2, 3))
        return torch.stack([0.5 - mean, mean - 0.5], 1)


def split_of(means: list[float], ids: list[int] | None = None) -> data.Split:
    images = torch.tensor(means).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone()
    labels = (torch.tensor(means) > 0.5).long()
    return data.Split(images, labels, torch.tensor(ids or range(len(means))), 2)


def test_attacks_find_exactly_what_can_be_fooled() -> None:
    split = split_of([0.1, 0.38, 0.45, 0.55, 0.62, 0.9])
    clean, pgd, cw = evaluation.evaluate(Threshold(), split, ("clean", "pgd20", "cw20"), eps=0.1, step_size=0.02)
    assert clean.correct.all()
    assert pgd.correct.tolist() == cw.correct.tolist() == [True, True, False, False, True, True]
    assert pgd.summary()["worst_class_pgd20_accuracy"] == pytest.approx(2 / 3)
    assert cw.summary()["cw_accuracy"] == pytest.approx(4 / 6)


def test_nan_network_has_no_accuracy() -> None:
    model = models.build("cnn-8", 10, 1, 0)
    with torch.no_grad():
        model.linear.bias.fill_(float("nan"))
    _, val = data.load("digits", DIGITS.split, "cpu")
    with pytest.raises(evaluation.NonFiniteLogits, match="clean"):
        evaluation.evaluate(model, val, ("clean",), 0.1, 0.01)


def test_evaluation_leaves_mode_gradients_and_generator_alone() -> None:
    model = models.build("cnn-8", 10, 1, 0).train()
    _, val = data.load("digits", DIGITS.split, "cpu")
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    evaluation.evaluate(model, val, ("pgd20",), 0.1, 0.01)
    assert torch.equal(torch.rand(1), expected)
    assert model.training and all(p.grad is None for p in model.parameters())
