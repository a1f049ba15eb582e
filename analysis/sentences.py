"""An answer in plain words: no sentence claims more than the numbers do."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.answer import Comparison, Row

ON_THESE = " on these test images; other images could turn it around"


def plain(measure: str) -> str:
    """A measure's name in plain words."""
    worded = measure.replace("worst_class", "worst-class").replace("worst_tenth", "worst-tenth").replace("_", " ")
    return worded.replace("cw", "CW").replace("nsd", "NSD").replace("cvar", "CVaR-20 %")


def in_per_cent(measure: str) -> bool:
    """Whether a measure is a fraction that is shown in per cent."""
    return measure.endswith(("_accuracy", "_cvar", "_softmin"))


def verdicts_of(rows: list["Row"], comparisons: list["Comparison"]) -> list[str]:
    """A sentence or two for each compared measure."""
    if len(rows) == 1:
        return [_only_arm(rows[0])]
    measures = dict.fromkeys(found.measure for found in comparisons)
    said = [_verdict([found for found in comparisons if found.measure == measure]) for measure in measures]
    compared = {found.arm for found in comparisons}
    absent = [row.arm for row in rows[1:] if row.arm not in compared]
    if absent:
        reason = f"no seed was confirmed both there and in {rows[0].arm}"
        said.append(f"The data do not decide about {_listed(absent)}: {reason}.")
    return [sentence for sentence in said if sentence]


def _only_arm(row: "Row") -> str:
    spread = row.measures.get("worst_class_robust_accuracy")
    if spread is None:
        return f"The data do not decide: the only arm, {row.arm}, has no confirmed result."
    return (
        f"The only arm, {row.arm}, reaches a worst-class robust accuracy of {100 * spread.mean:.1f} % on test "
        f"(mean of {spread.n} seeds); nothing is compared."
    )


def _verdict(comparisons: list["Comparison"]) -> str:
    """What the data decide, and what they do not, in one measure."""
    if not comparisons:
        return ""
    said = [_claim(found) for found in comparisons if found.decided]
    undecided = [f"between {found.against} and {found.arm}" for found in comparisons if not found.decided]
    if undecided:
        said.append(f"The data do not decide {', nor '.join(undecided)}.")
    name = plain(comparisons[0].measure)
    return f"{name[0].upper()}{name[1:]}: {' '.join(said)}"


def _claim(found: "Comparison") -> str:
    least, most = sorted((100 * abs(found.low), 100 * abs(found.high)))
    return (
        f"{found.arm} is {'higher' if found.mean > 0 else 'lower'} than {found.against} by "
        f"{100 * abs(found.mean):.1f} points (95 % interval {least:.1f} to {most:.1f}, Holm p {found.holm_p:.2g}, "
        f"{found.n} paired seeds){'' if found.general else ON_THESE}."
    )


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
