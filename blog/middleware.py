"""What Django's page cache can't know by itself about the pages of this blog."""

import re
from urllib.parse import urlencode

from django.http import QueryDict
from django.utils.cache import patch_cache_control

from blog import caching
from mysite.caches.pages import page


class PageMiddleware:
    """
    Stands above UpdateCacheMiddleware.

    1. One page, one entry. The key of a page hashes its whole URL, so `?utm_source=...`
       would make a new entry a campaign and `?x=1`, `?x=2` as many as anybody likes. Of
       the parameters only `page` reaches the cache and the view.
    2. The page's generation, by which it is dropped.
    3. What the browser may do with its own copy. `max-age` is for pages that no edit and
       no comment changes. The others are sent with `no-cache`: the browser keeps them,
       asks each time whether they are still right, and gets a 304 without a body if so.
       Whoever comments or edits sees the new page on the next click. The entry in Redis
       keeps its max-age, because UpdateCacheMiddleware has stored it before this.
    """

    PAGINATED = re.compile(r"/$|/tags/")
    BROWSER_MAY_KEEP = ("/about/", "/sitemap.xml")

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        kept = caching.page_of(request.path_info)
        if kept is None:
            with page(None, None):
                return self.get_response(request)
        if request.META.get("QUERY_STRING"):
            number = QueryDict(request.META["QUERY_STRING"]).get("page", "1")
            matters = number != "1" and self.PAGINATED.match(request.path_info)
            request.META["QUERY_STRING"] = urlencode({"page": number}) if matters else ""
        # Public pages answer nobody in particular. Left in, each value of this header
        # would be an entry of its own.
        request.META.pop("HTTP_AUTHORIZATION", None)
        with page(*kept):
            response = self.get_response(request)
        if response.status_code == 200 and request.path_info not in self.BROWSER_MAY_KEEP:
            # With a date alone, nobody would hear that the newest post was deleted.
            del response["Cache-Control"], response["Expires"], response["Last-Modified"]
            patch_cache_control(response, no_cache=True)
        return response
