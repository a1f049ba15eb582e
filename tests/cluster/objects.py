"""An S3-compatible server of one's own (moto's), on a loopback port, ended by its own process id."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.cluster.postgres import free_port

BUCKET = "studies"
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true"}
START_SECONDS = 120.0


def why_not() -> str:
    """Why no server can be started here; empty where one can."""
    return "" if importlib.util.find_spec("moto") else "moto is not installed (pip install 'moto[server]')"


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The URI of an empty bucket."""
    port = free_port()
    with (folder / "objects.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=log, stderr=log, env={**os.environ, **KEYS}, start_new_session=True,
        )  # fmt: skip
    try:
        _make_bucket(process, port)
        yield f"s3://{BUCKET}/store?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
    finally:
        process.terminate()
        process.wait(timeout=30)


def _make_bucket(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT")
    while True:
        assert process.poll() is None and time.monotonic() < deadline, "the object store does not answer"
        with suppress(OSError):
            urllib.request.urlopen(request, timeout=10).close()
            return
        time.sleep(0.3)
