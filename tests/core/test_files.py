"""Files that are there whole or not at all, whoever writes them at the same time."""

from __future__ import annotations

import os
import re
from pathlib import Path

from absld_search.core.files import replacing


def test_two_writers_of_one_process_do_not_write_into_each_other(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    with replacing(path) as first:
        first.write_bytes(b"first")
        with replacing(path) as second:
            second.write_bytes(b"second")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first" and list(tmp_path.iterdir()) == [path]


def test_a_temporary_file_says_whose_it_is(tmp_path: Path) -> None:
    """The doctor takes away those of processes that are gone."""
    from absld_search.search.checks import TEMPORARY

    with replacing(tmp_path / "study.json") as temporary:
        temporary.touch()
        match = re.fullmatch(TEMPORARY, temporary.name)
        assert match is not None and int(match[2]) == os.getpid()
