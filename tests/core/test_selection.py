"""The selected epoch is the best by its rule, survives a kill, and "last" changes nothing."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from absld_search.core import records, trial
from absld_search.core.config import TrialConfig
from absld_search.core.selection import RULES, SCORES, Selection
from absld_search.core.trial import run_trial
from absld_search.words import UsageError

SMOKE = "digits-smoke"


class Killed(Exception):
    """Stands for a SIGKILL: nothing after it runs."""


def config(rule: str, test: bool = False) -> TrialConfig:
    # A rate of 2 makes epochs go up and down, so that the last is not the best.
    words = {"method": "sat", "epochs": 3, "learning_rate": 2.0, "selection": rule}
    return TrialConfig.from_words(words, SMOKE, test=test)


def of(model: torch.nn.Linear) -> float:
    return float(model.weight.detach())


def network(value: float) -> torch.nn.Linear:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, value)
    return model


@pytest.mark.parametrize(("rule", "best"), [("avg", 1.0), ("worst", 3.0), ("avg+worst", 2.0), ("oracle:worst", 3.0)])
def test_each_rule_keeps_its_own_best(rule: str, best: float) -> None:
    selection = Selection(rule)
    for epoch, (average, worst) in enumerate([(0.6, 0.1), (0.5, 0.3), (0.3, 0.4), (0.3, 0.4)], start=1):
        metrics = {"robust_accuracy": average, "worst_class_robust_accuracy": worst}
        selection.consider(epoch, metrics, network(float(epoch)))
    assert selection.epoch == best and of(selection.selected(network(9.0))) == best
    again = Selection(rule)
    again.load_state_dict(selection.state_dict())
    assert of(again.selected(network(9.0))) == best and again.best == selection.best


def test_without_a_rule_there_is_nothing_to_keep() -> None:
    selection = Selection("last")
    assert selection.split == "" and selection.state_dict() == {} and of(selection.selected(network(9.0))) == 9.0
    assert {Selection(rule).split for rule in RULES if rule.startswith("oracle:")} == {"test"}


def test_what_is_handed_out_is_the_best_epoch_on_val(tmp_path: Path) -> None:
    rule = "avg+worst"
    found = run_trial(config(rule), tmp_path, lambda *_: None)
    epochs = records.EpochLog(tmp_path / "epochs.jsonl").read()
    scores = {number: sum(metrics[name] for name in SCORES[rule]) for number, metrics in epochs.items()}
    assert len(scores) == 3 and sum(found[name] for name in SCORES[rule]) == max(scores.values())
    chosen = epochs[3]["selected_epoch"]
    assert scores[int(chosen)] == max(scores.values())
    images = pq.ParquetFile(tmp_path / "images.parquet").read().to_pandas()
    assert images[images.attack == "clean"].correct.mean() == pytest.approx(epochs[int(chosen)]["clean_accuracy"])


def test_a_kill_loses_no_epoch_that_was_the_best(tmp_path: Path) -> None:
    whole, folder = run_trial(config("worst"), tmp_path / "whole", lambda *_: None), tmp_path / "killed"

    def killed(epoch: int, metrics: dict[str, float]) -> None:
        if epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        run_trial(config("worst"), folder, killed, checkpoint_seconds=0)
    assert run_trial(config("worst"), folder, lambda *_: None, checkpoint_seconds=0) == whole
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


def test_only_an_oracle_sees_test_while_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = trial.Run._test
    monkeypatch.setattr(trial.Run, "_test", lambda self: asked.append(self.trainer.epoch) or real(self))
    run_trial(config("avg+worst", test=True), tmp_path / "honest", lambda *_: None)
    assert asked == [3]
    asked.clear()
    run_trial(config("oracle:avg+worst"), tmp_path / "oracle", lambda *_: None)
    assert asked == [1, 2, 3]


def test_a_rule_is_part_of_what_a_training_is() -> None:
    assert len({config(rule).hash for rule in RULES}) == len(RULES)
    assert (
        config("last").hash == TrialConfig.from_words({"method": "sat", "epochs": 3, "learning_rate": 2.0}, SMOKE).hash
    )
    with pytest.raises(UsageError, match=r"Did you mean 'avg\+worst'"):
        config("avg+wors")
