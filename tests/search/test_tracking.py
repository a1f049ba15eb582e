import math
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from absld_search.search import mlflow_view, tracking
from absld_search.search.mlflow_view import Shown
from absld_search.search.palette import NO_ARM as ON_FRONT
from absld_search.search.palette import OFF_FRONT
from absld_search.search.tracking import MIRROR_ERRORS, Mirror, newest_experiment, store_uri

OBJECTIVES = {"worst": "max", "cost": "min"}
pytestmark = pytest.mark.usefixtures("store")


def mirror(out: Path, experiment: str = "study") -> Mirror:
    made = Mirror(store_uri(out), experiment, out / "artifacts", Shown(OBJECTIVES, ["rate"]))
    made.open()
    return made


def runs(out: Path, experiment: str = "study") -> dict:
    client = MlflowClient(store_uri(out))
    found = client.get_experiment_by_name(experiment)
    return {run.data.tags["absld.key"]: run for run in client.search_runs([found.experiment_id])}


def curve(out: Path, key: str, metric: str) -> list[tuple[int, float]]:
    history = MlflowClient(store_uri(out)).get_metric_history(runs(out)[key].info.run_id, metric)
    return [(point.step, point.value) for point in history]


def write_all(made: Mirror, epochs: int) -> list[str]:
    ids = [made.trial("t", "dual #0", {"rate": 0.1, "method": "absld"}, {"arm": "dual"})]
    ids.append(made.training("t/0", "t", "dual #0 seed 0", {"seed": "0"}))
    made.epochs("t/0", [(epoch, {"worst": epoch / 10}) for epoch in range(1, epochs + 1)])
    made.finish("t/0", {"worst": epochs / 10})
    made.finish("t", {"worst": epochs / 10, "cost": 1.0})
    made.mark_fronts(["t"], ["t"])
    return ids


def test_a_second_process_finds_everything_and_adds_only_what_is_new(tmp_path):
    first = write_all(mirror(tmp_path), epochs=3)
    again = write_all(mirror(tmp_path), epochs=5)
    assert again == first
    assert set(runs(tmp_path)) == {"t", "t/0"}
    assert curve(tmp_path, "t/0", "worst") == [(epoch, epoch / 10) for epoch in range(1, 6)]
    assert runs(tmp_path)["t"].data.metrics == {"worst": 0.5, "cost": 1.0}
    assert len(curve(tmp_path, "t", "cost")) == 1


def test_the_same_process_repeats_without_effect(tmp_path):
    made = mirror(tmp_path)
    assert write_all(made, epochs=3) == write_all(made, epochs=3)
    assert len(curve(tmp_path, "t/0", "worst")) == 3


def test_what_a_crash_left_out_is_filled_in(tmp_path):
    made = mirror(tmp_path)
    made.trial("t", "t", {}, {})
    made.epochs("t", [(1, {"a": 1.0}), (3, {"a": 3.0})])
    later = mirror(tmp_path)
    later.trial("t", "t", {"rate": 0.5}, {})
    later.epochs("t", [(1, {"a": 1.0, "b": 1.0}), (2, {"a": 2.0}), (3, {"a": 3.0})])
    assert sorted(curve(tmp_path, "t", "a")) == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert curve(tmp_path, "t", "b") == [(1, 1.0)]
    assert runs(tmp_path)["t"].data.params == {"rate": "0.5"}


def test_a_training_stands_below_its_trial_with_tags_and_parameters(tmp_path):
    trial_id, training_id = write_all(mirror(tmp_path), epochs=1)
    trial, training = runs(tmp_path)["t"], runs(tmp_path)["t/0"]
    assert training.info.run_id == training_id
    assert training.data.tags["mlflow.parentRunId"] == trial_id
    assert "mlflow.parentRunId" not in trial.data.tags
    assert trial.data.tags["arm"] == "dual" and trial.info.run_name == "dual #0"
    assert trial.data.params == {"rate": "0.1", "method": "absld"}


def test_a_training_without_its_trial_is_refused(tmp_path):
    with pytest.raises(KeyError, match="no run with key 'nothing'"):
        mirror(tmp_path).training("t/0", "nothing", "t/0", {})


def test_nan_and_infinity_never_reach_the_store(tmp_path):
    made = mirror(tmp_path)
    made.trial("t", "t", {}, {})
    made.epochs("t", [(1, {"a": math.nan, "b": math.inf, "c": 1.0}), (2, {"a": 0.5, "b": -math.inf})])
    made.finish("t", {"worst": math.nan, "cost": math.inf, "d": 2.0}, status="FAILED", reason="nonfinite:loss@1")
    run = runs(tmp_path)["t"]
    assert run.data.metrics == {"a": 0.5, "c": 1.0, "d": 2.0}
    assert curve(tmp_path, "t", "a") == [(2, 0.5)]
    assert run.info.status == "FAILED" and run.data.tags["reason"] == "nonfinite:loss@1"


def test_more_metrics_than_one_request_may_hold(tmp_path):
    made = mirror(tmp_path)
    made.trial("t", "t", {f"p{i}": i for i in range(130)}, {})
    made.epochs("t", [(step, {f"class_{i:02d}": i + step / 100 for i in range(60)}) for step in range(1, 31)])
    made.finish("t", {f"summary_{i}": float(i) for i in range(1200)})
    run = runs(tmp_path)["t"]
    assert len(run.data.params) == 130
    assert len(run.data.metrics) == 60 + 1200
    assert curve(tmp_path, "t", "class_59") == [(step, 59 + step / 100) for step in range(1, 31)]


def test_no_request_is_larger_than_mlflow_allows(tmp_path, monkeypatch):
    made = mirror(tmp_path)
    made.trial("t", "t", {}, {})
    sizes = []
    monkeypatch.setattr(made._client, "log_batch", lambda run_id, metrics: sizes.append(len(metrics)))
    made.epochs("t", [(step, {f"class_{i:02d}": 0.5 for i in range(60)}) for step in range(1, 31)])
    assert sizes == [1000, 800]


def test_a_lost_reply_leads_to_no_second_point(tmp_path, monkeypatch):
    made = mirror(tmp_path)
    made.trial("t", "t", {}, {})
    log_batch = made._client.log_batch

    def log_and_lose_the_reply(*args, **kwargs):
        log_batch(*args, **kwargs)
        raise MIRROR_ERRORS[0]("connection reset")

    with monkeypatch.context() as broken, pytest.raises(MIRROR_ERRORS):
        broken.setattr(made._client, "log_batch", log_and_lose_the_reply)
        made.epochs("t", [(1, {"a": 1.0})])
    made.epochs("t", [(1, {"a": 1.0}), (2, {"a": 2.0})])
    assert curve(tmp_path, "t", "a") == [(1, 1.0), (2, 2.0)]


def test_a_better_summary_and_a_second_attempt_replace_the_first(tmp_path):
    made = mirror(tmp_path)
    made.trial("t", "t", {}, {})
    made.finish("t", {"worst": 0.5}, status="FAILED", reason="out of memory")
    made.finish("t", {"worst": 0.25})
    run = runs(tmp_path)["t"]
    assert run.data.metrics["worst"] == 0.25
    assert run.info.status == "FINISHED" and run.data.tags["reason"] == ""


def test_the_summary_of_a_metric_with_a_curve_is_what_the_table_shows(tmp_path):
    made = mirror(tmp_path)
    made.trial("t", "t", {}, {})
    made.epochs("t", [(1, {"worst": 0.9}), (2, {"worst": 0.4})])
    made.finish("t", {"worst": 0.6})
    assert runs(tmp_path)["t"].data.metrics["worst"] == 0.6


def marks(out: Path, key: str) -> tuple[str, str, str]:
    tags = runs(out)[key].data.tags
    return tags["pareto"], tags["pareto_arm"], tags["mlflow.runColor"]


def test_fronts_are_marked_moved_and_kept_by_the_next_process(tmp_path):
    made = mirror(tmp_path)
    for key in "abc":
        made.trial(key, key, {}, {})
    made.training("a/0", "a", "a/0", {})
    made.mark_fronts(["a"], ["a", "b"])
    assert marks(tmp_path, "a") == ("true", "true", ON_FRONT)
    assert marks(tmp_path, "b") == ("false", "true", OFF_FRONT)
    assert marks(tmp_path, "c") == ("false", "false", OFF_FRONT)
    mirror(tmp_path).mark_fronts(["b", "c"], ["b"])
    assert marks(tmp_path, "a") == ("false", "false", OFF_FRONT)
    assert marks(tmp_path, "c") == ("true", "false", ON_FRONT)
    assert "pareto" not in runs(tmp_path)["a/0"].data.tags


def test_marking_writes_only_what_changed(tmp_path, monkeypatch):
    made = mirror(tmp_path)
    for key in "abc":
        made.trial(key, key, {}, {})
    made.mark_fronts(["a", "b"], ["a", "b"])
    written = []
    monkeypatch.setattr(made._client, "log_batch", lambda run_id, tags: written.append(tags))
    made.mark_fronts(["a", "b"], ["a", "b"])
    assert written == []
    made.mark_fronts(["a"], ["a", "b"])
    assert [{tag.key: tag.value for tag in tags} for tags in written] == [
        {"pareto": "false", "mlflow.runColor": OFF_FRONT}
    ]


def test_the_answer_is_one_run_that_is_on_no_front(tmp_path):
    report = tmp_path / "report.html"
    for text, value in (("first", 0.1), ("second", 0.2)):
        report.write_text(text)
        made = mirror(tmp_path)
        made.answer([report], {"test/worst": value}, f"the {text} answer")
        made.mark_fronts([], [])
    (run,) = runs(tmp_path).values()
    assert run.data.tags["absld.kind"] == "answer" and "pareto" not in run.data.tags
    assert run.data.metrics == {"test/worst": 0.2}
    assert run.data.tags["mlflow.note.content"] == "the second answer"
    stored = MlflowClient(store_uri(tmp_path)).download_artifacts(run.info.run_id, "report.html", str(tmp_path))
    assert Path(stored).read_text() == "second"
    assert list((tmp_path / "artifacts").rglob("report.html"))


def test_a_deleted_experiment_is_named_with_the_remedy(tmp_path):
    number = mirror(tmp_path).experiment_id
    client = MlflowClient(store_uri(tmp_path))
    client.delete_experiment(number)
    with pytest.raises(ValueError, match=f"'study' was deleted .*restore --experiment-id {number}`.*another name"):
        mirror(tmp_path)
    client.restore_experiment(number)
    assert mirror(tmp_path).experiment_id == number


def test_the_newest_study_is_the_one_opened_last(tmp_path, monkeypatch):
    clock = iter(range(1_000, 2_000))
    monkeypatch.setattr(tracking, "_now_ms", lambda: next(clock))
    MlflowClient(store_uri(tmp_path)).create_experiment("somebody else's")
    assert newest_experiment(store_uri(tmp_path)) is None
    first, second = mirror(tmp_path, "first"), mirror(tmp_path, "second")
    assert newest_experiment(store_uri(tmp_path)) == second.experiment_id
    mirror(tmp_path, "first")
    assert newest_experiment(store_uri(tmp_path)) == first.experiment_id


def test_nothing_is_created_before_open_and_nothing_is_said(tmp_path, capfd):
    made = Mirror(store_uri(tmp_path / "out"), "study", tmp_path / "out" / "artifacts", Shown(OBJECTIVES, []))
    assert not (tmp_path / "out").exists()
    made.open()
    assert capfd.readouterr() == ("", "")


def test_saved_views_fit_into_mlflows_limit_for_a_tag(tmp_path):
    objectives = {f"objective_number_{i}_of_a_long_list": "max" for i in range(8)}
    params = [f"parameter_number_{i}_of_a_long_list" for i in range(60)]
    Mirror(store_uri(tmp_path), "wide", tmp_path, Shown(objectives, params, 200)).open()
    tags = MlflowClient(store_uri(tmp_path)).get_experiment_by_name("wide").tags
    for view in mlflow_view.TITLES:
        assert mlflow_view.TITLES[view] in tags[mlflow_view.tag(view)]


def test_two_studies_of_one_name_stay_apart(tmp_path):
    """Deleted and begun again, or two people on one server: the runs must not mix."""
    first, second = (
        Mirror(store_uri(tmp_path), "study", tmp_path / name, Shown(OBJECTIVES, ["rate"]), identity=name * 8)
        for name in ("a", "b")
    )
    assert first.open() != second.open()
    for mirror, rate in ((first, 0.1), (second, 0.9)):
        mirror.trial("dual-000", "dual-000", {"rate": rate}, {})
        mirror.epochs("dual-000", [(1, {"robust_accuracy": rate})])
    again = Mirror(store_uri(tmp_path), "study", tmp_path / "b", Shown(OBJECTIVES, ["rate"]), identity="b" * 8)
    assert again.open() == second.experiment_id
    assert second.experiment == "study-bbbbbb"


def test_descriptions_are_markdown_in_which_nothing_acts(tmp_path):
    made = Mirror(store_uri(tmp_path), "study", tmp_path, Shown(OBJECTIVES, []), question="<script>a | b</script>")
    made.open()
    bundle = tmp_path / "study.json"
    bundle.write_text("{}")
    made.answer([], {}, "| arm |\n| --- |\n<img src=x>\n" + "a line\n" * 3000, [bundle])
    tags = MlflowClient(store_uri(tmp_path)).get_experiment_by_name("study").tags
    note = runs(tmp_path)["answer"].data.tags["mlflow.note.content"]
    assert "<" not in note + tags["mlflow.note.content"]
    assert note.startswith("| arm |") and note.endswith("report)") and len(note) < 5000
    assert "tags.pareto%20%3D%20%27true%27" in tags["mlflow.note.content"]  # the plain filter link
    assert [file.name for file in (tmp_path).rglob("bundle/*")] == ["study.json"]


def test_arms_have_colours_of_their_own_pale_off_the_front(tmp_path):
    made = Mirror(store_uri(tmp_path), "study", tmp_path, Shown(OBJECTIVES, []), arms=["dual", "shared"])
    made.open()
    for key, arm in (("a", "dual"), ("b", "dual"), ("c", "shared")):
        made.trial(key, key, {}, {"arm": arm})
    made.training("a/0", "a", "a/0", {"arm": "dual"})
    made.mark_fronts(["a", "c"], ["a", "c"])
    colours = {key: run.data.tags["mlflow.runColor"] for key, run in runs(tmp_path).items()}
    assert colours["a"] == colours["a/0"] == "#0072B2" and colours["c"] == "#D55E00"
    assert colours["b"] not in (colours["a"], colours["c"])
