"""What Django's page cache can't know by itself about the pages of this blog."""

import re
from urllib.parse import urlencode

from django.http import QueryDict

from blog import caching
from mysite.caches.pages import page
from mysite.http import is_host_of_ours


class PageMiddleware:
    """
    Stands above UpdateCacheMiddleware.

    1. One page, one entry. Its key hashes the whole URL, so `?utm_source=...` would make a
       new entry a campaign, and `?x=1`, `?x=2` or `Host: localhost:1` as many as anybody
       likes. Only `page` reaches the cache and the view, and only hosts of ours are kept.
    2. The page's generation, by which it is dropped.
    3. What the browser may do with its own copy. `max-age` is for pages on which nobody
       waits for a change. The others get `no-cache`: the browser keeps them, asks each time
       whether they are still right, and gets a 304 without a body if so. Whoever comments
       or edits sees the new page on the next click. The entry in Redis keeps its max-age.
    """

    PAGINATED = re.compile(r"/$|/tags/")

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        kept = caching.page_of(request.path_info)
        if kept is None:
            with page():
                return self.get_response(request)
        aliases, generation, browser_may_keep = kept
        if request.META.get("QUERY_STRING"):
            request.encoding = None  # UTF-8, as the key has it, whatever Content-Type says.
            number = QueryDict(request.META["QUERY_STRING"]).get("page", "1")
            matters = number != "1" and self.PAGINATED.match(request.path_info)
            request.META["QUERY_STRING"] = urlencode({"page": number}) if matters else ""
        # Public pages answer nobody in particular: each value would be one more entry.
        request.META.pop("HTTP_AUTHORIZATION", None)
        with page(aliases if is_host_of_ours(request) else (), generation):
            response = self.get_response(request)
        opted_out = "private" in response.get("Cache-Control", "")  # So does never_cache().
        if response.status_code == 200 and not (opted_out or browser_may_keep):
            # With a date alone, nobody would hear that the newest post was deleted.
            del response["Expires"], response["Last-Modified"]
            response["Cache-Control"] = "no-cache"
        return response
