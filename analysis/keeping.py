"""A finished study made small enough to keep beside the code: its tables, and where and when they were computed."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from absld_search.core import results
from absld_search.core.files import replacing
from absld_search.words import UsageError
from analysis import loading
from analysis.standing import notices


def keep(study_folder: Path, shelf: Path) -> Path:
    """Write a study's tables, as far as a report shows them, to `shelf`/NAME, which `analysis` takes for the study.

    `study.json` there gets `computed`: the days, the revisions of the code and the processors of its trainings.
    Raises: FileNotFoundError where the folder is no study; UsageError where it is not finished, or has no trainings.
    """
    tables = loading.load(study_folder)
    if unfinished := notices(tables):
        raise UsageError(f"STUDY {study_folder}: {unfinished[0]}")
    kept = shelf / str(tables.facts["study"])
    results.write_facts(kept, tables.facts | {"computed": computed(study_folder / "trainings")})
    for name in results.TABLES:
        with replacing(kept / "results" / f"{name}.parquet") as temporary:
            pq.write_table(getattr(tables, name), temporary, compression="zstd", compression_level=19)
    return kept


def computed(trainings: Path) -> dict[str, Any]:
    """First and last day of the trainings, and the code and the machines that made them. Raises: UsageError."""
    files = sorted(trainings.glob("*/training.json"))
    if not files:
        raise UsageError(f"STUDY {trainings.parent}: its trainings are not there, so nobody knows what computed them.")
    where = [json.loads(file.read_text(encoding="utf-8"))["environment"] for file in files]
    days = sorted(datetime.fromtimestamp(file.stat().st_mtime, UTC).date().isoformat() for file in files)
    return {
        "days": [days[0], days[-1]],
        "revisions": _several(_source(each) for each in where),
        "processors": _several(each["gpu"] or each["processor"] for each in where),
        "python": _several(each["python"] for each in where),
        "trainings": len(files),
    }


def _source(environment: dict[str, Any]) -> str:
    """The checkout's revision, with a plus where it had changes of its own, or the installed version."""
    revision = (environment["revision"] or "")[:10]
    return f"{revision}{'+' * bool(environment['modified'])}" or environment["absld_search"]


def _several(found: Iterable[Any]) -> list[str]:
    return sorted({str(each) for each in found})
