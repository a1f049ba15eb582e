"""Settings by name: complete, buildable, and clear about what they need."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from click.testing import CliRunner, Result

from absld_search import evaluate, run, train
from absld_search.core import data, datasets, models, results, teacher_making, trial
from absld_search.core.config import TrialConfig
from absld_search.core.files import Folders
from absld_search.workloads import PLAIN, WORKLOADS, FileTeacher, TeacherSpec, Workload, needs, workload
from tests import image_files as files

ROOT = Path(__file__).parents[1]
PAPERS = ("cifar10", "cifar10-mobilenet", "cifar100", "svhn", "tiny-imagenet")


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_workload_is_whole(name: str) -> None:
    setting = workload(name)
    assert setting.name == name and setting.teacher in setting.teachers and setting.cost and setting.summary
    assert set(setting.split) == {"train", "val", "test"} and setting.dataset in data.DATASETS
    for model in (setting.student, *(spec.model for spec in setting.teachers.values())):
        models.check_name(model)
    config = TrialConfig.from_words({}, name)
    assert config.schedule.epochs == setting.epochs and config.augmentation == setting.augmentation
    for teacher in setting.teachers:
        assert TrialConfig.from_words({"teacher": teacher}, name).teacher == teacher
    assert workload(f"{name}-smoke").epochs == 2


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_recipe(name: str) -> None:
    setting = workload(name)
    schedule = TrialConfig.from_words({}, name).schedule
    assert (setting.epochs, schedule.drops(), setting.lr_factor) == (300, [215, 260, 285], 0.1)
    assert (setting.batch_size, setting.momentum, setting.weight_decay) == (128, 0.9, 2e-4)
    assert setting.learning_rate == (0.01 if name == "svhn" else 0.1)
    hyperparameters = TrialConfig.from_words({}, name).hyperparameters
    attack = tuple(hyperparameters[key] for key in ("eps", "step_size", "num_steps"))
    assert attack == (8 / 255, 2 / 255, 10) and setting.eval_step_size == 0.003
    assert (setting.augmentation.padding, setting.augmentation.fill) == (4, "zero")
    assert setting.augmentation.flip == (name != "svhn"), "a flipped 2 is no 2"


def test_nothing_of_digits_moved() -> None:
    assert workload("digits").augmentation == PLAIN
    assert TrialConfig.from_words({}, "digits").hash == "08e7d9b2094cc597"


def test_workloads_are_listed_with_cost_and_needs_and_without_torch() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from absld_search.run import main\n"
        "found = CliRunner().invoke(main, ['--list-workloads']); assert found.exit_code == 0, found.output\n"
        "print(found.output)\n"
        "assert not {'torch', 'ray', 'numpy', 'torchvision'} & set(sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    for name, setting in WORKLOADS.items():
        assert f"{name}\n" in found.stdout and setting.cost in found.stdout
        assert all(need in found.stdout for need in needs(setting))
    assert "model_cifar_wrn.pt" in found.stdout and "needs nothing" in found.stdout


def test_what_an_added_workload_needs_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WORKLOADS, "mine", replace(WORKLOADS["cifar10-micro"], name="mine", dataset="mine"))
    listed = CliRunner().invoke(run.main, ["--list-workloads"]).stdout.split("mine\n")[1]
    assert "needs data set mine in --data-dir" in listed and "needs nothing" not in listed


def refused(*words: str) -> str:
    found = CliRunner().invoke(run.main, list(words))
    assert found.exit_code == 2 and found.stdout == "" and "Traceback" not in found.output, found.output
    return found.stderr


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"dataset": "digts"}, "dataset 'digts' is unknown. Did you mean 'digits'?"),
        ({"name": "digits"}, "workload 'mine': its entry in WORKLOADS says name='digits'; write name='mine'"),
        ({"split": {"train": 0.5, "val": 0.3, "test": 0.35}}, "train + val + test = 0.5 + 0.3 + 0.35"),
    ],
)
def test_an_entry_that_cannot_be_is_refused_by_every_command(
    changed: dict, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(WORKLOADS, "mine", replace(WORKLOADS["digits"], **{"name": "mine", **changed}))
    out = ["--workload", "mine", "--out", str(tmp_path / "out")]
    assert said in refused("absld", "--dry-run", *out) and said in refused("absld", *out)
    checkpoint = tmp_path / "net.safetensors"
    safetensors.torch.save_file(models.build("cnn-8", 10, 1, 0).state_dict(), checkpoint)
    for command, words in ((train.main, out), (evaluate.main, [str(checkpoint), *out])):
        found = CliRunner().invoke(command, words)
        assert found.exit_code == 2 and said in found.stderr, found.output
    assert not (tmp_path / "out").exists()


def test_missing_data_are_refused_in_the_dry_run(tmp_path: Path) -> None:
    out, where = str(tmp_path / "out"), str(tmp_path / "data")
    said = refused("absld", "--workload", "cifar10-mini", "--dry-run", "--data-dir", where, "--out", out)
    assert where in said and "cifar-10-batches-py/" in said
    found = CliRunner().invoke(train.main, ["--workload", "cifar100", "--data-dir", where, "--out", out])
    assert found.exit_code == 2 and "fine_label" in found.stderr
    assert not list(tmp_path.iterdir())


def test_missing_and_wrong_teachers_are_refused_in_the_dry_run(
    tiny: Workload, folders: Folders, tmp_path: Path
) -> None:
    words = ["ablation_dual_temps", "--workload", "tiny", "--dry-run", "--out", str(tmp_path / "out")]
    words += ["--data-dir", folders.data, "--teacher-dir", folders.teachers]
    said = refused(*words)
    assert "model_cifar_wrn.pt" in said and folders.teachers in said
    path = Path(folders.teachers) / "model_cifar_wrn.pt"
    torch.save(models.build("wrn-10-1", 100, 3, 0).state_dict(), path)
    assert "the network has 100 outputs, cifar10 has 10 classes" in refused(*words)
    torch.save(models.build("wrn-10-1", 10, 3, 0).state_dict(), path)
    found = CliRunner().invoke(run.main, words)
    assert found.exit_code == 0, found.output
    assert not (tmp_path / "out").exists() and not (tmp_path / "cache").exists(), "nothing was decoded or measured"


def test_every_teacher_that_may_be_asked_is_checked(tiny: Workload, folders: Folders, tmp_path: Path) -> None:
    words = ["teacher_choice", "--workload", "tiny", "--dry-run", "--out", str(tmp_path / "out")]
    assert "teacher file of tiny" in refused(*words, "--data-dir", folders.data, "--teacher-dir", folders.teachers)


def test_data_of_which_a_split_gets_none_are_refused_before_there_is_a_study(
    tiny: Workload, folders: Folders, tmp_path: Path
) -> None:
    words = ["absld", "--smoke", "--workload", "cifar10-micro", "--data-dir", folders.data]
    dry = refused(*words, "--out", str(tmp_path / "out"), "--dry-run")
    assert "--data-dir: split " in dry and not (tmp_path / "cache").exists(), "told without decoding"
    assert refused(*words, "--out", str(tmp_path / "out")) == dry, "with nothing on stdout"
    assert not (tmp_path / "out").exists()


def test_data_folders_are_the_callers(folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(folders.data).parent)
    found = CliRunner().invoke(train.main, ["--workload", "cifar10-micro", "--data-dir", "data", "--method", "sat"])
    assert found.exit_code == 2 and "has no image of class 0 (airplane)" in found.stderr, "found, and too small"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many images as the smallest fractions need, a class each in its own grey."""
    images, labels = files.random_images(6000) // 4, files.labels_of(6000)
    images += (labels * 19).astype("uint8")[:, None, None, None]
    return files.write_cifar10(tmp_path_factory.mktemp("written"), images, labels, 1000)


def test_teacher_choice_on_images_with_all_teachers(written: Path, tmp_path: Path) -> None:
    """A whole study through Ray, on images of three channels, with the teachers' own numbers in the report."""
    words = ["teacher_choice", "--smoke", "--workload", "cifar10-micro", "--trials", "3", "--seeds", "1"]
    found = CliRunner().invoke(run.main, [*words, "--data-dir", str(written), "--out", str(tmp_path)])
    assert found.exit_code == 0, found.output
    assert "train   10 images, 1 a class" in found.output
    folder = tmp_path / "teacher_choice-cifar10-micro-smoke"
    tables = results.load(folder)
    assert set(tables.trainings["state"].to_pylist()) == {"COMPLETE"}
    assert tables.facts["classes"] == list(datasets.CIFAR10)
    assert tables.facts["data"]["counts"] == {"train": [1] * 10, "val": [1] * 10, "test": [1] * 10}
    teachers = workload("cifar10-micro").teachers
    assert set(tables.facts["teachers"]) == set(teachers)
    tried = {json.loads(params)["teacher"] for params in tables.trials["params"].to_pylist()}
    assert tried == set(teachers)
    for facts in tables.facts["teachers"].values():
        assert {"sha256", "clean_accuracy", "robust_accuracy", "worst_class_robust_accuracy"} <= set(facts)
    for report in ("index.html", "answer.md", "answer.json"):
        text = (folder / "report" / report).read_text()
        assert all(name in text and facts["sha256"][:8] in text for name, facts in tables.facts["teachers"].items())


def test_other_data_under_the_same_study_are_refused(written: Path, tmp_path: Path) -> None:
    from absld_search.search import plan, study
    from absld_search.search.ledger import sqlite_url
    from absld_search.space import SearchSpace
    from absld_search.words import UsageError

    def begin(place: Path) -> None:
        storage = sqlite_url(tmp_path / "study.db")
        request = plan.Request("s", "?", "cifar10-micro-smoke", "s", tmp_path, storage, storage, data_dir=str(place))
        with study.held(plan.resolve(request, SearchSpace({"method": "sat"}, {"only": {}}))) as begun:
            begun.inputs.data()

    begin(written)
    begin(written)
    images, labels = files.random_images(6000, seed=1), files.labels_of(6000)
    with pytest.raises(UsageError, match="the data differ from those that study 's' began with"):
        begin(files.write_cifar10(tmp_path / "other", images, labels, 1000))


ONE_ARM = '''"""Does it train?"""

from absld_search.space import SearchSpace

SPACE = SearchSpace(fixed={"method": "sat"}, arms={"only": {}})
'''


def test_refused_data_change_nothing_of_the_study(written: Path, tmp_path: Path) -> None:
    """Neither its command nor what waits: the next look at it would advise the command that was refused."""
    from absld_search.search.ledger import Ledger

    def asked(place: Path, *words: str, text: str = ONE_ARM) -> Result:
        space = tmp_path / "plain.py"
        space.write_text(text)
        where = ["--data-dir", str(place), "--out", str(tmp_path / "runs"), "--workload", "cifar10-micro", "--smoke"]
        return CliRunner().invoke(run.main, [str(space), *where, *words])

    first = asked(written, "--seeds", "1")
    assert first.exit_code == 0, first.output
    folder = tmp_path / "runs/plain-cifar10-micro-smoke"
    before = (folder / "study.json").read_bytes()
    images, labels = files.random_images(6000, seed=1), files.labels_of(6000)
    other, ledger = files.write_cifar10(tmp_path / "other", images, labels, 1000), f"sqlite:///{folder}/study.db"
    more = ONE_ARM.replace('{"only": {}}', '{"only": {}, "another": {"learning_rate": 0.2}}')
    for text, words in ((ONE_ARM, ("--seeds", "2")), (more, ()), (ONE_ARM, ("--retry-failed",))):
        refused = asked(other, *words, text=text)
        assert refused.exit_code == 2 and "the data differ" in refused.output, refused.output
        assert (folder / "study.json").read_bytes() == before
        here = Ledger(ledger, folder.name)
        assert {row["state"] for row in here.trainings()} == {"COMPLETE"}, "nothing was queued"
        assert set(here.facts("fingerprint:")) == {"only"}, "nor an arm taken in"


SHARING = """
import sys
from absld_search.core import data
train, _ = data.load("cifar10", {"train": 0.9, "val": 0.1, "test": 1.0}, "cpu", sys.argv[1])
total = sum(int(batch.x.sum()) for batch in train.batches(500, 0, 1))
lines = open("/proc/self/smaps").read().split("images.npy")[1].splitlines()[1:30]
found = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith(" kB")}
print(found["Rss"], found["Private_Dirty"], flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's /proc")
def test_trainings_share_one_copy_of_the_images(written: Path) -> None:
    line = [sys.executable, "-c", SHARING, str(written)]
    first = subprocess.Popen(line, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    resident, private = map(int, first.stdout.readline().split())
    first.communicate("")
    assert resident > 5000 * 3072 / 1024, "the whole training part was touched"
    assert private == 0, "no page of it belongs to the process alone"


@pytest.mark.slow
def test_the_papers_setting_runs(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ResNet-18 with a WRN-34-10 teacher file: three steps of the `cifar10` workload on a CPU."""
    teacher = WORKLOADS["cifar10"].teachers["trades-wrn-34-10"]
    assert isinstance(teacher, FileTeacher) and WORKLOADS["cifar10"].student == "resnet-18"
    fresh = {"trades-wrn-34-10": replace(teacher, floor=0.01)}  # its weights have learnt nothing
    small = replace(
        WORKLOADS["cifar10"], teachers=fresh, split={"train": 0.01, "val": 0.002, "test": 0.01}, epochs=1, batch_size=17
    )
    monkeypatch.setitem(WORKLOADS, "cifar10", small)
    state = models.build("wrn-34-10", 10, 3, 0).state_dict()
    torch.save(
        {"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "model_cifar_wrn.pt"
    )
    config = TrialConfig.from_words({"method": "absld"}, "cifar10", folders=Folders(str(written), str(tmp_path)))
    train_split, _ = teacher_making.load(small, config)
    assert len(list(train_split.batches(17, 0, 1))) == 3
    metrics = trial.run_trial(config, tmp_path / "run", lambda *_: None)
    assert 0 <= metrics["robust_accuracy"] <= metrics["clean_accuracy"] <= 1


@files.needs_cifar10
def test_two_epochs_on_real_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command of the documentation, with fewer images and attack steps."""
    setting = replace(workload("cifar10-micro"), split={"train": 0.004, "val": 0.002, "test": 0.01}, num_steps=2)
    monkeypatch.setitem(WORKLOADS, "cifar10-micro", replace(setting, teacher_epochs=1, teachers={
        "trades-wide": TeacherSpec("resnet-8-8", "trades", 1, 0.1)
    }))  # fmt: skip
    words = ["--workload", "cifar10-micro", "--method", "absld", "--epochs", "2"]
    found = CliRunner().invoke(train.main, [*words, "--data-dir", str(files.REAL / "cifar10"), "--out", str(tmp_path)])
    assert found.exit_code == 0, found.output
    assert "train   200 images, 20 a class" in found.output and "epoch 2/2" in found.output
    assert "worst_class_robust_accuracy" in found.output
