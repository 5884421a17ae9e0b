"""
A run's results as a picture: one SVG, or one HTML page with the tables beside it.

Both load nothing from anywhere, and have a light and a dark look. There is one
panel per table and one dot per figure. Where the figures of a panel span more than a decade, its
scale is logarithmic, so equal distances are equal ratios.
"""

import math
import textwrap
from html import escape

from lab.bench.report import cells, figure, goal_cells, machine_line, name_of

WIDTH = 360  # of a panel, in the SVG's own units, which are about pixels on a phone
LEFT, RIGHT = 188, 308  # where the scale begins and ends; names stand left, figures right of it
LINE, GAP = 17, 9  # between two lines, and besides between two groups of them
TEXT_LINE = 60  # characters of small print

LOOKS = """
:root { color-scheme: light dark; --text: #1d2129; --quiet: #5c6570; --line: #d5dae0;
  --dot: #b3331d; --page: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e7eb; --quiet: #a0a8b2;
  --line: #3d444d; --dot: #ff9b7a; --page: #14171b; } }
svg { background: var(--page); display: block; font: 10.5px system-ui, sans-serif;
  height: auto; max-width: 540px; width: 100%; }
text { fill: var(--text); }
.quiet { fill: var(--quiet); }
.title { font-size: 13px; font-weight: bold; }
.figure { font-variant-numeric: tabular-nums; text-anchor: end; }
.tick { fill: var(--quiet); font-size: 9px; text-anchor: middle; }
line { stroke: var(--line); }
circle { fill: var(--dot); }
"""
PAGE_LOOKS = """
body { background: var(--page); color: var(--text); font: 16px/1.5 system-ui, sans-serif;
  margin: 0 auto; max-width: 1180px; padding: 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin: 0; }
section { border-top: 1px solid var(--line); display: grid; gap: 0.5rem 2rem;
  grid-template-columns: minmax(0, 1fr); padding: 1.5rem 0; }
h2, .method, .wide { grid-column: 1 / -1; }
.method { color: var(--quiet); margin: 0; max-width: 46rem; }
@media (min-width: 60rem) {
  section { grid-template-columns: minmax(0, 25rem) minmax(0, 1fr); }
}
.scroll { min-width: 0; overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: 0.25rem 0.5rem; text-align: right; }
td { white-space: nowrap; }
th { vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
"""


def as_svg(report):
    """Return one SVG with one panel per table."""
    head = [("title", "manage.py bench")]
    head += [("quiet", line) for line in wrapped(machine_line(report))]
    for goal, limit, measured, reached in goal_cells(report)[1:]:
        head += [("", line) for line in wrapped(f"{goal}: {measured}, {limit}: {reached}.")]
    body, top = lines_of_text(head, 0)
    for table in report["results"]:
        text = [("title", table["title"])]
        text += [("quiet", line) for line in wrapped(table["method"])]
        drawn, top = lines_of_text(text, top + LINE)
        body += drawn
        drawn, top = panel(table, top)
        body += drawn
    return svg(body, top, "Results of manage.py bench", f"<style>{LOOKS}</style>")


def as_html(report):
    """Return one page: goals, then a plot and a table for each comparison."""
    sections = [
        f'<section><h2>{escape(each["title"])}</h2><p class="method">{escape(each["method"])}</p>'
        f"{svg(*panel(each, 0), each['title'])}{html_table(cells(each))}</section>"
        for each in report["results"]
    ]
    if report["goals"]:
        table = html_table(goal_cells(report))
        sections.insert(0, f'<section><h2>Goals</h2><div class="wide">{table}</div></section>')
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Results of manage.py bench</title>\n<style>{LOOKS}{PAGE_LOOKS}</style>\n</head>\n"
        f"<body>\n<h1>Results of manage.py bench</h1>\n<p>{escape(machine_line(report))}</p>\n"
        f"<p>{escape(report['method'])} Where the figures of a plot span more than a decade, its "
        "scale is logarithmic.</p>\n" + "\n".join(sections) + "\n</body>\n</html>\n"
    )


def svg(body, height, title, looks=""):
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-8 0 {WIDTH + 16} {height + LINE:.0f}" '
        f'role="img" aria-label="{escape(title)}">{looks}\n' + "\n".join(body) + "\n</svg>\n"
    )


def panel(table, top):
    """Return the lines of one table's plot, from `top` down, and where it ends."""
    several = len(table["plotted"]) > 1
    dots = []  # (y, name, value)
    y = top + GAP
    for row in table["rows"]:
        for column in table["plotted"]:
            if row[column] is not None:
                name = f"{name_of(row)}, {column}" if several else name_of(row)
                dots.append((y, name, row[column]))
                y += LINE
        y += GAP if several else 0
    if not dots:
        return lines_of_text([("quiet", "Not measured.")], top)
    place, ticks = scale([value for _, _, value in dots])
    body = []
    for value in ticks:
        x = place(value)
        body.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{y}"/>')
        body.append(f'<text class="tick" x="{x:.1f}" y="{y + 10}">{value:,g}</text>')
    body.append(f'<text class="quiet" x="0" y="{y + 10}">{escape(table["unit"])}</text>')
    for at, name, value in dots:
        body.append(f'<text x="0" y="{at + 3.5}">{escape(name)}</text>')
        body.append(f'<circle cx="{place(value):.1f}" cy="{at}" r="4"/>')
        body.append(f'<text class="figure" x="{WIDTH}" y="{at + 3.5}">{figure(value)}</text>')
    return body, y + LINE


def scale(values):
    """Return a function from a value to its x, and the values to mark."""
    low, high = min(values), max(values)
    if high <= 10 * low:
        step = 10 ** math.floor(math.log10(high))
        end = step * math.ceil(high / step)
        return lambda value: LEFT + (RIGHT - LEFT) * value / end, [0, end]
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    ticks = [10.0**power for power in range(first, last + 1)]
    return (
        lambda value: LEFT + (RIGHT - LEFT) * (math.log10(value) - first) / (last - first),
        ticks[:: math.ceil(len(ticks) / 5)],
    )


def lines_of_text(lines, top):
    """Return (class, text) pairs as lines from `top` down, and where they end."""
    body = []
    for looks, text in lines:
        top += LINE
        body.append(f'<text class="{looks}" x="0" y="{top}">{escape(text)}</text>')
    return body, top + LINE / 2


def wrapped(text):
    return textwrap.wrap(text, TEXT_LINE)


def html_table(rows):
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in rows[0])
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows[1:]
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody>'
        "</table></div>"
    )
