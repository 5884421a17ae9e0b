"""What a request says of its way here: the host it asked, the address it came from, HEAD."""

import re
from contextlib import suppress
from ipaddress import ip_address, ip_network

from csp.constants import HEADER
from csp.utils import build_policy
from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.security import SecurityMiddleware
from django.utils.http import parse_header_parameters

HOST = re.compile(r"([-a-z0-9.]*[a-z0-9]|\[[0-9a-f:.]+\])(:(?P<port>[0-9]+))?")


def is_host_of_ours(request):
    """
    Return whether Host has the one spelling, and one of the ports, that visitors use.

    ALLOWED_HOSTS takes `LOCALHOST`, `localhost.` and any port, and each is another URL.
    """
    if "HTTP_HOST" not in request.META:
        return True
    host = HOST.fullmatch(request.META["HTTP_HOST"])
    ports = (None, request.META.get("SERVER_PORT"), *settings.PUBLIC_PORTS)
    return host is not None and host["port"] in ports


def visitor_address(request):
    """
    Return the visitor's address; of IPv6 the network, because who has one has 2^64 of them.

    X-Forwarded-For counts behind a proxy of ours alone.
    """
    forwarded = request.headers.get("X-Forwarded-For", "") if settings.TRUST_PROXY else ""
    # The last one is what our proxy saw. Those before it are what the visitor wrote.
    address = forwarded.rpartition(",")[2].strip() or request.META["REMOTE_ADDR"]
    with suppress(ValueError):
        ip = ip_address(address)
        if ip.version == 6:
            # On a socket for both versions, IPv4 has a form of IPv6.
            return str(ip.ipv4_mapped or ip_network(f"{address}/64", strict=False))
    return address


class Request(WSGIRequest):
    """
    What gunicorn's requests are made as (see wsgi.py): it puts its own URL together once.

    Django's page cache asks for it with each key, three times for a hit, and CommonMiddleware
    for the host before that.
    """

    _url = _host = None

    def _set_content_type_params(self, meta):
        """
        Take note of the Content-Type, and of no charset in it: everything here is UTF-8.

        Django would take the query for text in that charset, in which `?page=2` has no page, and
        the cache keeps what the view answers under the URL. Some charsets are for no text at all.
        """
        given = meta.get("CONTENT_TYPE", "")
        self.content_type, self.content_params = parse_header_parameters(given)

    def get_host(self):
        """Return the host that the request names. Raises DisallowedHost."""
        named = self._get_raw_host()
        if self._host != named:
            self._host = super().get_host()
        return self._host

    def build_absolute_uri(self, location=None):
        """Return the request's URL, or `location` made absolute. Raises DisallowedHost."""
        if location is not None:
            return super().build_absolute_uri(location)
        # PageMiddleware takes parameters out of the query, and a copy may get another path.
        of = self.path, self.META.get("QUERY_STRING", "")
        if self._url is None or self._url[0] != of:
            self._url = of, super().build_absolute_uri()
        return self._url[1]


class HeadMiddleware:
    """
    Answers HEAD with what GET would send, less the body (RFC 9110, section 9.3.2).

    ConditionalGetMiddleware leaves HEAD alone: without this it has no ETag and no 304, and
    the page cache keeps an entry of its own for it.
    """

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        if request.method != "HEAD":
            return self.get_response(request)
        request.method = "GET"
        response = self.get_response(request)
        request.method = "HEAD"
        # A 304 has the length of the page or none, and Django gives it none.
        if not response.streaming and response.status_code != 304:
            response.headers.setdefault("Content-Length", str(len(response.content)))
            response.content = b""
        return response


class PolicyMiddleware:
    """
    Sends the Content-Security-Policy that settings.CONTENT_SECURITY_POLICY describes.

    django-csp's own middleware writes the policy anew for each response, which costs as much
    as half of a cached page. This one can't do what it is for: nonces and other policies
    for single views.
    """

    def __init__(self, get_response):
        self.get_response = get_response
        self.policy = build_policy()

    def __call__(self, request):
        return self.process_response(request, self.get_response(request))

    def process_response(self, request, response):
        # Django's own pages for errors have their style inline.
        if not (response.status_code in (404, 500) and settings.DEBUG):
            response.headers.setdefault(HEADER, self.policy)
        return response


def add_what_all_pages_have(response):
    """
    Give a page that is about to be kept the headers that this middleware gives to every page.

    OPTIONS["BEFORE_STORING"] of the page levels. The middleware stands above the cache and runs
    for each hit. It leaves a header alone that is there, and a twentieth of a hit is saved.
    Whoever changes one of these settings empties the page levels, or waits for their timeouts.
    A decorator such as @xframe_options_exempt goes below @cache_page: above, it comes too late.
    """
    anybody = HttpRequest()  # Not by HTTPS: Strict-Transport-Security is for those who come so.
    for middleware in (SecurityMiddleware, PolicyMiddleware, XFrameOptionsMiddleware):
        middleware(lambda request: response).process_response(anybody, response)
