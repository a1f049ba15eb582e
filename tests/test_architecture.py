"""The house's import table, held by reading the code. README's "The house" says the same in words."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIGHT = {"words", "space", "workloads"}
CORE = "core."
# file or folder -> (ours it may import, theirs it may import beside the standard library). First match wins.
TABLE: dict[str, tuple[set[str], set[str]]] = {
    "search_spaces/": ({"space"}, set()),
    "absld_search/words.py": (set(), set()),
    "absld_search/space.py": ({"words"}, set()),
    "absld_search/workloads.py": ({"words"}, set()),
    "absld_search/catalog.py": ({"space", "words", "search_spaces"}, set()),
    "absld_search/top_level.py": ({"words", ""}, set()),
    "absld_search/endings.py": ({"words"}, {"click"}),
    "absld_search/run.py": (LIGHT | {"catalog", "endings", "top_level", "search.", "analysis."}, {"click", "rich"}),
    "absld_search/train.py": (LIGHT | {CORE, "endings"}, {"click", "torch"}),
    "absld_search/evaluate.py": (LIGHT | {CORE, "endings", "checkpoint_evaluation"}, {"click", "torch"}),
    "absld_search/checkpoint_evaluation.py": (LIGHT | {CORE, "search.stats"}, {"torch", "numpy"}),
    "absld_search/reproduce.py": ({CORE, "words", "endings"}, {"click"}),
    "absld_search/status.py": ({"words", "endings", "search."}, {"click"}),
    "absld_search/methods_card.py": ({CORE}, {"click"}),
    "absld_search/ui.py": ({"words", "search.mlflow_view", "search.tracking"}, {"click"}),
    "absld_search/core/faults.py": ({"words"}, set()),
    "absld_search/core/files.py": ({"words", "core.faults"}, {"platformdirs"}),
    "absld_search/doctor.py": ({"words", "search."}, {"click"}),
    "absld_search/core/readers.py": ({"words"}, {"numpy", "PIL", "scipy"}),
    "absld_search/core/parquet.py": ({"words", "core.readers"}, {"numpy", "pyarrow"}),
    "absld_search/core/image_cache.py": (set(), {"numpy", "filelock"}),
    "absld_search/core/datasets.py": (
        {"words", "core.readers", "core.parquet", "core.image_cache", "core.files"},
        {"numpy", "torchvision"},
    ),
    "absld_search/core/views.py": ({"workloads"}, {"torch"}),
    "absld_search/core/losses.py": (set(), {"torch"}),
    "absld_search/core/speed.py": ({"core.files"}, {"torch"}),
    "absld_search/core/in_place.py": (set(), {"torch"}),
    "absld_search/core/winograd.py": (set(), {"torch"}),
    "absld_search/core/folding.py": ({"core.in_place", "core.speed", "core.winograd"}, {"torch"}),
    "absld_search/core/attacks/": (
        {"core.losses", "core.folding", "core.speed", "core.attacks."},
        {"torch", "pyautoattack"},
    ),
    "absld_search/core/models/": ({"words", "core.models."}, {"torch"}),
    "absld_search/core/data.py": (
        {"words", "workloads", "core.views", "core.datasets", "core.image_cache"},
        {"torch", "numpy", "sklearn"},
    ),
    "absld_search/core/attack_names.py": ({"words"}, set()),
    "absld_search/core/verdicts.py": ({"core.files"}, {"torch"}),
    "absld_search/core/metrics.py": ({"core.attack_names"}, {"numpy"}),
    "absld_search/core/store.py": ({"words", "core.files"}, {"pyarrow"}),
    "absld_search/core/results.py": ({"core.files"}, {"pyarrow"}),
    "absld_search/core/checkpoints.py": ({"core.files"}, {"torch"}),
    "absld_search/core/logit_blocks.py": ({"core.files"}, {"numpy", "pyarrow", "filelock"}),
    "absld_search/core/logit_bank.py": ({"core.data", "core.folding", "core.logit_blocks"}, {"numpy", "torch"}),
    "absld_search/core/methods/": (
        {"words", "core.attacks", "core.losses", "core.data", "core.logit_bank", "core.methods."},
        {"torch"},
    ),
    "absld_search/core/method_code.py": ({"core.methods"}, set()),
    "absld_search/core/selection.py": (set(), {"torch"}),
    "absld_search/core/averaging.py": ({"core.attacks", "core.losses", "core.data"}, {"torch"}),
    "absld_search/core/graphs.py": ({"core.data"}, {"torch"}),
    "absld_search/core/schedules.py": ({"words", "core.methods.knobs"}, {"torch"}),
    "absld_search/core/finite.py": ({"core.methods.base", "core.losses", "core.data"}, {"torch"}),
    "absld_search/core/memory.py": ({"core.methods.base"}, {"torch"}),
    "absld_search/core/trainer.py": (
        {
            "core.finite",
            "core.memory",
            "core.methods.base",
            "core.methods.knobs",
            "core.losses",
            "core.data",
            "core.attacks",
            "core.averaging",
            "core.selection",
            "core.speed",
            "core.graphs",
            "core.schedules",
            "core.logit_bank",
        },
        {"torch"},
    ),  # fmt: skip
    "absld_search/core/distributed.py": (
        {"words", "core.data", "core.losses", "core.methods.base", "core.speed", "core.trainer"},
        {"torch"},
    ),
    "absld_search/core/evaluation.py": (
        {"words", "core.attacks", "core.attack_names", "core.metrics", "core.data", "core.verdicts"},
        {"torch", "numpy"},
    ),
    "absld_search/core/teachers.py": (
        {
            "workloads",
            "words",
            "core.models",
            "core.data",
            "core.files",
            "core.teacher_files",
            "core.robustbench_zoo",
            "core.logit_bank",
        },
        {"torch", "safetensors", "filelock"},
    ),
    "absld_search/core/teacher_files.py": ({"words", "core.models", "core.files"}, {"torch", "safetensors"}),
    "absld_search/core/robustbench_zoo.py": ({"words"}, {"torch"}),
    "absld_search/core/records.py": (
        {"core.evaluation", "core.faults", "core.files", "core.trainer"},
        {"torch", "safetensors"},
    ),
    "absld_search/core/config.py": (LIGHT | {CORE}, {"safetensors"}),
    "absld_search/core/teacher_making.py": (LIGHT | {CORE}, {"torch"}),
    "absld_search/core/provenance.py": ({""}, {"torch"}),
    "absld_search/core/reproduction.py": (LIGHT | {CORE}, {"numpy", "pyarrow", "safetensors", "torch"}),
    "absld_search/core/trial.py": (LIGHT | {CORE}, {"torch", "filelock", "safetensors"}),
    "absld_search/core/rungs.py": (
        {"words", "core.checkpoints", "core.config", "core.distributed", "core.records", "core.results", "core.trial"},
        {"torch", "filelock"},
    ),
    "absld_search/search/fronts.py": (set(), {"numpy"}),
    "absld_search/search/stats/": ({"core.metrics", "search.stats."}, {"numpy", "scipy"}),
    "absld_search/search/database.py": (set(), {"sqlalchemy"}),
    "absld_search/search/ledger.py": ({"words", "core.faults", "search.database"}, {"sqlalchemy"}),
    "absld_search/search/processes.py": (set(), set()),
    "absld_search/search/ownership.py": (
        {"words", "core.faults", "core.files", "core.results", "search.database", "search.processes", "search.plan"},
        {"sqlalchemy", "filelock"},
    ),
    "absld_search/search/interruption.py": ({"search.processes"}, set()),
    "absld_search/search/listening.py": ({"search.processes"}, set()),
    "absld_search/search/background.py": (set(), set()),
    "absld_search/search/checks.py": ({"core.files", "search.", ""}, {"packaging"}),
    "absld_search/search/palette.py": (set(), set()),
    "absld_search/search/mlflow_view.py": (set(), set()),
    "absld_search/search/notes.py": ({"search.mlflow_view"}, set()),
    "absld_search/search/tracking.py": (
        {"search.mlflow_view", "search.notes", "search.palette"},
        {"mlflow", "sqlalchemy"},
    ),
    "absld_search/search/scheduler.py": ({"search.fronts"}, set()),
    "absld_search/search/racing.py": ({"search.fronts"}, {"numpy"}),
    "absld_search/search/constraints.py": ({"words", "core.metrics"}, set()),
    "absld_search/search/samplers.py": ({"words"}, {"optuna", "optuna_integration", "torch"}),
    "absld_search/search/halving.py": (
        {CORE, "search.constraints", "search.samplers", "search.scheduler", "search.ledger", "search.plan"},
        set(),
    ),
    "absld_search/search/sharing.py": ({"core.rungs", "search.halving", "search.ledger", "search.plan"}, set()),
    "absld_search/search/settling.py": ({"search."}, set()),
    "absld_search/search/reuse.py": (
        {
            "words",
            "core.method_code",
            "core.results",
            "core.store",
            "search.ledger",
            "search.plan",
            "search.reading",
            "search.sending",
        },
        set(),
    ),  # fmt: skip
    "absld_search/search/costs.py": ({"core.config", "core.rungs", "search.ledger", "search.plan"}, set()),
    "absld_search/search/request.py": ({"space", "search.scheduler"}, set()),
    "absld_search/search/choices.py": ({"search.fronts", "search.ledger", "search.plan"}, set()),
    "absld_search/search/plan.py": (
        LIGHT | {CORE, "search.request", "search.samplers", "search.scheduler", "search.constraints"},
        set(),
    ),
    "absld_search/search/preflight.py": (
        LIGHT
        | {CORE, "search.plan", "search.ledger", "search.database", "search.resources", "search.cluster"}
        | {"search.answering", "search.costs"},
        {"sqlalchemy", "torch", "ray"},
    ),
    "absld_search/search/arm_study.py": (
        LIGHT | {"core.faults", "search.costs", "search.plan", "search.reaping", "search.samplers"},
        {"optuna"},
    ),
    "absld_search/search/optuna_storage.py": ({"search.database"}, {"optuna"}),
    "absld_search/search/reaping.py": ({"search.ledger", "search.optuna_storage"}, {"optuna"}),
    "absld_search/search/queue.py": (LIGHT | {"search."}, set()),
    "absld_search/search/wire.py": (set(), set()),
    "absld_search/search/searcher.py": ({"search.queue", "search.ledger", "search.wire"}, {"ray"}),
    "absld_search/search/resources.py": ({"search.plan"}, set()),
    "absld_search/search/answering.py": ({"words"}, set()),
    "absld_search/search/preparing.py": (
        {"words", "workloads", "search.plan", "search.resources", "search.teacher_copies"}
        | {"core.data", "core.teachers", "core.files", "core.teacher_making"},
        {"ray"},
    ),
    "absld_search/search/teacher_copies.py": (
        {"workloads", "core.files", "core.store", "core.teachers", "search.sending"},
        set(),
    ),
    "absld_search/search/sending.py": ({"words", "core.results", "core.store", "search.ledger", "search.plan"}, set()),
    "absld_search/search/followers.py": ({"core.config", "core.distributed", "core.trial"}, {"ray", "torch"}),
    "absld_search/search/cluster.py": ({"words", "search.plan", "search.processes", "search.resources"}, {"ray"}),
    "absld_search/search/worker.py": (
        LIGHT
        | {"core.files", "core.memory", "core.rungs", "core.trial", "core.trainer", "search.teacher_copies"}
        | {"search.resources", "search.followers", "search.sending", "search.wire"},
        {"ray", "torch"},
    ),
    "absld_search/search/": (LIGHT | {CORE, "search.", ""}, {"ray", "optuna", "rich", "filelock", "sqlalchemy"}),
    "analysis/export.py": (LIGHT | {CORE, "analysis.", "checkpoint_evaluation", "endings"}, {"click", "pyarrow"}),
    "analysis/picking.py": (
        {"words", "analysis.", "core.results", "core.metrics", "core.attack_names", "search.fronts"},
        {"numpy", "pyarrow"},
    ),
    "analysis/tables.py": (
        {"words", "endings", "analysis.", "core.results", "core.attack_names", "core.files"},
        {"click"},
    ),
    "analysis/paper_rows.py": (
        LIGHT | {"analysis.", "core.results", "core.metrics", "core.attack_names"},
        {"numpy"},
    ),
    "analysis/": (
        {
            "analysis.",
            "endings",
            "core.results",
            "core.metrics",
            "core.attack_names",
            "words",
            "core.files",
            "search.fronts",
            "search.constraints",
            "search.palette",
            "search.racing",
            "search.stats.",
            "search.stats",
        },
        {"numpy", "pandas", "matplotlib", "plotly", "optuna", "moocore", "pyarrow"},
    ),
}
FILES = sorted(
    path
    for folder in ("absld_search", "search_spaces", "analysis")
    for path in (ROOT / folder).rglob("*.py")
    if path.name != "__init__.py" or path.parent.name in ("attacks", "methods", "models")
)


def imported(tree: ast.AST) -> set[str]:
    """Dotted names of all modules a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            submodules = {f"{module}.{alias.name}" for alias in node.names if _is_module(f"{module}.{alias.name}")}
            found |= submodules or {module}
    return found


def _is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or path.is_dir()


def rule(path: Path) -> tuple[set[str], set[str]]:
    name = path.relative_to(ROOT).as_posix()
    for prefix, allowed in TABLE.items():
        if name == prefix or (prefix.endswith("/") and name.startswith(prefix)):
            return allowed
    raise AssertionError(f"{name} is in no row of the import table")


def allowed(name: str, ours: set[str]) -> bool:
    return any(name == word or (word.endswith(".") and name.startswith(word)) for word in ours)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_stay_inside_the_table(path: Path) -> None:
    ours, theirs = rule(path)
    for name in imported(ast.parse(path.read_text(encoding="utf-8"))):
        top = name.split(".")[0]
        if top in sys.stdlib_module_names:
            continue
        if top in ("absld_search", "analysis", "search_spaces"):
            local = name.removeprefix("absld_search").removeprefix(".")
            assert allowed(local, ours), f"{path.name} imports {name}"
        else:
            assert top in theirs, f"{path.name} imports {name}"


def test_make_bench_runs_every_benchmark_there_is() -> None:
    """A script that nobody runs is a claim that nobody checks; what needs a GPU or hours is run by hand."""
    (line,) = [row for row in (ROOT / "Makefile").read_text().splitlines() if row.startswith("BENCHMARKS := ")]
    texts = {path: path.read_text() for path in (ROOT / "benchmarks").glob("*.py")}
    scripts = [path for path, text in texts.items() if "options(__doc__" in text or "parser(__doc__" in text]
    assert {path.stem for path in scripts} - {"gpu", "page", "precision"} <= set(line.split()[2:])
    page = (ROOT / "docs/performance.md").read_text()
    assert all(f"`{name}`" in page for name in line.split()[2:])


SHARED = {"asking",   # no paper's page; absld_factors is the knobs of absld, which alone may import it
    "base", "knobs", "adversarial", "distillation", "weights", "temperatures", "label_sources", "composition",
}  # fmt: skip


def test_no_method_imports_another() -> None:
    for path in (ROOT / "absld_search/core/methods").glob("*.py"):
        if path.name != "__init__.py":
            names = {n for n in imported(ast.parse(path.read_text())) if ".methods." in n}
            own = {"absld_factors"} if path.name == "absld.py" else set()
            assert names <= {f"absld_search.core.methods.{name}" for name in SHARED | own}, path.name


def logic(path: Path) -> list[str]:
    """The statements of a file's functions, one a line, without docstrings and signatures."""
    lines: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines += [f"<{path.stem}.{node.name}>", *"\n".join(ast.unparse(part) for part in body).splitlines()]
    return lines


def test_no_six_lines_of_logic_stand_twice() -> None:
    seen: dict[tuple[str, ...], str] = {}
    for path in sorted((ROOT / "absld_search/core/methods").glob("*.py")):
        lines = logic(path)
        for run in zip(*(lines[k:] for k in range(6)), strict=False):
            if not any(line.startswith("<") for line in run):
                assert seen.setdefault(run, path.name) == path.name, f"{seen[run]} and {path.name}: {run}"


def test_a_method_is_a_page() -> None:
    for path in (ROOT / "absld_search/core/methods").glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 150, path.name


def test_only_tracking_imports_mlflow_and_core_knows_no_search() -> None:
    for path in FILES:
        names = {name.split(".")[0] for name in imported(ast.parse(path.read_text(encoding="utf-8")))}
        assert "mlflow" not in names or path.name == "tracking.py", path
        if "core" in path.parts:
            assert not names & {"ray", "optuna", "mlflow"}, path


def test_every_row_of_the_table_is_there() -> None:
    for prefix in TABLE:
        assert (ROOT / prefix).exists(), prefix
