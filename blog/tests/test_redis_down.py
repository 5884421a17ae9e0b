"""Redis is down, full, or hangs: the blog is slow, not broken."""

import logging
from unittest import mock

from django.conf import settings
from django.contrib.auth.models import User
from django.core.cache import cache, caches
from django.test import SimpleTestCase, override_settings, tag

from blog.models import Comment, Post
from blog.tests import CacheTestCase
from resilient_cache.tests.server import RedisServer, caches_at, wait_until

NOWHERE = "redis://127.0.0.1:1"  # Port 1 is tcpmux, which no machine has run for decades.
TIMEOUT = 2  # Seconds for Redis to answer. A test that hangs Redis waits until they are over.
EVERY_PAGE = (
    *("/", "/?page=1", "/start/", "/posts/", "/cheatsheet/"),
    *("/tags/redis/", "/about/", "/feed/", "/sitemap.xml", "/posts/keys/"),
    *("/archive/", "/archive/2026/03/", "/search/", "/search/?q=keys", "/search/?q=nonsense"),
    *("/posts/keys/comment/", "/admin/login/", "/healthz"),
)


@tag("outage")
class DownTestCase(CacheTestCase):
    def setUp(self):
        super().setUp()
        self.post = self.make_post("keys")
        self.make_comment(self.post)
        # The log lines of the breaker are tested in resilient_cache.
        logger = logging.getLogger("resilient_cache")
        self.enterContext(mock.patch.object(logger, "disabled", True))

    def use(self, url):
        """Let every cache be at `url`."""
        self.enterContext(override_settings(REDIS_URL=url, CACHES=caches_at(url, TIMEOUT)))

    def start_redis(self):
        """Start a Redis to break, and let every cache be there. Return it."""
        server = RedisServer().start()
        self.addCleanup(server.close)
        self.use(server.url)
        return server

    def assertEveryPageAnswers(self):
        for url in EVERY_PAGE:
            with self.subTest(url):
                self.assertEqual(self.client.get(url).status_code, 200)


class RedisDownTests(DownTestCase):
    """REDIS_URL leads nowhere."""

    def setUp(self):
        super().setUp()
        self.use(NOWHERE)

    def test_every_page_answers_200(self):
        self.assertEveryPageAnswers()

    def test_every_page_answers_200_again(self):
        for url in EVERY_PAGE:
            self.client.get(url)

        self.assertEveryPageAnswers()

    def test_every_page_answers_head(self):
        for url in EVERY_PAGE:
            with self.subTest(url):
                self.assertEqual(self.client.head(url).status_code, 200)

    def test_pages_have_their_content(self):
        for url in ("/", "/tags/redis/", "/feed/", "/posts/keys/", "/archive/", "/search/?q=keys"):
            with self.subTest(url):
                self.assertContains(self.client.get(url), "About keys")

    def test_the_browser_still_asks_before_it_shows_its_copy(self):
        for url in ("/", "/posts/keys/"):
            with self.subTest(url):
                self.assertEqual(self.client.get(url)["Cache-Control"], "no-cache")

    def test_pages_have_no_age(self):
        for url in ("/", "/posts/keys/"):
            self.client.get(url)

            self.assertMiss(url)

    def test_a_valid_copy_of_the_browser_is_still_answered_304(self):
        for url in ("/", "/posts/keys/", "/about/"):
            etag = self.client.get(url)["ETag"]

            response = self.client.get(url, headers={"If-None-Match": etag})

            with self.subTest(url):
                self.assertEqual(response.status_code, 304)

    def test_search_finds_and_counts_comments(self):
        (card,) = self.client.get("/search/?q=keys").context["results"]

        self.assertEqual((card["slug"], card["comments"]), ("keys", 1))

    def test_a_comment_is_saved_and_seen(self):
        with self.commit():
            response = self.client.post(
                "/posts/keys/comment/", {"author": "Grace", "body": "Without Redis."}
            )

        self.assertEqual(response.status_code, 302)
        self.assertContains(self.client.get("/posts/keys/"), "Without Redis.")

    def test_there_is_no_limit_on_comments(self):
        for _ in range(8):
            response = self.client.post(
                "/posts/keys/comment/", {"author": "Grace", "body": "Without Redis."}
            )
            self.assertEqual(response.status_code, 302)

        self.assertEqual(Comment.objects.count(), 9)

    def test_a_comment_with_errors_is_still_refused(self):
        response = self.client.post("/posts/keys/comment/", {"author": "", "body": ""})

        self.assertEqual(response.status_code, 400)

    @override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"])
    def test_an_author_logs_in_and_edits(self):
        User.objects.create_superuser("author", password="a password")

        self.client.post("/admin/login/", {"username": "author", "password": "a password"})
        with self.commit():
            fields = {"title": "Keys, revised", "slug": "keys", "summary": "S", "body": "B"}
            fields |= {"published_at_0": "2026-03-01", "published_at_1": "12:00:00"}
            response = self.client.post(f"/admin/blog/post/{self.post.pk}/change/", fields)

        self.assertEqual(response.status_code, 302)
        self.assertContains(self.client.get("/posts/keys/"), "Keys, revised")

    def test_bulk_changes_are_saved(self):
        with self.commit():
            Post.objects.filter(slug="keys").update(title="Keys, revised")
            Post.objects.bulk_create([Post(slug="new", published_at=self.post.published_at)])
            Comment.objects.all().delete()

        self.assertContains(self.client.get("/"), "Keys, revised")

    def test_missing_pages_are_still_404(self):
        for url in ("/nonsense/", "/posts/nonsense/", "/?page=99"):
            with self.subTest(url):
                self.assertEqual(self.client.get(url).status_code, 404)

    def test_healthz_is_200_and_says_down(self):
        self.client.get("/")

        self.assertEqual(self.client.get("/healthz").json()["redis"], "down")

    def test_healthz_says_down_before_any_other_request(self):
        self.assertEqual(self.client.get("/healthz").json()["redis"], "down")


class RedisStoppedTests(DownTestCase):
    """Redis stops while the blog runs."""

    def setUp(self):
        super().setUp()
        redis = self.start_redis()
        for url in EVERY_PAGE:
            self.client.get(url)
        self.assertHit("/posts/keys/")
        redis.kill()

    def test_every_page_answers_200(self):
        self.assertEveryPageAnswers()

    def test_a_comment_is_saved_and_seen(self):
        with self.commit():
            self.client.post("/posts/keys/comment/", {"author": "Grace", "body": "Without Redis."})

        self.assertContains(self.client.get("/posts/keys/"), "Without Redis.")


class RedisFullTests(DownTestCase):
    """Redis refuses new values: reads go on, and no page is wrong."""

    def setUp(self):
        super().setUp()
        self.start_redis()

    def fill(self):
        """Let Redis refuse every write that takes memory."""
        self.redis("site").config_set("maxmemory-policy", "noeviction")
        self.redis("site").config_set("maxmemory", 1)

    def test_every_page_answers_200(self):
        self.fill()

        self.assertEveryPageAnswers()

    def test_a_cached_page_is_still_a_hit(self):
        self.client.get("/posts/keys/")
        self.fill()

        self.assertHit("/posts/keys/")

    def test_an_edit_is_seen_at_once(self):
        urls = ("/", "/tags/redis/", "/posts/keys/", "/archive/", "/search/?q=keys")
        for url in urls:
            self.client.get(url)
        self.fill()

        with self.commit():
            Post.objects.filter(slug="keys").update(title="Keys, revised")

        for url in urls:
            with self.subTest(url):
                self.assertContains(self.client.get(url), "Keys, revised")


class RedisBackTests(DownTestCase):
    """Redis hangs and comes back with all that it held before."""

    urls = ("/", "/tags/redis/", "/posts/keys/", "/archive/", "/search/?q=keys")

    def setUp(self):
        super().setUp()
        self.server = self.start_redis()
        for url in self.urls:
            self.client.get(url)
        self.server.hang()
        self.client.get("/")

    def come_back(self):
        """Let Redis answer again, and wait until the breaker has found out."""
        self.server.wake()
        # More than once: a probe that began while Redis hung may still end without an answer.
        self.assertTrue(wait_until(cache.breaker.probe))

    def test_an_edit_in_the_meantime_is_on_every_page(self):
        with self.commit():
            Post.objects.filter(slug="keys").update(title="Keys, revised")
        self.come_back()

        for url in self.urls:
            with self.subTest(url):
                self.assertContains(self.client.get(url), "Keys, revised")

    def test_a_comment_in_the_meantime_is_on_every_page(self):
        with self.commit():
            self.make_comment(self.post, "Grace", "In the meantime.")
        self.come_back()

        self.assertContains(self.client.get("/posts/keys/"), "In the meantime.")
        self.assertContains(self.client.get("/archive/"), "Grace")

    def test_pages_are_cached_again(self):
        self.come_back()
        self.client.get("/posts/keys/")

        self.assertHit("/posts/keys/")


class SessionTests(SimpleTestCase):
    """No session depends on Redis."""

    def test_sessions_are_in_the_database(self):
        self.assertEqual(settings.SESSION_ENGINE, "django.contrib.sessions.backends.db")

    def test_messages_are_not_in_a_cache(self):
        # They are in the session, so in the database.
        storage = "django.contrib.messages.storage.session.SessionStorage"
        self.assertEqual(settings.MESSAGE_STORAGE, storage)


class ClearTests(CacheTestCase):
    """Emptying every cache breaks nothing."""

    def test_clearing_every_cache_logs_no_user_out(self):
        self.client.force_login(User.objects.create_superuser("author"))

        for alias in caches:
            caches[alias].clear()

        self.assertEqual(self.client.get("/admin/").status_code, 200)
