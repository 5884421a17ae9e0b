"""What the bench stores: English text and a page made of it."""

from functools import cache

from django.conf import settings
from django.http import HttpResponse


@cache
def text(length):
    """Return `length` characters of the tutorial's posts, which compress as pages do."""
    posts = "".join(
        path.read_text() for path in sorted((settings.BASE_DIR / "blog/content").glob("*.md"))
    )
    return posts.encode("ascii", "ignore").decode()[:length]


def page(length):
    """Return a response as a page level stores it."""
    headers = {"Cache-Control": "max-age=60", "Expires": "Sun, 22 Nov 2026 20:00:00 GMT"}
    return HttpResponse(text(length), headers=headers)


def cards(number):
    """Return plain values, as the search page stores them."""
    words = text(160 * number)
    return [
        {
            "pk": pk,
            "slug": f"post-{pk}",
            "title": words[160 * pk : 160 * pk + 40],
            "summary": words[160 * pk + 40 : 160 * pk + 160],
            "comments": pk % 7,
        }
        for pk in range(number)
    ]
