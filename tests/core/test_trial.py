"""One training from words to tables: resumable to the bit, readable back, checked at the gate."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from absld_search.core import checkpoints, evaluation, records, results, teacher_making, teachers, trial
from absld_search.core.config import TrialConfig
from absld_search.core.files import Folders
from absld_search.core.methods import METHODS
from absld_search.core.methods.base import Method, knob
from absld_search.core.methods.rslad import RSLAD
from absld_search.core.trainer import NonFinite
from absld_search.core.trial import run_trial
from absld_search.words import UsageError
from absld_search.workloads import workload

SMOKE = "digits-smoke"


class Killed(Exception):
    """Stands for a SIGKILL: nothing after it runs."""


def config(**words: object) -> TrialConfig:
    return TrialConfig.from_words({"epochs": 4, **words}, SMOKE)


def table(folder: Path, name: str) -> pa.Table:
    return pq.ParquetFile(folder / f"{name}.parquet").read()


def test_kill_after_any_epoch_and_the_numbers_are_the_same(tmp_path: Path) -> None:
    whole = run_trial(config(), tmp_path / "whole", lambda *_: None)
    for stop in (1, 2, 3):
        folder, seen = tmp_path / f"stop{stop}", []

        def report(epoch: int, metrics: dict[str, float], stop: int = stop, seen: list[int] = seen) -> None:
            seen.append(epoch)
            if epoch == stop and seen.count(stop) == 1:
                raise Killed

        with pytest.raises(Killed):
            run_trial(config(), folder, report, checkpoint_seconds=0)
        assert run_trial(config(), folder, report, checkpoint_seconds=0) == whole
        assert seen == [1, 2, 3, 4]  # the checkpoint of the killed epoch was on disk already
        assert table(tmp_path / "whole", "epochs").equals(table(folder, "epochs"))


def test_a_complete_training_answers_at_once(tmp_path: Path) -> None:
    found = run_trial(config(), tmp_path, lambda *_: None)
    again = run_trial(config(), tmp_path, lambda *_: pytest.fail("trained again"))
    assert again == found
    assert not list(tmp_path.glob("*.pt")), "checkpoints of a complete training are removed"
    assert (tmp_path / "model.safetensors").exists()


def test_shard_agrees_with_the_metrics(tmp_path: Path) -> None:
    found = run_trial(TrialConfig.from_words({}, SMOKE, seed=3, test=True), tmp_path, lambda *_: None)
    images = table(tmp_path, "images").to_pandas()
    for (split, attack), rows in images.groupby(["split", "attack"]):
        kind = evaluation.KINDS[attack]
        name = f"{'test/' if split == 'test' else ''}{kind}_accuracy"
        assert rows.correct.mean() == pytest.approx(found[name])
        worst = rows.groupby("label").correct.mean().min()
        assert worst == pytest.approx(found[name.replace(f"{kind}_acc", f"worst_class_{kind}_acc")])
    assert set(images.split) == {"val", "test"}
    assert not set(images[images.split == "val"].image) & set(images[images.split == "test"].image)
    assert images.training.unique().tolist() == [TrialConfig.from_words({}, SMOKE, seed=3).key]


def test_epochs_carry_every_temperature(tmp_path: Path) -> None:
    run_trial(config(), tmp_path, lambda *_: None)
    for metrics in records.EpochLog(tmp_path / "epochs.jsonl").read().values():
        for label in range(10):
            for name in ("temperature_adv", "temperature_clean", "train/robust_accuracy", "robust_accuracy"):
                assert np.isfinite(metrics[f"{name}/class_{label:02d}"])


def test_a_torn_log_line_is_fenced_off(tmp_path: Path) -> None:
    log = records.EpochLog(tmp_path / "epochs.jsonl")
    log.append(1, {"a": 1.0})
    with open(log.path, "a") as handle:
        handle.write('\n{"epoch": 2, "met')
    log.append(2, {"a": 2.0})
    log.append(2, {"a": 2.5})
    assert log.read() == {1: {"a": 1.0}, 2: {"a": 2.5}}
    assert log.last() == {"a": 2.5}


def test_evaluation_does_not_disturb_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def weights(folder: Path, every: int) -> bytes:
        setting = workload(SMOKE)
        changed = type(setting)(**{**setting.__dict__, "eval_every": every})
        monkeypatch.setattr(trial, "workload", lambda name: changed)
        run_trial(config(), folder, lambda *_: None)
        return (folder / "model.safetensors").read_bytes()

    assert weights(tmp_path / "often", 1) == weights(tmp_path / "never", 100)


def test_nan_student_fails_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = trial.models.build

    def poisoned(name: str, classes: int, channels: int, seed: int, size: int) -> torch.nn.Module:
        model = real(name, classes, channels, seed, size)
        if name == workload(SMOKE).student:
            with torch.no_grad():
                next(model.parameters()).fill_(float("inf"))
        return model

    teacher_making.ensure_teacher(workload(SMOKE), "trades-wide", "cpu", say=lambda line: None)
    monkeypatch.setattr(trial.models, "build", poisoned)
    with pytest.raises(NonFinite, match="nonfinite:student-logits@1"):
        run_trial(config(), tmp_path, lambda *_: None)
    assert results.read_result(tmp_path) is None


GATE = [
    ({"temperatur_lr": 0.1}, "'temperatur_lr' is unknown. Did you mean 'temperature_lr'"),
    ({"method": "absl"}, "Did you mean 'absld'"),
    ({"teacher": "trade-wide"}, "Did you mean 'trades-wide'"),
    ({"coupling": "duall"}, "Did you mean 'dual'"),
    ({"learning_rate": "-0.1"}, "learning_rate must be greater than 0"),
    ({"epochs": "0"}, "epochs must be at least 1"),
    ({"epochs": "1.5"}, "whole number"),
    ({"temperature_lr": -1}, "temperature_lr must be at least 0"),
    ({"coupling_strength": 2}, "at most 1"),
    ({"method": "sat", "coupling": "dual"}, "'coupling' is unknown"),
    ({"initial_temperature_adv": 0.1}, "outside its bounds"),
]


@pytest.mark.parametrize(("words", "message"), GATE)
def test_gate(words: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrialConfig.from_words(words, SMOKE)


class NotDecorated(RSLAD):
    sharpness: float = knob(1.0)


@dataclass
class NotMarked(RSLAD):
    sharpness: float = 1.0


class NeitherOfBoth(RSLAD):
    sharpness: float = 1.0


@pytest.mark.parametrize(
    ("own", "words"),
    [(NotDecorated, {}), (NotDecorated, {"sharpness": 2}), (NotMarked, {"sharpness": 2}),
     (NeitherOfBoth, {"sharpness": 2})],
)  # fmt: skip
def test_what_is_no_knob_of_an_own_method_is_said(
    own: type[Method], words: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "own", own)
    with pytest.raises(UsageError, match=f"{own.__name__}.sharpness is no knob: is @dataclass missing"):
        config(method="own", **words)
    if own is not NotDecorated:
        with pytest.raises(UsageError, match="'num_step' is unknown. Did you mean 'num_steps'"):
            config(method="own", num_step=2)


@dataclass
class OtherRoles(RSLAD):
    def roles(self) -> tuple[str, ...]:
        return ("clean", "robus")


def test_a_role_that_no_teacher_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "own", OtherRoles)
    with pytest.raises(UsageError, match="OtherRoles: teacher role 'robus' is unknown. Did you mean 'robust'"):
        config(method="own").teacher_names  # noqa: B018


def test_identity() -> None:
    first = config(temperature_lr="0.1", eps="38.25/255")
    assert first.hash == config().hash, "saying the default is saying nothing"
    assert first.hash != config(temperature_lr=0.2).hash
    assert first.hash == TrialConfig.from_words({"epochs": 4}, SMOKE, seed=9, test=True).hash
    assert TrialConfig.from_dict(json.loads(json.dumps(first.to_dict()))) == first
    names = ("trades-wide", "sat-wide")
    trades = [TrialConfig.from_words({"method": "trades", "teacher": name}, SMOKE) for name in names]
    assert trades[0].hash == trades[1].hash, "a method without a teacher does not depend on one"


def test_every_seed_gives_the_same_start_to_every_arm(tmp_path: Path) -> None:
    """Initial weights and batch order are functions of (workload, seed) alone: arms are paired."""
    setting = workload(SMOKE)
    train, _ = trial.data.load(setting.dataset, setting.split, "cpu")
    runs = [trial._trainer(config(coupling=name), setting, train) for name in ("dual", "product")]
    first, second = (list(run.student.state_dict().values()) for run in runs)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    orders = [[b.index.tolist() for b in train.batches(100, 7, 1)] for _ in range(2)]
    assert orders[0] == orders[1] != [b.index.tolist() for b in train.batches(100, 7, 2)]


def test_teacher_is_trained_once_and_retrained_when_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABSLD_CACHE_DIR", str(tmp_path))  # where no test before this one has trained it
    setting, said, passed = workload(SMOKE), [], []
    file = teacher_making.ensure_teacher(setting, "sat-narrow", "cpu", said.append, passing=passed.append)
    teacher_making.ensure_teacher(setting, "sat-narrow", "cpu", said.append, passing=passed.append)
    assert len(said) == 1 and "sat-narrow" in said[0]
    epochs = setting.teachers["sat-narrow"].epochs
    assert [line.partition(",")[0] for line in passed[:-1]] == [
        f"teacher sat-narrow: epoch {number}/{epochs}" for number in range(1, epochs + 1)
    ], "one line an epoch, of the one time that it was trained"
    facts = teachers.facts(file)
    assert set(facts) >= {"sha256", "clean_accuracy", "robust_accuracy", "worst_class_robust_accuracy"}
    file.path.write_bytes(file.path.read_bytes()[:-1] + b"x")
    assert not file.valid()
    teacher_making.ensure_teacher(setting, "sat-narrow", "cpu", said.append)
    assert len(said) == 2 and file.valid()
    assert teachers.facts(file)["sha256"] == facts["sha256"], "the recipe is deterministic"


def test_a_trainings_teacher_says_what_the_network_says() -> None:
    setting = workload(SMOKE)
    train, _ = trial.data.load(setting.dataset, setting.split, "cpu")
    bank = teacher_making.teacher(setting, "trades-wide", train)
    batch = next(train.batches(64, 0, 1))
    asked = teachers.Network(bank.model).clean_logits(batch)
    assert torch.allclose(bank.clean_logits(batch), asked, atol=1e-5) and bank.count.looked_up == len(batch.y)


def test_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for epoch in (1, 2, 3):
        newest = checkpoints.save(tmp_path, epoch, {"epoch": epoch, "weights": torch.full((500,), float(epoch))})
    assert len(list(tmp_path.glob("epoch-*.pt"))) == checkpoints.KEEP
    content = newest.read_bytes()
    half, flipped = content[: len(content) // 2], content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
    for cut in (b"", content[:1], half, content[:-1], b"<html>", flipped):
        newest.write_bytes(cut)
        found = checkpoints.newest(tmp_path)
        assert found is not None and found["epoch"] == 2
    assert "damaged" in caplog.text
    assert checkpoints.newest(tmp_path / "nothing") is None


def test_a_pickle_in_place_of_a_checkpoint_never_runs(tmp_path: Path) -> None:
    import pickle

    canary = tmp_path / "canary"

    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (canary,))

    content = pickle.dumps(Evil())
    (tmp_path / f"epoch-00009-{checkpoints.sha256(content)[:16]}.pt").write_bytes(content)
    assert checkpoints.newest(tmp_path) is None
    assert not canary.exists()


def test_a_killed_teacher_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting, spec = workload(SMOKE), replace(workload(SMOKE).teachers["sat-narrow"], epochs=4)
    maker = teacher_making._Maker(setting, "sat-narrow", "cpu", Folders())
    whole = maker.train(spec, tmp_path / "whole")
    monkeypatch.setattr(checkpoints, "Saver", functools.partial(checkpoints.Saver, seconds=0))
    real, seen = teacher_making.Trainer.run_epoch, []

    def killed_in_the_third(self: teacher_making.Trainer) -> object:
        seen.append(self.epoch + 1)
        if seen == [1, 2, 3]:
            raise Killed
        return real(self)

    monkeypatch.setattr(teacher_making.Trainer, "run_epoch", killed_in_the_third)
    with pytest.raises(Killed):
        maker.train(spec, tmp_path / "partial")
    rest = maker.train(spec, tmp_path / "partial")
    assert seen == [1, 2, 3, 3, 4]
    pairs = zip(whole.state_dict().values(), rest.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
