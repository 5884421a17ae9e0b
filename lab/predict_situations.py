"""
Predict: the situations. None of them says what is right: that is read from the run.

Each reason has a check, which gets what was played. It returns the lines that show the reason to
be true, such as a header or a command, or "" where the run shows that it isn't. A test runs every
situation, and demands that one of its three reasons is true.
"""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from django.conf import settings
from django.contrib.sessions.middleware import SessionMiddleware
from django.middleware.cache import FetchFromCacheMiddleware, UpdateCacheMiddleware

from lab import predict_blog as blog
from lab import predict_views as plain
from lab.experiment import listing_of, with_code
from lab.predict_run import Ask, Command, Do, Played, Step, other_host, own_host

Check = Callable[[Played], str]
SITE = (UpdateCacheMiddleware, FetchFromCacheMiddleware)
SITE_WITH_SESSIONS = (UpdateCacheMiddleware, SessionMiddleware, FetchFromCacheMiddleware)
BLOG = "/lab/predict/pages/"


# Checks: what the run shows ----------------------------------------------------------


def misses(step: Step) -> list[Command]:
    """Return the reads that found nothing."""
    return [command for command in step.commands if command.is_read and not command.has]


def stored_before_last(played: Played) -> dict[str, Command]:
    """Return {key: command} of what was stored before the last request."""
    return {command.key: command for step in played.steps[:-1] for command in step.stored}


def found(played: Played) -> str:
    """The last request was answered by what it found."""
    reads = [command for command in played.last.commands if command.is_read and command.has]
    entries = [command for command in reads if not command.is_beside]
    return entries[-1].line if entries and played.last.is_hit else ""


def found_and_built(played: Played) -> str:
    """The last request found a value, and built another one."""
    reads = [command for command in played.last.commands if command.is_read]
    is_there = bool(reads) and reads[0].has
    return reads[0].line if is_there and played.last.built else ""


def another_key(played: Played) -> str:
    """The last request asked for a key that is not stored, while others are."""
    stored = stored_before_last(played)
    asked = [command for command in misses(played.last) if not command.is_beside]
    if not asked or any(command.key in stored for command in asked):
        return ""
    # A page beside a page, and a list of headers beside a list of headers.
    alike = [key for key in stored if ("cache_header" in key) == ("cache_header" in asked[0].key)]
    nearest = get_close_matches(asked[0].key, alike, n=1, cutoff=0)
    if not nearest:
        return ""
    return f"Stored: {stored[nearest[0]].short_key}\nAsked for: {asked[0].short_key}"


def entry_is_gone(played: Played) -> str:
    """The last request asked for a key that was stored, and is there no more."""
    stored = stored_before_last(played)
    gone = [command for command in misses(played.last) if command.key in stored]
    return gone[0].line if gone else ""


def nothing_stored(played: Played) -> str:
    """No request before the last one has stored anything."""
    return "" if stored_before_last(played) else "Before the last request no SET was sent."


def last_not_stored(played: Played) -> str:
    """The last request was built, and it was not stored."""
    if played.last.is_hit or played.last.stored:
        return ""
    return "For the last request no SET was sent."


def last_is_first_stored(played: Played) -> str:
    """Nothing was stored before the last request."""
    is_late = played.last.stored and not stored_before_last(played)
    return f"{played.last.stored[-1].text}, in the last request" if is_late else ""


def stored_for(seconds: float) -> Check:
    """The first request stored something for so many seconds."""

    def check(played: Played) -> str:
        sets = [command for command in played.first.stored if command.seconds == seconds]
        return sets[-1].text if sets else ""

    return check


def answered(header: str, value: str) -> Check:
    """The first response has this value in this header."""

    def check(played: Played) -> str:
        given = played.first.headers.get(header, "")
        return f"{header}: {given}" if value in given else ""

    return check


def status(number: int) -> Check:
    """The first response has this status."""
    return lambda played: f"Status {number}" if played.first.status == number else ""


def last_sets_cookie(is_set: bool) -> Check:
    """The last response sets a cookie, or it doesn't."""

    def check(played: Played) -> str:
        given = played.last.headers.get("Set-Cookie", "")
        if bool(given) != is_set:
            return ""
        return f"Set-Cookie: {given}, in the last response" if given else "No Set-Cookie"

    return check


def between_stored(played: Played) -> str:
    """The step between the two requests stored something."""
    stored = played.steps[1].stored
    return stored[-1].text if stored else ""


def between_asked_nothing(played: Played) -> str:
    """The step between the two requests sent no command."""
    return "" if played.steps[1].commands else f"{played.steps[1].label}: no command was sent"


def between_deleted(what: str = "") -> Check:
    """The step between deleted something that has `what` in its key."""

    def check(played: Played) -> str:
        deleted = [each for each in played.steps[1].deletions if each.has and what in each.key]
        return deleted[0].line if deleted else ""

    return check


def between_deleted_nothing(played: Played) -> str:
    """The step between sent a DEL for a key that was not there."""
    missed = [command for command in played.steps[1].deletions if not command.has]
    return missed[0].line if missed else ""


def between_did_not_delete(played: Played) -> str:
    """The step between sent no DEL."""
    return "" if played.steps[1].deletions else f"{played.steps[1].label}: no DEL was sent"


def between_said(text: str) -> Check:
    """The function between the two requests returned this."""

    def check(played: Played) -> str:
        step = played.steps[1:-1][-1]
        return f"{step.label} returned {text}" if step.text == text else ""

    return check


def deletion_came_later(played: Played) -> str:
    """The last request read the value before it deleted anything."""
    names = [command.name for command in played.last.commands]
    deleted_at = names.index("DEL") if "DEL" in names else len(names)
    return "The GET came before COMMIT" if "GET" in names[:deleted_at] else ""


def key_is_url(played: Played) -> str:
    """The page is stored at a key with its URL in it."""
    urls = [command.key for command in played.first.stored if "http" in command.key]
    return f"Key: {urls[0]}" if urls else ""


def level_stored(level: str, at: int) -> Check:
    """Step number `at` stored something at this level."""

    def check(played: Played) -> str:
        stored = [command for command in played.steps[at].stored if command.level == level]
        return stored[0].text if stored else ""

    return check


def level_not_asked(level: str) -> Check:
    """No step has asked this level."""

    def check(played: Played) -> str:
        asked = {command.level for step in played.steps for command in step.commands}
        return "" if level in asked else f"No command went to the level {level}."

    return check


def version_is_new(played: Played) -> str:
    """The last request found the page, and no version of its path."""
    commands = played.last.commands
    pages = [command for command in commands if ":page:" in command.key and command.has]
    gone = [command for command in misses(played.last) if ":group:/" in command.key]
    return f"{pages[0].line}\n{gone[0].line}" if pages and gone else ""


def page_was_deleted(played: Played) -> str:
    """The last request asked for a page that is not there."""
    gone = [command for command in misses(played.last) if ":page:" in command.key]
    return gone[0].line if gone else ""


def both(*checks: Check) -> Check:
    """All of these."""

    def check(played: Played) -> str:
        lines = [each(played) for each in checks]
        return "\n".join(lines) if all(lines) else ""

    return check


# What a situation is ------------------------------------------------------------------


@dataclass(frozen=True)
class Reason:
    """Why it is a hit or a miss, and how the run shows it. `code` in backticks."""

    text: str
    check: Check

    @property
    def html(self) -> str:
        return with_code(self.text)


@dataclass(frozen=True)
class Situation:
    """A few lines of code, some requests, and three reasons, of which the run shows one."""

    slug: str
    topic: str
    title: str
    steps: tuple[Ask | Do, ...]
    reasons: tuple[Reason, Reason, Reason]
    post: str
    view: Callable
    calls: tuple[Callable, ...] = ()  # What the view calls, and has to be seen.
    middleware: tuple[type, ...] = ()

    @property
    def in_blog(self) -> bool:
        """Return whether the blog's own middleware and decorators cache the page."""
        return self.view in blog.VIEWS

    @property
    def layers(self) -> list[str]:
        """Return the middleware as the settings would name it."""
        return [f"{layer.__module__}.{layer.__name__}" for layer in self.middleware]

    @property
    def listings(self) -> list:
        """Return the code: of the view, and of the functions that are called."""
        between = [step.function for step in self.steps if isinstance(step, Do)]
        return [listing_of(code) for code in (*self.calls, self.view, *between)]

    @property
    def choices(self) -> list[tuple[str, str]]:
        return [(str(number), reason.html) for number, reason in enumerate(self.reasons, 1)]

    def evidence(self, played: Played) -> list[str]:
        """Return for each reason the lines of the run that show it, or ""."""
        return [reason.check(played) for reason in self.reasons]


def cookie(name: str) -> dict[str, str]:
    return {"Cookie": f"visitor={name}"}


KEY, STORED, ASKS = "What is in the key", "What is stored", "Who asks"
TWO, INVALID, VALUE = "Two levels", "Invalidation", "Values"

SITUATIONS = (
    # What is in the key
    Situation(
        slug="twice",
        topic=KEY,
        title="The same page twice",
        view=plain.prices,
        middleware=SITE,
        steps=(Ask(), Ask()),
        reasons=(
            Reason("The view asks for no caching, so no page is stored.", nothing_stored),
            Reason("The first request stores the page. The second finds it at the key.", found),
            Reason("A page is stored when it is asked for again.", last_is_first_stored),
        ),
        post="the-whole-site",
    ),
    Situation(
        slug="newsletter",
        topic=KEY,
        title="A link from a newsletter",
        view=plain.cached_prices,
        steps=(Ask(), Ask("/prices/?utm_source=mail")),
        reasons=(
            Reason("The whole query string is a part of the key.", another_key),
            Reason("A parameter that the view doesn’t read is no part of the key.", found),
            Reason("A page with a query string is not stored.", last_not_stored),
        ),
        post="the-whole-site",
    ),
    Situation(
        slug="newsletter-in-this-blog",
        topic=KEY,
        title="The same link in this blog",
        view=blog.list_of_prices,
        steps=(
            Ask(f"{BLOG}list_of_prices/"),
            Ask(f"{BLOG}list_of_prices/?utm_source=mail"),
        ),
        reasons=(
            Reason("The key is the URL, so each parameter makes another key.", another_key),
            Reason("With `query`, only a URL that has `page` in it is stored.", nothing_stored),
            Reason("Parameters that `query` doesn’t name don’t get into the key.", found),
        ),
        post="per-view",
    ),
    Situation(
        slug="two-hosts",
        topic=KEY,
        title="One site, two hosts",
        view=plain.cached_prices,
        steps=(Ask(headers={"Host": own_host}), Ask(headers={"Host": other_host})),
        reasons=(
            Reason("The key is made from the path, whatever the host.", found),
            Reason("The key is made from the absolute URL, with its host.", another_key),
            Reason("Pages are stored for one of `ALLOWED_HOSTS` only.", last_not_stored),
        ),
        post="the-whole-site",
    ),
    Situation(
        slug="spellings",
        topic=KEY,
        title="Two browsers and `Vary`",
        view=plain.prices_by_encoding,
        middleware=SITE,
        steps=(
            Ask(headers={"Accept-Encoding": "gzip, br"}),
            Ask(headers={"Accept-Encoding": "br, gzip"}),
        ),
        reasons=(
            Reason("A response with `Vary` is not stored.", nothing_stored),
            Reason("Both browsers take the same encodings, so the key is the same.", found),
            Reason(
                "Each spelling of a header in `Vary` makes a key of its own.",
                both(answered("Vary", "Accept-Encoding"), another_key),
            ),
        ),
        post="the-whole-site",
    ),
    Situation(
        slug="head",
        topic=KEY,
        title="HEAD, then GET",
        view=plain.cached_prices,
        steps=(Ask(method="HEAD"), Ask()),
        reasons=(
            Reason("HEAD stores the page, and GET finds it.", found),
            Reason("HEAD stores nothing, so GET is the first to store.", nothing_stored),
            Reason("HEAD has a key of its own, and GET doesn’t look there.", another_key),
        ),
        post="the-whole-site",
    ),
    Situation(
        slug="post",
        topic=KEY,
        title="GET, POST, GET",
        view=plain.cached_prices,
        steps=(Ask(), Ask(method="POST"), Ask()),
        reasons=(
            Reason(
                "A POST neither asks the cache nor changes it.",
                both(between_asked_nothing, found),
            ),
            Reason("A POST deletes the page of its URL.", between_deleted()),
            Reason("The answer to the POST takes the place of the page.", between_stored),
        ),
        post="the-whole-site",
    ),
    # What is stored
    Situation(
        slug="max-age-per-view",
        topic=STORED,
        title="`max-age=0` below a decorator",
        view=plain.cached_live_prices,
        steps=(Ask(), Ask()),
        reasons=(
            Reason("`max-age=0` forbids every cache to store the page.", nothing_stored),
            Reason(
                "The decorator’s own timeout wins over `max-age`.", both(stored_for(300), found)
            ),
            Reason(
                "`max-age` is for browsers. `CACHE_MIDDLEWARE_SECONDS` is the timeout.",
                both(stored_for(settings.CACHE_MIDDLEWARE_SECONDS), found),
            ),
        ),
        post="per-view",
    ),
    Situation(
        slug="max-age-whole-site",
        topic=STORED,
        title="`max-age=0` below the middleware",
        view=plain.live_prices,
        middleware=SITE,
        steps=(Ask(), Ask()),
        reasons=(
            Reason(
                "The middleware takes `max-age` as the timeout. 0 means: don’t store.",
                both(answered("Cache-Control", "max-age=0"), nothing_stored),
            ),
            Reason(
                "`max-age` is for browsers. `CACHE_MIDDLEWARE_SECONDS` is the timeout.",
                stored_for(settings.CACHE_MIDDLEWARE_SECONDS),
            ),
            Reason("The page is stored, and expires before the second request.", entry_is_gone),
        ),
        post="the-whole-site",
    ),
    Situation(
        slug="private",
        topic=STORED,
        title="`Cache-Control: private`",
        view=plain.private_prices,
        steps=(Ask(), Ask()),
        reasons=(
            Reason("`private` is for proxies. Django’s own cache stores the page.", found),
            Reason("Each visitor has an entry of their own.", another_key),
            Reason(
                "Django’s cache stores nothing that says `private`.",
                both(answered("Cache-Control", "private"), nothing_stored),
            ),
        ),
        post="the-whole-site",
    ),
    Situation(
        slug="not-found",
        topic=STORED,
        title="A page that isn’t there",
        view=plain.missing_prices,
        steps=(Ask(), Ask()),
        reasons=(
            Reason("A 404 is stored like any other response.", found),
            Reason(
                "Only a response with status 200 is stored.",
                both(status(404), nothing_stored),
            ),
            Reason("A 404 is stored, and expires before the second request.", entry_is_gone),
        ),
        post="the-whole-site",
    ),
    Situation(
        slug="stream",
        topic=STORED,
        title="A page that streams",
        view=plain.streamed_prices,
        steps=(Ask(), Ask()),
        reasons=(
            Reason("A stream is never stored, because it can be read only once.", nothing_stored),
            Reason("Django joins the parts and stores them as one page.", found),
            Reason("The stream is stored, but it is empty and doesn’t count.", found_and_built),
        ),
        post="the-whole-site",
    ),
    # Who asks
    Situation(
        slug="set-cookie",
        topic=ASKS,
        title="A page that sets a cookie",
        view=plain.welcome,
        steps=(Ask(), Ask()),
        reasons=(
            Reason("A response that sets a cookie is not stored.", nothing_stored),
            Reason("The page is stored without the cookie.", both(found, last_sets_cookie(False))),
            Reason(
                "The page is stored with the cookie, and every visitor gets that one.",
                both(found, last_sets_cookie(True)),
            ),
        ),
        post="personal-pages-and-leaks",
    ),
    Situation(
        slug="set-cookie-and-vary",
        topic=ASKS,
        title="A page that sets a cookie and varies on it",
        view=plain.welcome_by_cookie,
        steps=(Ask(), Ask()),
        reasons=(
            Reason(
                "A response that sets a cookie and varies on `Cookie` is not stored.",
                both(answered("Set-Cookie", "number"), answered("Vary", "Cookie"), nothing_stored),
            ),
            Reason("The two visitors send different cookies, so the keys differ.", another_key),
            Reason("Neither visitor sends a cookie, so the key is the same.", found),
        ),
        post="personal-pages-and-leaks",
    ),
    Situation(
        slug="session-per-view",
        topic=ASKS,
        title="Ada’s basket, then Bob’s",
        view=plain.cached_basket,
        middleware=(SessionMiddleware,),
        steps=(Ask("/basket/", headers=cookie("Ada")), Ask("/basket/", headers=cookie("Bob"))),
        reasons=(
            Reason(
                "The view reads the session, so the response varies on the cookie in time.",
                another_key,
            ),
            Reason(
                "The decorator stores the page before `Vary: Cookie` is added.",
                both(answered("Vary", "Cookie"), found),
            ),
            Reason("A page whose view reads the session is not stored.", nothing_stored),
        ),
        post="personal-pages-and-leaks",
    ),
    Situation(
        slug="session-whole-site",
        topic=ASKS,
        title="The same basket without a decorator",
        view=plain.basket,
        middleware=SITE_WITH_SESSIONS,
        steps=(Ask("/basket/", headers=cookie("Ada")), Ask("/basket/", headers=cookie("Bob"))),
        reasons=(
            Reason("The URL is the same, and nothing else is in the key.", found),
            Reason("A page whose view reads the session is not stored.", nothing_stored),
            Reason(
                "`Vary: Cookie` is added before the page is stored, so the cookie is in the key.",
                both(answered("Vary", "Cookie"), another_key),
            ),
        ),
        post="personal-pages-and-leaks",
    ),
    Situation(
        slug="authorization",
        topic=ASKS,
        title="Two senders of `Authorization`",
        view=plain.account,
        steps=(
            Ask("/account/", headers={"Authorization": "Bearer Ada"}),
            Ask("/account/", headers={"Authorization": "Bearer Bob"}),
        ),
        reasons=(
            Reason(
                "Django adds `Vary: Authorization`, so the header is in the key.",
                both(answered("Vary", "Authorization"), another_key),
            ),
            Reason("The answer to such a request is not stored.", nothing_stored),
            Reason("The view doesn’t vary on the header, so it isn’t in the key.", found),
        ),
        post="personal-pages-and-leaks",
    ),
    Situation(
        slug="fragment-with-a-name",
        topic=ASKS,
        title="A fragment that names a value",
        view=plain.greeting,
        steps=(Ask("/greeting/?name=Ada"), Ask("/greeting/?name=Bob")),
        reasons=(
            Reason("The key of a fragment is its name, `greeting`.", found),
            Reason("What follows the name is a part of the key.", another_key),
            Reason("A fragment with a variable in it is not stored.", nothing_stored),
        ),
        post="fragments",
    ),
    Situation(
        slug="fragment-in-two-languages",
        topic=ASKS,
        title="A fragment in two languages",
        view=plain.greeting_in_two_languages,
        steps=(Ask("/en/"), Ask("/pt-br/")),
        reasons=(
            Reason("The path is a part of the key, as for a page.", another_key),
            Reason("A fragment whose text changes is not stored.", nothing_stored),
            Reason("The key has the name and what follows it. Here nothing follows.", found),
        ),
        post="fragments",
    ),
    # Two levels
    Situation(
        slug="two-owners",
        topic=TWO,
        title="A decorator below the middleware",
        view=plain.cached_prices,
        middleware=SITE,
        steps=(Ask(), Do(plain.delete_at_view), Ask()),
        reasons=(
            Reason("The entry is deleted, so the page is built again.", entry_is_gone),
            Reason("The hash of another URL is deleted.", both(between_deleted_nothing, found)),
            Reason(
                "The outer level has a copy of its own, and answers first.",
                both(between_deleted("cache_page"), found),
            ),
        ),
        post="per-view",
    ),
    Situation(
        slug="one-owner-in-this-blog",
        topic=TWO,
        title="A decorator below the middleware of this blog",
        view=blog.page_of_prices,
        steps=(Ask(f"{BLOG}page_of_prices/"), Ask(f"{BLOG}page_of_prices/")),
        reasons=(
            Reason(
                "The decorator marks the view, and the middleware leaves it alone.",
                both(level_not_asked("site"), found),
            ),
            Reason(
                "Both levels store the page, and the outer one answers.", level_stored("site", 0)
            ),
            Reason("The second request moves the page outward.", level_stored("site", -1)),
        ),
        post="per-view",
    ),
    # Invalidation
    Situation(
        slug="delete-by-path",
        topic=INVALID,
        title="Delete a page by its path",
        view=plain.cached_prices,
        steps=(Ask(), Do(plain.delete_path), Ask()),
        reasons=(
            Reason(
                "No entry has this key: the key of a page is a hash.",
                both(between_deleted_nothing, found),
            ),
            Reason("The page of this path is deleted.", entry_is_gone),
            Reason(
                "The key is the absolute URL, so the path is not enough.", both(key_is_url, found)
            ),
        ),
        post="invalidating-one-page",
    ),
    Situation(
        slug="delete-by-key",
        topic=INVALID,
        title="Delete a page by its key",
        view=plain.cached_prices,
        steps=(Ask(), Do(plain.delete_at_view), Ask()),
        reasons=(
            Reason(
                "`get_cache_key` makes another key than the decorator does.",
                both(between_deleted_nothing, found),
            ),
            Reason(
                "The list of its `Vary` headers is deleted, so the page isn’t found.",
                between_deleted("cache_header"),
            ),
            Reason(
                "The page of this host and these headers is deleted.",
                both(between_deleted("cache_page"), entry_is_gone),
            ),
        ),
        post="invalidating-one-page",
    ),
    Situation(
        slug="invalidate-by-path",
        topic=INVALID,
        title="Invalidate a path in this blog",
        view=blog.news,
        steps=(Ask(f"{BLOG}news/?page=2"), Do(blog.invalidate_path), Ask(f"{BLOG}news/?page=2")),
        reasons=(
            Reason("`invalidate` deletes the page from Redis.", page_was_deleted),
            Reason("The path is another page than the one with `page=2`.", found),
            Reason("The page is still in Redis, with an old version of its path.", version_is_new),
        ),
        post="invalidating-one-page",
    ),
    Situation(
        slug="before-commit",
        topic=INVALID,
        title="Save, and show the price before COMMIT",
        view=plain.price,
        calls=(plain.show_price,),
        steps=(Ask("/price/"), Ask("/price/", "POST")),
        reasons=(
            Reason("The deletion runs at once, in the middle of the transaction.", entry_is_gone),
            Reason(
                "The deletion waits for COMMIT, and this answer is made before it.",
                both(found, deletion_came_later),
            ),
            Reason("Within a transaction the cache is not asked.", level_not_asked("low-level")),
        ),
        post="invalidation-after-commit",
    ),
    Situation(
        slug="rollback",
        topic=INVALID,
        title="A change that is rolled back",
        view=plain.price_with_rollback,
        calls=(plain.show_price,),
        steps=(Ask("/price/"), Ask("/price/", "POST"), Ask("/price/")),
        reasons=(
            Reason("The value is deleted before the exception is raised.", between_deleted()),
            Reason("The rollback stores the old value again.", between_stored),
            Reason(
                "`on_commit` calls nothing after a rollback.", both(between_did_not_delete, found)
            ),
        ),
        post="invalidation-after-commit",
    ),
    Situation(
        slug="version",
        topic=INVALID,
        title="Another version",
        view=plain.report,
        steps=(Ask("/report/"), Do(plain.change_version), Ask("/report/")),
        reasons=(
            Reason("Another version is another key. The old entry stays.", another_key),
            Reason("The new version deletes the old entry.", between_deleted()),
            Reason("The key is `report` in every version.", found),
        ),
        post="the-low-level-api",
    ),
    # Values
    Situation(
        slug="none",
        topic=VALUE,
        title="A value that is None",
        view=plain.discount,
        calls=(plain.find_discount,),
        steps=(Ask("/discount/"), Ask("/discount/")),
        reasons=(
            Reason("A stored None can’t be told from a miss.", found_and_built),
            Reason("None is stored, and `get_or_set` takes it for a value.", found),
            Reason("None is not stored.", nothing_stored),
        ),
        post="the-low-level-api",
    ),
    Situation(
        slug="timeout-0",
        topic=VALUE,
        title="`timeout=0`",
        view=plain.unlasting_report,
        steps=(Ask("/report/"), Ask("/report/")),
        reasons=(
            Reason("0 means that the value never expires.", found),
            Reason("0 means the default timeout, 300 seconds.", stored_for(300)),
            Reason("0 means: don’t store.", nothing_stored),
        ),
        post="the-low-level-api",
    ),
    Situation(
        slug="touch",
        topic=VALUE,
        title="`touch` after the timeout",
        view=plain.minute_report,
        steps=(Ask("/report/"), Do(plain.wait_a_minute), Do(plain.touch), Ask("/report/")),
        reasons=(
            Reason("`touch` gives the entry another 300 seconds.", found),
            Reason(
                "`touch` finds no entry and returns False.",
                both(between_said("False"), entry_is_gone),
            ),
            Reason("`touch` stores None at the key.", found_and_built),
        ),
        post="the-low-level-api",
    ),
)
BY_SLUG = {situation.slug: situation for situation in SITUATIONS}
