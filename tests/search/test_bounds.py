"""A refusal comes within a bound, whatever does not answer: the bounds themselves, and that they are asked for."""

from __future__ import annotations

import inspect
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray._private import node, ray_constants

from absld_search.search import answering, cluster, preflight
from absld_search.search.interruption import Interruption
from absld_search.search.ray_session import ray_session
from absld_search.words import UsageError
from tests.search.requests import plan, request

BARE = {"CPU": 16.0}
SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # how a Ray greets


@contextmanager
def server(says: bytes) -> Iterator[str]:
    """The address of one who says `says` to whoever comes, hears him out, and then nothing."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        came: list[socket.socket] = []

        def listen() -> None:
            there, _ = door.accept()
            came.append(there)
            there.sendall(says)

        threading.Thread(target=listen, daemon=True).start()
        yield f"127.0.0.1:{door.getsockname()[1]}"
        for there in came:
            there.close()


def test_an_address_where_nobody_or_somebody_else_answers_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through all checks of a start, which never come to Ray."""
    monkeypatch.setattr(cluster, "join", lambda *_: pytest.fail("Ray would try for a quarter of an hour"))
    assert 2 * answering.SECONDS <= 10, "a connection, and its first word"
    monkeypatch.setattr(answering, "SECONDS", 0.2)
    with server(b"") as silent, pytest.raises(UsageError, match="nothing answers there"):
        preflight.check(plan(tmp_path, address=silent))
    with server(b"HTTP/1.1 400 Bad Request\r\n\r\n") as web, pytest.raises(UsageError, match="is no Ray"):
        preflight.check(plan(tmp_path, address=web))
    with pytest.raises(UsageError, match="--address 127.0.0.1:9: nothing answers there"):
        preflight.check(plan(tmp_path, address="127.0.0.1:9"))


def test_a_head_that_answers_is_known_as_ray_and_one_that_hangs_is_tried_a_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Interruption(lambda: None) as stop, ray_session(plan(tmp_path), "bounds-test", stop):
        answering.require(ray.get_runtime_context().gcs_address)
    ((name, tries),) = cluster.TRIES.items()
    assert name in inspect.getsource(node.Node._init_gcs_client), "Ray still asks how often it may try"
    assert int(tries) < ray_constants.NUM_REDIS_GET_RETRIES
    seen: list[str | None] = []
    monkeypatch.setattr(cluster.ray, "init", lambda **_: seen.append(os.environ.get(name)))
    monkeypatch.delenv(name, raising=False)
    for address in ("head:6379", "local"):
        cluster.join(address, {})
    monkeypatch.setenv(name, "60")
    cluster.join("head:6379", {})
    assert seen == [tries, None, "60"], "of clusters alone, and where a person has said nothing"


@pytest.mark.parametrize("grace", [0.0, 90.0])
def test_machines_are_waited_for_as_long_as_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grace: float
) -> None:
    clock, asked = [0.0], list[object]()

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr(cluster, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep))
    monkeypatch.setattr(cluster, "nodes", lambda: [BARE])
    monkeypatch.setattr(cluster, "request_resources", lambda bundles: asked.append(bundles))
    with pytest.raises(UsageError, match="16 CPUs, 0 GPUs"):
        cluster.require(request(tmp_path, gpus_per_trial=1, wait_for_nodes=grace))
    assert clock[0] == grace and asked[1:] == ([[]] if grace else []), "what was asked for is withdrawn"
