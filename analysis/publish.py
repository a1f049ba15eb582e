"""The pages of results: kept studies as tables, what people read in them, and one line for each question.

python -m analysis.publish STUDY...      # keep finished studies in docs/results/data, then as below
python -m analysis.publish               # all pages and the index again, from the kept tables: `make results`

What a person has to say about a study stands in docs/results/readings/STUDY.md (see `analysis.readings`), and what the
README says first in README.md there.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from absld_search.core.results import Tables
from absld_search.words import UsageError
from analysis import figures, loading, markdown, readings, terminal
from analysis.answer import Answer, Comparison, answer
from analysis.contents import contents
from analysis.drawing import save
from analysis.keeping import keep
from analysis.markdown import plain_markdown
from analysis.writing import filled, markdown_table, write_text

RESULTS, README = Path("docs") / "results", "README.md"
PICTURES = ("pareto_front", "class_bars")
HEADING = ["question", "answer", "worst class, points", "n", "workload", "command", "date", "revision"]
SHOWN = 3  # differences in one line of the index
QUESTIONS = "questions"  # the place of the table in the index, whose other words are a person's
BARE = f"# Results\n\n<!-- {QUESTIONS} -->\n<!-- /{QUESTIONS} -->\n"


def publish(results: Path) -> list[str]:
    """Write a page for each kept study and the index; the names of the studies. Raises: UsageError."""
    folders = sorted(path.parent for path in (results / "data").glob("*/study.json"))
    lines = [page(folder, results) for folder in folders]
    file = results / "index.md"
    write_text(file, index(file.read_text(encoding="utf-8") if file.is_file() else BARE, lines))
    if (results / "readings" / README).is_file():
        file = results.parents[1] / README
        write_text(file, readme(file.read_text(encoding="utf-8"), results))
    return [folder.name for folder in folders]


def readme(page: str, results: Path) -> str:
    """The README with what it says first, and how the study ends of which it says it: its reading names it."""
    study, _, said = (results / "readings" / README).read_text(encoding="utf-8").partition("\n")
    found = answer(loading.load(results / "data" / study))
    page = filled(page, "headline", readings.filled(said, found).strip())
    return filled(page, "ending", f"```\n{terminal.shortest(found)}\n```")


def page(folder: Path, results: Path) -> list[str]:
    """Write the page and the pictures of one kept study; its line in the index."""
    tables = loading.load(folder)
    found = answer(tables)
    drawn = figures.drawn(tables, PICTURES)
    for name, figure in drawn.items():
        save(figure, results / "images" / f"{folder.name}-{name}.png")
    write_text(results / f"{folder.name}.md", text(tables, found, reading(results, found), list(drawn)))
    return line(tables, found)


def reading(results: Path, found: Answer) -> str:
    """What a person says about a study, with its numbers filled in; "" where nobody has said anything."""
    file = results / "readings" / f"{found.study}.md"
    try:
        return readings.filled(file.read_text(encoding="utf-8"), found).strip() if file.is_file() else ""
    except UsageError as error:
        raise UsageError(f"{file.name}: {error}") from None


def text(tables: Tables, found: Answer, said: str, pictures: Sequence[str]) -> str:
    """A page: the question, what a person says, where the numbers come from, and the report."""
    whole = markdown.markdown(found, contents(tables, found))
    title, _, rest = whole.partition("\n\n")
    shown = [f"![{name.replace('_', ' ')}](images/{found.study}-{name}.png)" for name in pictures]
    return "\n\n".join(filter(None, [title, said, _source(tables), *shown, rest.strip()])) + "\n"


def _source(tables: Tables) -> str:
    facts = tables.facts
    computed = facts["computed"]
    days = " to ".join(dict.fromkeys(computed["days"]))
    where = f"{days}, revision {', '.join(computed['revisions'])}, {', '.join(computed['processors'])}"
    return (
        f"> `{facts['command']}`, {computed['trainings']} trainings, {where}. Tables: "
        f"`docs/results/data/{facts['study']}`; `make results` writes this page from them."
    )


def line(tables: Tables, found: Answer) -> list[str]:
    """One line of the index."""
    facts, computed = tables.facts, tables.facts["computed"]
    seeds = min((row.seeds for row in found.rows), default=0)
    images = min((row.worst_class_images for row in found.rows if row.worst_class_images), default=0)
    return [
        f"[{plain_markdown(found.question)}]({found.study}.md)",
        plain_markdown(short(found)),
        plain_markdown(effect(found)),
        f"{seeds} seeds, {images} images",
        found.workload,
        f"`{facts['command']}`",
        computed["days"][1],
        ", ".join(computed["revisions"]),
    ]


def short(found: Answer) -> str:
    """What is decided in the worst class, and how much is not."""
    worst = _worst(found)
    if not worst:
        return found.verdicts[0] if found.verdicts else "nothing was confirmed"
    first = worst[0].against
    higher = [each.arm for each in worst if each.decided and each.mean > 0]
    lower = [each.arm for each in worst if each.decided and each.mean < 0]
    open_ = [each.arm for each in worst if not each.decided]
    said = [("better than", higher), ("worse than", lower), ("not told apart from", open_)]
    return "; ".join(f"{_few(arms)} {how} {first}" for how, arms in said if arms)


def _few(arms: list[str]) -> str:
    return ", ".join(arms) if len(arms) <= 2 * SHOWN else f"{', '.join(arms[:SHOWN])} and {len(arms) - SHOWN} more"


def effect(found: Answer) -> str:
    """The largest differences of the worst class to the first arm, with their intervals over seeds."""
    largest = sorted(_worst(found), key=lambda each: (not each.decided, -abs(each.mean)))
    said = [f"{each.arm} {readings.points(each.mean)} ({_between(each)})" for each in largest[:SHOWN]]
    return "; ".join(said)


def _between(each: Comparison) -> str:
    return f"{readings.points(each.low)} to {readings.points(each.high)}"


def _worst(found: Answer) -> list[Comparison]:
    name = readings.measures(found)["worst"]
    return [each for each in found.comparisons if each.measure == name]


def index(page: str, lines: Sequence[Sequence[str]]) -> str:
    """The page of all questions with its table."""
    return filled(page, QUESTIONS, f"\n{markdown_table(HEADING, lines)}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Keep finished studies, and write the pages of all that are kept; the exit code."""
    asked = _parser().parse_args(arguments)
    try:
        for study in asked.studies:
            print(f"kept    {keep(study, asked.to / 'data')}")
        for name in publish(asked.to):
            print(f"written {asked.to / name}.md")
    except (FileNotFoundError, UsageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analysis.publish", description="Write the pages of results.")
    parser.add_argument("studies", type=Path, nargs="*", metavar="STUDY", help="a finished study's folder, to be kept")
    parser.add_argument("--to", type=Path, default=RESULTS, metavar="DIR", help=f"where to write [default: {RESULTS}]")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
