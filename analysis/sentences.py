"""An answer in plain words: no sentence claims more than the numbers do."""

from typing import TYPE_CHECKING

from absld_search.core.metrics import KINDS, form_of, is_fraction, kind_of
from absld_search.search import stats
from analysis.confirmed import SEARCHED, Headline, plain_name, short_name

if TYPE_CHECKING:
    from analysis.answer import Comparison, Row

ON_THESE = " on these test images; other images could turn it around"


WORDS = {"nsd": "NSD", "cvar": "CVaR-20 %"} | {kind: short_name(kind) for kind in KINDS}


def plain(measure: str) -> str:
    """A measure's name in plain words, short enough for a table: the attack by its short name."""
    parts = [WORDS.get(part, part) for part in measure.split("_")]
    return " ".join(parts).replace("worst class", "worst-class").replace("worst tenth", "worst-tenth")


def in_full(measure: str) -> str:
    """A measure's name for a sentence: "worst-class accuracy under" the attack, which is named in full."""
    kind, form = kind_of(measure), form_of(measure)
    if kind in ("", "clean"):
        return plain(measure)
    name = "mean accuracy" if form == "{}_accuracy" else plain(form.replace("_{}", "").replace("{}_", ""))
    return f"{name} under {plain_name(kind)}"


def limit(constraint: str) -> str:
    """A constraint in plain words: "clean accuracy >= 0.8"."""
    name, _, bound = constraint.partition(" ")
    return f"{plain(name)} {bound}"


def attack_label(kind: str) -> str:
    """An attack's name where there is little room; the search's by its own name, which the tables call robust."""
    return plain_name(kind) if kind == SEARCHED else short_name(kind)


def measured_under(headline: Headline) -> str:
    """The attack of the answer's numbers, and on how much they rest; "" where nothing is confirmed."""
    if not headline.trainings:
        return ""
    stored = f"the strongest attack stored for all {headline.trainings} confirm trainings"
    return f"Measured under {plain_name(headline.kind)}: {stored}, on {headline.images} test images each."


def in_per_cent(measure: str) -> bool:
    """Whether a measure is a fraction that is shown in per cent."""
    return is_fraction(measure)


def verdicts_of(rows: list["Row"], comparisons: list["Comparison"], kind: str) -> list[str]:
    """A sentence or two for each compared measure; `kind`: the word of the headline's attack."""
    if len(rows) == 1:
        return [_only_arm(rows[0], kind)]
    measures = dict.fromkeys(found.measure for found in comparisons)
    said = [_verdict([found for found in comparisons if found.measure == measure]) for measure in measures]
    compared = {found.arm for found in comparisons}
    absent = [row.arm for row in rows[1:] if row.arm not in compared]
    if absent:
        reason = f"no seed was confirmed both there and in {rows[0].arm}"
        said.append(f"The data do not decide about {_listed(absent)}: {reason}.")
    return [sentence for sentence in said if sentence]


def _only_arm(row: "Row", kind: str) -> str:
    measure = f"worst_class_{kind}_accuracy"
    spread = row.measures.get(measure)
    if spread is None:
        return f"The data do not decide: the only arm, {row.arm}, has no confirmed result."
    return (
        f"The only arm, {row.arm}, reaches a {in_full(measure)} of {100 * spread.mean:.1f} % on test "
        f"(mean of {spread.n} seeds); nothing is compared."
    )


def _verdict(comparisons: list["Comparison"]) -> str:
    """What the data decide, and what they do not, in one measure."""
    if not comparisons:
        return ""
    said = [_claim(found) for found in comparisons if found.decided]
    undecided = [f"between {found.against} and {found.arm}" for found in comparisons if not found.decided]
    if undecided:
        said.append(f"The data do not decide {', nor '.join(undecided)}{_too_few(comparisons)}.")
    name = in_full(comparisons[0].measure)
    return f"{name[0].upper()}{name[1:]}: {' '.join(said)}"


def _too_few(comparisons: list["Comparison"]) -> str:
    most = max(found.n for found in comparisons)
    hopeless = stats.floor(most, len(comparisons)) >= stats.ALPHA
    return f": with {most} paired seeds no data could" if hopeless else ""


def choices_of(rows: list["Row"], comparisons: list["Comparison"]) -> list[str]:
    """Where a decided difference is also one between settings that the searches chose; [] where none is."""
    params = {row.arm: row.params for row in rows}
    said = []
    for arm, against in dict.fromkeys((found.arm, found.against) for found in comparisons if found.decided):
        mine, theirs = params.get(arm, {}), params.get(against, {})
        if other := [name for name in mine if name in theirs and mine[name] != theirs[name]]:
            said.append(f"{arm} and {against} in {_listed(other)}")
    if not said:
        return []
    return [
        f"Their searches chose differently for {'; '.join(said)}: another search may choose, and decide, otherwise."
    ]


def _claim(found: "Comparison") -> str:
    least, most = sorted((100 * abs(found.low), 100 * abs(found.high)))
    return (
        f"{found.arm} is {'higher' if found.mean > 0 else 'lower'} than {found.against} by "
        f"{100 * abs(found.mean):.1f} points (95 % interval {least:.1f} to {most:.1f}, Holm p {found.holm_p:.2g}, "
        f"{found.n} paired seeds){'' if found.general else ON_THESE}."
    )


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
