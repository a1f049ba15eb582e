"""The documentation tells the truth: every command is run by a test or marked, every code block works, pages build."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import numpy as np
import pytest
from click.testing import CliRunner
from nbclient import NotebookClient

from absld_search import run, status, train, workloads
from absld_search.core import data, datasets, metrics, results
from absld_search.core.config import TrialConfig
from absld_search.core.files import Folders
from absld_search.core.methods import METHODS
from absld_search.core.trial import run_trial
from absld_search.search import plan
from absld_search.workloads import WORKLOADS
from analysis import export, report, tables
from analysis.answer import answer
from tests import image_files as files
from tests.commands import shown, unknown_words
from tests.test_smoke_all import FEW

ROOT = Path(__file__).parents[1]
HERE = "tests/test_docs.py::"
DRY, TRAINED, READ, MAKE = (
    f"{HERE}test_run_commands_resolve",
    f"{HERE}test_train_commands_train",
    f"{HERE}test_commands_on_a_study_answer",
    f"{HERE}test_make_targets_call_what_the_pages_say",
)
INSTALLED = f"{HERE}test_every_option_and_module_that_the_pages_show_exists"  # that the extra is there to install
SMOKE, TRAINED_ALL = (f"tests/test_smoke_all.py::test_{name}" for name in ("smoke", "trained"))
WHOLE = "tests/test_run.py::test_everything_is_there"  # the same command with --smoke, through Ray and all
STUDY = "runs/ablation_dual_temps-digits"

# Command -> the tests that run it: itself, or on a smaller workload or study.
TESTED: dict[str, list[str]] = {
    "make run": [MAKE, WHOLE],
    "make test": [MAKE],
    "make lint": [MAKE],
    "make results": [MAKE, "tests/analysis/test_publish.py::test_the_pages_say_what_the_kept_tables_say"],
    "python -m analysis.publish STUDY_FOLDER": [
        "tests/analysis/test_publish.py::test_a_page_is_made_again_from_what_is_kept_alone"
    ],
    "make ui": [MAKE, "tests/test_ui.py::test_it_listens_on_loopback_only_and_leaves_no_process"],
    "python -m absld_search.run --list": ["tests/test_run.py::test_list_imports_neither_torch_nor_ray"],
    "python -m absld_search.run --list-workloads": [
        "tests/test_workloads.py::test_workloads_are_listed_with_cost_and_needs_and_without_torch"
    ],
    "python -m absld_search.run ablation_dual_temps": [DRY, WHOLE],
    "python -m absld_search.run ablation_dual_temps --smoke": [DRY, WHOLE],
    "python -m absld_search.run ablation_dual_temps --dry-run": [DRY],
    "python -m absld_search.run ablation_dual_temps --deterministic": [DRY, WHOLE],
    "python -m absld_search.run mine.py --dry-run": [DRY],
    "python -m absld_search.run mine.py --trials 20 --seeds 10": [DRY],
    "python -m absld_search.run absld --set epochs=60 --study absld-60": [DRY],
    "python -m absld_search.run absld --stopping mo-asha --sampler gp": [
        DRY,
        "tests/test_smoke_all.py::test_smoke_with_rungs_a_race_and_another_studys_trainings",
    ],
    "python -m absld_search.run teacher_choice --dry-run": [DRY],
    "python -m absld_search.run controls --reuse": [DRY, "tests/test_methods_docs.py::test_every_arm_trains"],
    "python -m absld_search.run methods --seeds 3": [DRY, "tests/test_methods_docs.py::test_every_arm_trains"],
    "python -m absld_search.run ablation_dual_temps --workload cifar10 --dry-run": [
        "tests/test_workloads.py::test_missing_data_are_refused_in_the_dry_run"
    ],
    "python -m absld_search.run ablation_dual_temps --workload cifar10-micro --data-dir DATA --dry-run": [
        "tests/test_workloads.py::test_data_folders_are_the_callers"
    ],
    "python -m absld_search.train --method absld temperature_lr=0.2": [TRAINED],
    "python -m absld_search.train schedule=wsd": [TRAINED],
    "python -m absld_search.train --deterministic": [TRAINED],
    "python -m absld_search.train --workload digits teacher=train:sat:cnn-12": [TRAINED],
    "python -m absld_search.train --workload digits --method weighted-rslad sharpness=0.5": [TRAINED],
    "python -m absld_search.methods_card": ["tests/test_methods_docs.py::test_the_cards_are_current"],
    "python -m absld_search.evaluate model.safetensors --attacks clean,fgsm,pgd20,cw,aa": [
        "tests/test_evaluate.py::test_writes_what_the_schema_says_and_the_images_recompute_it"
    ],
    "python -m absld_search.doctor": [
        "tests/test_doctor.py::test_the_real_command_on_this_machine_and_a_healthy_study"
    ],
    f"python -m absld_search.doctor {STUDY}": [
        "tests/test_doctor.py::test_the_real_command_on_this_machine_and_a_healthy_study"
    ],
    f"python -m absld_search.status {STUDY}": [READ],
    f"python -m absld_search.status {STUDY} --json": [READ],
    f"python -m analysis.report {STUDY}": [READ],
    f"python -m analysis.report {STUDY} --compare dual product --format latex": [READ],
    "python -m analysis.report": ["tests/test_release.py::test_the_wheel_answers_from_an_empty_folder"],
    f"python -m analysis.tables {STUDY}": [READ],
    f"python -m analysis.tables {STUDY} --format latex --to table.tex": [READ],
    f"python -m analysis.export {STUDY} --pick knee --to bundle": [READ],
    f"python -m analysis.export {STUDY} --pick best:worst_class_robust_accuracy --arm dual --to best": [READ],
    f"python -m analysis.export {STUDY} --pick id:dual-000 --seed 1002 --to third": [
        "tests/analysis/test_export.py::test_a_seed_that_is_asked_for_is_the_one_that_is_exported"
    ],
    "python -m absld_search.reproduce bundle": [
        "tests/analysis/test_export.py::test_export_then_reproduce_gives_the_same_weights_and_classes"
    ],
    "python -m absld_search.ui": ["tests/test_ui.py::test_it_listens_on_loopback_only_and_leaves_no_process"],
    "pip install -c constraints.txt -e '.[cluster]'": [INSTALLED],
    "pip install '.[robustbench]'": [INSTALLED],
    "pip install '.[botorch]'": [INSTALLED],
    "python -m build": ["tests/test_release.py::test_wheel_and_sdist_hold_what_they_say"],
    "python -m pip install dist/absld_search-0.1.0-py3-none-any.whl": [
        "tests/test_release.py::test_the_wheel_answers_from_an_empty_folder"
    ],
    "python -m benchmarks.fidelity --seeds 2": ["tests/test_fidelity.py::test_the_command_goes_on_and_reports"],
    "python -m benchmarks.fidelity --seeds 2 --report-only": [
        "tests/test_fidelity.py::test_the_command_goes_on_and_reports"
    ],
}
FAULTS = "tests/faults/test_rounds.py::test_rounds_of_a_fault_break_no_invariant"
# The studies on digits whose tables are kept: the page of each shows its command.
KEPT = [page.stem.removesuffix("-digits") for page in (ROOT / "docs/results").glob("*-digits.md")]
TESTED |= {
    f"python -m absld_search.run {name} --reuse": [DRY, SMOKE if name in FEW else TRAINED_ALL]
    for name in KEPT
    if name not in ("ablation_dual_temps", "controls", "methods")  # above, without --reuse or trained elsewhere
}
TESTED |= {
    f"python -m tests.faults.run{rest}": [FAULTS]
    for rest in (
        "",
        " $fault --rounds 300 --record docs/results/reliability.jsonl",
    )
} | {
    "python -m tests.faults.summary --write": [
        "tests/faults/test_promises.py::test_every_test_that_the_pages_name_is_there"
    ],
}
CLUSTER, GPU, SHELL = "needs a cluster", "needs a GPU, data and a teacher to be fetched", "a shell's own"
HOURS = "a measurement of minutes to days on a machine with nothing else to do, or of real CIFAR-10"
MARKED: dict[str, str] = {
    ". .venv/bin/activate": SHELL,
    "python -m absld_search.run ablation_dual_temps --workload cifar10 --data-dir DATA --teacher-dir TEACHERS "
    "--gpus-per-trial 1": GPU,
    "python -m absld_search.run ablation_dual_temps --address auto --storage postgresql+psycopg://absld@HOST/absld "
    "--store s3://studies/absld --tracking-uri http://HOST:5000 --workload cifar10 --gpus-per-trial 0.25": CLUSTER,
    "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$(openssl rand -hex 32)": SHELL,
    "export RAY_USAGE_STATS_ENABLED=0": SHELL,
    "export ABSLD_PYTHON=$PWD/.venv/bin/python PGPASSWORD=...": SHELL,
    "sbatch --nodes=4 --gpus-per-node=4 deploy/slurm.sh ablation_dual_temps --workload cifar10 --gpus-per-trial 1 "
    "--storage postgresql+psycopg://absld@HOST/absld --out /shared/runs --tracking-uri http://HOST:5000": CLUSTER,
    "squeue --me; tail -f absld-JOBID.log": CLUSTER,
    "ray stop": CLUSTER,
    "ray up": CLUSTER,
    "kubectl cp data POD:/PLACE/data": CLUSTER,
    "docker build -f deploy/Dockerfile -t REGISTRY/absld_search:0.1.0 . "
    "&& docker push REGISTRY/absld_search:0.1.0": CLUSTER,
    "kubectl create secret generic absld --from-literal=PGPASSWORD=... --from-literal=AWS_ACCESS_KEY_ID=... "
    "--from-literal=AWS_SECRET_ACCESS_KEY=...": CLUSTER,
    "kubectl apply -f claim.yaml": CLUSTER,
    "kubectl apply -f deploy/rayjob.yaml": CLUSTER,
    "kubectl get rayjob absld -w; kubectl logs -f job/absld": CLUSTER,
    "ray start": CLUSTER,
    "ray start --head": CLUSTER,
    "ray start --address=HEAD:6379": CLUSTER,
    "ray job submit": CLUSTER,
    "ray job submit --address http://HEAD:8265 -- python -m absld_search.run NAME --address auto ...": CLUSTER,
    "ray up deploy/launcher.yaml": CLUSTER,
    "scancel JOBID": CLUSTER,
    "sbatch --test-only": CLUSTER,
    "make cluster-test": "a cluster of its own, with PostgreSQL: ten minutes",
    "python -m tests.cluster.fields ray.io_rayjobs.yaml deploy/rayjob.yaml": "needs KubeRay's published definition",
    "python -m absld_search.status STUDY_FOLDER --storage URL": CLUSTER,
    "python -m tests.faults.run $fault --rounds 30 --record docs/results/reliability.jsonl": HOURS,
    "python -m tests.faults.soak --trials 500 --every 30": HOURS,
    "python -m tests.faults.soak --trials 500 --every 30 --ray --out soak": HOURS,
    "python -m tests.faults.stock measure FAULT --record docs/results/reliability-stock.jsonl": HOURS,
    "make bench": HOURS,
    "make bench-full": HOURS,
    "python -m benchmarks.driver": HOURS,
    "python -m benchmarks.evaluate --part digits --rounds 1": HOURS,
    "python -m benchmarks.evaluate --part resnet18 --images 16 --rounds 9 --no-autoattack": HOURS,
    "python -m benchmarks.fidelity --workload cifar10-micro --configs 8 --seeds 2 --data-dir DATA": HOURS,
    "python -m benchmarks.page": HOURS,
    "python -m benchmarks.speed_page": HOURS,
    "python -m benchmarks.proxies": HOURS,
    "python -m benchmarks.queue [--sampler tpe] [--stopping mo-asha] [--mlflow]": HOURS,
    "python -m benchmarks.racing": HOURS,
    "python -m benchmarks.racing --configurations 12 --delta D --first 0": HOURS,
    "python -m benchmarks.replay": HOURS,
    "python -m benchmarks.replay_record": HOURS,
    "python -m benchmarks.report": HOURS,
    "python -m benchmarks.scaling": HOURS,
    "python -m benchmarks.scaling --trials 1000 --slots 2 --every 100": HOURS,
    "python -m benchmarks.scaling --trials 10000 --slots 64 --postgres --seconds 7 --hold 280": HOURS,
    "python -m benchmarks.search16": HOURS,
    "python -m benchmarks.statistics --only none --study runs/ablation_dual_temps-digits --repetitions 2000": HOURS,
    "python -m benchmarks.statistics --repetitions 1000": HOURS,
    "python -m benchmarks.train_step gate": HOURS,
    "python -m benchmarks.train_step small|resnet18 --rounds 3": HOURS,
    "python -m benchmarks.train_step small|resnet18|mobilenet": HOURS,
    "python -m benchmarks.views --out DIR": HOURS,
}


def test_every_command_of_the_pages_is_tested_or_marked() -> None:
    found = {one.command: one.page for one in shown()}
    listed = {*TESTED, *MARKED}
    assert not set(TESTED) & set(MARKED)
    assert {(command, found[command]) for command in set(found) - listed} == set(), "neither tested nor marked"
    assert listed - set(found) == set(), "in no page any more"


def test_commands_in_prose_are_seen() -> None:
    """Of other programs too: what nobody looks at is wrong first."""
    prose = {one.command for one in shown() if one.page == "docs/howto/cluster.md"}
    assert {"ray up deploy/launcher.yaml", "scancel JOBID", "ray start --head"} <= prose


def test_every_option_and_module_that_the_pages_show_exists() -> None:
    assert {one: said for one in shown() if (said := unknown_words(one.command))} == {}
    assert "--trails" in unknown_words("python -m absld_search.run absld --trails 3")
    assert unknown_words("python -m absld_search.runn") and unknown_words("make tests")
    assert unknown_words("python -m benchmarks.views --form") == "--form"
    assert unknown_words("pip install -c constraint.txt '.[cluster,rbustbench]'") == "constraint.txt, rbustbench"


def test_the_tests_that_the_list_names_are_there() -> None:
    for name in {name for several in TESTED.values() for name in several}:
        path, _, function = name.partition("::")
        tree = ast.parse((ROOT / path).read_text("utf-8"))
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name


def blocks(page: str) -> list[str]:
    """The Python blocks of a page, in order."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / page).read_text("utf-8"), re.S | re.M)


def commands_of(test: str, module: str) -> list[list[str]]:
    """The words behind `python -m module` of every command that the list says `test` runs."""
    start = f"python -m {module}"
    return [
        shlex.split(command)[3:] for command, tests in TESTED.items() if test in tests and command.startswith(start)
    ]


@pytest.mark.parametrize("words", commands_of(DRY, "absld_search.run"), ids=" ".join)
def test_run_commands_resolve(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space, _ = blocks("howto/space.md")
    (tmp_path / "mine.py").write_text(space)
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(run.main, [*words, "--dry-run"])
    assert found.exit_code == 0, found.output
    assert "question" in found.stdout and not (tmp_path / "runs").exists()


def test_the_page_about_spaces_knows_every_metric_and_its_other_space_resolves(tmp_path: Path) -> None:
    page, own = (ROOT / "docs/howto/space.md").read_text("utf-8"), tmp_path / "conditions.py"
    for name in plan.MEASURED:
        row = next(line for line in page.splitlines() if f"`{metrics.form_of(name).replace('{}', 'KIND')}`" in line)
        assert f"| {metrics.NAMES[name]} |" in row, name
    own.write_text(blocks("howto/space.md")[1])
    found = CliRunner().invoke(run.main, [str(own), "--dry-run", "--out", str(tmp_path / "runs")])
    assert found.exit_code == 0 and "constraint robust_accuracy >= 0.4" in found.stdout, found.output
    assert "optimises  worst_class_robust_accuracy, clean_accuracy," in found.stdout


@pytest.fixture
def own_method(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page about methods tells a person to write."""
    page, line = blocks("howto/method.md")
    module = ModuleType("absld_search.core.methods.mine")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where a dataclass looks its types up
    exec(page, vars(module))
    exec(line, {**vars(module), "METHODS": (added := dict[str, Any]())})
    monkeypatch.setitem(METHODS, "weighted-rslad", added["weighted-rslad"])


@pytest.mark.parametrize("words", commands_of(TRAINED, "absld_search.train"), ids=" ".join)
def test_train_commands_train(words: list[str], tmp_path: Path, own_method: None) -> None:
    """On the smallest form of the same workload."""
    small = ["digits-smoke" if word == "digits" else word for word in words]
    small += [] if "--workload" in words else ["--workload", "digits-smoke"]
    found = CliRunner().invoke(train.main, [*small, "--out", str(tmp_path)])
    assert found.exit_code == 0, found.output
    assert "worst_class_robust_accuracy" in found.stdout and len(list(tmp_path.glob("*/model.safetensors"))) == 1


def test_the_methods_page_survives_a_checkpoint(own_method: None) -> None:
    """The page's state comes back, and its weights mean what it says: the class of the highest risk weighs most."""
    import torch

    from absld_search.core.methods.base import Epoch

    method, other = METHODS["weighted-rslad"](), METHODS["weighted-rslad"]()
    for one in (method, other):
        one.setup(3, "cpu")
    logged = method.end_epoch({"adv_risk": torch.tensor([0.5, 2.0, float("nan")])}, Epoch(1, 2, 1.0))
    assert logged["class_weight"].argmax() == 1 and logged["class_weight"].mean().item() == pytest.approx(1)
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.state_dict()["weights"], method.state_dict()["weights"])


DOORS = {"absld_search.status": status.main, "analysis.tables": tables.main,
         "analysis.export": export.main}  # fmt: skip


@pytest.mark.parametrize("module", [*DOORS, "analysis.report"])
def test_commands_on_a_study_answer(module: str, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the tests' study, in place of the README's."""
    copy = tmp_path / STUDY
    shutil.copytree(study, copy)
    copy.chmod(0o700)
    monkeypatch.chdir(tmp_path)
    for words in commands_of(READ, module):
        if module == "analysis.report":
            assert report.main(words) == 0
            continue
        found = CliRunner().invoke(DOORS[module], words)
        assert found.exit_code == 0 and found.stdout, found.output


CALLED = {
    "run": "-m absld_search.run ablation_dual_temps", "ui": "-m absld_search.ui", "test": "-m pytest",
    "lint": "ruff check", "docs": "mkdocs build --strict", "results": "-m analysis.publish",
}  # fmt: skip


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_targets_call_what_the_pages_say() -> None:
    """What `make TARGET` would do, without doing it."""
    for target, words in CALLED.items():
        told = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert words in told, target


def test_the_data_page_makes_a_workload_that_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = files.random_images(200) // 8, files.labels_of(200)
    files.write_parquet(tmp_path / "data", images, labels, test=40)
    monkeypatch.setenv("ABSLD_CACHE_DIR", str(tmp_path / "cache"))
    known, setting = blocks("howto/data.md")
    exec(known, {**vars(datasets), "IMAGE_SETS": (sets := dict[str, Any]())})
    exec(setting, {**vars(workloads), "WORKLOADS": (added := dict[str, Any]())})
    monkeypatch.setitem(datasets.IMAGE_SETS, "mine", sets["mine"])
    monkeypatch.setitem(WORKLOADS, "mine", added["mine"])
    monkeypatch.setattr(data, "DATASETS", (*data.DATASETS, "mine"))  # made of IMAGE_SETS when the program starts
    where = Folders(str(tmp_path / "data"), "")
    config = TrialConfig.from_words({"method": "sat", "epochs": 1}, "mine", folders=where)
    found = run_trial(config, tmp_path / "training", lambda *_: None)
    assert np.isfinite(found["clean_accuracy"])


NOTEBOOK = ROOT / "docs/example.ipynb"


def test_the_notebook_runs(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell, on the tests' study; the one that is kept was run on the README's and shows what came out."""
    monkeypatch.setenv("ABSLD_STUDY", str(study))
    book = nbformat.read(NOTEBOOK, as_version=4)
    kept = {cell.id: cell for cell in book.cells if cell.cell_type == "code"}
    assert all(cell.execution_count and cell.outputs for cell in kept.values()), "kept with its outputs"
    assert not re.search(r"/(home|tmp|root|work)/", NOTEBOOK.read_text("utf-8"))
    outputs = "".join(output.get("text", "") for cell in kept.values() for output in cell.outputs)
    readmes = answer(results.load(ROOT / "docs/results/data/ablation_dual_temps-digits"))
    assert all(f"* {verdict}" in outputs for verdict in readmes.verdicts), "of the README's study"
    NotebookClient(book, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    fresh = {cell.id: cell for cell in book.cells if cell.cell_type == "code"}
    pictures = [name for name, cell in fresh.items() if any("image/png" in o.get("data", {}) for o in cell.outputs)]
    assert len(pictures) == 2 and all(
        any("image/png" in output.get("data", {}) for output in kept[name].outputs) for name in pictures
    )
    assert f"<study {study.name}: 7 trials" in str(fresh["cell-01"].outputs)
    assert "Traceback" not in str([cell.outputs for cell in fresh.values()])


def test_reference_names_what_there_is() -> None:
    """Every object of the reference page can be imported by its name, and its members have docstrings."""
    text = (ROOT / "docs/reference.md").read_text("utf-8")
    for name, members in re.findall(r"^::: (\S+)\n(?:    options:\n      members: \[(.*?)\])?", text, re.M):
        path = ROOT / f"{name.replace('.', '/')}.py"
        tree = ast.parse(path.read_text("utf-8"))
        there = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        wanted = [word.strip() for word in members.split(",") if word.strip()] or [n for n in there if n[0] != "_"]
        assert all(word in there and ast.get_docstring(there[word]) for word in wanted), name


def environment() -> dict[str, str]:
    """The caller's, without what would colour or warn."""
    return {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}


def test_the_site_builds_without_a_warning_and_asks_nothing_of_others(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stdout + built.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    for page in pages:
        loaded = re.findall(r'<(?:script|img|link)\b[^>]*?(?:src|href)="(https?://[^"]*)', page.read_text("utf-8"))
        assert not loaded, f"{page.name} loads {loaded}"
    assert "load_study" in (tmp_path / "site/reference/index.html").read_text("utf-8")
    assert len(pages) >= 20
    nav = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert not [page.name for page in (ROOT / "docs/results").glob("*.md") if f"results/{page.name}" not in nav]
