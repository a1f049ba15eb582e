"""Results as Parquet tables: a worker writes its training, the driver combines, the analysis reads.

A study folder holds

    study.json                      facts of the study: question, arms in order, workload, versions, ...
    trainings/<key>/*.parquet       one shard per training (key = <config hash>-s<seed>), and its result.json
    results/*.parquet               the shards of all complete trainings as five tables

Every file appears by `os.replace`, so a reader sees the old file or the new one, never half of one.
`result.json` is written last and names the size of the others: where it is present and they agree, the
training is complete.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from absld_search.core.files import replacing

Rows = Sequence[Mapping[str, Any]] | Mapping[str, Any]
"""Rows of a table: a list of dicts, or a dict of equally long columns (lists or numpy arrays)."""


def _schema(nullable: Iterable[str] = (), **columns: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, kind, nullable=name in nullable) for name, kind in columns.items()])


TEXT, WHOLE, SHORT, REAL, FLAG = pa.string(), pa.int64(), pa.int32(), pa.float64(), pa.bool_()
_EVALUATED = {"training": TEXT, "split": TEXT, "attack": TEXT}

SHARDS: dict[str, pa.Schema] = {
    "epochs": _schema(training=TEXT, epoch=SHORT, metric=TEXT, value=REAL),
    "classes": _schema(["accuracy"], **_EVALUATED, **{"class": SHORT}, n=WHOLE, accuracy=REAL),
    "images": _schema(**_EVALUATED, image=WHOLE, label=SHORT, correct=FLAG),
}
_OUTCOME = {"state": TEXT, "reason": TEXT}
# `seconds` of a training that was taken over from another study: what it took there; null where that is not known.
TRAININGS = _schema(
    ["seconds"],
    training=TEXT,
    config=TEXT,
    seed=WHOLE,
    stage=TEXT,
    **_OUTCOME,
    attempts=WHOLE,
    epochs=WHOLE,
    seconds=REAL,
)


COSTS = {"seeds": WHOLE, "epochs": WHOLE, "seconds": REAL, "front_probability": REAL}


def trials_schema(objectives: Iterable[str]) -> pa.Schema:
    """Schema of the trials table; one nullable column `objective/<name>` per objective.

    `seeds`: how many its values are means of; `epochs`, `seconds`: what its search has cost, rungs and races included;
    `front_probability`: of its true mean being on its arm's front, where a second seed tells of the noise.
    """
    values = {f"objective/{name}": REAL for name in objectives}
    identity = {"trial": TEXT, "arm": TEXT, "number": WHOLE, "config": TEXT}
    flags = {"chosen": FLAG, "pareto": FLAG, "pareto_arm": FLAG}
    return _schema({*values, *COSTS}, **identity, **_OUTCOME, params=TEXT, **flags, **COSTS, **values)


@dataclass(frozen=True, eq=False)  # told apart as objects, so that what is computed from them can be remembered
class Tables:
    """What a study found, and `facts`, what it was asked."""

    facts: dict[str, Any]
    trials: pa.Table
    trainings: pa.Table
    epochs: pa.Table
    classes: pa.Table
    images: pa.Table


TABLES = tuple(field.name for field in fields(Tables))[1:]


def write_shard(
    folder: Path | str, epochs_rows: Rows, class_rows: Rows, image_rows: Rows, result: Mapping[str, Any]
) -> None:
    """Write one training's tables into `folder`, then `result.json`, which declares the training complete.

    Raises: ValueError that names table and column where rows do not fit the schema.
    """
    folder = Path(folder)
    given = {"epochs": epochs_rows, "classes": class_rows, "images": image_rows}
    tables = {name: _table(rows, SHARDS[name], name) for name, rows in given.items()}
    # A second attempt must not look complete while its files replace the first one's.
    (folder / "result.json").unlink(missing_ok=True)
    sizes = {}
    for name, table in tables.items():
        _write_table(folder / f"{name}.parquet", table, "shard")
        sizes[f"{name}.parquet"] = (folder / f"{name}.parquet").stat().st_size
    write_json(folder / "result.json", {"files": sizes, "result": dict(result)}, "result")


def write_images(path: Path | str, image_rows: Rows) -> None:
    """Write an images table alone. Raises: ValueError where rows do not fit the schema."""
    _write_table(Path(path), _table(image_rows, SHARDS["images"], "images"), "shard")


def read_result(folder: Path | str) -> dict[str, Any] | None:
    """Result of a complete training; None where it, or a table beside it, is absent or damaged."""
    folder = Path(folder)
    try:
        stored = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        intact = all((folder / name).stat().st_size == size for name, size in stored["files"].items())
        return dict(stored["result"]) if intact else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def combine(
    study_folder: Path | str,
    trials: Sequence[Mapping[str, Any]],
    trainings: Sequence[Mapping[str, Any]],
    objectives: Iterable[str],
) -> list[str]:
    """Write `results/*.parquet` from the shards of COMPLETE trainings; return the keys of unreadable ones.

    Such a training stands in the table as FAILED with a reason: what cannot be recomputed is not reported.
    """
    results, shards = Path(study_folder) / "results", Path(study_folder) / "trainings"
    complete = [str(row["training"]) for row in trainings if row["state"] == "COMPLETE"]
    unreadable = _combine_shards(results, [shards / key for key in complete])
    failed = {"state": "FAILED", "reason": "its stored results are missing or damaged"}
    trainings = [{**row, **failed} if row["training"] in unreadable else row for row in trainings]
    _write_table(results / "trainings.parquet", _table(trainings, TRAININGS, "trainings"), "tables")
    trials = [{**dict.fromkeys(COSTS), **row} for row in trials]
    _write_table(results / "trials.parquet", _table(trials, trials_schema(objectives), "trials"), "tables")
    return unreadable


def write_facts(study_folder: Path | str, facts: Mapping[str, Any]) -> None:
    """Write `study.json`."""
    write_json(Path(study_folder) / "study.json", dict(facts))


def load(study_folder: Path | str) -> Tables:
    """Tables and facts of a study.

    Raises: FileNotFoundError where the folder is no study, or nothing has been combined yet.
    """
    return Tables(read_facts(study_folder), *(read(study_folder, name) for name in TABLES))


def read_facts(study_folder: Path | str) -> dict[str, Any]:
    """What `study.json` holds. Raises: FileNotFoundError where the folder is no study."""
    file = Path(study_folder) / "study.json"
    if not file.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {study_folder}")
    if not file.is_file():
        raise FileNotFoundError(f"{study_folder} is not a study folder: it has no study.json")
    return dict(json.loads(file.read_text(encoding="utf-8")))


def read(study_folder: Path | str, name: str, trainings: Collection[str] | None = None) -> pa.Table:
    """One of the tables by its name in `Tables`.

    `trainings`: the rows of these trainings alone, without the others ever being in memory. Raises: FileNotFoundError
    where nothing has been combined yet.
    """
    path = Path(study_folder) / "results" / f"{name}.parquet"
    if not path.is_file():
        raise FileNotFoundError(f"{study_folder} has no results yet: results/{path.name} is missing")
    if trainings is None:
        return _read_table(path)
    wanted = set(trainings)
    with pq.ParquetFile(path) as file:
        groups = [n for n in range(file.num_row_groups) if _may_hold(file.metadata.row_group(n), wanted)]
        # In batches, for a group may hold every training there is.
        batches = file.iter_batches(row_groups=groups)
        condition = pc.field("training").isin(pa.array(sorted(wanted), pa.string()))
        found = [pa.Table.from_batches([batch]).filter(condition) for batch in batches]
        return pa.concat_tables([file.schema_arrow.empty_table(), *found])


def _may_hold(group: pq.RowGroupMetaData, trainings: set[str]) -> bool:
    """Whether a row group may have rows of these trainings; one shard is one group, so most have one training."""
    statistics = group.column(0).statistics
    if statistics is None or not statistics.has_min_max or statistics.min != statistics.max:
        return True
    return statistics.min in trainings


def write_json(path: Path, content: Mapping[str, Any], what: str = "file") -> None:
    """Write a JSON file atomically."""
    with replacing(path, what) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _combine_shards(results: Path, folders: Sequence[Path]) -> list[str]:
    # One shard in memory at a time: a study's images may be many millions of rows.
    unreadable = []
    with ExitStack() as stack:
        writers = {}
        for name, schema in SHARDS.items():
            temporary = stack.enter_context(replacing(results / f"{name}.parquet", "tables"))
            writers[name] = stack.enter_context(pq.ParquetWriter(temporary, schema, compression="zstd"))
        for folder in folders:
            tables = _read_shard(folder)
            if tables is None:
                unreadable.append(folder.name)
                continue
            for name, table in tables.items():
                writers[name].write_table(table)
    return unreadable


def _read_shard(folder: Path) -> dict[str, pa.Table] | None:
    if read_result(folder) is None:
        return None
    try:
        tables = {name: _read_table(folder / f"{name}.parquet") for name in SHARDS}
    except (OSError, pa.ArrowException):
        return None
    return tables if all(tables[name].schema.equals(SHARDS[name]) for name in SHARDS) else None


def _read_table(path: Path) -> pa.Table:
    # ParquetFile and not read_table: the latter takes a folder named "a=b" for a partition and adds a column.
    with pq.ParquetFile(path) as file:
        return file.read()


def _write_table(path: Path, table: pa.Table, what: str) -> None:
    with replacing(path, what) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _table(rows: Rows, schema: pa.Schema, name: str) -> pa.Table:
    """Rows as a table of exactly this schema. Raises: ValueError that names the table and the column."""
    columns = rows if isinstance(rows, Mapping) else _columns(rows, schema.names, name)
    if set(columns) != set(schema.names):
        differing = ", ".join(sorted(set(columns) ^ set(schema.names)))
        raise ValueError(f"{name}: missing or unknown columns: {differing}")
    arrays = [_array(columns[field.name], field, name) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _columns(rows: Sequence[Mapping[str, Any]], names: Sequence[str], table: str) -> dict[str, list[Any]]:
    for row in rows:
        if set(row) != set(names):
            raise ValueError(f"{table}: missing or unknown columns: {', '.join(sorted(set(row) ^ set(names)))}")
    return {name: [row[name] for row in rows] for name in names}


def _array(values: Any, field: pa.Field, table: str) -> pa.Array:
    try:
        array = pa.array(values, type=field.type)
    except pa.ArrowException as error:
        raise ValueError(f"{table}: column {field.name!r} does not hold {field.type}: {error}") from error
    if array.null_count and not field.nullable:
        raise ValueError(f"{table}: column {field.name!r} has an empty value")
    return array
