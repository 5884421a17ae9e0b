"""
{{ xray }} in the project's base template, inside <head>: the page x-ray's two tags.

The same whether the watch is on or off, so that cached pages are too: the script draws
nothing on a page that comes without Server-Timing. A variable, because it is simply empty
in a project that doesn't name this context processor.
"""

import json

from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import NoReverseMatch, reverse
from django.utils.functional import lazy
from django.utils.html import format_html
from django.utils.safestring import SafeString

from watch.conf import config
from watch.headers import token


def xray(request: HttpRequest) -> dict[str, SafeString]:
    """Return {"xray": the link to the style sheet and the script}."""
    return {"xray": _tags()}


def _link_and_script() -> SafeString:
    # Neither defer nor async: it makes room for the panel before the page is painted.
    return format_html(
        '<link rel="stylesheet" href="{}">\n'
        '    <script src="{}" data-levels="{}" data-code="{}"></script>',
        static("watch/xray.css"),
        static("watch/xray.js"),
        json.dumps([(token(name), title) for name, title in config().titles]),
        _code_url(),
    )


def _code_url() -> str:
    """Return where the code is shown, or "" when it is not."""
    try:
        return reverse("watch:code") if config().show_code else ""
    except NoReverseMatch:
        return ""


_tags = lazy(_link_and_script, SafeString)  # Only pages that have {{ xray }} pay for it.
