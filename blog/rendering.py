"""Markdown to HTML with highlighted code: the expensive work that the caches avoid."""

import re

from django.utils.html import escape
from django.utils.safestring import mark_safe
from markdown_it import MarkdownIt
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

# Classes, not styles: the Content-Security-Policy allows no inline style, and
# static/css/code.css has the colours of both schemes.
FORMATTER = HtmlFormatter(nowrap=True)
WORDS_PER_MINUTE = 200


def highlighted(code, language, attributes):
    """Return `code` as HTML, coloured if Pygments knows `language`."""
    try:
        code = highlight(code, get_lexer_by_name(language or "text", stripnl=False), FORMATTER)
    except ClassNotFound:
        code = escape(code)
    # With tabindex, a box that scrolls can be scrolled by keyboard.
    return f'<pre tabindex="0"><code>{code}</code></pre>\n'


def table_open(renderer, tokens, index, options, env):
    # A group and not a region: a post may have several, and the names of landmarks are unique.
    return '<div class="scroll" role="group" tabindex="0" aria-label="Table"><table>\n'


def table_close(renderer, tokens, index, options, env):
    return "</table></div>\n"


# "html": False shows raw HTML as text, so an author can't run script in a reader's browser.
MARKDOWN = MarkdownIt("commonmark", {"html": False, "highlight": highlighted}).enable("table")
MARKDOWN.add_render_rule("table_open", table_open)
MARKDOWN.add_render_rule("table_close", table_close)


def to_html(text):
    """Return Markdown as safe HTML."""
    return mark_safe(MARKDOWN.render(text))  # noqa: S308 - html=False escapes raw HTML.


def excerpt(text):
    """Return the text before the first `## ` heading."""
    return re.split(r"^## ", text, maxsplit=1, flags=re.MULTILINE)[0]


def reading_minutes(text):
    """Return the minutes that reading takes, at least one."""
    return max(1, round(len(text.split()) / WORDS_PER_MINUTE))
