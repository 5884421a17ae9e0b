"""
Stale: when to invalidate a cached value, which copies of it, and what the blog invalidates.

The first two parts use a row and a cache of the run's own. The third asks for pages of the
blog, invalidates what saving a post would invalidate, and asks again. The post isn't changed.
"""

import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from django import forms
from django.core.cache import caches
from django.core.cache.utils import make_template_fragment_key
from django.db import connections, transaction
from django.urls import reverse
from django_redis.exceptions import ConnectionInterrupted
from redis.exceptions import RedisError

from blog import caching
from blog.models import Post, Tag
from lab.caches import LEVELS, empty, lab_cache
from lab.experiment import Experiment, Question, listing_of
from lab.models import Price
from lab.pages import new_run
from lab.visitor import Visitor
from resilient_cache.groups import version
from watch.event import unwatched

OLD, NEW = 100, 120
TIMEOUT = 300  # seconds
PATIENCE = 15  # Seconds that one thread waits for the other at most: longer than SQLite's 10.


# A writer and a reader --------------------------------------------------------------


def delete_at_once(cache, price, reader_comes):
    with transaction.atomic():
        price.save()
        cache.delete("price")  # Too early: before COMMIT others still see the old row.
        reader_comes()


def delete_after_commit(cache, price, reader_comes):
    with transaction.atomic():
        price.save()
        transaction.on_commit(lambda: cache.delete("price"))
        reader_comes()


def new_version_after_commit(cache, price, reader_comes):
    with transaction.atomic():
        price.save()
        transaction.on_commit(lambda: cache.set("group:price", secrets.randbits(62), TIMEOUT))
        reader_comes()


def read(cache, pk, has_read=lambda: None):
    """Take the price from the cache, or read the row and store what it says."""
    amount = cache.get("price")
    if amount is None:
        amount = Price.objects.get(pk=pk).amount
        has_read()  # A slow reader pauses here, with the row in hand.
        cache.set("price", amount, TIMEOUT)
    return amount


def read_with_version(cache, pk, has_read=lambda: None):
    """Ask for the price of the current version. The version is read before the row."""
    current = version_of(cache)
    amount = cache.get("price", version=current)
    if amount is None:
        amount = Price.objects.get(pk=pk).amount
        has_read()
        cache.set("price", amount, TIMEOUT, version=current)
    return amount


def version_of(cache):
    """Return the group's version. resilient_cache.groups.version() is this, at every alias."""
    return cache.get_or_set("group:price", lambda: secrets.randbits(62), TIMEOUT)


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
        self.is_versioned = self.read is read_with_version
        try:
            with ThreadPoolExecutor(3) as pool:
                self._play(pool)
        finally:
            self.price.delete()
            empty(cache)
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
                self.note(pool, "A reader has read the row, and pauses", None)
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
            self.note(pool, "The writer has committed and invalidated", None)
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
        current = self.cache.get("group:price") if self.is_versioned else None
        stored = self.cache.get("price", version=current)
        row = pool.submit(with_own_connection, Price.objects.get, pk=self.price.pk)
        self.moments.append(
            {
                "what": what,
                "row": row.result(PATIENCE).amount,
                "stored": stored,
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
        Story("Delete before COMMIT", delete_at_once, read),
        Story("Delete after COMMIT", delete_after_commit, read),
        Story("After COMMIT, with a slow reader", delete_after_commit, read, True),
        Story("A slow reader and a version", new_version_after_commit, read_with_version, True),
    ]


# Two levels -------------------------------------------------------------------------


def fragment(cache, row):
    """The inner level caches the price."""
    return cache.get_or_set("fragment", lambda: row["price"], TIMEOUT)


def page(cache, row):
    """The outer level caches the page, with the price in it."""
    return cache.get_or_set("page", lambda: f"It costs {fragment(cache, row)}.", TIMEOUT)


def stacked(cache, *deleted):
    """Fill both levels, change the row, delete some, and return what the next visitor reads."""
    row = {"price": OLD}
    page(cache, row)
    row["price"] = NEW
    for level in deleted:
        cache.delete(level)
        read_between = page(cache, row)  # A visitor always comes in between.
    return {
        "deleted": ", then ".join(deleted),
        "page": page(cache, row),
        "fragment": fragment(cache, row),
        "between": read_between,
        "is_right": page(cache, row) == f"It costs {NEW}.",
    }


def stack():
    """Delete the levels in each order."""
    rows = []
    for deleted in (["fragment"], ["page"], ["page", "fragment"], ["fragment", "page"]):
        cache = own_cache()
        try:
            rows.append(stacked(cache, *deleted))
        finally:
            empty(cache)
    return rows


# What one save invalidates ------------------------------------------------------------


def invalidate_as_a_save_does(post):
    """Do what the signals of the blog do for a saved post, and leave the post alone."""
    with transaction.atomic():
        caching.posts_changed([post.slug])


def invalidated_by(post, visitor):
    """Return [(level, name, "invalidated", "still cached" or "not stored")] of the blog's cache."""
    pages = pages_to_ask(post)
    for _, url in pages:
        visitor.get(url)
    for url in (reverse("archive"), f"{reverse('search')}?q=redis"):
        visitor.get(url)
    before = [visitor.get(url).has_header("Age") for _, url in pages]
    parts_before = parts_of_pages()
    invalidate_as_a_save_does(post)
    # The parts first: a page that is asked for again may build them.
    parts_after = parts_of_pages()
    after = [visitor.get(url).has_header("Age") for _, url in pages]
    fates = [fate(*there) for there in zip(before, after, strict=True)]
    entries = [(*asked, found) for asked, found in zip(pages, fates, strict=True)]
    return entries + [
        (level, name, fate(was_there, parts_after[level, name]))
        for (level, name), was_there in parts_before.items()
    ]


def fate(before, after):
    if not before:
        return "not stored"
    return "still cached" if after else "invalidated"


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


@unwatched()  # These lookups are of the experiment, and not of its page.
def parts_of_pages():
    """Return {(level, name): whether a page that is built now would find it}."""
    newest = Post.objects.published().first().published_at.date()
    in_month = Post.objects.published().in_month(newest.year, newest.month)
    updated = dict(in_month.values_list("pk", "updated_at"))
    fragments = caches["template_fragments"]
    posts, comments = (version(group, "template_fragments") for group in ("posts", "comments"))
    vary_on = {
        "archive_months": [posts],
        "archive_discussed": [comments, False],
        "archive_month": [newest.replace(day=1).isoformat(), updated],
    }
    found = {
        ("fragment", name): fragments.get(make_template_fragment_key(name, values)) is not None
        for name, values in vary_on.items()
    }
    index = caches["default"].get("search:index", version=version("posts"))
    return found | {("low-level", "search:index"): index is not None}


# The page ---------------------------------------------------------------------------


def own_cache():
    return lab_cache(new_run())


def answer(request, post):
    """Play all three parts. `post` is the slug of a post."""
    saved = Post.objects.get(slug=post)
    try:
        played = [story.play(own_cache()) for story in stories()]
        # One after another: another run would invalidate the same pages meanwhile.
        with lab_cache("stale").lock("part-3", timeout=60):
            entries = invalidated_by(saved, Visitor(request))
        return {
            "stories": played,
            "stack": stack(),
            "saved": saved,
            "entries": [(level, LEVELS[level], name, fate) for level, name, fate in entries],
        }
    except (ConnectionInterrupted, RedisError):
        return {"problem": "Redis does not answer, so no value can be stale."}


def came(context):
    """Return what the next reader got after the slow one, as a key of the question's choices."""
    for story in context.get("stories", ()):
        if story.is_slow and story.write is delete_after_commit:
            return "old" if story.moments[-1]["read"] == OLD else "new"
    return None


def newest_posts():
    return list(Post.objects.published().values_list("slug", "title")[:15])


class StaleForm(forms.Form):
    post = forms.ChoiceField(label="The post that is saved", choices=newest_posts)


experiment = Experiment(
    slug="stale",
    title="Stale",
    post="invalidation-after-commit",
    idea="A writer changes a row and invalidates what is cached of it, while readers come all the "
    "time. What they read depends on when it happens, and on which levels have a copy.",
    lesson=(
        "Before COMMIT all others still read the old row. A value that is deleted then is stored "
        "again from that row, and stays for its whole timeout. Invalidate in "
        "`transaction.on_commit()`.",
        "A reader that began before COMMIT may store the old value afterwards. If it asks for the "
        "group’s version before it reads the row, its copy carries the old version and is never "
        "served.",
        "A copy in an outer level is built from the inner one: delete the inner one first, and "
        "then the outer one too. Better still, let one level own the page.",
        "The blog invalidates groups: all pages of the whole site, the page of this post, and "
        "what is made from posts. The pages of other posts stay.",
    ),
    code=(
        *(delete_at_once, delete_after_commit, new_version_after_commit),
        *(read, read_with_version, version_of, Story, fragment, page, stacked),
        *(invalidate_as_a_save_does, caching.posts_changed, invalidated_by),
    ),
    question=Question(
        "A slow reader has read the old row. The writer commits, then deletes the cached price. "
        "Which price does the next reader get?",
        {"old": "the old price", "new": "the new price"},
        came,
    ),
    form=StaleForm,
    answer=answer,
)
