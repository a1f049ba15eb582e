"""What the benchmarks of speed found, as tables inside docs/performance.md.

make bench-full ARGS="--out docs/results/speed"     # measure, keep
python -m benchmarks.speed_page                     # the page's tables again, from docs/results/speed/*.json
"""

from __future__ import annotations

from collections.abc import Sequence

from analysis.writing import markdown_table as table
from benchmarks.pages import DOCS, Page, Row


def machine(found: Row) -> str:
    """On what, and when: one line."""
    of = found["machine"]
    return f"{of['date']}, {of['cpu']}, {of['cores']} cores, Python {of['python']}, torch {of['torch']}:\n\n"


def faster(row: Row) -> str:
    """A ratio with its range."""
    middle = row["median"] if "median" in row else row["faster"]
    return f"{middle:.2f}x [{row['low']:.2f} to {row['high']:.2f}]"


def train_step(found: Row) -> str:
    """Steps of every student against the plain one, the gate, and what compiling costs."""
    lines = [
        [case["title"].split(", one thread")[0], row["variant"], f"{row['seconds']:.3g} s", faster(row),
         _goal(row, case), str(row["rounds"])]
        for case in found.values() if "ratios" in case for row in case["ratios"]
    ]  # fmt: skip
    head = ["student", "step", "one step", "faster", "goal", "rounds"]
    return machine(found) + "\n\n".join([table(head, lines), gate(found["gate"]), compiling(found["compile"])])


def _goal(row: Row, case: Row) -> str:
    return next((f"{goal:g}x" for name, goal in case["goals"].items() if row["variant"] == f"ours {name}"), "")


def gate(rows: Sequence[Row]) -> str:
    """The largest difference that any exact switch makes to each network."""
    models = dict.fromkeys(row["model"] for row in rows)
    most = {
        model: [max(row[of] for row in rows if row["model"] == model) for of in ("gradient", "buffers")]
        for model in models
    }
    none = sorted(
        {row["switch"] for row in rows} - {row["switch"] for row in rows if row["gradient"] or row["buffers"]}
    )
    said = f"No bit is changed in any of them by: {', '.join(none)}." if none else ""
    head = ["exactness gate, one PGD-10 step in float64", "gradient, relative L2", "buffers"]
    return table(head, [[model, *(f"{each:.1e}" for each in found)] for model, found in most.items()]) + f"\n\n{said}"


def compiling(found: Row) -> str:
    """A second trial's compilation."""
    return (
        f"`torch.compile` of {found['model']}: the first trial {found['first_seconds']:.1f} s, a second one "
        f"{found['second_seconds']:.1f} s, {found['share']:.0%}."
    )


def search16(found: Row) -> str:
    """A whole search with a large teacher."""
    goals = {"bank, float32": f"{found['goals']['float32']:g}x", "bank, bfloat16": f"{found['goals']['bfloat16']:g}x"}
    head = ["search", "seconds", "faster", "images the teacher saw", "goal", "rounds"]
    return machine(found) + table(head, [
        [row["variant"], f"{row['seconds']:.1f}", faster(row), str(row["teacher_images"]),
         goals.get(row["variant"], ""), str(found["size"]["rounds"])]
        for row in found["rows"]
    ])  # fmt: skip


def evaluate(found: Row) -> str:
    """Attacks against the released and the packaged ones."""
    parts = [(case, part) for case in found["cases"] for part in ("pgd20", "apgd-ce", "aa") if part in case]
    lines = [
        [f"{case['case']}, {case['images']} images", part, row["variant"], f"{row['seconds']:.3g}", faster(row),
         _differing(case[part], row["variant"])]
        for case, part in parts for row in case[part]["ratios"]
    ]  # fmt: skip
    stand = [f"{case[part]['right']} of {case['images']} stand after {part}" for case, part in parts]
    head = ["network", "attack", "variant", "seconds", "faster", "verdicts that differ"]
    return machine(found) + table(head, lines) + f"\n\n{'; '.join(stand)}."


def _differing(part: Row, variant: str) -> str:
    if variant not in part["differing"]:
        return ""
    return "; ".join(f"{stage}: {ids}" for stage, ids in part["differing"][variant].items() if ids) or "none"


def views(found: Row) -> str:
    """An augmented view."""
    each = found["microseconds_an_image"]
    lines = [
        [row["variant"], f"{each[row['variant']]:.2f}", faster(row), str(row["rounds"])] for row in found["ratios"]
    ]
    return machine(found) + table(["views", "us an image", "faster", "rounds"], lines)


def bank(found: Row) -> str:
    """A look-up of 128 rows, and what it allocates."""
    half = found["half_precision"]
    return machine(found) + (
        f"A look-up of 128 rows takes {found['microseconds_a_look_up']:.1f} us; {found['copied_bytes']} bytes of the "
        f"block are copied and {found['arrow_bytes']} allocated by Arrow. numpy and Python hold at most "
        f"{found['look_up_peak_bytes']} bytes meanwhile, of which {found['answer_bytes']} are the answer. Logits in "
        f"16 bits would move a target by {half['largest']:.1e} at most, {half['mean']:.1e} in the mean."
    )


TABLES = {
    "train_step": train_step, "search16": search16, "evaluate-resnet18": evaluate, "views": views, "bank": bank,
}  # fmt: skip
PAGE = Page(DOCS / "performance.md", DOCS / "results" / "speed", TABLES)

if __name__ == "__main__":
    PAGE.again()
