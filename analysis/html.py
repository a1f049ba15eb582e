"""HTML that stands alone: nothing is loaded, no script runs, and every word that somebody chose is escaped."""

import io
from collections.abc import Iterable, Sequence
from html import escape

import matplotlib as mpl
from matplotlib.figure import Figure

from analysis.drawing import styled

MANY = 10  # columns; a table of more is set narrower, to fit a screen of 1280 pixels
CSS = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: #1b1f24;
       background: #fff; max-width: 68rem; margin: 0 auto; padding: 2rem 1.2rem 4rem; }
h1 { font-size: 1.65rem; line-height: 1.25; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; border-bottom: 1px solid #d8dee4; padding-bottom: .25rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p.meta { color: #57606a; margin: 0; overflow-wrap: anywhere; }
nav { font-size: .88rem; margin: 1rem 0; line-height: 1.9; }
nav a { color: #0056a3; margin-right: .9rem; display: inline-block; }
.answer { font-size: 1.06rem; background: #f1f6fb; border-left: 4px solid #0072b2; padding: .3rem 1.1rem;
          margin: 1.4rem 0; overflow-wrap: anywhere; }
.answer p { margin: .6rem 0; }
.notice { background: #fff4e5; border-left: 4px solid #d55e00; padding: .1rem 1.1rem; margin: 1.4rem 0;
          overflow-wrap: anywhere; }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { text-align: right; padding: .38rem .5rem; border-bottom: 1px solid #e4e8ec; white-space: nowrap; }
th { white-space: normal; }
th.text, td.text { text-align: left; }
td.text { white-space: normal; overflow-wrap: anywhere; min-width: 5.6rem; }
table.many { font-size: .82rem; }
table.many th, table.many td { padding: .38rem .28rem; }
thead th { border-bottom: 2px solid #b6c0ca; vertical-align: bottom; }
tr.marked td { background: #eaf6f0; font-weight: 600; }
.note, figcaption { color: #57606a; font-size: .86rem; overflow-wrap: anywhere; }
.missing { color: #8a3b00; overflow-wrap: anywhere; }
figure { margin: 1.6rem 0; }
.drawing { max-width: 46rem; }
svg { width: 100%; height: auto; }
code { font: .88em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; background: #f3f5f7;
       padding: .1em .35em; border-radius: 4px; overflow-wrap: anywhere; }
li { margin: .35rem 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  body { padding: 1.2rem .9rem 3rem; }
  ul { padding-left: 1.2rem; }
  td.text { min-width: 8rem; }
}
@media print { nav { display: none; } h2 { break-after: avoid; } figure { break-inside: avoid; } }
"""


def document(title: str, body: Iterable[str]) -> str:
    """A whole page."""
    head = (
        '<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # The page needs no script and no connection; a browser shall refuse both. Pictures lie in the page itself.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        'img-src data:">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>"
    )
    main = "\n".join([f"<h1>{escape(title)}</h1>", *body])
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{main}\n</body>\n</html>\n'


def table(
    heading: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[int], marked: Sequence[bool] = ()
) -> str:
    """A table; the columns at the indices `words` hold words, the others numbers, and marked rows stand out."""

    def line(tag: str, row: Sequence[str]) -> str:
        kinds = [' class="text"' if index in words else "" for index in range(len(row))]
        return "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for kind, cell in zip(kinds, row, strict=True))

    marks = [' class="marked"' if index < len(marked) and marked[index] else "" for index in range(len(rows))]
    body = "\n".join(f"<tr{mark}>{line('td', row)}</tr>" for mark, row in zip(marks, rows, strict=True))
    many = ' class="many"' if len(heading) > MANY else ""
    head = f"<thead><tr>{line('th', heading)}</tr></thead>"
    return f'<div class="wide" tabindex="0"><table{many}>\n{head}\n<tbody>\n{body}\n</tbody>\n</table></div>'


def bullets(items: Iterable[str]) -> str:
    """A list."""
    return "<ul>\n" + "\n".join(f"<li>{escape(item)}</li>" for item in items) + "\n</ul>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph; `kind` is one of the style sheet's classes."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def drawing(figure: Figure | None, label: str, caption: str = "") -> str:
    """A figure as inline SVG, letters as paths: it looks the same with any fonts."""
    if figure is None:
        return paragraph(f"{label}: nothing to draw.", "note")
    stream = io.StringIO()
    # A salt of its own keeps the ids of one figure apart from those of the next, and equal from run to run.
    with styled(), mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": label, "svg.id": label.replace(" ", "-")}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    image = stream.getvalue()
    image = image[image.index("<svg ") :].replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
    below = f"<figcaption>{escape(caption)}</figcaption>\n" if caption else ""
    return f'<figure>\n<div class="drawing" tabindex="0">{image}</div>\n{below}</figure>'
