"""Threats and their controls: docs/security.md names these tests."""

from __future__ import annotations

import ast
import http.client
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from mlflow.tracking import MlflowClient

from absld_search import run, ui
from absld_search.search import listening
from absld_search.search.mlflow_view import Shown
from absld_search.search.tracking import Mirror, newest_experiment, store_uri
from tests.browser import made_up_study, serving
from tests.search.requests import plan as plan_of

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path for folder in ("absld_search", "analysis", "search_spaces") for path in (ROOT / folder).rglob("*.py")
)
SECRET = "hunter2"


def calls(path: Path) -> list[tuple[str, dict[str, object]]]:
    """(dotted name, keyword constants) of every call in a file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            constants = {k.arg or "": getattr(k.value, "value", k.value) for k in node.keywords}
            found.append((ast.unparse(node.func), constants))
    return found


RUNS_CODE = {
    "eval", "exec", "compile", "os.system", "pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load",
    "cloudpickle.loads", "marshal.loads", "shelve.open", "joblib.load", "yaml.load", "yaml.unsafe_load", "dill.load",
    "torch.jit.load", "torch.hub.load", "pd.read_pickle", "importlib.util.spec_from_loader",
}  # fmt: skip


def test_no_code_of_a_file_is_ever_run() -> None:
    """No pickle is loaded, no text evaluated. The one unpickler (CIFAR's files) builds arrays and nothing else."""
    seen = 0
    for path in SOURCES:
        for name, words in calls(path):
            assert name not in RUNS_CODE, f"{path.name}: {name}"
            assert words.get("shell") is not True, path.name
            if name == "torch.load":
                seen += 1
                assert words.get("weights_only") is True, path.name
            if name in ("np.load", "numpy.load"):
                assert words.get("allow_pickle") in (None, False), path.name
    assert seen >= 2, "the test looks at what there is"
    unpicklers = [p.name for p in SOURCES if "pickle.Unpickler" in p.read_text(encoding="utf-8")]
    assert unpicklers == ["readers.py"]


def test_the_search_would_find_one(tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text("import torch\ntorch.load('x', weights_only=False)\npickle.load(f)\n")
    assert ("torch.load", {"weights_only": False}) in calls(file) and ("pickle.load", {}) in calls(file)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> int:
    """The port of the real UI on a made-up study."""
    out = tmp_path_factory.mktemp("study")
    made_up_study(out)
    with serving("--out", str(out)) as (_, link):
        yield int(link.split(":")[2].split("/")[0])


def answer(port: int, method: str = "GET", path: str = "/", body: str | None = None, **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {"Content-Type": "application/json", **names})
        return connection.getresponse().status
    finally:
        connection.close()


SEARCH = "/api/2.0/mlflow/experiments/search"


@pytest.mark.slow
def test_hosts_and_origins_that_the_ui_answers(served: int) -> None:
    """DNS rebinding and forged requests: only this machine's own two names, and no page of another origin."""
    for host in (f"127.0.0.1:{served}", f"localhost:{served}"):
        assert answer(served, Host=host) == 200, host
    for host in (
        "evil.example.com",
        f"evil.example.com:{served}",
        f"10.0.0.1:{served}",
        f"0.0.0.0:{served}",
        "127.0.0.1:1",
    ):
        assert answer(served, Host=host) == 403, host
    own, body = f"127.0.0.1:{served}", '{"max_results": 1}'
    assert answer(served, "POST", SEARCH, body, Host=own) == 200
    assert answer(served, "POST", SEARCH, body, Host=own, Origin=f"http://{own}") == 200
    for origin in ("http://evil.example.com", "null", "https://localhost.evil.example.com"):
        assert answer(served, "POST", SEARCH, body, Host=own, Origin=origin) == 403, origin
    job = '{"job_name": "invoke_scorer", "params": {}}'  # MLflow still lists jobs then, and runs none
    assert answer(served, "POST", "/ajax-api/3.0/jobs", job, Host=own) >= 400


def test_the_server_is_started_without_what_runs_code() -> None:
    assert ui.HOST == "127.0.0.1"
    assert ui.SAFE_ENVIRONMENT["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert ui.SAFE_ENVIRONMENT["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"


INJECTIONS = ["'; DROP TABLE runs; --", "x' OR tags.arm = 'dual", "`", '"', "a\nb", "%", ""]


@pytest.mark.parametrize("text", INJECTIONS)
def test_no_word_becomes_part_of_a_query(text: str, tmp_path: Path) -> None:
    made = Mirror(store_uri(tmp_path), "study", tmp_path, Shown({"a": "max"}, []))
    with pytest.raises(ValueError, match="no key"):
        made.trial(text, text, {}, {})
    assert not (tmp_path / "mlflow.db").exists()


def test_a_study_is_looked_for_by_its_very_name_and_an_answer_cannot_hold_html(tmp_path: Path) -> None:
    made = Mirror(store_uri(tmp_path), "study", tmp_path, Shown({"a": "max"}, []))
    made.open()
    assert all(newest_experiment(store_uri(tmp_path), text) is None for text in INJECTIONS if text)
    made.answer([], {}, "<img src=x onerror=alert(1)> & more")
    client = MlflowClient(store_uri(tmp_path))
    (found,) = client.search_runs([made.experiment_id])
    assert found.data.tags["mlflow.note.content"] == "&lt;img src=x onerror=alert(1)> & more"


def refused(*words: str) -> str:
    found = CliRunner().invoke(run.main, ["temperature_lr", "--smoke", *words])
    assert found.exit_code == 2, found.output
    (line,) = found.stderr.splitlines()
    return line


def test_a_study_does_not_lead_out_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").symlink_to(tmp_path / "elsewhere")
    assert "is a link" in refused("--out", str(tmp_path / "out"), "--study", "mine")
    for name in ("../mine", "/etc", "a/b", "..", "."):
        assert "--study" in refused("--out", str(tmp_path / "out"), "--study", name)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_folder_that_others_write_into_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    folder.chmod(0o770)
    assert "others may write" in refused("--out", str(tmp_path), "--study", "mine")
    folder.chmod(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    assert "belongs to user" in refused("--out", str(tmp_path), "--study", "mine")
    assert not list(folder.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(not listening.known(), reason="reads Linux's /proc")
def test_x2_a_run_listens_on_loopback_only_and_writes_no_secret(tmp_path: Path) -> None:
    """A real study against an MLflow server that is away, under a URL with a password: what listens meanwhile, what is
    written, and who may read it."""
    uri = f"http://me:{SECRET}@127.0.0.1:9"
    line = [sys.executable, "-m", "absld_search.run", "temperature_lr", "--smoke", "--trials", "1", "--seeds", "1"]
    scratch = Path(tempfile.mkdtemp(prefix="x2"))  # short: Ray makes sockets in it
    environment = {**os.environ, "TMPDIR": str(scratch), "MLFLOW_TRACKING_URI": uri}
    process = subprocess.Popen([*line, "--out", str(tmp_path / "out")], cwd=ROOT, env=environment,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
    seen: set[listening.Listener] = set()
    while process.poll() is None:
        seen |= set(listening.listeners(listening.family(process.pid)))
        time.sleep(0.2)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert any("gcs_server" in one.command for one in seen), "Ray's servers were seen"
    assert not [one for one in seen if not one.loopback]
    assert "is away" in output and SECRET not in output
    files = [path for place in (tmp_path, scratch) for path in place.rglob("*") if path.is_file()]
    assert len(files) > 10 and not [path for path in files if SECRET.encode() in path.read_bytes()]
    (folder,) = (tmp_path / "out").glob("temperature_lr-*")
    shutil.rmtree(scratch)
    assert not list(folder.rglob("*.pkl"))
    mine = [folder, *folder.rglob("*")]
    assert all(path.stat().st_mode & 0o077 == 0 for path in mine), "for its user alone"


def test_a_study_made_by_hand_is_on_disk_for_its_user_alone(tmp_path: Path) -> None:
    from absld_search.search import study

    made = plan_of(tmp_path, study="private")
    (tmp_path / "private").rmdir()
    with study.held(made):
        (made.folder / "file").write_text("x")
    assert made.folder.stat().st_mode & 0o777 == 0o700
    assert (made.folder / "file").stat().st_mode & 0o077 == 0
