"""`python -m absld_search.ui`: opens a study's Pareto front in MLflow, on this machine only. Ctrl-C ends it.

Where MLFLOW_TRACKING_URI (or --tracking-uri) names a server that runs already, only the links are printed.
"""

import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, NoReturn

import click
from click.core import ParameterSource

from absld_search.search.mlflow_view import FRONT, TITLES, link, plain_link
from absld_search.words import masked, unknown

HOST = "127.0.0.1"
PORTS_TRIED = 100
START_SECONDS = 180  # measured 10 s on two idle cores; a machine that trains may need a minute
STOP_SECONDS = 10
STORE = "MLFLOW_BACKEND_STORE_URI"  # by the environment: everybody on a machine can read arguments
SAFE_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
}


class Refusal(click.ClickException):
    """Bad input: one message, exit code 2, nothing created."""

    exit_code = 2


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs"), show_default=True,
              help="The folder that studies were written to.")  # fmt: skip
@click.option("--tracking-uri", envvar="MLFLOW_TRACKING_URI",
              help="Another MLflow store or server.  [env: MLFLOW_TRACKING_URI; default: OUT/mlflow.db]")  # fmt: skip
@click.option("--study", help="A study's name.  [default: the newest]")
@click.option(
    "--view",
    type=click.Choice(list(TITLES)),
    default=FRONT,
    show_default=True,
    help="What the link opens: " + "; ".join(f"{name}: {title}" for name, title in TITLES.items()) + ".",
)
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True,
              help="Taken as it is when given; else the next free one is used.")  # fmt: skip
@click.pass_context
def main(
    context: click.Context, out: Path, tracking_uri: str | None, study: str | None, view: str, port: int
) -> None:  # fmt: skip
    """Show a study's Pareto front in MLflow."""
    from absld_search.search import tracking  # takes a second, which --help need not pay

    uri = tracking_uri or tracking.store_uri(out)
    experiment = _experiment(uri, study)
    if tracking.is_server(uri):
        click.echo(masked(link(uri, experiment, view)))
        _say_plain(masked(plain_link(uri, experiment, view)))
        return
    strict = context.get_parameter_source("port") is ParameterSource.COMMANDLINE
    port = _free_port(port, strict)
    server = f"http://{HOST}:{port}"
    links = {name: link(server, experiment, name) for name in (view, *TITLES)}
    _serve(uri, port, links, plain_link(server, experiment, view))


def _experiment(uri: str, study: str | None) -> str:
    from absld_search.search import tracking

    file = tracking.store_file(uri)
    if file is not None and not file.is_file():
        raise Refusal(f"no study yet in {file.parent} ({file.name} is missing). Run one with `make run`.")
    try:
        found = tracking.newest(uri, study)
        known = [] if found else tracking.names(uri)
    except (*tracking.MIRROR_ERRORS, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise Refusal(masked(f"cannot read the MLflow store {uri}: {reason}")) from error
    if found is None:
        if study and known:
            raise Refusal(f"{unknown('--study', study, known)} The MLflow store is {masked(uri)}.")
        raise Refusal(f"the MLflow store {masked(uri)} holds no study. Run one with `make run`.")
    if study is None:
        click.echo(f"study {found[1]}: the newest; --study NAME opens another", err=True)
    return found[0]


def _free_port(first: int, strict: bool) -> int:
    if strict and not _is_free(first):
        raise Refusal(f"port {first} is taken. Give --port another number, or leave it out.")
    port = next((p for p in range(first, min(first + PORTS_TRIED, 65536)) if _is_free(p)), None)
    if port is None:
        raise Refusal(f"no free port among the {PORTS_TRIED} from {first} on. Give --port another number.")
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else one closed a minute ago counts as taken
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _serve(uri: str, port: int, links: Mapping[str, str], plain: str) -> None:
    """`links`: by view, first the one to open; `plain`: without a saved view."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    click.echo("Starting MLflow ...", err=True)
    # A file takes the server's words: on the terminal they would bury the link, and a pipe nobody reads would block.
    with tempfile.TemporaryFile("w+") as words:
        server = _start(uri, port, words)
        try:
            _wait_until_it_answers(server, port, words)
            for place, (view, address) in enumerate(links.items()):
                click.echo(f"{TITLES[view]}{'' if place else ' (Ctrl-C ends the server)'}: {address}")
            _say_plain(plain)
            server.wait()
            raise click.ClickException(f"the MLflow server ended by itself:\n{_tail(words)}")
        finally:
            _stop(server)


def _say_plain(address: str) -> None:
    click.echo(f"Should MLflow show an empty page there (its format for views is its own): {address}")


def _leave(*_: object) -> NoReturn:
    sys.exit(0)


def _start(uri: str, port: int, words: IO[str]) -> "subprocess.Popen[bytes]":
    command = [
        sys.executable, "-m", "mlflow", "server",
        "--host", HOST, "--port", str(port), "--allowed-hosts", f"localhost:{port},{HOST}:{port}",
        "--workers", "1", "--uvicorn-opts", "--log-level warning",
    ]  # fmt: skip
    # A session of its own: Ctrl-C reaches only us, and one signal to the group ends all the server's processes.
    return subprocess.Popen(
        command, env={**os.environ, **SAFE_ENVIRONMENT, STORE: uri}, stdin=subprocess.DEVNULL, stdout=words,
        stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def _wait_until_it_answers(server: "subprocess.Popen[bytes]", port: int, words: IO[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _answers(port):
        if server.poll() is not None:
            raise click.ClickException(f"the MLflow server did not start:\n{_tail(words)}")
        if time.monotonic() > deadline:
            raise click.ClickException(f"the MLflow server gave no answer in {START_SECONDS} s:\n{_tail(words)}")
        time.sleep(0.1)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)  # unlike urllib, it asks no proxy
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _tail(words: IO[str], lines: int = 15) -> str:
    words.seek(0)
    return "\n".join(words.read().splitlines()[-lines:])


def _stop(server: "subprocess.Popen[bytes]") -> None:
    """Ends the server's whole group: politely, then by force what is left of it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave a half-stopped server behind
    _signal_group(server, signal.SIGTERM)
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    _signal_group(server, signal.SIGKILL)
    server.wait()


def _signal_group(server: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    try:
        os.killpg(server.pid, number)
    except ProcessLookupError:
        pass


if __name__ == "__main__":
    main()
