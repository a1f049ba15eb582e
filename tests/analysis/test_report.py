"""From a study folder to its answer: numbers recomputed by hand, no claim without evidence, no crash, no leak."""

import itertools
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from absld_search.core import results
from absld_search.search.stats import paired
from analysis import figures, report
from analysis.answer import Comparison, answer
from analysis.confirmed import confirm_trainings, confirmed
from tests.study_folder import write_study

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("runs") / "temps", trials=24)  # enough for importances


@pytest.fixture(scope="module")
def found(study):
    return report.write(study)


def answered(folder, *args, **kwargs):
    return answer(results.load(write_study(folder, *args, **kwargs)))


def by_hand(study, arm, attack="apgd"):
    """(seeds, C): class accuracies of an arm on test under an attack, counted image by image."""
    tables = results.load(study)
    [trial] = [row for row in tables.trials.to_pylist() if row["arm"] == arm and row["chosen"]]
    hits = {}
    for row in tables.images.to_pylist():
        key, _, seed = row["training"].rpartition("-s")
        if key == trial["config"] and row["attack"] == attack and row["split"] == "test":
            hits.setdefault(int(seed), {}).setdefault(row["label"], []).append(row["correct"])
    return np.array([[np.mean(hits[seed][c]) for c in sorted(hits[seed])] for seed in sorted(hits)])


def test_a_row_holds_what_the_images_say(study, found):
    attacked, searched, clean = (by_hand(study, "dual", attack) for attack in ("apgd", "apgd-ce", "clean"))
    row = found.rows[0]
    assert (row.arm, row.seeds, row.reason, row.worst_class_images) == ("dual", 8, "", 60)
    for kind, values in (("apgd", attacked), ("robust", searched)):
        worst = row.measures[f"worst_class_{kind}_accuracy"]
        assert (worst.mean, worst.sd) == pytest.approx((values.min(axis=1).mean(), values.min(axis=1).std(ddof=1)))
    assert row.measures["clean_accuracy"].mean == pytest.approx(clean.mean())
    assert row.measures["apgd_nsd"].mean == pytest.approx((attacked.std(axis=1) / attacked.mean(axis=1)).mean())
    assert sum(row.worst_classes.values()) == 8


def test_differences_are_paired_with_the_first_arm(study, found):
    first, other = by_hand(study, "dual"), by_hand(study, "shared")
    expected = {
        "apgd_cvar": paired(np.sort(other)[:, :2].mean(axis=1) - np.sort(first)[:, :2].mean(axis=1)),
        "worst_class_apgd_accuracy": paired(other.min(axis=1) - first.min(axis=1)),
        "apgd_accuracy": paired(other.mean(axis=1) - first.mean(axis=1)),
    }
    for comparison in found.comparisons:
        if comparison.arm == "shared":
            one = expected.pop(comparison.measure)
            assert (comparison.mean, comparison.low, comparison.high, comparison.p) == pytest.approx(one[:4])
            assert comparison.holm_p == pytest.approx(min(1, 2 * one.p))  # the smaller of two
    assert not expected


def test_the_sentence_claims_what_is_decided_and_nothing_else(found):
    decided = {(c.arm, c.measure): c.decided for c in found.comparisons}
    assert decided[("shared", "worst_class_apgd_accuracy")] and not decided[("product", "apgd_accuracy")]
    assert "shared is lower than dual by" in found.sentence
    assert "The data do not decide between dual and product." in found.sentence
    assert "product is" not in found.sentence


def test_arms_that_are_alike_and_too_few_seeds_decide_nothing(tmp_path):
    alike = answered(tmp_path / "alike", {"dual": 0.0, "same": 0.0})
    few = answered(tmp_path / "few", {"dual": 0.0, "shared": -0.2}, seeds=5)
    for one in (alike, few):
        assert "The data do not decide" in one.sentence and "is lower" not in one.sentence
    # Too few seeds, however clear it looks; and no interval for new images as well is narrower than without.
    assert all(np.isinf([c.high, c.high_both]).all() and not c.decided for c in few.comparisons)
    assert "with 5 paired seeds no data could" in few.sentence and "no data could" not in alike.sentence
    assert any("nothing can be decided" in caveat for caveat in few.caveats)


def test_a_claim_needs_the_interval_and_the_corrected_p():
    def comparison(low, high, holm_p):
        return Comparison("b", "a", "robust_accuracy", 0.1, low, high, 0.01, holm_p, 8)

    assert comparison(0.01, 0.2, 0.04).decided and comparison(-0.2, -0.01, 0.04).decided
    assert not comparison(-0.01, 0.2, 0.04).decided
    assert not comparison(0.01, 0.2, 0.05).decided


def test_six_seeds_are_enough_for_two_arms(tmp_path):
    assert all(c.decided for c in answered(tmp_path / "s", {"dual": 0.0, "shared": -0.2}, seeds=6).comparisons)


def test_an_arm_without_confirm_results_says_so(tmp_path):
    one = answered(
        tmp_path / "s", {"dual": 0.0, "shared": -0.2, "product": 0.0}, failed=["shared"], unchosen=["product"]
    )
    by_arm = {row.arm: row for row in one.rows}
    assert "8 of 8 confirm trainings are missing; 8 failed, the first: loss is not finite" in by_arm["shared"].reason
    assert "no trial was chosen; 12 failed" in by_arm["product"].reason
    assert by_arm["dual"].reason == "" and one.comparisons == []
    assert "do not decide about shared and product" in one.sentence
    assert "shared" in report.table(one) and "!" in report.table(one)


def test_a_failed_first_arm_leaves_nothing_to_compare_with(tmp_path):
    folder = write_study(tmp_path / "s", failed=["dual"])
    one = report.write(folder)
    assert one.comparisons == [] and "do not decide about shared and product" in one.sentence
    assert one.rows[1].seeds == 8


def test_a_planned_comparison_that_failed_still_counts(tmp_path):
    one = answered(tmp_path / "s", {"dual": 0.0, "shared": -0.2, "product": 0.0}, failed=["product"])
    assert [c.holm_p for c in one.comparisons] == pytest.approx([2 * c.p for c in one.comparisons])


def test_lost_seeds_are_left_out_of_the_pairs(study, tmp_path):
    folder = write_study(tmp_path / "s")
    tables = results.load(folder)
    trainings = tables.trainings.to_pylist()
    for row in trainings[:2]:
        row |= {"state": "FAILED", "reason": "disk full"}
    results.combine(folder, tables.trials.to_pylist(), trainings, tables.facts["objectives"])
    one = answer(results.load(folder))
    assert one.rows[0].seeds == 6 and "2 of 8 confirm trainings are missing" in one.rows[0].reason
    assert {c.n for c in one.comparisons} == {6}
    assert sorted(confirmed(results.load(folder))["dual"]) == list(range(1002, 1008))


def test_search_images_and_val_images_never_enter_the_answer(tmp_path):
    folder = write_study(tmp_path / "s")
    before = answer(results.load(folder))
    tables = results.load(folder)
    chosen = next(row for row in tables.trials.to_pylist() if row["chosen"])
    trainings = tables.trainings.to_pylist()
    for split, stage, seed in (("val", "confirm", 5000), ("test", "search", 0)):
        key = f"{chosen['config']}-s{seed}-{split}"
        images = [{"training": key, "split": split, "attack": "apgd-ce", "image": 0, "label": 0, "correct": False}]
        results.write_shard(folder / "trainings" / key, [], [], images, {})
        row = trainings[0] | {
            "training": key,
            "config": chosen["config"],
            "stage": stage,
            "seed": seed,
        }
        trainings.append(row)
    results.combine(folder, tables.trials.to_pylist(), trainings, tables.facts["objectives"])
    after = answer(results.load(folder))
    assert after.rows[0].measures == before.rows[0].measures and after.comparisons == before.comparisons


def test_one_arm_is_described_and_not_compared(tmp_path):
    one = answered(tmp_path / "s", {"absld": 0.0})
    assert one.comparisons == [] and "The only arm, absld, reaches" in one.sentence
    nothing = answered(tmp_path / "n", {"absld": 0.0}, failed=["absld"])
    assert "The data do not decide" in nothing.sentence


def test_caveats_name_what_the_answer_rests_on(found):
    text = " ".join(found.caveats)
    for part in ("digits", "method = absld", "knee point", "7 paired seeds", "60 images per class", "biased low"):
        assert part in text


def test_one_seed_has_no_spread(tmp_path):
    folder = write_study(tmp_path / "s", seeds=1)
    one = report.write(folder)
    assert np.isnan(one.rows[0].measures["clean_accuracy"].sd) and "–" in report.table(one)
    stored = json.loads((folder / "report" / "answer.json").read_text(), parse_constant=pytest.fail)
    assert stored["rows"][0]["measures"]["clean_accuracy"]["sd"] is None
    assert stored["comparisons"][0]["low"] is None and stored["comparisons"][0]["decided"] is False


def test_the_files_are_there_and_agree(study, found):
    folder = study / "report"
    assert {path.name for path in folder.iterdir()} == {
        "answer.json",
        "answer.md",
        "csv",
        "front.html",
        "front.png",
        "index.html",
        "tables.tex",
    }
    stored = json.loads((folder / "answer.json").read_text())
    assert stored["sentence"] == found.sentence and len(stored["rows"]) == 3
    worst = f"{100 * found.rows[0].measures['worst_class_apgd_accuracy'].mean:.1f} ±"
    for name in ("answer.md", "index.html"):
        assert worst in (folder / name).read_text()
    assert (folder / "front.png").read_bytes().startswith(b"\x89PNG")


def test_writing_again_gives_the_same_files(study, found):
    folder = study / "report"
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    assert len(before) == 11
    report.write(study)
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before


def test_the_table_fits_a_terminal(tmp_path):
    long = "an arm whose name is much too long for any column of any table"
    text = report.table(answered(tmp_path / "s", {long: 0.0, "b": -0.1}))
    assert max(map(len, text.splitlines())) <= 120


def test_the_table_names_every_trial_whole(study, found):
    """A name that is cut can't be pasted into `export --pick id:NAME`."""
    text = report.table(found)
    assert "…" not in text
    for row in found.rows:
        assert re.search(rf"(^| ){re.escape(row.trial)}( |,|$)", text, re.MULTILINE), row.trial


class _Page(HTMLParser):
    """Collects tags and addresses; HTML that a browser would have to guess about fails."""

    VOID = {"meta", "br", "img", "link", "input", "hr"}

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.addresses = [], [], []
        self.feed(text)
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "xlink:href", "data")]
        assert not any(name.startswith("on") for name, _ in attributes), attributes
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open = self.open[:-1] if tag not in self.VOID else self.open

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag


@pytest.mark.parametrize("name", ["index.html", "front.html"])
def test_pages_stand_alone(study, found, name):
    page = _Page((study / "report" / name).read_text(encoding="utf-8"))
    assert page.tags.count("svg") == (6 if name == "index.html" else 1)
    assert {"script", "img", "link", "iframe", "object"} & set(page.tags) == set()
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in page.addresses)


def test_whatever_is_named_by_someone_stays_text(tmp_path):
    classes = tuple(f"{EVIL}{index}$_" for index in range(4))
    arms = {f"first {EVIL}": 0.0, "$second$ | `b` --> ]]>": -0.2}
    changed = {name: EVIL for name in ("question", "workload", "workload_summary", "selection", "command", "study")}
    facts = changed | {"fixed": {EVIL: EVIL}, "versions": {EVIL: EVIL}}
    folder = write_study(tmp_path / "s", arms, classes=classes, **facts)
    tables = results.load(folder)
    trials = [row | {"params": json.dumps({EVIL: EVIL}), "trial": EVIL} for row in tables.trials.to_pylist()]
    results.combine(folder, trials, tables.trainings.to_pylist(), tables.facts["objectives"])
    report.write(folder)
    for name in ("index.html", "front.html"):
        text = (folder / "report" / name).read_text(encoding="utf-8")
        page = _Page(text)
        assert "img" not in page.tags and "&lt;img src=x onerror=alert(1)&gt;" in text
    assert "<img" not in (folder / "report" / "answer.md").read_text()


def test_drawings_are_well_formed_and_refer_to_what_they_mean(study, found):
    text = (study / "report" / "index.html").read_text(encoding="utf-8")
    drawings = [f"<svg {part.partition('</svg>')[0]}</svg>" for part in text.split("<svg ")[1:]]
    meanings = {}
    for drawing in drawings:
        defined = {
            node.get("id"): ET.tostring(node).strip() for node in ET.fromstring(drawing).iter() if node.get("id")
        }
        for name in set(re.findall(r'(?:href="#|url\(#)([^")]+)', drawing)):
            # In one document the first of two equal ids wins, so what is referred to must be equal too.
            assert meanings.setdefault(name, defined[name]) == defined[name]
    assert len(drawings) == 6 and meanings


def test_the_steps_run_below_the_front(study):
    tables = results.load(study)
    [axes] = figures.pareto_front(tables).axes
    for line, arm in zip(axes.lines, tables.facts["arms"], strict=True):
        rows = [row for row in tables.trials.to_pylist() if row["arm"] == arm and row["pareto_arm"]]
        points = sorted(
            (100 * r["objective/robust_accuracy"], 100 * r["objective/worst_class_robust_accuracy"]) for r in rows
        )
        np.testing.assert_allclose(line.get_xydata(), points)
        assert line.get_drawstyle() == "steps-pre"
    assert "on val" in axes.get_xlabel() and "%" in axes.get_ylabel()


def test_bars_stand_hardest_class_first(study):
    tables = results.load(study)
    [axes] = figures.class_bars(tables).axes
    mean = np.mean([by_hand(study, arm).mean(axis=0) for arm in tables.facts["arms"]], axis=0)
    assert [label.get_text() for label in axes.get_xticklabels()] == [str(c) for c in np.argsort(mean)]
    heights = [bar.get_height() for bar in axes.containers[1]]  # containers[0] holds the first arm's error bars
    np.testing.assert_allclose(heights, 100 * np.sort(by_hand(study, "dual").mean(axis=0)), atol=15)


def test_temperatures_are_means_over_the_confirm_seeds(study):
    tables = results.load(study)
    panels = figures.temperatures(tables).axes
    [trial] = [row for row in tables.trials.to_pylist() if row["arm"] == "dual" and row["chosen"]]
    last = [
        row["value"]
        for row in tables.epochs.to_pylist()
        if row["training"].startswith(f"{trial['config']}-s")
        and (row["epoch"], row["metric"]) == (30, "temperature_adv/class_09")
    ]
    hardest = panels[0].lines[0]
    assert len(last) == 8 and hardest.get_ydata()[-1] == pytest.approx(np.mean(last))
    assert [line.get_ydata()[0] for line in panels[0].lines[-2:]] == [0.5, 5.0]


def inside(figure, text):
    box, whole = text.get_window_extent(), figure.bbox
    return whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1


def test_no_title_and_no_label_is_cut(study):
    for name, figure in figures.drawn(results.load(study)).items():
        for axes in figure.axes:
            for text in (axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label):
                assert not text.get_text() or inside(figure, text), (name, text.get_text())


@pytest.mark.parametrize("arms", [1, 2, 4])
def test_no_label_of_the_temperatures_is_cut(tmp_path, arms):
    folder = write_study(tmp_path / "s", {f"a{n}": 0.0 for n in range(arms)}, seeds=2, trials=2)
    figure = figures.drawn(results.load(folder), ["temperatures"])["temperatures"]
    labels = [figure._supylabel, figure._supxlabel, *(axes.yaxis.label for axes in figure.axes)]
    assert all(inside(figure, label) for label in labels if label.get_text())


def test_an_arm_with_one_set_of_temperatures_says_so_in_the_panel_of_the_other(study):
    facts = {**results.read_facts(study), "arm_words": {"shared": {"coupling": "shared"}}}
    tables = replace(results.load(study), facts=facts)
    clean = pc.starts_with(tables.epochs["metric"], "temperature_clean")
    of_arm = {row["training"] for row in confirm_trainings(tables, "shared")}
    theirs = pc.is_in(tables.epochs["training"], value_set=pa.array(sorted(of_arm)))
    figure = figures.temperatures(replace(tables, epochs=tables.epochs.filter(pc.invert(pc.and_(clean, theirs)))))
    said = {axes.get_title(loc="left"): [text.get_text() for text in axes.texts] for axes in figure.axes}
    assert said["shared, clean labels"] == ["the same as for\nadversarial labels"]
    assert not said["dual, clean labels"] and not said["shared, adversarial labels"]


@pytest.mark.parametrize("seconds", [2.0, 400.0, 20_000.0])
def test_ticks_of_the_cost_do_not_touch(tmp_path, seconds):
    tables = results.load(write_study(tmp_path / "s", {"a": 0.0}, seeds=2, trials=3))
    spent = pa.array([seconds] * tables.trials.num_rows)
    place = tables.trials.column_names.index("seconds")
    trials = tables.trials.set_column(place, tables.trials.schema.field("seconds"), spent)
    figure = figures.drawn(replace(tables, trials=trials), ["spending"])["spending"]
    for axes in figure.axes:
        low, high = axes.get_xlim()
        ticks = [tick.label1 for tick in axes.xaxis.get_major_ticks() if low <= tick.get_loc() <= high]
        boxes = sorted((label.get_window_extent().x0, label.get_window_extent().x1) for label in ticks)
        assert len(boxes) >= 2 and all(left[1] + 4 < right[0] for left, right in itertools.pairwise(boxes))


def test_a_parameter_with_one_value_has_no_axis_among_the_parallel_ones(study):
    tables = results.load(study)
    labels = [
        label.get_text() for label in figures.FIGURES["parallel_coordinates"].draw(tables).axes[0].get_xticklabels()
    ]
    assert labels[0].replace("\n", "") == "temperature_lr" and not any("initial" in label for label in labels)
    fixed = pa.array(['{"temperature_lr": 0.1}'] * tables.trials.num_rows)
    place = tables.trials.column_names.index("params")
    trials = tables.trials.set_column(place, tables.trials.schema.field("params"), fixed)
    assert figures.FIGURES["parallel_coordinates"].draw(replace(tables, trials=trials)) is None


def test_a_study_without_temperatures_or_results_still_has_a_report(tmp_path):
    folder = write_study(tmp_path / "s", temperatures=False, failed=["dual", "shared", "product"], trials=24)
    report.write(folder)
    text = (folder / "report" / "index.html").read_text()
    assert text.count("nothing to draw") == 2 and text.count("<svg") == 4


def test_a_hundred_classes_and_ten_arms_still_draw(tmp_path):
    classes = tuple(f"class {index}" for index in range(100))
    folder = write_study(
        tmp_path / "s",
        {f"arm{index}": 0.0 for index in range(10)},
        classes=classes,
        images_per_class=5,
        seeds=2,
        trials=5,
    )
    tables = results.load(folder)
    report.write(folder)
    first, last = figures.class_bars(tables).axes  # seven arms in a panel
    assert [len(panel.containers) for panel in (first, last)] == [14, 6], "bars and their deviations"
    assert len(last.get_xticklabels()) == figures.CLASSES_SHOWN and "hardest of 100" in last.get_xlabel()


def test_one_objective_is_drawn_over_the_trials(tmp_path):
    folder = write_study(tmp_path / "s", objectives={"worst_class_robust_accuracy": "max"})
    [axes] = figures.pareto_front(results.load(folder)).axes
    assert axes.get_xlabel() == "trial number"
    report.write(folder)


def test_the_door(study, tmp_path, capsys):
    assert report.main([str(study)]) == 0
    printed = capsys.readouterr().out
    assert "The data do not decide" in printed and "index.html" in printed
    assert report.main([str(tmp_path / "nowhere")]) == 2
    assert "there is no folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [{"seeds": 0}, {"trials": 0, "seeds": 0}, {"unchosen": ("dual", "shared", "product")}]
)
def test_a_study_that_has_not_got_that_far_is_reported_as_such(tmp_path, words):
    answer = report.write(write_study(tmp_path / "study", **words))
    assert "do not decide" in answer.sentence
    assert "dual" in report.table(answer)
    assert (tmp_path / "study" / "report" / "index.html").stat().st_size > 0


def test_arms_without_temperatures_have_no_bounds_to_draw(tmp_path):
    study = write_study(tmp_path / "study", temperature_bounds=[])
    assert report.write(study).sentence


def test_the_report_says_what_the_arms_are_and_compares_the_seeds_asked_for(tmp_path):
    words = {"dual": {"coupling": "dual"}, "shared": {"coupling": "shared"}, "product": {"temperature_lr": 0.5}}
    study = write_study(tmp_path / "study", arm_words=words, confirm_seed_indices=[1000, 1001, 1002])
    answer = report.write(study)
    assert {row.seeds for row in answer.rows} == {3}
    for text in (report.table(answer), (study / "report" / "answer.md").read_text(), page_of(study)):
        assert "coupling = shared" in text and "temperature_lr = 0.5" in text.replace("\\", "")


def page_of(study):
    return (study / "report" / "index.html").read_text()


def test_a_smoke_run_says_so(tmp_path):
    answer = report.write(write_study(tmp_path / "study", workload="digits-smoke"))
    assert answer.sentence.startswith("SMOKE")
