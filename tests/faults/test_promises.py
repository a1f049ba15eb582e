"""docs/reliability.md says what the records say, and every test that it or docs/security.md names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.faults import summary
from tests.faults.promises import MATRIX, PROMISES

TESTS = Path(__file__).parents[1]


def functions(file: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)}


def test_every_fault_of_the_matrix_has_a_promise_with_a_test() -> None:
    assert set(MATRIX) <= {each.id for each in PROMISES}
    assert all(each.tests and (each.cases or each.recorded or each.id == "X1") for each in PROMISES)


def test_every_test_that_the_pages_name_is_there() -> None:
    named = {test for each in PROMISES for test in each.tests}
    security = (summary.DOCS / "security.md").read_text()
    for row in [row for row in security.splitlines() if row.startswith("| ") and "---" not in row][1:]:
        cell = row.rstrip(" |").rpartition("|")[2]
        file = ""
        for test in re.findall(r"`([^`]+)`", cell):
            file = test.partition("::")[0] or file
            named.add(f"{file}::{test.partition('::')[2]}")
        assert file or cell.strip() == "the same", f"no test: {row}"
    assert len(named) > 60
    for test in sorted(named):
        file, _, name = test.partition("::")
        assert (TESTS / file).is_file(), test
        found = functions(TESTS / file)
        assert not name or name in found or any(f.startswith(name.rstrip(".")) for f in found if "..." in name), test


def test_the_page_says_what_the_records_say() -> None:
    text = summary.PAGE.read_text(encoding="utf-8")
    assert summary.page(text) == text, "run python -m tests.faults.summary --write"


def test_no_round_on_record_broke_anything() -> None:
    rounds = summary.read(summary.RECORD, "fault")
    assert set(rounds) <= {name for each in PROMISES for name in each.recorded}, "a record that no row shows"
    assert not [row for rows in rounds.values() for row in rows if row["broke"]]
