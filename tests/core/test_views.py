"""Views: the bits of torchvision, and a function of (image, epoch, stream) alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as theirs

from absld_search.core import data, views
from absld_search.workloads import PLAIN, Augmentation
from tests import image_files as files

CIFAR = Augmentation(padding=4, flip=True)
REFLECT = Augmentation(padding=4, fill="reflect", flip=True)
SHARES = {"train": 0.8, "val": 0.2, "test": 1.0}


def of_torchvision(image: np.ndarray, view: int, how: Augmentation) -> torch.Tensor:
    """The same choice made with RandomCrop's and RandomHorizontalFlip's own functions, and ToTensor."""
    corner = (view % 81 + 40) % 81
    mode = "constant" if how.fill == "zero" else "reflect"
    padded = theirs.pad(Image.fromarray(image.transpose(1, 2, 0)), [4, 4, 4, 4], padding_mode=mode)
    cropped = theirs.crop(padded, corner // 9, corner % 9, 32, 32)
    return theirs.to_tensor(theirs.hflip(cropped) if view >= 81 else cropped)


@pytest.mark.parametrize("how", [CIFAR, REFLECT], ids=["zero", "reflect"])
def test_all_162_views_have_torchvisions_bits(how: Augmentation) -> None:
    images = files.random_images(3)
    assert views.count(how) == 162
    for row in range(3):
        rows = torch.full((162,), row)
        ours = views.gather(torch.from_numpy(images), rows, torch.arange(162), how)
        expected = torch.stack([of_torchvision(images[row], view, how) for view in range(162)])
        assert torch.equal(ours, expected)
        assert torch.equal(ours[0], views.as_floats(torch.from_numpy(images[row]))), "view 0 is the plain image"


def test_a_view_is_a_function_of_image_epoch_and_stream() -> None:
    ids = torch.arange(20_000)
    first = views.draw(ids, 3, 7, CIFAR)
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))
    assert torch.equal(views.draw(ids[order], 3, 7, CIFAR), first[order])
    for epoch, stream in ((4, 7), (3, 8), (7, 3)):
        same = (views.draw(ids, epoch, stream, CIFAR) == first).float().mean().item()
        assert same == pytest.approx(1 / 162, abs=0.004), "another epoch or stream is another draw"


def test_every_view_is_equally_likely() -> None:
    from scipy.stats import chisquare

    for epoch in (1, 300):
        seen = torch.bincount(views.draw(torch.arange(162 * 200), epoch, 0, CIFAR), minlength=162)
        assert chisquare(seen.numpy()).pvalue > 1e-4
    over_epochs = torch.stack([views.draw(torch.tensor([5]), epoch, 0, CIFAR) for epoch in range(162 * 30)])
    assert chisquare(torch.bincount(over_epochs.ravel(), minlength=162).numpy()).pvalue > 1e-4


def test_a_workload_that_never_flips_has_no_flipped_view() -> None:
    crops = Augmentation(padding=4)
    assert views.count(crops) == 81 and views.draw(torch.arange(5000), 1, 0, crops).max() == 80
    assert views.count(PLAIN) == 1
    assert views.draw(torch.arange(50), 1, 0, PLAIN).unique().tolist() == [0]


def test_cutout_blackens_a_square_and_cannot_be_numbered() -> None:
    how = Augmentation(padding=4, flip=True, cutout=8)
    assert views.count(how) == 0
    cut = views.cut_out(torch.ones(4000, 1, 32, 32), torch.arange(4000), 1, 0, 8)
    hidden = (cut == 0).sum((1, 2, 3))
    assert hidden.max() == 64 and hidden.min() == 16, "whole inside, a quarter of it in a corner"
    assert torch.equal(cut, views.cut_out(torch.ones(4000, 1, 32, 32), torch.arange(4000), 1, 0, 8))
    often = (cut == 0).float().mean((0, 1))
    assert often[8:24, 8:24].std() < 0.01 and often[16, 16] > often[0, 0]


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(files.write_cifar10(tmp_path, files.random_images(140), files.labels_of(140), 40))


def test_batches_show_the_views_and_val_shows_the_images(place: str) -> None:
    train, val = data.load("cifar10", SHARES, "cpu", place, CIFAR)
    assert (train.num_views, val.num_views) == (162, 1)
    images = files.random_images(140)
    for batch in train.batches(16, seed=5, epoch=2):
        assert torch.equal(batch.view, views.draw(batch.index, 2, 5, CIFAR))
        for x, image, view in zip(batch.x, batch.index.tolist(), batch.view.tolist(), strict=True):
            assert torch.equal(x, of_torchvision(images[image], view, CIFAR))
    seen = val.at(torch.arange(len(val)))
    assert torch.equal(seen.x, torch.from_numpy(images[seen.index]).float() / 255) and not seen.view.any()
    assert torch.equal(val.images, seen.x)


def test_splits_of_image_sets_share_one_memory_and_never_overlap(place: str) -> None:
    train, val = data.load("cifar10", SHARES, "cpu", place, CIFAR)
    test = data.load_test("cifar10", SHARES, "cpu", place)
    assert train.pixels.data_ptr() == val.pixels.data_ptr() == test.pixels.data_ptr()
    assert train.pixels.dtype == torch.uint8
    assert sorted(torch.cat([train.ids, val.ids, test.ids]).tolist()) == list(range(140))
    assert (train.counts(), val.counts(), test.counts()) == ([8] * 10, [2] * 10, [4] * 10)


def test_fractions_below_one_take_a_balanced_part(place: str) -> None:
    shares = {"train": 0.3, "val": 0.2, "monitor": 0.1, "test": 0.5}
    parts = data._splits("cifar10", tuple(shares.items()), "cpu", place)
    assert {name: part.counts() for name, part in parts.items()} == {
        "train": [3] * 10,
        "val": [2] * 10,
        "monitor": [1] * 10,
        "test": [2] * 10,
    }
    ids = torch.cat([part.ids for part in parts.values()])
    assert len(ids.unique()) == len(ids) and parts["test"].ids.min() >= 100 and parts["monitor"].ids.max() < 100
