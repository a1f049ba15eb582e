"""Threads, concurrency and shares of a GPU: counted in the processes that Ray really starts."""

from __future__ import annotations

import ast
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from click.testing import CliRunner

from absld_search import run
from absld_search.search import cluster, preflight, preparing, processes, resources
from absld_search.search import ray_session as sessions
from absld_search.search.interruption import Interruption
from absld_search.search.ray_session import ray_session
from absld_search.words import UsageError
from absld_search.workloads import WORKLOADS
from tests.search.requests import plan, request
from tests.search.test_bounds import SETTINGS, server

ROOT = Path(__file__).parents[2]
TERMINATED = """
import os, signal, sys, time
from pathlib import Path
from types import SimpleNamespace
from absld_search import endings
from absld_search.search import cluster
from absld_search.search.interruption import Interruption
from absld_search.search.ray_session import ray_session
from tests.search.requests import plan

def terminate(_):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)

cluster.time = SimpleNamespace(monotonic=time.monotonic, sleep=terminate)  # it sleeps while it waits for machines
made = plan(Path(sys.argv[1]), **({} if sys.argv[2] == "prepare" else {"cpus_per_trial": 4096, "wait_for_nodes": 600}))
with endings.said():
    if sys.argv[2] == "look":
        cluster.look(made.request)
    with Interruption(lambda: None) as stop, ray_session(made, "a-test", stop):
        terminate(0)
"""


def threads_there() -> dict[str, Any]:
    """What a training finds in its worker before it has said anything about threads."""
    import os

    import pyarrow
    import sklearn  # noqa: F401  brings an OpenMP and a BLAS of its own
    import threadpoolctl
    import torch

    torch.rand(600, 600) @ torch.rand(600, 600)
    pools = {pool["internal_api"]: pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
    found = {"torch": torch.get_num_threads(), "arrow": pyarrow.cpu_count(), **pools}
    return {**found, "env": {name: os.environ.get(name) for name in resources.ONE_THREAD}}


def below(pid: int) -> set[int]:
    """Every living process that descends from one."""
    found = set(processes.children(pid))
    return found.union(*map(below, found))


def test_every_worker_runs_one_thread_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "16")
    made, before, others = plan(tmp_path), dict(os.environ), below(os.getpid())
    with Interruption(lambda: None) as stop, ray_session(made, "a-test", stop):
        (there,) = cluster.nodes()
        found = ray.get(ray.remote(num_cpus=1)(threads_there).remote())
        started, marked = below(os.getpid()) - others, processes.marked("a-test")
    assert len(started) > 4 and started <= set(marked), "each can be found and ended, whatever it calls itself"
    assert found.pop("env") == resources.ONE_THREAD
    assert {"torch", "arrow", "openmp"} <= set(found) and set(found.values()) == {1}, found
    assert there["CPU"] == resources.cores() == resources.at_a_time(made.request, [there])
    changed = {name for name in before | os.environ if before.get(name) != os.environ.get(name)}
    assert changed <= {"RAY_AUTH_MODE", "PYTHONBREAKPOINT"}, (
        "Ray's own; a later Ray of this process is told none of ours"
    )


@pytest.mark.slow
@pytest.mark.parametrize("where", ["look", "wait", "prepare"])
def test_a_sigterm_before_tune_listens_is_an_interruption(tmp_path: Path, where: str) -> None:
    words = [sys.executable, "-c", TERMINATED, str(tmp_path), where]
    found = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 75 and "interrupted: run the same command again" in found.stderr, found


AT_A_TIME = [
    ({}, {"CPU": 2}, 2),
    ({"cpus_per_trial": 0.5}, {"CPU": 2}, 4),
    ({"cpus_per_trial": 3}, {"CPU": 8}, 2),
    ({"cpus_per_trial": 16}, {"CPU": 8}, 1),
    ({"max_concurrent": 3}, {"CPU": 8}, 3),
    ({"max_concurrent": 99}, {"CPU": 8}, 8),
    ({"gpus_per_trial": 1}, {"CPU": 16, "GPU": 4}, 4),
    ({"gpus_per_trial": 0.25}, {"CPU": 16, "GPU": 2}, 8),
    ({"gpus_per_trial": 0.4}, {"CPU": 16, "GPU": 2}, 4),
    ({"gpus_per_trial": 0.1}, {"CPU": 16, "GPU": 2}, 16),
    ({"gpus_per_trial": 2}, {"CPU": 16, "GPU": 5}, 2),
]


@pytest.mark.parametrize(("words", "there", "expected"), AT_A_TIME)
def test_never_more_trainings_than_cores_and_gpus_carry(
    tmp_path: Path, words: dict[str, Any], there: dict[str, float], expected: int
) -> None:
    assert resources.at_a_time(request(tmp_path, **words), [there]) == expected


SMALL, LARGE, BARE = {"CPU": 4.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 4.0}, {"CPU": 16.0}
SERVED = [
    ({}, [SMALL], ""),
    ({"gpus_per_trial": 0.25}, [BARE, SMALL], ""),
    ({"gpus_per_trial": 2}, [SMALL, LARGE], ""),
    ({"gpus_per_trial": 4}, [SMALL] * 4, ""),  # four processes, each on a machine of its own
    ({"gpus_per_trial": 2, "processes_per_trial": 1}, [SMALL] * 4, "Ray sees 4 nodes (4 CPUs, 1 GPU; 4 CPUs, 1 GPU"),
    ({"gpus_per_trial": 8}, [SMALL, LARGE], "8 processes with 0.125 CPUs and 1 GPUs each does not fit"),
    ({"gpus_per_trial": 1}, [BARE], "--gpus-per-trial 1: Ray sees 1 node (16 CPUs, 0 GPUs)"),
    ({"cpus_per_trial": 10}, [SMALL, LARGE], "--cpus-per-trial 10: Ray sees 2 nodes"),
    ({"cpus_per_trial": 10, "processes_per_trial": 2}, [SMALL, LARGE], "2 processes with 5 CPUs each does not fit"),
    ({"gpus_per_trial": 0.5}, [], "Ray sees 0 nodes"),
]


@pytest.mark.parametrize(("words", "there", "expected"), SERVED)
def test_a_training_must_fit_on_machines_as_they_are(
    tmp_path: Path, words: dict[str, Any], there: list[dict[str, float]], expected: str
) -> None:
    """Their sum says nothing: two machines of one GPU carry no process of two."""
    found = cluster.refusal(request(tmp_path, **words), there)
    assert expected in found and bool(found) == bool(expected)


def test_a_growing_cluster_gets_its_time_and_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, looks = [], iter([[BARE], [BARE], [BARE, SMALL]])
    monkeypatch.setattr(cluster, "nodes", lambda: next(looks))
    monkeypatch.setattr(cluster, "LOOK_SECONDS", 0)
    monkeypatch.setattr(cluster, "request_resources", lambda bundles: asked.append(bundles))
    cluster.require(request(tmp_path, gpus_per_trial=1, wait_for_nodes=600))
    assert asked == [[{"CPU": 1.0, "GPU": 1.0}], []] and next(looks, None) is None
    monkeypatch.setattr(cluster, "nodes", lambda: [BARE])
    with pytest.raises(UsageError, match="16 CPUs, 0 GPUs"):
        cluster.require(request(tmp_path, gpus_per_trial=1))
    monkeypatch.setattr(cluster, "look", lambda request: pytest.fail("a dry run makes no cluster grow"))
    with server(SETTINGS) as address:
        preflight.check(plan(tmp_path, address=address, gpus_per_trial=1, wait_for_nodes=600), dry=True)
    growing = request(tmp_path, wait_for_nodes=600, max_concurrent=40)
    assert resources.at_a_time(growing, [BARE]) == 40


def test_workers_of_a_cluster_are_told_how_often_to_save(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ABSLD_CHECKPOINT_SECONDS", raising=False)
    assert sessions._more("auto")["runtime_env"]["env_vars"] == resources.ONE_THREAD
    monkeypatch.setenv("ABSLD_CHECKPOINT_SECONDS", "600")
    found = sessions._more("auto")["runtime_env"]["env_vars"]
    assert found == {**resources.ONE_THREAD, "ABSLD_CHECKPOINT_SECONDS": "600"}


def test_machines_that_have_gone_before_they_are_prepared_are_named_as_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = {"Alive": True, "Resources": BARE, "NodeManagerHostname": "a", "NodeID": "0"}
    monkeypatch.setattr(preparing.ray, "nodes", lambda: [bare, {"Alive": False}])
    with pytest.raises(ConnectionError, match="no machine is left"):  # which ends a run with 75
        preparing.on_each_node(plan(tmp_path, gpus_per_trial=1), print)


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", 8), ("150000 100000", 1), ("400000 100000", 4), ("", 8), ("1000 100000", 1)]
)
def test_cores_are_those_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, expected: int
) -> None:
    monkeypatch.setattr(resources.os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(resources, "CGROUP", tmp_path / "cpu.max")
    (tmp_path / "cpu.max").write_text(quota)
    assert resources.cores() == expected
    (tmp_path / "cpu.max").unlink()
    assert resources.cores() == 8


def test_shares_of_a_gpu_fit_into_it() -> None:
    assert resources.memory_fraction(0) is None and resources.memory_fraction(1) is None
    for setting in WORKLOADS.values():
        share = resources.memory_fraction(1 / setting.trials_per_gpu)
        assert share is None or setting.trials_per_gpu * share == pytest.approx(resources.GPU_SHARE_USED)
    small = replace(WORKLOADS["digits"], trials_per_gpu=99)
    assert small.identity() == WORKLOADS["digits"].identity(), "how many share a GPU changes no number"


def test_the_workload_says_how_many_share_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from absld_search.search import preflight

    asked = []
    monkeypatch.setattr(preflight, "_gpus", lambda: 1)
    monkeypatch.setattr(preflight, "check", lambda made, **_: asked.append(made.request))
    for words in (["--device", "cuda"], ["--gpus-per-trial", "0.5"], []):
        CliRunner().invoke(run.main, ["absld", "--dry-run", "--out", str(tmp_path), *words])
    assert [(found.device, found.gpus_per_trial) for found in asked] == [("cuda", 0.125), ("cuda", 0.5), ("cpu", 0.0)]
    listed = CliRunner().invoke(run.main, ["--list-workloads"]).stdout
    assert listed.count("on a GPU: ") == len(WORKLOADS) and "on a GPU: 8 at a time" in listed


def test_nothing_here_loads_data_in_processes_of_its_own() -> None:
    for path in (ROOT / "absld_search").rglob("*.py"):
        words = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert "DataLoader" not in words | {path.stem}, path


def test_a_driver_of_thousands_hears_of_few_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    from absld_search.search import wire, worker

    clock, heard, notes = [0.0], list[dict[str, Any]](), ["damaged"]
    monkeypatch.setattr(worker.tune, "report", heard.append)
    monkeypatch.setattr(worker.time, "monotonic", lambda: clock[0])
    with worker.Sending("", "", [Path("x")], notes.append) as sending:
        reports = worker.Reports(notes, sending, seconds=80)  # 4,000 trainings, 50 reports a second
        for epoch in range(1, 31):
            reports(epoch, {"robust_accuracy": epoch / 100})
            clock[0] += 10
    said = [wire.unpacked(each) for each in heard]
    assert [each["epoch"] for each in said] == [1, 9, 17, 25]
    assert [each["notes"] for each in said] == [["damaged"], [], [], []]


def test_a_head_that_answers_no_more_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(sessions.time, "monotonic", lambda: clock[0])
    with socket.create_server(("127.0.0.1", 0)) as server:
        head = sessions.Head(f"127.0.0.1:{server.getsockname()[1]}")
        for clock[0] in range(0, 100, 2):
            assert head() == ""
    silent = []
    for clock[0] in range(100, 130, 2):
        silent.append(head())
    assert silent[5] == "" and "has not answered for" in silent[-1]
