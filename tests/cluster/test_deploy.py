"""The ways in: the batch script under a real Slurm, the manifests as their own programs read them."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import fields, slurm

ROOT = Path(__file__).parents[2]
# Stands in for Python: what the script would start is noted, and the study is interrupted, then fails, then ends.
PYTHON = """#!/usr/bin/env bash
echo "${SLURM_RESTART_COUNT:-0} $RAY_AUTH_MODE ${#RAY_AUTH_TOKEN} ${*//$'\\n'/ }" >> "$CALLS"
case "$*" in
  *" start "*) exec sleep 600 ;;
  *" health-check "*) grep -q "^${SLURM_RESTART_COUNT:-0} .* --head " "$CALLS" ;;
  *"ray.init("*) echo 1 ;;
  *"-m absld_search.run"*)
    trap 'sleep 1; exit 75' TERM
    case "${SLURM_RESTART_COUNT:-0}" in
      0) sleep 600 & wait ;;
      1) exit 75 ;;
      *) exit 3 ;;
    esac ;;
esac
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    if reason := slurm.why_not():
        pytest.skip(reason)
    with slurm.slurm() as environment:
        yield environment


def said(environment: dict[str, str], *command: str) -> str:
    found = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return found.stdout + found.stderr


def until(environment: dict[str, str], job: str, *wanted: str) -> dict[str, str]:
    """The job's facts, once it is in one of the states `wanted`; one that waits to be started again is started."""
    deadline = time.monotonic() + 180
    while True:
        words = said(environment, "scontrol", "show", "job", job).split()
        facts = dict(word.partition("=")[::2] for word in words if "=" in word)
        if facts["JobState"] in wanted:
            return facts
        assert time.monotonic() < deadline, facts
        # Slurm lets a requeued job wait for two minutes, in which what is left of its last run ends.
        if facts["JobState"] == "PENDING" and said(environment, "sinfo", "-h", "-o", "%t").strip() == "idle":
            subprocess.run(["scontrol", "update", f"jobid={job}", "StartTime=now"], env=environment)
        time.sleep(0.5)


def test_slurm_takes_the_batch_script(cluster: dict[str, str]) -> None:
    found = said(cluster, "sbatch", "--test-only", "--nodes=1", str(ROOT / "deploy/slurm.sh"), "ablation_dual_temps")
    assert "to start at" in found


def submitted(cluster: dict[str, str], place: Path) -> str:
    """The number of a job whose driver has begun; what it calls is noted in `place`/calls."""
    python, calls = place / "python", place / "calls"
    python.write_text(PYTHON)
    python.chmod(0o755)
    words = ["sbatch", "--parsable", "--nodes=1", f"--chdir={place}", f"--output={place}/log"]
    environment = cluster | {"ABSLD_PYTHON": str(python), "CALLS": str(calls)}
    job = said(environment, *words, str(ROOT / "deploy/slurm.sh"), "absld", "--trials", "9").strip()
    deadline = time.monotonic() + 60
    while not calls.exists() or "absld_search.run" not in calls.read_text():
        assert time.monotonic() < deadline, (place / "log").read_text()
        time.sleep(0.2)
    return job


@pytest.mark.slow
def test_an_interrupted_job_is_requeued_and_goes_on(cluster: dict[str, str], tmp_path: Path) -> None:
    """SIGTERM reaches the driver alone, its 75 requeues the job, and any other end of the driver is the job's."""
    job = submitted(cluster, tmp_path)
    said(cluster, "scancel", "--signal=TERM", "--batch", job)
    ended = until(cluster, job, "FAILED", "COMPLETED", "CANCELLED")
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("FAILED", "3:0", "2"), (
        tmp_path / "log"
    ).read_text()
    lines = (tmp_path / "calls").read_text().splitlines()
    drivers = [line.split() for line in lines if "-m absld_search.run" in line]
    assert [line[0] for line in drivers] == ["0", "1", "2"], "the same command, three times"
    assert all(line[3:] == ["-m", "absld_search.run", "absld", "--trials", "9", *line[-2:]] for line in drivers)
    assert all(line.split()[1:3] == ["token", "64"] for line in lines), "everything knows the token"
    assert sum(" --head " in line for line in lines) == 3


@pytest.mark.slow
def test_a_cancelled_job_is_not_requeued(cluster: dict[str, str], tmp_path: Path) -> None:
    """Slurm sends SIGTERM then too, and the driver ends with 75."""
    job = submitted(cluster, tmp_path)
    said(cluster, "scancel", job)
    until(cluster, job, "CANCELLED")
    deadline = time.monotonic() + 60
    while said(cluster, "squeue", "--noheader", f"--jobs={job}", "--format=%T").strip():  # COMPLETING
        assert time.monotonic() < deadline
        time.sleep(0.5)
    facts = until(cluster, job, "CANCELLED", "PENDING", "RUNNING")
    assert (facts["JobState"], facts["Restarts"]) == ("CANCELLED", "0")
    assert "requeued" not in (tmp_path / "log").read_text()
    assert (tmp_path / "calls").read_text().count("-m absld_search.run") == 1


# Stand-ins for Slurm's commands, as they behave while the last run of a requeued job is still ending.
SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
turn() { echo >> "$PLACE/$1"; (($(wc -l < "$PLACE/$1") > $2)); }
if [[ $1 == hostname ]]; then
  turn steps 2 || { echo "srun: error: Unable to create step" >&2; exit 1; }
  echo "127.0.0.1 10.0.0.1"
else
  turn heads 1 || { echo "the port is taken" >&2; exit 1; }
  exec "$@"
fi
"""
SCONTROL = """#!/usr/bin/env bash
[[ $1 == show ]] && { echo one; exit; }
echo "$*" >> "$PLACE/requeued"
(($(wc -l < "$PLACE/requeued") > 1)) || { echo "Job can not be altered now, try again later" >&2; exit 1; }
kill -TERM "$PPID"  # Slurm ends the script
"""


@pytest.mark.parametrize(("run", "code", "asked"), [("1", -15, 2), ("2", 3, 0)])
def test_what_is_left_of_the_last_run_is_waited_for(tmp_path: Path, run: str, code: int, asked: int) -> None:
    """Steps that Slurm does not start yet, a port that is still taken, a requeue that comes too soon."""
    for name, text in {
        "python": PYTHON,
        "srun": SRUN,
        "scontrol": SCONTROL,
        "squeue": "#!/bin/sh\necho RUNNING\n",
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PLACE": str(tmp_path)}
    environment |= {"ABSLD_PYTHON": str(tmp_path / "python"), "CALLS": str(tmp_path / "calls")}
    environment |= {"SLURM_JOB_NODELIST": "one", "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": run}
    words = ["bash", str(ROOT / "deploy/slurm.sh"), "absld", "--trials", "9"]
    found = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert found.returncode == code, found.stderr
    lines = (tmp_path / "calls").read_text().splitlines()
    assert [line.split()[3:] for line in lines if "absld_search.run" in line] == [
        ["-m", "absld_search.run", "absld", "--trials", "9", "--address", "127.0.0.1:6379"]
    ]
    assert len((tmp_path / "heads").read_text().splitlines()) == 2, "the head that found its port taken, and the next"
    requeued = (tmp_path / "requeued").read_text().splitlines() if asked else []
    assert requeued == ["requeue 7"] * asked
    assert not any("sleep 600" in each for each in commands(environment["CALLS"])), "Ray's nodes have ended"


def commands(calls: str) -> list[str]:
    """What runs of those that were told where to note their calls."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"CALLS={calls}".encode() in (place / "environ").read_bytes().split(b"\0"):
                found.append((place / "cmdline").read_text().replace("\0", " "))
    return found


def test_the_launchers_file_is_what_ray_takes() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load((ROOT / "deploy/launcher.yaml").read_text()))
    validate_config(config)
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    assert all("RAY_AUTH_MODE=token" in line for line in starts)


def manifest() -> Any:
    return yaml.safe_load((ROOT / "deploy/rayjob.yaml").read_text())


def test_the_manifest_keeps_its_state_outside_and_its_door_shut() -> None:
    spec = manifest()["spec"]
    for where in ("--storage postgresql", "--store s3://", "--tracking-uri http", "--address auto"):
        assert where in spec["entrypoint"]
    assert spec["backoffLimit"] > 0 and spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert "password" not in json.dumps(manifest()).lower()


@pytest.mark.parametrize(("code", "again"), [(0, False), (2, False), (3, False), (75, True), (137, True)])
def test_only_what_another_attempt_can_change_is_attempted_again(tmp_path: Path, code: int, again: bool) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexit {code}\n")
    python.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    found = subprocess.run(manifest()["spec"]["entrypoint"], shell=True, env=environment)
    assert bool(found.returncode) == again


def test_the_volume_of_a_later_attempt_is_as_the_first_left_it() -> None:
    """Otherwise a group could write into the study's folder, which is refused."""
    cluster = manifest()["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert group["template"]["spec"]["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"


@pytest.mark.skipif("ABSLD_KUBERAY_CRD" not in os.environ, reason="ABSLD_KUBERAY_CRD names no ray.io_rayjobs.yaml")
def test_the_manifest_is_what_kuberay_takes() -> None:
    crd = yaml.safe_load(Path(os.environ["ABSLD_KUBERAY_CRD"]).read_text())
    assert not list(fields.faults(manifest(), fields.schema_of(crd, "v1")))


SCHEMA = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string"},
        "count": {"type": "integer"},
        "mode": {"type": "string", "enum": ["a", "b"]},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "limit": {"x-kubernetes-int-or-string": True},
        "list": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "boolean"}}}},
    },
}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"name": "n", "count": 1, "mode": "a", "labels": {"any": "thing"}, "limit": "2Gi", "list": [{"x": True}]}, ""),
        ({"name": "n", "cuont": 1}, ".cuont is unknown"),
        ({}, ".name is missing"),
        ({"name": "n", "count": True}, ".count: True is no integer"),
        ({"name": "n", "mode": "c"}, ".mode: 'c' is none of"),
        ({"name": "n", "labels": {"any": 1}}, ".labels.any: 1 is no string"),
        ({"name": "n", "list": [{}, {"y": 1}]}, ".list[1].y is unknown"),
    ],
)
def test_fields_are_checked_one_by_one(value: Any, expected: str) -> None:
    found = "; ".join(fields.faults(value, SCHEMA))
    assert found.startswith(expected) and bool(found) == bool(expected)
