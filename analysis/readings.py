"""What a person writes about a study, with places for its numbers: no number of a result is typed by hand.

A place is `{ARM.MEASURE}` with worst, mean, clean or nsd, which becomes mean and standard deviation over seeds, or
`{ARM - FIRST.MEASURE}` with tail, worst or mean, a difference to the first arm with its interval over seeds; `{seeds}`
is the least number of them in an arm. `{decided ARM - FIRST.MEASURE}` and `{undecided ...}` leave nothing behind,
and are refused where it is otherwise, so that no sentence outlives what it says.
"""

import math
import re
from collections.abc import Callable

from absld_search.words import UsageError, require_known
from analysis.answer import MEAN, WORST, Answer, Comparison, Row

PLACE = re.compile(r"\{(?:(decided|undecided) )?([\w.-]+)(?: - ([\w.-]+))?\.(\w+)\}")


def filled(text: str, found: Answer) -> str:
    """The text with the study's numbers. Raises: UsageError naming the place that is none."""
    seeds = min((row.seeds for row in found.rows), default=0)
    return PLACE.sub(_number(found), text.replace("{seeds}", str(seeds)))


def measures(found: Answer) -> dict[str, str]:
    """Word of a place -> name of the measure, under the answer's attack."""
    kind = found.headline.kind
    tails = [each.measure for each in found.comparisons if "_accuracy" not in each.measure]
    accuracies = {"worst": WORST.format(kind), "mean": MEAN.format(kind), "clean": "clean_accuracy"}
    return {"tail": tails[0] if tails else f"{kind}_cvar", **accuracies, "nsd": f"{kind}_nsd"}


def _number(found: Answer) -> Callable[[re.Match[str]], str]:
    rows = {row.arm: row for row in found.rows}
    known = measures(found)

    def number(place: re.Match[str]) -> str:
        verdict, arm, first, word = place.groups()
        require_known(f"{place[0]}: arm", arm, rows)
        measure = known[require_known(f"{place[0]}: measure", word, known)]
        if first is None:
            return mean(rows[arm], measure, place[0])
        pair = _pair(found, arm, first, measure)
        return _so(pair, verdict, place[0]) if verdict else difference(pair)

    return number


def _pair(found: Answer, arm: str, first: str, measure: str) -> Comparison:
    for each in found.comparisons:
        if (each.arm, each.against, each.measure) == (arm, first, measure):
            return each
    raise UsageError(f"{{{arm} - {first}}}: the study does not compare them in {measure}.")


def _so(pair: Comparison, verdict: str, place: str) -> str:
    """Nothing, where the pair is decided, or not, as the verdict says."""
    if pair.decided != (verdict == "decided"):
        raise UsageError(f"{place}: it is {'' if pair.decided else 'not '}decided; write the sentence anew.")
    return ""


def mean(row: Row, measure: str, place: str) -> str:
    """`37.9 ± 3.0 %`; a spread of class accuracies as a plain number. Raises: UsageError where nothing is measured."""
    if (spread := row.measures.get(measure)) is None:
        raise UsageError(f"{place}: {measure} was not measured.")
    if measure.endswith("_nsd"):
        return f"{spread.mean:.3f} ± {spread.sd:.3f}"
    return f"{100 * spread.mean:.1f} ± {100 * spread.sd:.1f} %"


def difference(each: Comparison) -> str:
    """`−8.6 points (−12.0 to −5.7)`."""
    return f"{points(each.mean)} points ({points(each.low)} to {points(each.high)})"


def points(fraction: float) -> str:
    """A difference of fractions in points, signed."""
    if not math.isfinite(fraction):
        return "unbounded"
    return f"{100 * fraction + 0:+.1f}".replace("-", "−")
