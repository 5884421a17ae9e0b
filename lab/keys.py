"""Keys: why did this miss? A page's key, part by part, beside the nearest one in Redis."""

import re
from itertools import product
from urllib.parse import urlsplit

from django import forms
from django.core.cache import caches
from django.core.exceptions import DisallowedHost
from django.http import HttpResponse
from django.test import RequestFactory
from django.utils.cache import learn_cache_key
from django.utils.http import urlencode
from django_redis.exceptions import ConnectionInterrupted
from redis.exceptions import RedisError

from blog.caching import page_of
from blog.middleware import PageMiddleware
from lab.experiment import Experiment
from mysite.caches.client import SafeClient
from mysite.caches.pages import NO_VARY, generation_key
from mysite.http import is_host_of_ours

MAX_KEYS = 5000  # that are compared

# `site:f1.1:views.decorators.cache.cache_page.<prefix>.GET.<URL>.<Vary>.UTC`, as Redis has it.
PARTS = re.compile(
    r"(?P<level>[^:]*):(?P<version>[^:]*):views\.decorators\.cache\.cache_page\."
    r"(?P<prefix>[^.]*)\.(?P<method>[A-Z]+)\.(?P<url>[0-9a-f]{32})\.(?P<vary>[0-9a-f]{32})(?P<end>.*)"
)
URL_HASH = re.compile(r"\.([0-9a-f]{32})\.[0-9a-f]{32}")
NAMES = {
    "level": "Key prefix: the level",
    "version": "Version: format, then VERSION",
    "prefix": "Prefix of the middleware or decorator",
    "method": "Method: HEAD may use GET’s",
    "url": "URL, hashed",
    "vary": "Values of the headers in Vary, hashed",
    "end": "Language and time zone",
}


class KeysForm(forms.Form):
    url = forms.CharField(label="URL", max_length=300, widget=forms.URLInput)
    language = forms.CharField(label="Accept-Language", max_length=60, required=False)
    cookie = forms.CharField(label="Cookie", max_length=60, required=False)
    plain = forms.BooleanField(
        label="Without the blog’s PageMiddleware, as Django alone would",
        label_suffix="",
        required=False,
    )

    def clean_url(self):
        """Return a request for the URL. Refuses hosts that the blog refuses."""
        try:
            parts = urlsplit(self.cleaned_data["url"])
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise forms.ValidationError("A whole URL, such as http://127.0.0.1:8000/about/")
        path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        request = RequestFactory().get(
            path, secure=parts.scheme == "https", headers={"Host": parts.netloc}
        )
        try:
            request.build_absolute_uri()
        except DisallowedHost:
            raise forms.ValidationError("The blog does not answer to that host.") from None
        return request


class Noted(dict):
    """A cache that learn_cache_key() may write to, so that nothing reaches the real one."""

    def set(self, key, value, timeout):
        self[key] = value


def django_keys(request, vary=""):
    """Return the two keys of Django's page cache: of the Vary list, and of the page."""
    noted = Noted()
    response = HttpResponse(headers={"Vary": vary} if vary else {})
    page = learn_cache_key(request, response, 60, "", noted)
    return next(iter(noted)), page


def as_the_blog_sees_it(request):
    """Return the request as it is below PageMiddleware: without parameters that mean nothing."""
    PageMiddleware(lambda request: HttpResponse())(request)
    return request


def owner(request, plain):
    """Return (alias that keeps the page, why it doesn't or "")."""
    kept = page_of(request.path_info)
    if kept is None:
        return (
            ("site", "") if plain else ("", "No page level keeps this path: see blog/caching.py.")
        )
    if not plain and not is_host_of_ours(request):
        return "site", "The blog is not reached under this port or spelling: see PUBLIC_PORTS."
    return kept[0][0], ""


def explain(asker, url, language, cookie, plain):
    """Return the parts of the key that a request asks for, and of the nearest stored one."""
    request = url  # KeysForm has made one of it.
    request.META["SERVER_PORT"] = asker.META["SERVER_PORT"]
    request.META |= {"HTTP_ACCEPT_LANGUAGE": language} if language else {}
    request.META |= {"HTTP_COOKIE": cookie} if cookie else {}
    asked = request.build_absolute_uri()
    if not plain:
        as_the_blog_sees_it(request)
    alias, why_not = owner(request, plain)
    if why_not:
        return {"asked": asked, "why_not": why_not}
    cache = caches[alias]
    # Over https, or by another host, the page may not be there to open.
    is_here = request.build_absolute_uri("/") == asker.build_absolute_uri("/")
    try:
        return {"asked": asked, "is_here": is_here and not plain} | compare(request, cache, alias)
    except (ConnectionInterrupted, RedisError):
        return {"asked": asked, "why_not": "Redis does not answer, so nothing is kept."}


def compare(request, cache, alias):
    """Return the rows of the table, and the verdict."""
    headers, _ = django_keys(request)
    names = SafeClient.get(cache.client, headers) or []
    names = names if isinstance(names, list) else []  # Anything may be in Redis.
    vary = [str(name).removeprefix("HTTP_").replace("_", "-").title() for name in names]
    _, key = django_keys(request, ", ".join(vary))
    mine = PARTS.fullmatch(str(cache.make_key(key))).groupdict()
    stored, known = stored_keys(cache), known_urls(request)
    theirs = max(stored, key=lambda parts: likeness(mine, parts, known), default=None)
    rows = [
        {
            "part": NAMES[name],
            "mine": value,
            "theirs": theirs and theirs[name],
            "differs": bool(theirs) and theirs[name] != value,
        }
        for name, value in mine.items()
    ]
    url = next(row for row in rows if row["part"] == NAMES["url"])
    url["means"] = request.build_absolute_uri()
    url["their_means"] = theirs and known.get(theirs["url"], "another page")
    varies = next(row for row in rows if row["part"] == NAMES["vary"])
    varies["means"] = ", ".join(f"{name}: {request.headers.get(name, '')}" for name in vary)
    for value, means in (("mine", "means"), ("theirs", "their_means")):
        if varies[value] == NO_VARY:
            varies[means] = "of nothing: no header counts"
    is_hit, why = verdict(cache, request, key, rows)
    return {
        "alias": alias,
        "seen": request.build_absolute_uri(),
        "vary": vary,
        "rows": rows,
        "key": str(cache.make_key(key)),
        "is_hit": is_hit,
        "verdict": why,
    }


def verdict(cache, request, key, rows):
    """Return whether this request would hit, and in one sentence why or why not."""
    # Past PageClient, which would give a lab's page none of the blog's entries.
    entry = SafeClient.get(cache.client, key)
    if entry is None:
        differing = [row["part"] for row in rows if row["differs"]]
        if rows[0]["theirs"] is None:
            return False, "A miss: this level holds no page at all."
        return False, f"A miss. From the nearest stored key it differs in: {'; '.join(differing)}."
    _, generation, _ = page_of(request.path_info)
    if type(entry) is not tuple or entry[0] != SafeClient.get(
        cache.client, generation_key(generation)
    ):
        return (
            False,
            f"A miss: the key is there, and what it holds was dropped with “{generation}”.",
        )
    return True, f"A hit, for {cache.client.ttl(key)} more seconds."


def stored_keys(cache):
    """Return the parts of the pages that this level holds, up to MAX_KEYS of them."""
    client = cache.client.get_client(write=False)
    found = []
    for key in client.scan_iter(match="*cache_page*", count=1000):
        if parts := PARTS.fullmatch(key.decode(errors="replace")):
            found.append(parts.groupdict())
        if len(found) == MAX_KEYS:
            break
    return found


def likeness(mine, theirs, known):
    """Return how near a key is: by equal parts, and above all by its URL, or nearly its URL."""
    same = [name for name in mine if mine[name] == theirs[name]]
    return len(same) + 20 * ("url" in same) + 10 * (theirs["url"] in known)


def known_urls(request):
    """
    Return {hash: URL} of what this URL is easily mistaken for.

    A hash can't be turned back. These are tried: the other scheme, hosts, slash and query.
    """
    parts = urlsplit(f"//{request.get_host()}")  # Of IPv6, the host has colons too.
    host, port = parts.netloc.removesuffix(f":{parts.port}"), parts.port
    hosts = [f"{name}:{port}" if port else name for name in ("localhost", "127.0.0.1", host)]
    path = request.path_info
    paths = {path, path.rstrip("/") or "/", f"{path.rstrip('/')}/"}
    queries = {"", urlencode(sorted(request.GET.items())), request.META.get("QUERY_STRING", "")}
    found = {}
    for scheme, name, path, query in product(("http", "https"), hosts, paths, queries):
        url = f"{path}?{query}" if query else path
        other = RequestFactory().get(url, secure=scheme == "https", headers={"Host": name})
        _, key = django_keys(other)
        found[URL_HASH.search(key)[1]] = other.build_absolute_uri()
    return found


def suggestions(request):
    """Return {what it shows: URL} to try, of this very blog."""
    about = request.build_absolute_uri("/about/")
    here, there = ("127.0.0.1", "localhost") if "127.0.0.1" in about else ("localhost", "127.0.0.1")
    return {
        "a page": about,
        "with ?utm_source": f"{about}?utm_source=newsletter",
        "without its slash": about.removesuffix("/"),
        f"as {there}": about.replace(here, there, 1),
        "over https": about.replace("http:", "https:", 1),
        "a post": request.build_absolute_uri("/posts/per-view/"),
        "what nobody keeps": request.build_absolute_uri("/archive/"),
    }


experiment = Experiment(
    slug="keys",
    title="Keys: why did this miss?",
    idea=(
        "A page’s key is made of its URL, of the headers it varies on, and of what your settings "
        "add. Give a URL, and see the key part by part beside the nearest one that Redis holds."
    ),
    lesson=(
        "The whole URL is hashed: scheme, host, port, path and query. http and https, localhost "
        "and 127.0.0.1 are different pages.",
        "Every `?utm_source=...` is one more entry, unless something drops it before the cache "
        "looks. Here `PageMiddleware` does.",
        "`Vary` adds one entry for each value that visitors send. `Vary: Cookie` means one each.",
        "Same key and still a miss: the entry was dropped with its generation, or has expired.",
    ),
    code=(explain, compare, django_keys, stored_keys),
    form=KeysForm,
    answer=explain,
    initial=lambda request: {"url": suggestions(request)["a page"]},
    context=lambda request: {"suggestions": suggestions(request)},
)
