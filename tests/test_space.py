"""The words of a search space, and the spaces that come with the project."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import search_spaces
from absld_search import catalog, words
from absld_search.space import Choice, LogUniform, SearchSpace, Uniform
from absld_search.words import UsageError, integer, masked, number, require_known
from absld_search.workloads import WORKLOADS, workload

FOLDER = Path(search_spaces.__path__[0])
CONSTANT = (ast.Expr, ast.Assign, ast.Import, ast.ImportFrom)
FORBIDDEN = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.For, ast.While, ast.If, ast.IfExp, ast.Try,
    ast.With, ast.ListComp, ast.DictComp, ast.SetComp, ast.GeneratorExp, ast.NamedExpr,
)  # fmt: skip


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_spaces_are_constants_only(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert all(isinstance(node, CONSTANT) for node in tree.body)
    assert not [node for node in ast.walk(tree) if isinstance(node, FORBIDDEN)]


@pytest.mark.parametrize("name", catalog.names())
def test_first_line_is_a_question(name: str) -> None:
    assert catalog.load(name).question.endswith("?")


def test_the_promised_spaces_are_there() -> None:
    promised = {"ablation_dual_temps", "temperature_lr", "initial_temperatures", "teacher_choice", "absld"}
    assert promised <= set(catalog.names())
    assert list(catalog.load("ablation_dual_temps").space.arms) == ["dual", "shared", "product", "rslad"]


def test_an_arm_takes_what_it_sets_out_of_its_search() -> None:
    space = catalog.load("ablation_dual_temps").space
    assert space.searched("rslad") == {}
    assert list(space.searched("shared")) == ["temperature_lr", "initial_temperature_adv"]
    assert len(space.searched("dual")) == 3


ROLES = [
    (dict(fixed={"a": 1}, arms={"x": {}}, tuned={"a": Uniform(0, 1)}), "both fixed and tuned"),
    (dict(fixed={"a": 1}, arms={"x": {"a": 2}}), "both fixed and set by arm 'x'"),
    (dict(fixed={}, arms={}), "arms is empty"),
    (dict(fixed={}, arms={"it's / <b>": {}}), "letters, digits"),
    (dict(fixed={}, arms={"x": {}}, tuned={"a": (0.1, 1.0)}), "tuned takes Uniform"),
    (dict(fixed={}, arms={"x": {}}, objectives={"m": "up"}), "'max' or 'min'"),
    (dict(fixed={}, arms={"x": {}}, tuned={"a": Uniform(1, 1)}), "range"),
    (dict(fixed={}, arms={"x": {}}, tuned={"a": LogUniform(0, 1)}), "above 0"),
    (dict(fixed={}, arms={"x": {}}, tuned={"a": Choice(())}), "at least one option"),
    (dict(fixed={}, arms={"x": {}}, tuned={"a": Uniform(0, 1, when={"b": 1}), "b": Choice((1, 2))}), "put it before"),
    (dict(arms={"x": {}}, tuned={"b": Choice(("ema", "max")), "a": Uniform(0, 1, when={"b": "emma"})}), "mean 'ema'"),
    (dict(arms={"x": {"b": 2}, "y": {"b": 3}}, tuned={"a": Uniform(0, 1, when={"b": 1})}), "Known: 2, 3"),
    (dict(arms={"x": {}}, tuned={"rule": Choice((1, 2)), "a": Uniform(0, 1, when={"rul": 1})}), "Did you mean 'rule'"),
    (dict(fixd={}, arms={"x": {}}), "SearchSpace: field 'fixd' is unknown. Did you mean 'fixed'"),
]


@pytest.mark.parametrize(("words", "message"), ROLES, ids=[message for _, message in ROLES])
def test_contradictions_are_refused(words: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SearchSpace(**words)


def test_a_condition_may_name_what_set_makes_of_a_fixed_parameter() -> None:
    tuned = {"a": Uniform(0, 1, when={"b": "ema"})}
    assert SearchSpace(fixed={"b": "max"}, arms={"x": {}}, tuned=tuned).tuned == tuned


def test_a_condition_may_name_whatever_some_arm_or_choice_can_be() -> None:
    tuned = {"b": Choice((1, 2)), "a": Uniform(0, 1, when={"b": 2}), "c": Uniform(0, 1, when={"b": 3})}
    assert SearchSpace(arms={"x": {}, "y": {"b": 3}}, tuned=tuned).tuned == tuned
    with pytest.raises(UsageError, match="LogUniform: field 'hihg' is unknown. Did you mean 'high'"):
        LogUniform(**{"low": 1, "hihg": 2})


def test_own_space_file(tmp_path: Path) -> None:
    own = tmp_path / "mine.py"
    own.write_text('"""Is it mine?"""\nfrom absld_search.space import SearchSpace\n'
                   'SPACE = SearchSpace(fixed={}, arms={"a": {}})\n')  # fmt: skip
    assert catalog.load(str(own)).question == "Is it mine?"
    with pytest.raises(UsageError, match="no file"):
        catalog.load(str(tmp_path / "absent.py"))
    own.write_text("SPACE = 3")
    with pytest.raises(UsageError, match="defines no SPACE"):
        catalog.load(str(own))
    own.write_text('from absld_search.space import SearchSpace\nSPACE = SearchSpace(arms={"a": {}})\n')
    with pytest.raises(UsageError, match=f"{own} asks nothing"):
        catalog.load(str(own))
    own.write_text("1 / 0")
    with pytest.raises(UsageError, match="ZeroDivisionError"):
        catalog.load(str(own))


def test_words_name_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'ablation_dual_temps'"):
        catalog.load("ablation_dual_temp")
    with pytest.raises(UsageError, match="Did you mean 'digits'"):
        workload("digit")
    assert require_known("x", "a", ["a"]) == "a"


def test_numbers_as_people_write_them() -> None:
    assert number("eps", "8/255") == 8 / 255 and number("lr", "1e-1") == 0.1 and integer("n", "30") == 30
    for wrong in ("8/0", "ten", True, "nan", None):
        with pytest.raises(UsageError, match="eps"):
            number("eps", wrong)
    with pytest.raises(UsageError, match="whole number"):
        integer("n", 1.5)


@pytest.mark.parametrize("name", ["../x", "a/b", "", "a" * 65, "..", "<img>", "a b"])
def test_names_that_are_no_names(name: str) -> None:
    with pytest.raises(UsageError):
        words.checked_name("--study", name)


def test_workloads_are_consistent() -> None:
    for name, setting in WORKLOADS.items():
        assert setting.name == name and setting.teacher in setting.teachers
        train, test = setting.split["train"] + setting.split["val"], setting.split["test"]
        pooled = setting.dataset == "digits"  # one pool for all three; the others have an official test part
        assert train + test == pytest.approx(1) if pooled else max(train, test) <= 1
        assert workload(f"{name}-smoke").epochs == 2
    assert len(WORKLOADS["digits"].teachers) >= 3


def test_passwords_are_masked() -> None:
    for url in ("postgresql://me:hunter2@h/x", "http://me:hunter%402@h:1", "postgresql://h/x?a=1&password=hunter2"):
        found = masked(f"cannot open {url} now")
        assert "hunter" not in found and "***" in found and found.endswith("now")
    assert masked("sqlite:////tmp/a@b/c.db and http://host:5000/x") == "sqlite:////tmp/a@b/c.db and http://host:5000/x"


def test_readme_asks_every_question() -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for entry in catalog.entries():
        assert f"| `{entry.name}` | {entry.question} |" in text, entry.name
