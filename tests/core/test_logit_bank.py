"""The teacher logit bank: the network's bits, asked once for all, whatever is killed, missing or damaged."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from absld_search.core import data, logit_bank, logit_blocks, models, teacher_making
from absld_search.core.config import TrialConfig
from absld_search.core.data import Batch, Split
from absld_search.core.files import Folders
from absld_search.core.logit_bank import LogitBank, Network, NonFiniteTeacher
from absld_search.core.logit_blocks import Block
from absld_search.core.methods import METHODS
from absld_search.core.trainer import Schedule, Trainer
from absld_search.core.trial import TEACHER_COUNTS, run_trial
from absld_search.workloads import Augmentation, Workload, workload
from tests import image_files as files
from tests.core.zoo import same

CIFAR = Augmentation(padding=4, flip=True)
CROPS = Augmentation(padding=1)  # nine views: they occur again soon
IMAGES = 128  # two chunks


def split(how: Augmentation = CIFAR, images: int = IMAGES) -> Split:
    """Noise, of which the first images are left out: an id is no row."""
    pixels, ids = torch.from_numpy(files.random_images(images + 10)), torch.arange(10, images + 10)
    return Split(pixels, (ids % 10).long(), ids, 10, how, rows=ids)


def network() -> torch.nn.Module:
    return models.build("resnet-8-2", 10, 3, 1)


def bank(folder: Path, how: Augmentation = CIFAR, stream: int = 0, images: int = IMAGES) -> LogitBank:
    return LogitBank(network, "t", split(how, images), stream, folder)


def answers(asked: Network, epochs: int, shown: Split, stream: int = 0) -> list[torch.Tensor]:
    found = []
    for number in range(1, epochs + 1):
        asked.start_epoch(number)
        found += [asked.clean_logits(batch) for batch in shown.batches(48, stream, number)]
    return found


def all_equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_it_says_what_the_network_says(tmp_path: Path) -> None:
    asked, kept = Network(network()), bank(tmp_path)
    expected = answers(asked, 3, split())
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(expected, answers(kept, 3, split()), strict=True))
    assert kept.count.looked_up == asked.count.asked == 3 * IMAGES
    again = bank(tmp_path)
    assert all_equal(answers(again, 3, split()), answers(kept, 3, split()))
    assert again.count.asked == 0 and "model" not in vars(again), "the network was not even built"


def test_an_image_gets_the_same_bits_in_any_company() -> None:
    """Chunks have one size, so a copied row and one asked anew cannot be told apart."""
    model, shown = Network(network()), split()
    batch = shown.seen(torch.arange(IMAGES), 1, 0)
    other = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        straight = torch.cat([model(x) for x in batch.x.split(64)])
        shuffled = torch.cat([model(x) for x in batch.x[other].split(64)])
    assert torch.equal(straight[other], shuffled)


def test_a_view_that_occurred_is_not_asked_again(tmp_path: Path) -> None:
    kept = bank(tmp_path, CROPS)
    answers(kept, 24, split(CROPS))
    views = torch.stack([split(CROPS).views_of(epoch, 0) for epoch in range(1, 25)], 1)
    distinct = sum(len(row.unique()) for row in views)
    assert distinct <= kept.count.asked <= distinct + 24 * 63 < 24 * IMAGES, "no more than the last chunks' filling"
    other = bank(tmp_path, CROPS, stream=5)
    expected = answers(Network(network()), 12, split(CROPS), stream=5)
    found = answers(other, 12, split(CROPS), stream=5)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, expected, strict=True))
    assert other.count.asked < 8 * IMAGES, "another stream's blocks are looked at too"


def test_copied_or_asked_the_bits_are_the_same(tmp_path: Path) -> None:
    in_order, alone = bank(tmp_path / "a", CROPS), bank(tmp_path / "b", CROPS)
    answers(in_order, 6, split(CROPS))
    alone.start_epoch(6)  # as after a checkpoint, on a node that has no earlier block
    batch = split(CROPS).seen(torch.arange(IMAGES), 6, 0)
    assert torch.equal(alone.clean_logits(batch), in_order.clean_logits(batch))


def test_images_with_one_view_are_one_block_for_ever(tmp_path: Path) -> None:
    train, _ = data.load("digits", {"train": 0.4, "val": 0.6}, "cpu")
    kept = LogitBank(models.build("cnn-8", 10, 1, 0), "t", train, 3, tmp_path)
    for epoch in (1, 2, 30):
        kept.start_epoch(epoch)
        for batch in train.batches(100, 3, epoch):
            assert torch.allclose(kept.clean_logits(batch), kept.model(batch.x), atol=1e-6)
    assert len(list(tmp_path.rglob("*.arrow"))) == 1 and kept.count.asked < len(train) + 64


def test_other_views_and_other_images_are_put_to_the_network(tmp_path: Path) -> None:
    shown = split(images=IMAGES)
    kept = bank(tmp_path, images=64)  # knows only half of the images
    plain, stranger = shown.at(torch.arange(32)), shown.seen(torch.arange(60, 100), 1, 0)
    for batch in (plain, stranger):
        assert torch.allclose(kept.clean_logits(batch), kept.model(batch.x), atol=1e-6)
    assert kept.count.looked_up == 0


@pytest.mark.parametrize("name", ["cnn-8", "wrn-10-10"])
def test_an_attack_on_the_teacher_may_follow_an_empty_block(name: str, tmp_path: Path) -> None:
    """What fills a block builds the network; an attack that needs its gradient may come later (AdaAD)."""
    train, _ = data.load("digits", {"train": 0.02, "val": 0.98}, "cpu")
    kept = LogitBank(lambda: models.build(name, 10, 1, 0), "t", train, 3, tmp_path)
    batch = next(train.batches(8, 3, 1))
    kept.start_epoch(1)
    kept.clean_logits(batch)
    x = batch.x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(kept(x).square().sum(), x)
    assert kept.count.asked > len(batch.x) and gradient.norm() > 0


def test_drawn_with_replacement(tmp_path: Path) -> None:
    kept, even = bank(tmp_path), torch.full((10,), 0.1)
    for batch in split().batches(50, 0, 1, lambda: even):
        assert torch.allclose(kept.clean_logits(batch), kept.model(batch.x), atol=1e-6)
    assert kept.count.looked_up == IMAGES


def test_views_that_cannot_be_numbered_have_no_bank(tiny: Workload, folders: Folders) -> None:
    for how, kind in ((tiny.augmentation, LogitBank), (replace(tiny.augmentation, cutout=4), Network)):
        train, _ = data.load("cifar10", tiny.split, "cpu", folders.data, how)
        asked = teacher_making.teacher(tiny, "sat", train, folders)
        assert type(asked) is kind
        batch = next(train.batches(8, 0, 1))
        assert torch.allclose(asked.clean_logits(batch), asked.model(batch.x), atol=1e-6)


def test_a_teacher_of_nan_is_refused_by_name(tmp_path: Path) -> None:
    model = network()
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    kept = LogitBank(model, "broken", split(), 0, tmp_path)
    kept.start_epoch(4)
    with pytest.raises(NonFiniteTeacher, match="nonfinite:teacher-broken@4"):
        kept.clean_logits(split().seen(torch.arange(8), 4, 0))
    assert not list(tmp_path.rglob("*.arrow"))


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    middle = len(content) // 2
    made = {
        "empty": b"",
        "cut": content[:middle],
        "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "html": b"<html>quota</html>",
    }
    path.write_bytes(made[how])


@pytest.mark.parametrize("how", ["empty", "cut", "flipped", "html", "another"])
def test_a_damaged_block_is_computed_again(tmp_path: Path, how: str) -> None:
    batch = split().seen(torch.arange(IMAGES), 1, 0)
    expected = bank(tmp_path).clean_logits(batch)
    (path,) = tmp_path.rglob("*.arrow")
    if how == "another":  # a whole file, but of other views
        logit_blocks.write(path, Block(np.arange(IMAGES), np.zeros((IMAGES, 10), dtype=np.float32)))
    else:
        damage(path, how)
    again = bank(tmp_path)
    assert torch.equal(again.clean_logits(batch), expected) and again.count.asked == IMAGES
    assert logit_blocks.read(path) is not None


@pytest.mark.parametrize("full", ["nearly", "while writing"])
def test_a_full_disk_costs_forwards_and_no_bits(
    tmp_path: Path, full: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    expected = answers(bank(tmp_path / "whole"), 2, split())
    if full == "nearly":
        monkeypatch.setattr(logit_blocks, "RESERVE", 1 << 60)
    else:
        monkeypatch.setattr(logit_blocks, "write", no_space)
    kept = bank(tmp_path / "full")
    assert all_equal(answers(kept, 2, split()), expected)
    assert not list((tmp_path / "full").rglob("*.arrow")) and "kept in memory" in caplog.text


def test_a_block_is_mapped_and_not_copied(tmp_path: Path) -> None:
    kept = bank(tmp_path)
    kept.open()
    del kept.block
    before = pa.total_allocated_bytes()
    (path,) = tmp_path.rglob("*.arrow")
    found = logit_blocks.read(path)
    assert found is not None and pa.total_allocated_bytes() == before
    assert not found.logits.flags.owndata and not found.logits.flags.writeable


def test_the_estimate_is_what_lies_there(tmp_path: Path) -> None:
    answers(bank(tmp_path, images=640), 2, split(images=640))
    there = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert there == pytest.approx(logit_bank.estimate(640, 162, 10, 2, 1), rel=0.05)
    assert logit_bank.estimate(640, 1, 10, 300, 8) == 640 * 48


PROCESSES = multiprocessing.get_context("forkserver")  # which imports torch once for all of them
PROCESSES.set_forkserver_preload(["tests.core.test_logit_bank"])


def started(target: Callable[..., None], *args: object) -> multiprocessing.process.BaseProcess:
    process = PROCESSES.Process(target=target, args=args)
    process.start()
    return process


def fill(place: Path, stop_at: int = 0) -> None:
    """Two blocks, chunk by chunk, each of which is written down; stuck from the chunk `stop_at` on."""
    torch.set_num_threads(1)
    logit_bank.SHARE = 1
    kept = bank(place / "bank", images=640)
    ask = kept._ask

    def told(rows: np.ndarray, epoch: int) -> np.ndarray:
        with open(place / "asked", "a") as log:
            log.write(f"{epoch} {rows[0]}\n")
        if stop_at and len(asked_shares(place)) == stop_at:
            (place / "stuck").touch()
            time.sleep(600)  # until it is killed
        time.sleep(0.02)  # time for the others to come in
        return ask(rows, epoch)

    kept._ask = told  # type: ignore[method-assign]
    answers(kept, 2, split(images=640))


def asked_shares(place: Path) -> list[str]:
    return (place / "asked").read_text().splitlines()


def test_processes_share_the_work_and_none_of_it_is_done_twice(tmp_path: Path) -> None:
    processes = [started(fill, tmp_path) for _ in range(3)]
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    shares = asked_shares(tmp_path)
    assert len(shares) == len(set(shares)) == 2 * 640 // 64
    expected = answers(bank(tmp_path / "alone", images=640), 2, split(images=640))
    assert all_equal(answers(bank(tmp_path / "bank", images=640), 2, split(images=640)), expected)
    assert len(list((tmp_path / "bank").rglob("epoch-*"))) == 2, "the shares are gone"


def test_a_killed_filler_leaves_nothing_that_is_trusted(tmp_path: Path) -> None:
    process = started(fill, tmp_path, 13)  # in the middle of the second block
    for _ in range(1200):
        if (tmp_path / "stuck").exists():
            break
        time.sleep(0.1)
    process.kill()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    torn = next((tmp_path / "bank").rglob("epoch-00002.share-000"))  # and a power cut tore what was there
    damage(torn, "cut")
    (torn.parent / f".{torn.name}.1.tmp").write_bytes(b"half")
    expected = answers(bank(tmp_path / "alone", images=640), 2, split(images=640))
    after = bank(tmp_path / "bank", images=640)
    assert all_equal(answers(after, 2, split(images=640)), expected)
    assert after.count.asked <= 640, "the first block was whole"
    assert not list((tmp_path / "bank").rglob("*.tmp")) and len(list((tmp_path / "bank").rglob("epoch-*"))) == 2


def trained(asked: Network, folder: Path | None = None, stop: int = 0) -> Trainer:
    method = METHODS["absld"](eps=0.03, step_size=0.01, num_steps=2)
    student = models.build("resnet-8-2", 10, 3, 0)
    made = Trainer(student, method, {"robust": asked}, split(), Schedule(4, 32, 0.1, 0.9, 2e-4, (0.5,), 0.1), 0)
    while made.epoch < (stop or 4):
        made.run_epoch()
    return made


def test_a_training_with_the_bank_is_the_training_without(tmp_path: Path) -> None:
    class Whole(Network):
        """The network, asked about the batch in chunks of the bank's size."""

        def clean_logits(self, batch: Batch) -> torch.Tensor:
            filled = torch.cat([batch.x, batch.x[:1].expand(64 - len(batch.x), -1, -1, -1)])
            with torch.inference_mode():
                return self(filled)[: len(batch.x)].clone()

    assert same(trained(Whole(network())), trained(bank(tmp_path)))


def test_a_training_goes_on_from_a_checkpoint_bit_for_bit(tmp_path: Path) -> None:
    whole = trained(bank(tmp_path / "whole"))
    stopped = trained(bank(tmp_path / "node-a"), stop=2)
    for node in ("node-a", "node-b"):  # where the blocks are, and where there are none
        rest = trained(bank(tmp_path / node), stop=-1)
        rest.load_state_dict(copy.deepcopy(stopped.state_dict()))
        rest.run(lambda end: None)
        assert same(rest, whole)
        assert rest.asked["robust"].count.asked == 4 * IMAGES, "what the first part asked is counted"


def train_in(cache: str, folder: Path, rate: float) -> None:
    """A training on digits in a process of its own."""
    os.environ["ABSLD_CACHE_DIR"] = cache
    config = TrialConfig.from_words({"temperature_lr": rate}, "digits-smoke")
    run_trial(config, folder / str(rate), lambda *_: None)


def test_four_trials_in_four_processes_ask_at_most_a_quarter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABSLD_CACHE_DIR", str(tmp_path / "cache"))  # where nobody has asked yet
    setting, rates = workload("digits-smoke"), [0.0, 0.1, 0.2, 0.3]
    teacher_making.ensure_teacher(setting, "trades-wide", "cpu", lambda line: None)
    processes = [started(train_in, os.environ["ABSLD_CACHE_DIR"], tmp_path, rate) for rate in rates]
    for process in processes:
        process.join(240)
    assert [process.exitcode for process in processes] == [0] * 4
    counts = [json.loads((tmp_path / str(rate) / TEACHER_COUNTS).read_text())["robust"] for rate in rates]
    plain = 4 * setting.epochs * len(data.load("digits", setting.split, "cpu")[0])
    assert sum(count["looked_up"] for count in counts) == plain
    assert 0 < sum(count["asked"] for count in counts) <= plain / 4


def test_a_training_killed_and_gone_on_counts_what_it_asked(tmp_path: Path) -> None:
    config = TrialConfig.from_words({"epochs": 2}, "digits-smoke", seed=4)
    run_trial(config, tmp_path, lambda *_: None)
    found = json.loads((tmp_path / TEACHER_COUNTS).read_text())["robust"]
    assert found["looked_up"] == 2 * len(data.load("digits", workload("digits-smoke").split, "cpu")[0])
