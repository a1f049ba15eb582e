"""Networks by name: sizes, values and state-dict names of the public releases."""

from __future__ import annotations

import pytest
import torch

from absld_search.core import models
from absld_search.words import UsageError

# Parameters with ten classes. The wrn figures contain the unused sub_block1, as the TRADES release does:
# WRN-34-10 alone is the 46,160,474 of the RobustBench records.
SIZES = {
    "resnet-18": 11_173_962,
    "resnet-34": 21_282_122,
    "resnet-8-16": 78_042,
    "resnet-56-16": 855_770,
    "preact-resnet-18": 11_172_170,
    "mobilenet-v2": 2_296_922,
    "wrn-28-10": 38_119_866,
    "wrn-34-10": 48_262_586,
    "wrn-34-20": 192_883_066,
    "wrn-70-16-swish": 266_796_506,
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name: str) -> None:
    with torch.device("meta"):
        model = models.build(name, 10, 3, 0)
    assert sum(p.numel() for p in model.parameters()) == SIZES[name]


def test_wrn_without_its_unused_part_is_what_the_records_count() -> None:
    with torch.device("meta"):
        model = models.fitted(models.build("wrn-34-10", 10, 3, 0), {"conv1.weight": torch.empty(0)})
    assert sum(p.numel() for p in model.parameters()) == 46_160_474


def with_written_weights(name: str) -> torch.nn.Module:
    """Weights by a formula, so that what is measured is the network and no generator."""
    model = models.build(name, 10, 3, 0).eval()
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            fan_in = tensor[0].numel() if tensor.ndim > 1 else 1
            wave = torch.cos(torch.arange(tensor.numel(), dtype=torch.float64) * 0.7)
            value = wave * (2 / fan_in) ** 0.5 if tensor.ndim > 1 else 1 + wave / 4
            tensor.copy_(value.view_as(tensor))
    return model


# The wide networks were compared with the public implementations: equal logits to 1e-6 with equal weights.
VALUES = {
    "cnn-8": (1.27075, 1.22986, 1.07461),
    "resnet-8-16": (1.15012, 0.998798, 0.879191),
    "resnet-18": (2.33205e06, 2.3167e06, 2.14748e06),
    "preact-resnet-18": (1.47373e06, 1.42596e06, 1.28348e06),
    "mobilenet-v2": (3.48133, -0.499527, 1.51107),
    "wrn-10-1": (1.18098, 1.09572, 0.980904),
    "wrn-10-1-swish": (4.14561, 2.75545, 0.286447),
}


@pytest.mark.parametrize("name", VALUES)
def test_forward_values(name: str) -> None:
    size = 8 if name == "cnn-8" else 32
    x = torch.linspace(0, 1, 3 * size * size).view(1, 3, size, size)
    with torch.no_grad():
        found = with_written_weights(name)(x)[0]
    expected = torch.tensor(VALUES[name])
    assert torch.allclose(found[: len(expected)], expected, rtol=1e-4), found.tolist()


NAMES = {
    "resnet-18": [
        "conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "layer1.1.bn2.bias", "layer2.0.shortcut.0.weight",
        "layer2.0.shortcut.1.running_var", "layer4.1.conv2.weight", "linear.weight", "linear.bias",
    ],
    "preact-resnet-18": [
        "conv1.weight", "layer1.0.bn1.weight", "layer2.0.shortcut.0.weight", "bn.weight", "linear.bias",
    ],
    "mobilenet-v2": [
        "conv1.weight", "layers.0.conv1.weight", "layers.0.shortcut.1.weight", "layers.16.bn3.bias", "conv2.weight",
        "bn2.running_var", "linear.weight",
    ],
    "wrn-34-10": [
        "conv1.weight", "block1.layer.0.bn1.weight", "block1.layer.0.convShortcut.weight",
        "sub_block1.layer.4.conv2.weight", "block3.layer.4.bn2.num_batches_tracked", "bn1.running_mean",
        "fc.weight", "fc.bias",
    ],
    "wrn-70-16-swish": [
        "init_conv.weight", "layer.0.block.0.batchnorm_0.weight", "layer.0.block.0.shortcut.weight",
        "layer.2.block.10.conv_1.weight", "batchnorm.running_var", "logits.weight", "logits.bias",
    ],
}  # fmt: skip
ENTRIES = {"resnet-18": 122, "preact-resnet-18": 107, "mobilenet-v2": 344, "wrn-34-10": 252, "wrn-70-16-swish": 407}


@pytest.mark.parametrize("name", NAMES)
def test_state_dict_names_are_those_of_the_releases(name: str) -> None:
    with torch.device("meta"):
        state = models.build(name, 10, 3, 0).state_dict()
    assert set(NAMES[name]) <= set(state)
    assert len(state) == ENTRIES[name]


@pytest.mark.parametrize("name", ["resnet-8-16", "preact-resnet-18", "mobilenet-v2", "wrn-10-1", "wrn-10-1-swish"])
def test_classes_channels_and_size_are_arguments(name: str) -> None:
    model = models.build(name, 200, 3, 0, size=64).eval()
    assert model(torch.rand(2, 3, 64, 64)).shape == (2, 200)
    assert model.state_dict()[models.classifier(model)].shape[0] == 200


def test_small_network_for_larger_images() -> None:
    assert models.build("cnn-8", 10, 3, 0, size=16)(torch.rand(2, 3, 16, 16)).shape == (2, 10)


def test_swish_network_normalises_with_its_data_sets_means() -> None:
    ten, hundred = (models.build("wrn-10-1-swish", classes, 3, 0) for classes in (10, 100))
    assert ten.mean.ravel().tolist() == pytest.approx([0.4914, 0.4822, 0.4465])
    assert hundred.std.ravel().tolist() == pytest.approx([0.2673, 0.2564, 0.2762])
    assert not {"mean", "std"} & set(ten.state_dict()), "the released files have neither"


def test_unused_block_changes_nothing() -> None:
    whole = models.build("wrn-10-1", 10, 3, 0).eval()
    x = torch.rand(2, 3, 32, 32)
    before = whole(x)
    torch.nn.init.constant_(whole.sub_block1.layer[0].conv1.weight, float("nan"))
    assert torch.equal(whole(x), before)
    assert torch.equal(models.fitted(whole, {})(x), before) and not hasattr(whole, "sub_block1")


def test_names_that_are_none() -> None:
    for name, message in (
        ("resnet18", "Did you mean 'resnet-18'"),
        ("resnet-9-16", "6n [+] 2"),
        ("wrn-33-10", "6n [+] 4"),
        ("wrn-34-0", "unknown"),
        ("mobilenet-v3", "mobilenet-v2"),
        ("resnet", "Known: .*cnn-WIDTH, .*resnet-DEPTH-WIDTH, .*wrn-DEPTH-FACTOR, wrn-DEPTH-FACTOR-swish"),
    ):
        with pytest.raises(UsageError, match=message):
            models.build(name, 10, 3, 0)
    with pytest.raises(UsageError, match="multiple of 8"):
        models.build("resnet-18", 10, 3, 0, size=30)
