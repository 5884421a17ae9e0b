"""Keys: why did this miss? A page's key, part by part, beside the nearest one in Redis."""

import re
from urllib.parse import urlsplit

from django import forms
from django.conf import settings
from django.core.cache import caches
from django.core.exceptions import DisallowedHost
from django.test import RequestFactory
from django.urls import Resolver404, resolve
from django_redis.exceptions import ConnectionInterrupted
from redis.exceptions import RedisError

from lab.experiment import Experiment, Question
from resilient_cache.names import group_key, path_key
from resilient_cache.page_urls import page_key, page_url
from watch.event import unwatched

MAX_KEYS = 5000  # that are compared

# `site:1:page:<prefix>:http://127.0.0.1:8000/about/?page=2|<variant>`, as Redis has it.
PARTS = re.compile(
    r"(?P<level>[^:]*):(?P<version>[^:]*):page:(?P<prefix>(?:(?!https?:).)*?):?"
    r"(?P<scheme>https?)://(?P<host>[^/]*)(?P<path>/[^?|]*)(?P<query>[^|]*)(?P<vary>.*)"
)
NAMES = {
    "level": "Key prefix: the level",
    "version": "Version: VERSION of the alias",
    "prefix": "Prefix of the middleware or decorator",
    "scheme": "Scheme",
    "host": "Host and port",
    "path": "Path",
    "query": "Query: the parameters that count",
    "vary": "Language, time zone, values of the headers in Vary",
}


class KeysForm(forms.Form):
    url = forms.CharField(label="URL", max_length=300, widget=forms.URLInput)
    language = forms.CharField(label="Accept-Language", max_length=60, required=False)
    cookie = forms.CharField(label="Cookie", max_length=60, required=False)
    plain = forms.BooleanField(
        label="With the whole query, as Django alone would have it",
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


def owner(request):
    """Return ((alias, group), "") of the level that caches the page, or (None, why it is not)."""
    try:
        match = resolve(request.path_info)
    except Resolver404:
        return None, "No page is at this path, and a 404 is not cached."
    if any(map(request.path_info.startswith, settings.RESILIENT_CACHE["SKIP_PATHS"])):
        return None, "The settings leave this path alone: SKIP_PATHS in RESILIENT_CACHE."
    if match.url_name == "post":
        return ("view", f"post:{match.kwargs['slug']}"), ""
    if getattr(match.func, "caches_its_page", False):
        return None, "The view says that its page is not cached: see blog/views.py."
    return ("site", "site"), ""


def explain(asker, url, language, cookie, plain):
    """Return the parts of the key that a request asks for, and of the nearest stored one."""
    request = url  # KeysForm has made one of it.
    request.META["SERVER_PORT"] = asker.META["SERVER_PORT"]
    request.META |= {"HTTP_ACCEPT_LANGUAGE": language} if language else {}
    request.META |= {"HTTP_COOKIE": cookie} if cookie else {}
    asked = request.build_absolute_uri()
    found, why_not = owner(request)
    if found is None:
        return {"asked": asked, "why_not": why_not}
    alias, group = found
    query = settings.RESILIENT_CACHE["QUERY"] if alias == "site" else ()
    seen = page_url(request, None if plain else query)
    if seen is None:
        return {"asked": asked, "why_not": "The blog is not reached by this port: PUBLIC_PORTS."}
    # Over https, or by another host, the page may not be there to open.
    is_here = seen.startswith(asker.build_absolute_uri("/")) and not plain
    try:
        return {"asked": asked, "seen": seen, "is_here": is_here} | compare(
            request, seen, alias, group
        )
    except (ConnectionInterrupted, RedisError):
        why_not = "Redis does not answer, so no page is cached."
        return {"asked": asked, "why_not": why_not, "is_down": True}


def parts_of(key):
    """Return the parts of a page's key as Redis has it, or None."""
    found = PARTS.fullmatch(key)
    return found and found.groupdict()


@unwatched()  # The x-ray would show a hit of a page that was not asked for.
def compare(request, seen, alias, group):
    """Return the rows of the table, and the verdict."""
    cache = caches[alias]
    key = page_key(seen, settings.CACHE_MIDDLEWARE_KEY_PREFIX, request)
    name = str(cache.make_key(key))
    mine = parts_of(name) or dict.fromkeys(NAMES, "")
    stored = [parts for parts in map(parts_of, stored_keys(cache)) if parts]
    theirs = max(stored, key=lambda parts: likeness(mine, parts), default=None)
    rows = [
        {
            "part": NAMES[part],
            "mine": mine[part],
            "theirs": theirs and theirs[part],
            "differs": bool(theirs) and theirs[part] != mine[part],
        }
        for part in NAMES
    ]
    is_hit, why = verdict(cache, request, key, group, rows)
    answer = {"alias": alias, "rows": rows, "key": name, "is_hit": is_hit, "verdict": why}
    return answer | {"vary": vary_of(cache.get(key))}


def vary_of(entry):
    """Return the headers that the page varies on, as the stored entry has them."""
    names = entry[-1] if isinstance(entry, tuple) and isinstance(entry[-1], list) else []
    return [str(name).removeprefix("HTTP_").replace("_", "-").title() for name in names]


def verdict(cache, request, key, group, rows):
    """Return whether this request would hit, and in one sentence why or why not."""
    entry = cache.get(key)
    if entry is None:
        differing = [row["part"] for row in rows if row["differs"]]
        if rows[0]["theirs"] is None:
            return False, "A miss: Redis has no page of this level."
        if not differing:
            return False, "A miss: the entry of this key has just expired."
        return False, f"A miss. From the nearest stored key it differs in: {'; '.join(differing)}."
    groups = [path_key(request.path), group_key(group)]
    versions = cache.get_many(groups)
    if not isinstance(entry, tuple) or entry[0] != tuple(versions.get(name) for name in groups):
        return False, "A miss: the key is there, and one of its groups has been invalidated."
    return True, f"A hit, for {cache.ttl(key)} more seconds."


def stored_keys(cache):
    """Return the keys of the pages that this level holds, up to MAX_KEYS of them."""
    found = []
    client = cache.client.get_client(write=False)
    for key in client.scan_iter(match=f"{cache.key_prefix}:*:page:*", count=1000):
        found.append(key.decode(errors="replace"))
        if len(found) == MAX_KEYS:
            break
    return found


def likeness(mine, theirs):
    """Return how near a key is: by equal parts, and above all by its path."""
    same = [part for part in mine if mine[part] == theirs[part]]
    near = mine["path"].rstrip("/") == theirs["path"].rstrip("/")
    return len(same) + 20 * ("path" in same) + 10 * near


def came(context):
    """Return what the request would get, as a key of the question's choices."""
    if "is_hit" in context:
        return "hit" if context["is_hit"] else "miss"
    return None if "is_down" in context else "not cached"


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
        "a page that is not cached": request.build_absolute_uri("/archive/"),
    }


experiment = Experiment(
    slug="keys",
    post="keys-prefixes-and-versions",
    title="Keys: why did this miss?",
    idea=(
        "A page’s key is made of its URL, of the headers it varies on, and of what your settings "
        "add. Give a URL, and see the key part by part beside the most similar key in Redis."
    ),
    lesson=(
        "The whole URL is in the key: scheme, host, port, path and query. http and https, "
        "localhost and 127.0.0.1 are different pages. Plain Django hashes it.",
        "Every `?utm_source=...` is one more entry, unless the settings say which parameters "
        "count. Here `RESILIENT_CACHE` does: `page` alone.",
        "`Vary` adds one entry for each value that visitors send. `Vary: Cookie` means one each.",
        "Same key and still a miss: one of its groups was invalidated, or it has expired.",
    ),
    code=(explain, compare, parts_of, page_url, page_key),
    question=Question(
        "If this URL were asked for now, what would come?",
        {"hit": "a hit", "miss": "a miss", "not cached": "a page that no page level caches"},
        came,
    ),
    form=KeysForm,
    answer=explain,
    initial=lambda request: {"url": suggestions(request)["a page"]},
    context=lambda request: {"suggestions": suggestions(request)},
)
