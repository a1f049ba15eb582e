"""The replay: every configuration once, rungs that are paid for, and a page whose tables are the script's."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from absld_search.search.scheduler import STOPPING
from analysis.writing import filled
from benchmarks import replay
from benchmarks.replay_record import configurations, resolved
from benchmarks.replay_table import Records

COUNT = 12


@pytest.fixture(scope="module")
def records() -> Records:
    """Twelve configurations that every rung ranks rightly, and one of them better than all others."""
    made = resolved("digits", COUNT)
    worth = np.random.default_rng(0).permutation(COUNT) / COUNT
    values = np.stack([worth, worth], axis=-1)[:, None, None] * np.array([0.5, 0.8, 1.0])[None, None, :, None]
    return Records(configurations(made), (3, 10, 30), np.repeat(values, 3, axis=1), made)


@pytest.mark.parametrize("stopping", STOPPING)
def test_what_is_trained_is_paid_for_once(records: Records, stopping: str) -> None:
    steps = list(replay.ours(records, "random", stopping, seed=0))
    whole = [configuration for _, configuration in steps if configuration is not None]
    assert len(whole) == len(set(whole)) and int(records.truth[:, 0].argmax()) in whole
    lengths = [epochs for epochs, _ in steps]
    assert lengths.count(30) == len(whole)
    assert lengths.count(3) == (0 if stopping == "none" else COUNT)
    spent = [sum(epochs for epochs, _ in replay.ours(records, "random", stopping, seed)) for seed in range(3)]
    usual = statistics.median(spent)  # where the worst come first, nearly all of them are promoted
    assert usual == COUNT * 30 if stopping == "none" else usual < COUNT * 30 / 2


def test_rays_pair_hands_out_every_configuration(records: Records) -> None:
    steps = list(replay.stock(records, seed=0))
    whole = [configuration for _, configuration in steps if configuration is not None]
    assert len(whole) == len(set(whole)) > 0 and sum(epochs for epochs, _ in steps) < COUNT * 30
    assert 0 < replay.epochs_needed(records, iter(steps)) <= sum(epochs for epochs, _ in steps)


def test_epochs_are_counted_until_the_share_is_covered(records: Records) -> None:
    best = int(records.truth[:, 0].argmax())
    other = (best + 1) % COUNT
    assert replay.epochs_needed(records, iter([(30, other), (3, None), (30, best), (30, None)])) == 63
    assert records.covered([best]) == pytest.approx(1) and records.covered([other]) < 1


def test_a_table_takes_its_place_and_no_other() -> None:
    page = "a\n<!-- replay -->\nold\n<!-- /replay -->\nb\n<!-- queue -->\n<!-- /queue -->\n"
    found = filled(page, "replay", "new")
    assert found == page.replace("old", "new") and filled(found, "replay", "new") == found
    with pytest.raises(ValueError, match="no place for racing"):
        filled(page, "racing", "x")
