"""
Stale: when to drop a cached value, which copies of it to drop, and what the blog drops.

The first two parts use a row and a cache of the run's own. The third asks for pages of the
blog, drops what saving a post of the blog would drop, and asks again. The post isn't changed.
"""

import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from django import forms
from django.core.cache import cache as low_level
from django.core.cache import caches
from django.core.cache.utils import make_template_fragment_key
from django.db import connections, transaction
from django.urls import reverse
from django_redis.exceptions import ConnectionInterrupted
from redis.exceptions import RedisError

from blog import caching
from blog.models import Post, Tag
from lab.caches import lab_cache
from lab.experiment import Experiment, listing_of
from lab.models import Price
from lab.visitor import Visitor

OLD, NEW = 100, 120
TIMEOUT = 300  # seconds
PATIENCE = 15  # seconds that a thread waits for the other at most: longer than SQLite's 10


# A writer and a reader --------------------------------------------------------------


def drop_at_once(cache, price, reader_comes):
    with transaction.atomic():
        price.save()
        cache.delete("price")  # Too early: nobody else sees the new row before COMMIT.
        reader_comes()


def drop_after_commit(cache, price, reader_comes):
    with transaction.atomic():
        price.save()
        transaction.on_commit(lambda: cache.delete("price"))
        reader_comes()


def new_token_after_commit(cache, price, reader_comes):
    with transaction.atomic():
        price.save()
        transaction.on_commit(lambda: cache.set("token", secrets.token_hex(8), TIMEOUT))
        reader_comes()


def read(cache, pk, has_read=lambda: None):
    """Take the price from the cache, or read the row and keep what it says."""
    amount = cache.get("price")
    if amount is None:
        amount = Price.objects.get(pk=pk).amount
        has_read()  # A slow reader rests here, with the row in hand.
        cache.set("price", amount, TIMEOUT)
    return amount


def read_with_token(cache, pk, has_read=lambda: None):
    """Take it only if it has today's token; keep it with the token of before the row was read."""
    token = cache.get_or_set("token", lambda: secrets.token_hex(8), TIMEOUT)
    entry = cache.get("price")
    if entry and entry["token"] == token:
        return entry["amount"]
    amount = Price.objects.get(pk=pk).amount
    has_read()
    cache.set("price", {"token": token, "amount": amount}, TIMEOUT)
    return amount


@dataclass
class Story:
    """One writer, one reader, two threads: what each of them saw, moment by moment."""

    title: str
    write: Callable
    read: Callable
    is_slow: bool = False  # The reader stores what it read only after the writer is done.
    moments: list = field(default_factory=list)
    seconds_left: int = 0  # of the old value, when it is still there in the end

    def play(self, cache):
        self.cache, self.price = cache, Price.objects.create(amount=OLD)
        try:
            with ThreadPoolExecutor(3) as pool:
                self._play(pool)
        finally:
            self.price.delete()
            cache.delete_pattern("*")
        return self

    def _play(self, pool):
        pk, seen, go_on = self.price.pk, threading.Event(), threading.Event()

        def has_read():
            seen.set()
            if self.is_slow:
                go_on.wait(PATIENCE)

        def reader_comes():
            reader.append(pool.submit(with_own_connection, self.read, self.cache, pk, has_read))
            if self.is_slow:
                seen.wait(PATIENCE)
                self.note(pool, "A reader has read the row, and rests", None)
            else:
                self.note(pool, "A reader comes before COMMIT", reader[0].result(PATIENCE))

        reader = []
        if self.is_slow:
            self.note(pool, "At first nothing is cached", None)
        else:
            self.note(pool, "At first, when a reader comes", self.read(self.cache, pk))
        self.price.amount = NEW
        writer = (with_own_connection, self.write, self.cache, self.price, reader_comes)
        try:
            pool.submit(*writer).result(PATIENCE)
            self.note(pool, "The writer has committed and dropped", None)
        finally:
            go_on.set()
        if self.is_slow:
            self.note(pool, "The slow reader stores what it has", reader[0].result(PATIENCE))
        last = pool.submit(with_own_connection, self.read, self.cache, pk).result(PATIENCE)
        if last == OLD:
            self.seconds_left = self.cache.ttl("price")
        self.note(pool, "The next reader comes", last)

    @property
    def listings(self):
        """Return the code that makes the difference: of the writer, and of a slow reader."""
        return [listing_of(code) for code in (self.write, self.read)[: 1 + self.is_slow]]

    def note(self, pool, what, answer):
        """Write down what happened, and what the database and Redis have now, for others."""
        stored = self.cache.get("price")
        row = pool.submit(with_own_connection, Price.objects.get, pk=self.price.pk)
        self.moments.append(
            {
                "what": what,
                "row": row.result(PATIENCE).amount,
                "stored": stored["amount"] if isinstance(stored, dict) else stored,
                "read": answer,
                "is_stale": answer == OLD and what == "The next reader comes",
            }
        )


def with_own_connection(function, *args, **kwargs):
    """Run `function` in a thread of a pool, and close the connection that it opened there."""
    try:
        return function(*args, **kwargs)
    finally:
        connections.close_all()


def stories():
    return [
        Story("Drop before COMMIT", drop_at_once, read),
        Story("Drop after COMMIT", drop_after_commit, read),
        Story("After COMMIT, with a slow reader", drop_after_commit, read, True),
        Story("A slow reader and a token", new_token_after_commit, read_with_token, True),
    ]


# Two levels -------------------------------------------------------------------------


def fragment(cache, row):
    """The inner level keeps the price."""
    return cache.get_or_set("fragment", lambda: row["price"], TIMEOUT)


def page(cache, row):
    """The outer level keeps the page, with the price in it."""
    return cache.get_or_set("page", lambda: f"It costs {fragment(cache, row)}.", TIMEOUT)


def stacked(cache, *dropped):
    """Fill both levels, change the row, drop some, and return what the next visitor reads."""
    row = {"price": OLD}
    page(cache, row)
    row["price"] = NEW
    for level in dropped:
        cache.delete(level)
        read_between = page(cache, row)  # Somebody always comes in between.
    return {
        "dropped": ", then ".join(dropped),
        "page": page(cache, row),
        "fragment": fragment(cache, row),
        "between": read_between,
        "is_right": page(cache, row) == f"It costs {NEW}.",
    }


def stack():
    """Drop the levels in each order."""
    rows = []
    for dropped in (["fragment"], ["page"], ["page", "fragment"], ["fragment", "page"]):
        cache = own_cache()
        try:
            rows.append(stacked(cache, *dropped))
        finally:
            cache.delete_pattern("*")
    return rows


# What one save drops ----------------------------------------------------------------


def drop_as_a_save_does(post):
    """Do what the signals of blog/caching.py do for a saved post, and leave the post alone."""
    with transaction.atomic():
        caching.drop_after_commit(caching.shown_on([post.pk]), caching.POST_KEYS)


def dropped_by(post, visitor):
    """Return [(level, name, "dropped", "kept" or "not stored")] of what the blog keeps."""
    pages = pages_to_ask(post)
    for _, url in pages:
        visitor.get(url)
    for url in (reverse("archive"), f"{reverse('search')}?q=redis"):
        visitor.get(url)
    before = [visitor.get(url).has_header("Age") for _, url in pages]
    parts = parts_of_pages()
    parts_before = [is_there() for _, _, is_there in parts]
    drop_as_a_save_does(post)
    # The parts first: a page that is asked again may build them.
    parts_after = [is_there() for _, _, is_there in parts]
    after = [visitor.get(url).has_header("Age") for _, url in pages]
    found = [*pages, *((level, name) for level, name, _ in parts)]
    fates = zip(before + parts_before, after + parts_after, strict=True)
    return [(level, name, fate(*there)) for (level, name), there in zip(found, fates, strict=True)]


def fate(before, after):
    if not before:
        return "not stored"
    return "kept" if after else "dropped"


def pages_to_ask(post):
    """Return (level, URL) of pages that show the post, and of some that don't."""
    others = Post.objects.published().exclude(pk=post.pk)[:1]
    tags = list(post.tags.all())
    strange = Tag.objects.in_use().exclude(pk__in=[tag.pk for tag in tags])[:1]
    urls = [reverse("home"), reverse("feed"), reverse("about")]
    urls += [tag.get_absolute_url() for tag in (*tags, *strange)]
    return [("site", url) for url in urls] + [
        ("view", each.get_absolute_url()) for each in (post, *others)
    ]


def parts_of_pages():
    """Return (level, name, whether it is there) of fragments and values."""
    newest = Post.objects.published().first().published_at.date()
    in_month = Post.objects.published().in_month(newest.year, newest.month)
    versions = dict(in_month.values_list("pk", "updated_at"))
    month = make_template_fragment_key("archive_month", [newest.isoformat(), versions])
    fragments, version = caches["template_fragments"], caching.SEARCH_GENERATION_KEY
    keys = {
        "archive_months": caching.MONTHS_KEY,
        "archive_discussed": caching.DISCUSSED_KEYS[0],
        "archive_month (keyed by updated_at)": month,
    }
    parts = [
        ("fragment", name, lambda key=key: fragments.get(key) is not None)
        for name, key in keys.items()
    ]
    names = {
        "search: index and results": version,
        "comments: the counts": caching.COMMENTS_GENERATION_KEY,
    }
    return parts + [
        ("low-level", name, lambda key=key: low_level.get(key) is not None)
        for name, key in names.items()
    ]


LEVELS = {
    "site": "Whole site",
    "view": "Per view",
    "fragment": "Fragment",
    "low-level": "Low-level",
}


# The page ---------------------------------------------------------------------------


def own_cache():
    return lab_cache(secrets.token_hex(6))


def answer(request, post):
    """Play all three parts. `post` is the slug of a post."""
    saved = Post.objects.get(slug=post)
    try:
        played = [story.play(own_cache()) for story in stories()]
        # One after another: what another run drops meanwhile would be laid to this one.
        with lab_cache("stale").lock("turn", timeout=60):
            entries = dropped_by(saved, Visitor(request))
        return {
            "stories": played,
            "stack": stack(),
            "saved": saved,
            "entries": [(level, LEVELS[level], name, fate) for level, name, fate in entries],
        }
    except (ConnectionInterrupted, RedisError):
        return {"problem": "Redis doesn’t answer, so there is nothing that could be stale."}


def newest_posts():
    return list(Post.objects.published().values_list("slug", "title")[:15])


class StaleForm(forms.Form):
    post = forms.ChoiceField(label="The post that is saved", choices=newest_posts)


experiment = Experiment(
    slug="stale",
    title="Stale",
    idea="A writer changes a row and drops what is cached of it, while readers come all the time. "
    "What they find depends on when it is dropped, and on which levels have a copy.",
    lesson=(
        "Before COMMIT everybody else still reads the old row. What is dropped then is stored "
        "again from it, and stays for its whole timeout. Drop in `transaction.on_commit()`.",
        "A reader who began before COMMIT may store the old value after the drop. A token that "
        "was read before the row, and is stored with the value, makes that copy worthless.",
        "A copy in an outer level is built from the inner one: drop the inner one first, and "
        "then the outer one too. Better still, let one level own the page.",
        "The blog drops by name what shows a post, and leaves the rest alone.",
    ),
    code=(
        *(drop_at_once, drop_after_commit, new_token_after_commit, read, read_with_token),
        *(Story, fragment, page, stacked),
        *(drop_as_a_save_does, caching.drop_after_commit, caching.shown_on, dropped_by),
    ),
    form=StaleForm,
    answer=answer,
)
