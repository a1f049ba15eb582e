"""The report's parts about the search, its formats, and studies that are not finished, empty, or of failures only."""

import contextlib
import csv
import html
import io
import itertools
import json
import re
import shutil
import subprocess
from dataclasses import replace

import moocore
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.stats

from absld_search.core import results
from absld_search.search import fronts
from analysis import (
    choosing,
    drawing,
    figures,
    importances,
    latex,
    lengths,
    loading,
    repeats,
    report,
    sheets,
    spending,
    standing,
)
from analysis.answer import answer
from analysis.contents import contents
from analysis.front_figure import attainment
from tests.study_folder import write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("runs") / "temps", trials=24)


@pytest.fixture(scope="module")
def printed(study):
    """What the door prints as CSV; it also writes the whole report, with the figures for papers."""
    with contextlib.redirect_stdout(io.StringIO()) as stream:
        assert report.main([str(study), "--format", "csv"]) == 0
    return stream.getvalue()


def change(folder, trial=lambda row: row, training=lambda row: row, more=(), **facts):
    """Write the tables again as these functions turn their rows; a changed state leaves the shards alone."""
    tables = results.load(folder)
    trials = [trial(row) for row in tables.trials.to_pylist()]
    trainings = [*(training(row) for row in tables.trainings.to_pylist()), *more]
    objectives = tables.facts["objectives"]
    results.combine(folder, trials, tables.trainings.to_pylist(), objectives)
    pq.write_table(pa.Table.from_pylist(trainings, results.TRAININGS), folder / "results" / "trainings.parquet")
    results.write_facts(folder, tables.facts | facts)
    return folder


def row_of(config, seed=0, stage="search", state="COMPLETE", epochs=30, seconds=36.0, reason=""):
    return {
        "training": f"{config}-s{seed}-{stage}{epochs}", "config": config, "seed": seed, "stage": stage, "state": state,
        "reason": reason, "attempts": 1, "epochs": epochs, "seconds": seconds,
    }  # fmt: skip


ORDER = [
    "Pareto fronts", "Arms", "Robust accuracy by class", "Temperatures", "Reached for the cost", "Parameters",
    "Importances", "Early stopping", "Failures", "Cost", "Places on the front", "What the answer rests on",
]  # fmt: skip


def test_the_page_has_its_sections_in_order_and_every_figure(study, printed):
    text = (study / "report" / "index.html").read_text()
    titles = re.findall(r'<h2 id="s\d+">([^<]+)</h2>', text)
    assert [title for title in titles if title in ORDER] == ORDER
    for name, shown in figures.FIGURES.items():
        if name != "rungs":
            assert f'aria-label="{shown.title}"' in text
            assert (study / "report" / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
            assert (study / "report" / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert "No rungs" in text and "No race was run" in text


def test_loading_holds_back_what_no_report_shows(study):
    whole, part = results.load(study), loading.load(study)
    assert part.trials.equals(whole.trials) and part.trainings.equals(whole.trainings)
    confirm = set(whole.trainings.to_pandas().query("stage == 'confirm'").training)
    assert set(part.images["training"].to_pylist()) == confirm
    key = sorted(confirm)[3]
    alone = results.read(study, "images", [key])
    assert alone.num_rows == 60 * 10 * 5 and set(alone["training"].to_pylist()) == {key}
    assert results.read(study, "images", []).num_rows == 0


@pytest.mark.parametrize("form", repeats.FORMS)
@pytest.mark.parametrize("kind", ["clean", "robust"])
def test_objectives_of_one_seed_are_what_its_images_say(tmp_path, form, kind):
    from absld_search.core.metrics import summary

    rng = np.random.default_rng(0)
    attack = {"clean": "clean", "robust": "apgd-ce"}[kind]
    correct, labels = rng.random(200) < 0.6, np.repeat(np.arange(4), 50)
    name = form.format(kind)
    tables = results.load(write_study(tmp_path / "s", {"a": 0.0}, trials=2, objectives={name: "max"}, seeds=0))
    by_class = [float(correct[labels == c].mean()) for c in range(4)]
    rows = [
        {"training": "k", "split": "val", "attack": attack, "class": c, "n": 50, "accuracy": a}
        for c, a in enumerate(by_class)
    ]
    tables = replace(tables, classes=pa.Table.from_pylist(rows, results.SHARDS["classes"]))
    [value] = repeats.on_val(tables, ["k"])["k"]
    assert value == pytest.approx(summary(kind, correct, labels, 4)[name])


def test_hypervolume_grows_with_the_hours_and_ends_at_the_fronts(study):
    tables = change(
        write_study(study.parent / "hours"),
        more=[row_of(f"config-dual-{n}", seconds=360.0) for n in range(12)],
    )
    tables = loading.load(tables)
    course = spending.courses(tables)["dual"]
    rows = [row for row in tables.trials.to_pylist() if row["arm"] == "dual" and row["state"] == "COMPLETE"]
    values = [[row[f"objective/{name}"] for name in tables.facts["objectives"]] for row in rows]
    volume = fronts.hypervolume(values, ["max", "max"], [0, 0])
    known = course.volume[np.isfinite(course.volume)]
    assert known[-1] == pytest.approx(volume) == pytest.approx(moocore.hypervolume(-np.array(values), ref=[0, 0]))
    assert (np.diff(known) > 0).all() and (np.diff(course.best) >= 0).all()
    assert course.best[-1] == max(worst for worst, _ in values)
    assert course.hours[0] == pytest.approx(0.1) and course.hours[-1] == pytest.approx(1.2)  # the failed one cost too
    cost = {row.arm: row for row in spending.costs(tables)}["dual"]
    assert (cost.trials, cost.trainings) == (11, 20) and cost.search == pytest.approx(1.2)


def test_the_best_worst_class_for_the_cost_is_a_curve_whatever_the_objectives_are(tmp_path):
    """By default the tail of the classes is searched on: the worst of them is read from the class accuracies."""
    objectives = {"robust_cvar": "max", "robust_accuracy": "max"}
    folder = write_study(tmp_path / "cvar", {"dual": 0.0}, trials=3, seeds=1)
    facts, whole = results.read_facts(folder), results.load(folder)
    worst = {"config-dual-0": [0.3, 0.2], "config-dual-1": [0.1], "config-dual-2": [0.4]}  # the first has two seeds
    rows = [row_of(config, seed, seconds=3600.0) for config, found in worst.items() for seed in range(len(found))]
    for row in rows:
        least = worst[row["config"]][row["seed"]]
        classes = [
            {"training": row["training"], "split": "val", "attack": "apgd-ce", "class": c, "n": 10, "accuracy": a}
            for c, a in enumerate((0.9, least, 0.8))
        ]
        results.write_shard(folder / "trainings" / row["training"], [], classes, [], {})
    trials = [
        {name: value for name, value in row.items() if not name.startswith("objective/")}
        | {f"objective/{name}": 0.5 for name in objectives}
        for row in whole.trials.to_pylist()
    ]
    results.combine(folder, trials, [*whole.trainings.to_pylist(), *rows], objectives)
    results.write_facts(folder, facts | {"objectives": objectives})
    tables = loading.load(folder)
    course = spending.courses(tables)["dual"]
    assert course.best == pytest.approx([0.25, 0.25, 0.4]) and course.hours == pytest.approx([2.0, 3.0, 4.0])
    volume, best = figures.FIGURES["spending"].draw(tables).axes
    assert best.get_title(loc="left") == "Best worst class so far" and best.lines[0].get_ydata() == pytest.approx(
        [25, 25, 40]
    )
    assert "worst-class" in best.get_ylabel()


def test_an_empty_panel_says_why_and_points_at_no_panel_that_is_empty_too(study):
    tables = loading.load(study)
    facts = tables.facts | {"objectives": {"robust_accuracy": "max"}}
    _, best = figures.FIGURES["spending"].draw(replace(tables, facts=facts)).axes
    assert [text.get_text() for text in best.texts] == ["the worst class on val\nis not stored"]
    words = facts | {"arm_words": {"dual": {"coupling": "shared"}, "shared": {"coupling": "shared"}}}
    for side, said in (("adv", "no temperatures here"), ("clean", "the same as for\nadversarial labels")):
        gone = [
            metric.startswith(f"temperature_{side}") and training.startswith("config-dual")
            for metric, training in zip(
                *(tables.epochs[name].to_pylist() for name in ("metric", "training")), strict=True
            )
        ]
        kept = tables.epochs.filter(pa.array([not one for one in gone]))
        panels = figures.FIGURES["temperatures"].draw(replace(tables, facts=words, epochs=kept)).axes
        assert [text.get_text() for panel in panels for text in panel.texts] == [said]


def test_arms_that_differ_in_length_alone_are_asked_how_the_short_rank(tmp_path):
    words = {"tenth": {"epochs": 3}, "whole": {"epochs": 30}}
    folder = write_study(tmp_path / "proxy", {"tenth": 0.0, "whole": 0.0}, trials=9, seeds=1, arm_words=words)

    def paired(row):
        """The n-th trial has one setting in both arms, and the same place in the first objective."""
        value = None if row["state"] == "FAILED" else row["number"] / 20
        found = {"params": json.dumps({"temperature_lr": row["number"]}), "objective/robust_accuracy": value}
        sign = -1 if row["arm"] == "tenth" and row["number"] == 8 else 1
        return row | found | {"objective/worst_class_robust_accuracy": value and sign * value}

    tables = results.load(change(folder, trial=paired))
    (row,) = lengths.agreements(tables)
    assert (row.arm, row.epochs, row.settings) == ("tenth", 3, 8), "one has failed"
    rank, low, high = row.ranks["worst_class_robust_accuracy"]
    places = np.array([i for i in range(9) if i != 3])
    turned = np.where(places == 8, -1, places)
    assert rank == pytest.approx(scipy.stats.spearmanr(turned, places).statistic) and low < rank < high
    assert row.ranks["robust_accuracy"] == (pytest.approx(1), pytest.approx(1), pytest.approx(1))
    shown = {section.title: section.blocks for section in contents(tables, answer(tables))}
    (table,) = shown["Short trainings against long ones"]
    assert table.rows[0][:3] == ["tenth", "3", "8"] and table.rows[0][-1] == "1.00 [1.00, 1.00]"
    assert not lengths.lengths({"arm_words": {"a": {"epochs": 3}, "b": {"epochs": 30, "coupling": "dual"}}})


def test_a_failed_training_costs_what_it_took(study):
    lost = row_of("config-dual-1", state="FAILED", reason="nonfinite:loss@1", epochs=0, seconds=720.0)
    tables = loading.load(change(write_study(study.parent / "lost"), more=[lost]))
    assert {row.arm: row.search for row in spending.costs(tables)}["dual"] == pytest.approx(0.2)


def test_a_configuration_that_is_proposed_twice_costs_once(tmp_path):
    """Small spaces propose one again; its training is there already, and both trials have its values."""

    def again(row):
        return row | {"config": "config-dual-0"} if row["number"] == 2 else row

    more = [row_of(f"config-dual-{n}", seconds=360.0) for n in range(2)]
    tables = loading.load(change(write_study(tmp_path / "s", {"dual": 0.0}, trials=3, seeds=0), again, more=more))
    assert spending.courses(tables)["dual"].hours == pytest.approx([0.1, 0.2, 0.2])
    assert spending.costs(tables)[0].search == pytest.approx(0.2)


def test_a_time_that_was_never_recorded_is_a_dash_and_in_no_mean(tmp_path):
    """Tables of an older program: a training that was taken over took what finding it took."""
    found = {"dual": 0.0017, "shared": None}

    def timed(row):
        arm, seed = row["config"].split("-")[1], row["seed"]
        lost = arm in found and (arm == "shared" or seed < 1002)
        return row | {"seconds": found[arm] if lost else 120.0}

    arms = {"dual": 0.0, "shared": -0.1, "product": 0.1}
    more = [row_of(f"config-{arm}-0", seconds=0.0 if arm == "dual" else 36.0) for arm in arms]
    folder = change(write_study(tmp_path / "s", arms, seeds=4, trials=3), training=timed)
    tables = loading.load(change(folder, more=more))
    answered = answer(tables)
    minutes = {row.arm: row.measures.get("minutes") for row in answered.rows}
    assert (minutes["dual"].mean, minutes["dual"].n, minutes["product"].n) == (2.0, 2, 4)
    assert minutes["shared"] is None, "none of its four is known"
    assert set(spending.courses(tables)) == {"shared", "product"}
    shown = {section.title: section.blocks for section in contents(tables, answered)}
    assert [row[-2:] for row in shown["Cost"][0].rows] == [
        ["–", "–"], ["0.010", "–"], ["0.010", "0.133"], ["–", "–"],
    ]  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(sheets.sheets(tables, answered)["costs"])))
    assert [row["search_hours"] for row in rows] == ["", "0.01", "0.01"]


@pytest.mark.parametrize("directions", [["max", "max"], ["max", "min"], ["min", "max"], ["min", "min"]])
def test_attainment_is_what_each_seeds_front_reaches(directions):
    rng = np.random.default_rng(3)
    seeds = [rng.random((9, 2)) for _ in range(4)]
    levels, reached = attainment(seeds, directions)
    signs = np.array([-1.0 if way == "max" else 1.0 for way in directions])  # moocore minimises
    ids = np.repeat(np.arange(1, 5), 9)
    surface = moocore.eaf(np.concatenate([s * signs for s in seeds]), ids, percentiles=[100])[:, :2] * signs
    worst = reached.min(axis=0) if directions[1] == "max" else reached.max(axis=0)
    for x, y in surface:  # the points that every seed attains
        assert worst[list(levels).index(x)] == pytest.approx(y)


@pytest.mark.parametrize("way", ["max", "min"])
def test_importance_is_of_reaching_the_good_end(tmp_path, way):
    """`decides` alone makes the best trials, `ruins` the worst ones: the direction tells which of them counts."""
    rng = np.random.default_rng(0)
    folder = write_study(tmp_path / "s", {"a": 0.0}, trials=200, seeds=0, objectives={"robust_nsd": way, "x": "max"})

    def trial(row):
        decides, ruins = rng.random(2)
        good = 10.0 * (decides > 0.9) - 10.0 * (ruins > 0.9) + 0.01 * rng.random()
        value = good if way == "max" else -good
        row |= {"params": json.dumps({"decides": decides, "ruins": ruins}), "state": "COMPLETE"}
        return row | {"objective/robust_nsd": value, "objective/x": 0.0}

    tables = results.load(write_with(folder, trial))
    found = {row.objective: row.shares for row in importances.importances(tables)}
    assert found["robust_nsd"]["decides"] > 0.8 and found["x"] == {}


@pytest.mark.parametrize("count, drawn", [(19, False), (30, True)])
def test_importances_tell_the_best_five_from_few_trials_and_nothing_from_fewer(tmp_path, count, drawn):
    """A tenth of 30 would be three: with `decides` alone above 5/6, five are told from the rest."""
    folder = write_study(tmp_path / "s", {"a": 0.0}, trials=count, seeds=0, objectives={"x": "max"})
    numbers = itertools.count()
    rng = np.random.default_rng(0)

    def trial(row):
        decides = next(numbers) / count
        row |= {"params": json.dumps({"decides": decides, "idle": rng.random()}), "state": "COMPLETE"}
        return row | {"objective/x": float(decides >= 5 / 6)}

    tables = results.load(write_with(folder, trial))
    found = importances.importances(tables)
    assert bool(found) is drawn and bool(importances.too_few(tables)) is not drawn
    assert all(row.shares["decides"] > 0.8 for row in found)


def write_with(folder, trial):
    tables = results.load(folder)
    names = tables.facts["objectives"]
    rows = [trial({k: v for k, v in row.items() if "/" not in k}) for row in tables.trials.to_pylist()]
    results.combine(folder, rows, tables.trainings.to_pylist(), names)
    return folder


def test_rungs_count_who_came_how_far(tmp_path):
    more = [row_of(f"config-dual-{n}", stage="rung", epochs=3) for n in range(9)]
    more += [row_of(f"config-dual-{n}", epochs=30) for n in range(3)]
    tables = loading.load(change(write_study(tmp_path / "s"), more=more))
    assert [tuple(rung) for rung in standing.rungs(tables)] == [("dual", 3, 9, 6), ("dual", 30, 3, 3)]
    assert figures.FIGURES["rungs"].draw(tables) is not None


def test_failures_are_counted_by_reason(tmp_path):
    more = [row_of("config-dual-1", seed=s, state="FAILED", reason=f"loss is nan at epoch {s}") for s in range(3)]
    tables = loading.load(change(write_study(tmp_path / "s", failed=["shared"]), more=more))
    found = {(f.arm, f.stage): (f.times, f.reason) for f in standing.failures(tables)}
    assert found["shared", "confirm"] == (8, "loss is not finite")
    assert found["dual", "search"] == (3, "loss is nan at epoch 0")
    assert found["dual", "trial"] == (1, "logits are not finite")


def test_a_race_gives_the_probability_of_being_on_the_front(tmp_path):
    """Two raced trials of one arm, one clearly ahead in every seed; the rest keep one seed."""
    folder = write_study(tmp_path / "s", {"dual": 0.0}, seeds=0)
    shard = {0: 0.9, 1: 0.5}
    rows, more = [], []
    for number, level in shard.items():
        for seed in range(4):
            more.append(row_of(f"config-dual-{number}", seed=seed, stage="race" if seed else "search"))
            rows += [
                {"training": more[-1]["training"], "split": "val", "attack": "apgd-ce", "class": c, "n": 50,
                 "accuracy": level + 0.01 * seed + 0.001 * c} for c in range(10)
            ]  # fmt: skip
    change(folder, more=more)
    pq.write_table(pa.Table.from_pylist(rows, results.SHARDS["classes"]), folder / "results" / "classes.parquet")
    ahead, behind = standing.places(loading.load(folder))
    assert (ahead.trial, ahead.seeds, ahead.own) == ("dual-000", 4, 1.0)
    assert (behind.trial, behind.joint) == ("dual-001", 0.0)
    report.write(folder)
    assert "on the joint front" in (folder / "report" / "index.html").read_text()


def waiting(row):
    return row | {"state": "RUNNING"}


def infeasible(row):
    reason = f"infeasible: clean_accuracy >= 0.5 ({0.30 + row['number'] / 1000:.4g}); infeasible: robust_nsd <= 1 (2)"
    values = dict.fromkeys(("chosen", "pareto", "pareto_arm"), False)
    return row if row["state"] == "FAILED" else row | values | {"state": "INFEASIBLE", "reason": reason}


NONE_MEETS = (
    "No trial meets every constraint: 33 of 36 are infeasible and 3 failed. 33 miss clean accuracy >= 0.5 on val, the "
    "nearest of them with 0.311; 33 miss robust NSD <= 1 on val, the nearest of them with 2."
)


@pytest.mark.parametrize(
    ("made", "changed", "words"),
    [
        ({"seeds": 0}, {"trial": infeasible}, NONE_MEETS),
        ({"trials": 0, "seeds": 0}, {}, "This study is empty"),
        ({"unchosen": ("dual", "shared", "product")}, {}, "No trial is complete; 36 of 36 failed"),
        ({}, {"training": waiting}, "This study is not finished: 24 of 24 trainings wait or run"),
        ({}, {}, ""),
    ],
)
def test_a_study_that_is_no_answer_says_so_everywhere(tmp_path, made, changed, words):
    folder = change(write_study(tmp_path / "s", **made), **changed)
    terminal = report.table(report.write(folder))
    text = (folder / "report" / "index.html").read_text()
    assert ('class="notice"' in text) == bool(words)
    for shown in (text, (folder / "report" / "answer.md").read_text(), " ".join(terminal.replace("\n!", "").split())):
        assert words in html.unescape(shown)
    assert latex.latex(answer(loading.load(folder)), []).startswith("% ")


def test_a_constraint_is_said_beside_the_answer(tmp_path):
    folder = write_study(tmp_path / "s", constraints=["clean_accuracy >= 0.3", "robust_nsd <= 1"])
    report.write(change(folder, trial=lambda row: infeasible(row) if row["arm"] == "shared" else row))
    for name in ("answer.md", "index.html", "answer.json"):
        text = html.unescape((folder / "report" / name).read_text())
        assert "Only trials with clean accuracy >= 0.3 and robust NSD <= 1 on val could be chosen." in text, name
        assert "no trial was chosen: 11 of 12 are infeasible" in text, name
    assert json.loads((folder / "report/answer.json").read_text())["constraints"][0] == "clean_accuracy >= 0.3"
    other = write_study(tmp_path / "other", constraints=["clean_accuracy >= 0.3"])
    both = choosing.merged([loading.load(folder), loading.load(other)]).facts
    assert both["constraints"] == ["clean_accuracy >= 0.3 (in s)", "robust_nsd <= 1 (in s)",
                                   "clean_accuracy >= 0.3 (in other)"]  # fmt: skip
    same = choosing.merged([loading.load(write_study(tmp_path / name)) for name in ("a", "b")])
    assert same.facts["constraints"] == [] and not any("could be chosen" in line for line in answer(same).caveats)


def test_a_study_that_has_no_tables_yet_is_named(tmp_path, capsys):
    results.write_facts(tmp_path / "s", {"study": "s"})
    assert report.main([str(tmp_path / "s")]) == 2
    assert "has no results yet" in capsys.readouterr().err


def test_csv_holds_unrounded_numbers(study, printed):
    rows = list(csv.DictReader(printed.splitlines()))
    found = answer(results.load(study))
    mean = found.rows[0].measures["worst_class_apgd_accuracy"].mean
    [stored] = [row for row in rows if (row["arm"], row["measure"]) == ("dual", "worst_class_apgd_accuracy")]
    assert float(stored["mean"]) == mean
    classes = list(csv.DictReader((study / "report" / "csv" / "classes.csv").read_text().splitlines()))
    assert len(classes) == 30 and {row["images"] for row in classes} == {"60"}
    trials = list(csv.DictReader((study / "report" / "csv" / "trials.csv").read_text().splitlines()))
    assert len(trials) == 72 and float(trials[0]["param/temperature_lr"]) > 0


def test_no_cell_is_a_formula(tmp_path):
    folder = write_study(tmp_path / "s", {"=1+1": 0.0, "@b": -0.1}, seeds=2, trials=4)
    tables = loading.load(folder)
    for name, text in sheets.sheets(tables, answer(tables)).items():
        assert "1+1" in text and not re.search(r"(^|,)[=@]", text, re.MULTILINE), name


EVIL = r"50 % of $x_1$ & {y} \n ~^#<>|`[]" + '"'


def test_latex_compiles_or_at_least_is_well_formed(tmp_path):
    folder = write_study(tmp_path / "evil", {EVIL: 0.0, "b": -0.2}, seeds=6, trials=4, question=EVIL)
    tables = loading.load(folder)
    found = answer(tables)
    text = latex.latex(found, contents(tables, found))
    assert text.count(r"\begin{tabular}") == text.count(latex.FIT), "each is as wide as the text at most"
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") >= 6
    well_formed(text)
    compiled(text, tmp_path / "made")


def well_formed(text):
    """Balanced braces and environments, as many cells in every row as columns, and no sign that LaTeX acts on."""
    assert text.isascii()
    body = re.sub(r"^%.*$", "", text, flags=re.MULTILINE).replace(latex.FIT, "{")
    bare = re.sub(r"\\[\\{}&%$#_]", " ", body)  # escaped signs, and the ends of rows
    assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
    assert not re.search(r"[#%_~^\"|<>`]", re.sub(r"\$[^$]*\$", "", bare))
    for columns, table in re.findall(r"\\begin{tabular}{([lr]+)}(.*?)\\end{tabular}", body, re.DOTALL):
        for line in table.splitlines():
            if line.endswith(r"\\"):
                assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1, line
    opened = re.findall(r"\\begin{(\w+)}", body)
    assert sorted(opened) == sorted(re.findall(r"\\end{(\w+)}", body))


def compiled(text, folder):
    """Run LaTeX, where there is one."""
    program = shutil.which("tectonic") or shutil.which("pdflatex")
    if program is None:
        return
    folder.mkdir()
    head = "\\documentclass{article}\n\\usepackage{booktabs,graphicx}\n\\begin{document}\n"
    (folder / "t.tex").write_text(f"{head}{text}\n\\end{{document}}\n")
    made = subprocess.run([program, "t.tex"], cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert made.returncode == 0 and (folder / "t.pdf").exists(), made.stdout[-2000:] + made.stderr[-2000:]


@pytest.mark.parametrize("arms", [2, 3])
def test_bars_of_importance_cover_none_of_each_other(tmp_path, arms):
    tables = loading.load(write_study(tmp_path / "s", {f"a{n}": 0.001 * n for n in range(arms)}, seeds=1, trials=24))
    for axes in figures.FIGURES["importances"].draw(tables).axes:
        spans = sorted((bar.get_y(), bar.get_y() + bar.get_height()) for bar in axes.patches)
        assert len(spans) >= arms and all(end < begin for (_, end), (begin, _) in itertools.pairwise(spans))


def test_many_arms_are_told_apart_and_leave_the_panels_their_room(tmp_path):
    """As many as the space `methods` has, by every mark that a figure uses; the legend is below, not over a panel."""
    few, many = (
        loading.load(
            write_study(
                tmp_path / f"of-{n}", {f"a{i}": 0.001 * i for i in range(n)}, seeds=1, trials=4, images_per_class=5
            )
        )
        for n in (7, 28)
    )
    arms = many.facts["arms"]
    looks = [drawing.look(many, arm) for arm in arms]
    assert len({(look[0], str(drawing.dashes(many, arm))) for look, arm in zip(looks, arms, strict=True)}) == 28
    assert len({look[:2] for look in looks}) == len({look[::2] for look in looks}) == 28
    before, after = (figures.drawn(tables) for tables in (few, many))
    for name in ("pareto_front", "class_bars", "parallel_coordinates"):
        [legend] = after[name].legends
        assert len(legend.get_texts()) >= 28 and after[name].get_figheight() > before[name].get_figheight()
        box, panels = legend.get_window_extent(), [axes.get_window_extent() for axes in after[name].axes]
        assert all(box.y1 <= panel.y0 for panel in panels) and box.x1 <= after[name].bbox.x1
        assert panels[0].height > 0.6 * before[name].axes[0].get_window_extent().height


def test_markdown_has_the_tables(study, printed):
    text = (study / "report" / "answer.md").read_text()
    assert text.count("| --- |") >= 5 and "## Cost" in text and "<svg" not in text


def test_two_arms_can_be_compared_alone(study, printed, capsys):
    assert report.main([str(study), "--compare", "shared", "product", "--format", "md"]) == 0
    assert capsys.readouterr().out.count("| --- |") >= 5
    whole, pair = answer(results.load(study)), choosing.compared(results.load(study), ["shared", "product"])
    assert [row.arm for row in pair.rows] == ["shared", "product"]
    assert {(one.arm, one.against) for one in pair.comparisons} == {("product", "shared")}
    direct = {c.measure: c.mean for c in whole.comparisons if c.arm == "product"}
    other = {c.measure: c.mean for c in whole.comparisons if c.arm == "shared"}
    for one in pair.comparisons:
        assert one.mean == pytest.approx(direct[one.measure] - other[one.measure])
        assert one.holm_p >= one.p
    assert "picked" in pair.caveats[0] and "proves less" in pair.caveats[0]
    page = study / "report" / "compare-shared-product" / "index.html"
    assert "product" in page.read_text() and "dual-000" not in page.read_text()
    assert (study / "report" / "index.html").exists()  # the whole is not replaced by a part


@pytest.mark.parametrize("arms", [["dual", "sharde"], ["dual", "dual"]])
def test_an_arm_that_is_none_is_refused(study, capsys, arms):
    assert report.main([str(study), "--compare", *arms]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: --compare arm {arms[1]!r}")
    assert "Did you mean 'shared'?" in message or "named twice" in message
    assert not (study / "report" / f"compare-{'-'.join(arms)}").exists()


def test_two_arms_say_how_many_trainings_are_theirs_and_print_their_difference(study, printed, capsys):
    assert report.main([str(study), "--compare", "shared", "product", "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    pair = choosing.compared(results.load(study), ["shared", "product"])
    assert [(row["arm"], row["against"]) for row in rows] == [("product", "shared")] * len(pair.comparisons)
    assert [float(row["mean"]) for row in rows] == [one.mean for one in pair.comparisons]
    whole = answer(results.load(study)).headline.trainings
    assert f"stored for all {2 * whole // 3} confirm trainings, on" in pair.sentence, "those of the two arms"


def test_several_studies_are_reported_as_one(study, tmp_path, capsys):
    other = write_study(tmp_path / "other", {"deeper": -0.2})
    assert report.main([str(study), str(other), "--to", str(tmp_path / "both"), "--format", "latex"]) == 0
    well_formed(capsys.readouterr().out)
    stored = json.loads((tmp_path / "both" / "answer.json").read_text())
    assert [row["arm"] for row in stored["rows"]] == ["temps/dual", "temps/shared", "temps/product", "other/deeper"]
    assert "other/deeper is lower than temps/dual by" in stored["sentence"]
    merged = choosing.merged([loading.load(study), loading.load(other)])
    assert len(set(merged.trainings["training"].to_pylist())) == merged.trainings.num_rows


def test_studies_of_other_settings_are_not_compared(study, tmp_path, capsys):
    other = write_study(tmp_path / "other", {"dual": 0.0}, workload="cifar10")
    assert report.main([str(study), str(other)]) == 2
    assert "workload" in capsys.readouterr().err and not (study / "report" / "with-other").exists()


TEACHER = {"sat": {"sha256": "a" * 64}}


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"data": {"sha256": "other"}}, "data: other and first were made on different data"),
        ({"teachers": {"sat": {"sha256": "b" * 64}}}, f"sat has other weights in other ({'b' * 12}) than in first"),
    ],
)
def test_studies_of_other_data_or_teachers_are_not_compared(tmp_path, capsys, facts, message):
    """One name, other bytes: nothing else in the two studies differs."""
    known = {"data": {"sha256": "one"}, "teachers": TEACHER}
    first = write_study(tmp_path / "first", {"dual": 0.0}, seeds=1, trials=2, **known)
    other = write_study(tmp_path / "other", {"dual": 0.0}, seeds=1, trials=2, **(known | facts))
    assert report.main([str(first), str(other)]) == 2
    assert message in capsys.readouterr().err


def test_studies_with_different_teachers_of_different_names_are_compared(tmp_path):
    studies = [
        loading.load(write_study(tmp_path / name, {"dual": 0.0}, seeds=1, trials=2, **facts))
        for name, facts in {
            "a": {"teachers": TEACHER},
            "b": {"teachers": {"trades": {"sha256": "c"}}},
            "old": {},
        }.items()
    ]
    assert set(choosing.merged(studies).facts["teachers"]) == {"sat", "trades"}
