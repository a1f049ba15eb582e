"""Reading: every layout gives the same bytes, decoded once, and nothing that came with the data is run."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from absld_search.core import data, datasets, image_cache
from absld_search.words import UsageError
from tests import image_files as files

SHARES = {"train": 0.5, "val": 0.5, "test": 1.0}


def layouts(folder: Path, images: np.ndarray, labels: np.ndarray, test: int) -> list[Path]:
    return [
        files.write_cifar10(folder / "torchvision", images, labels, test),
        files.write_parquet(folder / "parquet", images, labels, test),
        files.write_parquet(folder / "several" / "cifar10" / "plain_text", images, labels, test).parents[1],
    ]


def check_layouts(folder: Path, images: np.ndarray, labels: np.ndarray, test: int) -> None:
    identities = set()
    for place in layouts(folder, images, labels, test):
        for _ in range(2):  # decoded, then from the cache
            datasets.open_images.cache_clear()
            found = datasets.open_images("cifar10", str(place))
            assert found.images.tobytes() == images.tobytes() and np.array_equal(found.labels, labels)
            assert found.facts.train == len(images) - test and found.facts.classes[3] == "cat"
            identities.add(found.facts.sha256)
    assert len(identities) == 1, "the identity is that of the images, not of their files"


def test_same_bytes_from_every_layout_and_the_cache(tmp_path: Path) -> None:
    check_layouts(tmp_path, files.random_images(60), files.labels_of(60), test=20)


@files.needs_cifar10
def test_same_bytes_of_real_images_from_every_layout_and_the_cache(tmp_path: Path) -> None:
    check_layouts(tmp_path, *files.real_cifar10(200, 100), test=100)


@files.needs_cifar10
def test_real_files_give_the_bytes_that_an_independent_decoding_gives() -> None:
    images, labels = files.real_cifar10(150, 50)
    found = datasets.open_images("cifar10", str(files.REAL / "cifar10"))
    rows = np.r_[:150, 50_000:50_050]
    assert np.array_equal(found.images[rows], images) and np.array_equal(found.labels[rows], labels)
    assert found.images.shape == (60_000, 3, 32, 32) and found.facts.train == 50_000
    assert set(np.bincount(found.labels[:50_000])) == {5_000}
    test = data.load_test("cifar10", {"train": 0.9, "val": 0.1, "test": 1.0}, "cpu", str(files.REAL / "cifar10"))
    assert len(test) == 9_980, "20 test images of these files are stand-ins, and no reported number rests on them"


@files.needs_cifar100
def test_real_cifar100() -> None:
    found = datasets.open_images("cifar100", str(files.REAL / "cifar100-subset"))
    assert found.images.shape == (12_000, 3, 32, 32) and found.labels.max() == 99


def test_svhn_cifar100_and_tiny_imagenet(tmp_path: Path) -> None:
    images, labels = files.random_images(40), files.labels_of(40)
    svhn = datasets.open_images("svhn", str(files.write_svhn(tmp_path / "svhn", images, labels, 20)))
    assert np.array_equal(svhn.images, images) and np.array_equal(svhn.labels, labels)
    images, labels = files.random_images(300), files.labels_of(300, 100)
    hundred = datasets.open_images("cifar100", str(files.write_cifar100(tmp_path / "c100", images, labels, 100)))
    assert np.array_equal(hundred.images, images) and np.array_equal(hundred.labels, labels)
    assert hundred.facts.classes[42] == "name42"
    tiny = datasets.open_images("tiny-imagenet", str(files.write_tiny(tmp_path / "tiny")))
    assert np.array_equal(tiny.images, files.random_images(600, size=64)) and tiny.facts.train == 400
    assert tiny.labels[400:].tolist() == list(range(200)) and tiny.facts.classes[7] == "n00000007"


def test_decoded_once_and_again_only_when_damaged_or_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = str(files.write_parquet(tmp_path / "data", files.random_images(60), files.labels_of(60), 20))
    monkeypatch.setenv("ABSLD_CACHE_DIR", str(tmp_path / "cache"))
    decoded, real = [], datasets._read
    monkeypatch.setattr(datasets, "_read", lambda *words: decoded.append(1) or real(*words))

    def start() -> image_cache.Images:
        datasets.open_images.cache_clear()
        return datasets.open_images("cifar10", place)

    first, again = start(), start()
    assert len(decoded) == 1 and isinstance(again.images, np.memmap)
    (stored,) = tmp_path.glob("cache/data/*/images.npy")
    whole = stored.read_bytes()
    for damaged in (b"", whole[:-1], whole[: len(whole) // 2], whole[:-1] + bytes([whole[-1] ^ 1])):
        del first, again
        stored.write_bytes(damaged)
        first, again = start(), start()  # the second finds what the first has made
        assert first.images.tobytes() == again.images.tobytes() == files.random_images(60).tobytes()
    assert len(decoded) == 5
    assert {entry.suffix for entry in (tmp_path / "cache" / "data").iterdir()} == {"", ".lock"}, "no temporary is left"
    os.utime(tmp_path / "data" / "test-00000-of-00001.parquet", ns=(1, 1))
    start()
    assert len(decoded) == 6
    datasets.open_images.cache_clear()


def test_a_slip_reaches_neither_file_nor_neighbour(tmp_path: Path) -> None:
    place = str(files.write_parquet(tmp_path, files.random_images(60), files.labels_of(60), 20))
    found = datasets.open_images("cifar10", place)
    found.images[0] = 0
    datasets.open_images.cache_clear()
    assert np.array_equal(datasets.open_images("cifar10", place).images, files.random_images(60))


def test_a_pickle_that_would_run_code_is_not_read(tmp_path: Path) -> None:
    place, canary = (
        files.write_cifar10(tmp_path / "d", files.random_images(60), files.labels_of(60), 20),
        tmp_path / "c",
    )

    class Evil:
        def __reduce__(self) -> tuple:
            return (os.mkdir, (str(canary),))

    (place / "cifar-10-batches-py" / "data_batch_3").write_bytes(pickle.dumps({"data": Evil(), "labels": []}))
    with pytest.raises(UsageError, match="mkdir"):
        datasets.open_images("cifar10", str(place))
    assert not canary.exists()
    for content in (b"", b"<html>", pickle.dumps([1])[:-1]):
        (place / "cifar-10-batches-py" / "data_batch_3").write_bytes(content)
        with pytest.raises(UsageError, match="data_batch_3"):
            datasets.open_images("cifar10", str(place))


def test_missing_data_say_what_to_put_where(tmp_path: Path) -> None:
    for name, words in (
        (
            "cifar10",
            [
                "cifar-10-batches-py/ (the layout of torchvision)",
                "train-*.parquet",
                "columns img and label",
                "--download",
            ],
        ),
        ("cifar100", ["cifar-100-python/", "fine_label"]),
        ("svhn", ["train_32x32.mat"]),
        ("tiny-imagenet", ["tiny-imagenet-200/"]),
    ):
        with pytest.raises(UsageError) as refused:
            datasets.open_images(name, str(tmp_path / "nowhere"))
        assert all(word in str(refused.value) for word in [*words, str(tmp_path / "nowhere"), "no such folder"])
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(UsageError, match="no CIFAR-10 there"):
        datasets.open_images("cifar10", str(tmp_path))


def test_no_layout_and_no_download_is_offered_that_a_data_set_does_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(datasets.IMAGE_SETS, "mine", datasets.ImageSet("My images", 3, 16, "kind"))
    with pytest.raises(UsageError) as refused:
        datasets.open_images("mine", str(tmp_path))
    assert str(refused.value) == (
        f"--data-dir {tmp_path}: no My images there. Put train-*.parquet and test-*.parquet with columns img and kind "
        "into it, or name the folder that has them."
    )
    with pytest.raises(UsageError, match="--download: torchvision does not offer My images"):
        datasets.download("mine", str(tmp_path))
    with pytest.raises(UsageError, match="Did you mean 'mine'"):
        datasets.download("mnie", str(tmp_path))
    with pytest.raises(UsageError) as refused:
        datasets.open_images("tiny-imagenet", str(tmp_path))
    assert "tiny-imagenet-200/ (as its archive unpacks) or" in str(refused.value)
    assert "--download" not in str(refused.value)


def test_files_of_another_data_set_are_refused(tmp_path: Path) -> None:
    images = files.random_images(60)
    hundred = files.write_parquet(tmp_path / "100", images, files.labels_of(60, 100), 20, "label")
    with pytest.raises(UsageError, match="labels go from 0 to 39, CIFAR-10 has 10 classes"):
        datasets.open_images("cifar10", str(hundred))
    with pytest.raises(UsageError, match="img and fine_label are needed"):
        datasets.open_images("cifar100", str(hundred))
    large = files.write_parquet(tmp_path / "64", files.random_images(60, size=64), files.labels_of(60), 20)
    with pytest.raises(UsageError, match=r"images are \(3, 64, 64\)"):
        datasets.open_images("cifar10", str(large))


def test_a_missing_class_is_refused_by_its_name(tmp_path: Path) -> None:
    labels = files.labels_of(100)
    labels[(labels == 3) & (np.arange(100) >= 60)] = 4
    place = str(files.write_cifar10(tmp_path, files.random_images(100), labels, 40))
    with pytest.raises(UsageError, match=r"split 'test' of cifar10 has no image of class 3 \(cat\)"):
        data.load("cifar10", SHARES, "cpu", place)


def test_stand_ins_stay_out_of_test_alone(tmp_path: Path) -> None:
    exact = np.arange(100) % 20 > 0
    images, labels = files.random_images(100), files.labels_of(100) * 0
    labels[:] = np.arange(100) // 2 % 10
    place = str(files.write_parquet(tmp_path, images, labels, 40, exact=exact))
    train, val = data.load("cifar10", SHARES, "cpu", place)
    test = data.load_test("cifar10", SHARES, "cpu", place)
    assert len(train) + len(val) == 60 and len(test) == 38
    assert data.facts("cifar10", SHARES, place)["left_out_of_test"] == 2
    assert exact[test.ids.numpy()].all()


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What is said of a data set of three classes, 16 pixels a side, whose train file has such columns."""
    monkeypatch.setenv("ABSLD_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setitem(datasets.IMAGE_SETS, "mine", datasets.ImageSet("My images", 3, 16, "label"))
    monkeypatch.setattr(data, "DATASETS", (*data.DATASETS, "mine"))

    def said(look: bool = True, **columns: Any) -> str:
        for name, changed in (("train", columns), ("test", {})):
            pq.write_table(pa.table({**good_columns(), **changed}), tmp_path / f"{name}-00000.parquet")
        return said_of(tmp_path, look)

    return said


def good_columns(n: int = 12) -> dict[str, list]:
    images = files.random_images(n, size=16)
    return {"img": [{"bytes": files.png(image), "path": None} for image in images], "label": [0, 1, 2] * (n // 3)}


def said_of(folder: Path, look: bool = True) -> str:
    """The refusal by reading everything; by a look at labels and first images the same, or, `look` false, none."""
    datasets.open_images.cache_clear()
    with pytest.raises(UsageError) as whole:
        data.facts("mine", SHARES, str(folder))
    if not look:
        data.look("mine", SHARES, str(folder))
        return str(whole.value)
    with pytest.raises(UsageError) as quick:
        data.look("mine", SHARES, str(folder))
    assert str(quick.value) == str(whole.value)
    return str(whole.value)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["cat", "dog", "cow"] * 4, "row 0 of column label is 'cat'"),
        ([0, 1, None] * 4, "row 2 of column label is null"),
        ([0.0, 1.0, 0.5] + [2.0] * 9, "row 2 of column label is 0.5"),
        ([0.0, float("nan"), 1.0] * 4, "row 1 of column label is nan"),
        (pa.array([2**63] * 12, pa.uint64()), f"row 0 of column label is {2**63}"),
    ],
)
def test_labels_that_are_no_whole_numbers_are_refused_by_row(
    refused: Callable[..., str], values: Any, found: str
) -> None:
    assert f"train-00000.parquet: {found}; a label is a whole number" in refused(label=values)


@pytest.mark.parametrize("values", [[0.0, 1.0, 2.0] * 4, pa.array([0, 1, 2] * 4, pa.uint8())])
def test_whole_numbers_of_any_type_are_labels(refused: Callable[..., str], values: Any, tmp_path: Path) -> None:
    refused(label=["a"] * 12)
    pq.write_table(pa.table({**good_columns(), "label": values}), tmp_path / "train-00000.parquet")
    data.look("mine", SHARES, str(tmp_path))
    assert data.facts("mine", SHARES, str(tmp_path))["counts"] == {"train": [2] * 3, "val": [2] * 3, "test": [4] * 3}


def test_as_many_names_as_classes(refused: Callable[..., str], tmp_path: Path) -> None:
    refused(label=["a"] * 12)
    table = pa.table(good_columns()).replace_schema_metadata({"classes": "cat,dog"})
    pq.write_table(table, tmp_path / "train-00000.parquet")
    assert said_of(tmp_path) == "--data-dir: train names 2 classes, My images has 3."


def test_a_look_sees_that_a_class_is_missing(refused: Callable[..., str]) -> None:
    assert "split 'train' of mine has no image of class 2" in refused(label=[0, 1, 1] * 4)


def test_columns_of_images_that_are_none_are_refused(refused: Callable[..., str]) -> None:
    cells = good_columns()["img"]
    plain = refused(img=[cell["bytes"] for cell in cells])
    assert "train-00000.parquet: column img is binary, it must be a struct with the binary field bytes" in plain
    assert "column img is struct<bytes: string>" in refused(img=[{"bytes": "x"}] * 12)
    assert "column img is struct<path: string>" in refused(img=[{"path": "a.png"}] * 12)
    for nothing in (None, {"bytes": None, "path": "a.png"}):
        said = refused(img=[nothing, *cells[1:]])
        assert "train-00000.parquet: image 0 is missing: column img has no bytes there" in said


def test_an_image_of_another_size_or_none_is_named(refused: Callable[..., str]) -> None:
    cells = good_columns()["img"]
    for wrong, said in (
        (files.png(files.random_images(1, size=20)[0]), "image 9 is (3, 20, 20), the first (3, 16, 16)"),
        (b"no image", "image 9 cannot be decoded (in no format that Pillow knows)"),
        (cells[9]["bytes"][:200], "image 9 cannot be decoded (image file is truncated"),
        (b"", "image 9 cannot be decoded"),
    ):
        message = refused(look=False, img=[*cells[:9], {"bytes": wrong, "path": None}, *cells[10:]])
        assert f"train-00000.parquet: {said}" in message and "0x" not in message


def test_a_refused_data_set_leaves_nothing_in_the_cache(refused: Callable[..., str], tmp_path: Path) -> None:
    refused(img=[None] * 12)
    assert not list((tmp_path / "cache" / "data").iterdir())


def test_a_damaged_parquet_file_is_named(refused: Callable[..., str], tmp_path: Path) -> None:
    refused(look=False, img=[*good_columns()["img"][:11], {"bytes": b"", "path": None}])
    whole = (tmp_path / "train-00000.parquet").read_bytes()
    for content in (b"", whole[:-5], whole[:100], b"PAR1" + b"\0" * 3000 + whole[3004:]):
        (tmp_path / "train-00000.parquet").write_bytes(content)
        assert "train-00000.parquet is damaged or no Parquet file (" in said_of(tmp_path)


def test_a_later_file_with_other_columns_is_named(refused: Callable[..., str], tmp_path: Path) -> None:
    columns = good_columns()
    pq.write_table(pa.table({"img": columns["img"], "labels": columns["label"]}), tmp_path / "train-00001.parquet")
    assert "train-00001.parquet has columns img, labels; img and label are needed" in refused()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1, 2, 3] * 4, "train labels go from 1 to 3, My images has 3 classes, 0 to 2. Do they count from 1?"),
        ([0, 2, 3] * 4, "train labels go from 0 to 3, My images has 3 classes, 0 to 2."),
        ([5, 6, 7] * 4, "train labels go from 5 to 7, My images has 3 classes, 0 to 2."),
        ([-1, 0, 1] * 4, "train labels go from -1 to 1, My images has 3 classes, 0 to 2."),
    ],
)
def test_labels_out_of_range_are_told_as_they_are(refused: Callable[..., str], values: list[int], said: str) -> None:
    assert refused(label=values) == f"--data-dir: {said}"


def test_an_empty_part_is_refused(refused: Callable[..., str]) -> None:
    nothing = {"img": pa.array([], pa.struct({"bytes": pa.binary()})), "label": pa.array([], pa.int64())}
    assert refused(**nothing) == "--data-dir: the train part of My images has no images."


def test_a_look_sees_what_reading_sees(tmp_path: Path) -> None:
    """In every layout: the same labels, places of test and refusals, and next to no pixels."""
    images, labels = files.random_images(300), files.labels_of(300, 100)
    for name, place in (
        ("cifar10", files.write_cifar10(tmp_path / "t", images, files.labels_of(300), 100)),
        ("cifar10", files.write_parquet(tmp_path / "p", images, files.labels_of(300), 100, exact=labels > 3)),
        ("cifar100", files.write_cifar100(tmp_path / "c", images, labels, 100)),
        ("svhn", files.write_svhn(tmp_path / "s", images, files.labels_of(300), 100)),
        ("tiny-imagenet", files.write_tiny(tmp_path / "i")),
    ):
        seen, read = datasets.look(name, str(place)), datasets.open_images(name, str(place))
        assert seen.labels.tolist() == read.labels.tolist() and seen.exact.tolist() == read.exact.tolist()
        assert seen.facts.classes == read.facts.classes and seen.facts.train == read.facts.train
        assert seen.images.shape[1:] == read.images.shape[1:]
        assert len(seen.images) == 2 or seen.facts.layout == "torchvision"
