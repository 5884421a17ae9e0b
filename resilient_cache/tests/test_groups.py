"""Groups: one write invalidates any number of entries, after COMMIT where there is one."""

from django.conf import settings
from django.core.cache import cache, caches
from django.db import connection, transaction
from django.http import HttpResponse
from django.template import Context, Template
from django.test import TestCase, TransactionTestCase, override_settings, tag

from resilient_cache import groups
from resilient_cache.groups import group_key, invalidate, invalidate_on_commit, version
from resilient_cache.pages import cache_page
from resilient_cache.tests import runner
from resilient_cache.tests.base import CacheTestCase, CountingView, in_thread
from resilient_cache.tests.server import RedisServer, caches_at, wait_until

LEVELS = ("site", "view", "template_fragments", "default")


class NameTests(CacheTestCase):
    """Any text is the name of a group."""

    names = (
        "posts",
        "post:keys",
        "with some spaces",
        " ",
        "{slug}",
        "{",
        "line\nbreak\ttab\x00\x7f",
        "é 日本 \U0001f600",
        "100%",
        "%41",
        "'quotes\"",
        "x" * 10_000,
        "é" * 10_000,
    )

    def test_a_group_of_any_name_is_invalidated(self):
        for name in self.names:
            with self.subTest(name[:20]):
                before = [version(name, alias) for alias in LEVELS]
                self.assertEqual([version(name, alias) for alias in LEVELS], before)

                invalidate(name)

                after = [version(name, alias) for alias in LEVELS]
                self.assertTrue(set(before).isdisjoint(after))

    def test_two_names_are_two_groups(self):
        names = [*self.names, "x" * 9_999, "x" * 9_999 + "y", "POSTS", "%2541", "A"]

        self.assertEqual(len({group_key(name) for name in names}), len(names))

    def test_keys_of_groups_are_valid_for_memcached(self):
        for name in (*self.names, "/" + "é" * 3000, "/a b/"):
            version(name)

        for key in self.keys("default"):
            self.assertLessEqual(len(key), 250)
            self.assertTrue(all(32 < ord(each) < 127 for each in key), key)

    def test_the_key_of_a_group_reads_as_its_name(self):
        self.assertEqual(group_key("post:keys"), "group:post:keys")
        self.assertEqual(group_key("/tags/a b/"), "group:/tags/a%20b/")
        version("post:keys")
        self.assertEqual(self.keys("default"), ["low-level:1:group:post:keys"])

    def test_a_path_is_one_group_quoted_or_not(self):
        self.assertEqual(group_key("/é/"), group_key("/%C3%A9/"))

    def test_what_is_not_a_name_is_refused_and_nothing_is_invalidated(self):
        before = version("posts")
        for name in ("", None, b"posts", 7, ["posts"], {"posts"}, ("posts",), {}, "\udc80"):
            for call in (group_key, invalidate, invalidate_on_commit, version):
                with self.subTest(name, call=call.__name__), self.assertRaises(ValueError):
                    call(name)
            with self.subTest(name, call="two"), self.assertRaises(ValueError):
                invalidate("posts", name)

        self.assertEqual(version("posts"), before)

    def test_a_url_is_refused_because_its_page_would_not_be_invalidated(self):
        for name in ("/about/?page=2", "/posts/keys/#comment-3", "http://testserver/about/"):
            with self.subTest(name), self.assertRaisesMessage(ValueError, name):
                invalidate(name)

    def test_an_invalidation_leaves_no_key_of_groups_that_have_no_values(self):
        invalidate("posts", "/about/")

        for alias in LEVELS:
            self.assertEqual(self.keys(alias), [])

    def test_no_group_is_no_error(self):
        invalidate()
        invalidate_on_commit()

        self.assertEqual(self.keys("site"), [])


class InvalidateTests(CacheTestCase):
    """invalidate() acts at once, at every alias."""

    def test_a_version_stays_until_its_group_is_invalidated(self):
        first = version("posts")

        self.assertEqual(version("posts"), first)
        invalidate("posts")
        self.assertNotEqual(version("posts"), first)

    def test_other_groups_stay_as_they_are(self):
        before = version("posts")

        invalidate("comments")

        self.assertEqual(version("posts"), before)

    def test_a_version_is_an_int(self):
        self.assertIs(type(version("posts")), int)

    def test_a_version_that_was_evicted_does_not_come_back(self):
        first = version("posts")
        self.empty()

        self.assertNotEqual(version("posts"), first)

    def test_a_value_of_the_low_level_api_is_invalidated_by_its_version(self):
        calls = []

        def read():
            return cache.get_or_set(
                "count", lambda: calls.append(1) or len(calls), 60, version=version("posts")
            )

        self.assertEqual([read(), read()], [1, 1])
        invalidate("posts")
        self.assertEqual([read(), read()], [2, 2])

    def test_a_fragment_is_invalidated_by_the_version_that_it_varies_on(self):
        calls = []
        template = Template(
            "{% load resilient_cache %}{% cache 60 box posts %}{{ build }}{% endcache %}"
        )

        def render():
            return template.render(
                Context(
                    {
                        "posts": lambda: version("posts", "template_fragments"),
                        "build": lambda: calls.append(1) or len(calls),
                    }
                )
            )

        self.assertEqual([render(), render()], ["1", "1"])
        invalidate("posts")
        self.assertEqual([render(), render()], ["2", "2"])

    def test_one_call_takes_several_groups(self):
        before = [version("one"), version("two")]

        invalidate("one", "two")

        self.assertTrue(set(before).isdisjoint([version("one"), version("two")]))

    def test_the_commands_are_as_many_for_100_entries_as_for_10_000(self):
        counts = []
        for number in (100, 10_000):
            self.empty()
            version("posts")
            with runner.server.client(db=1) as client:
                pipeline = client.pipeline(transaction=False)
                for index in range(number):
                    pipeline.set(f"site:1:page:{index}", "x", ex=60)
                pipeline.execute()
            runner.server.command("CONFIG", "RESETSTAT")

            invalidate("posts")

            stats = runner.server.info("commandstats")
            counts.append({name: stat["calls"] for name, stat in stats.items()})
        self.assertEqual(*counts)
        self.assertEqual(counts[0]["cmdstat_del"], len(LEVELS))

    def test_a_foreign_value_in_the_place_of_a_version_is_replaced_by_invalidate(self):
        self.route(CountingView())
        caches["site"].set("group:site", "not a number", 60)

        self.assertEqual([self.body(), self.body()], ["build 1", "build 2"])
        invalidate("site")
        self.assertEqual([self.body(), self.body()], ["build 3", "build 3"])

    def test_a_foreign_value_in_the_place_of_a_version_is_no_version(self):
        for value in ("text", None, 1.5, True, [1]):
            caches["default"].set("group:posts", value, 60)

            with self.subTest(value):
                self.assertIs(type(version("posts")), int)
                self.assertNotEqual(version("posts"), version("posts"))

    def test_bytes_that_cannot_be_read_in_the_place_of_a_version_are_replaced(self):
        self.redis("default").set("low-level:1:group:posts", b"\x80\x04 a pickle")

        self.assertEqual(version("posts"), version("posts"))

    def test_a_list_in_the_place_of_a_version_is_replaced(self):
        self.redis("default").rpush("low-level:1:group:posts", "a", "b")

        self.assertEqual(version("posts"), version("posts"))

    def test_a_failing_alias_of_another_backend_does_not_protect_the_aliases_after_it(self):
        down = {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": "redis://127.0.0.1:1",
        }
        before = version("posts", "view")

        with (
            override_settings(CACHES={"first": down, **settings.CACHES}),
            self.assertRaises(ConnectionError),
        ):
            try:
                invalidate("posts")
            except Exception as error:
                raise ConnectionError from error

        self.assertNotEqual(version("posts", "view"), before)


class TransactionTests(TransactionTestCase):
    """What waits for COMMIT is neither read nor stored by the thread that changed it."""

    def setUp(self):
        super().setUp()
        self.site = CacheTestCase()
        self.site.id = self.id
        self.site.setUp()
        self.addCleanup(self.site.doCleanups)
        self.addCleanup(self.site.tearDown)
        # What the database holds: changed in a transaction, taken back by its rollback.
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE title (text varchar(20))")
            cursor.execute("INSERT INTO title VALUES ('old')")
        self.addCleanup(self.drop)

    def drop(self):
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE title")

    def save(self, text="new"):
        with connection.cursor() as cursor:
            cursor.execute("UPDATE title SET text = %s", [text])
        invalidate_on_commit("posts")

    def title(self):
        with connection.cursor() as cursor:
            cursor.execute("SELECT text FROM title")
            return cursor.fetchone()[0]

    def read(self):
        """Return the title through the low-level cache."""
        return cache.get_or_set("title", self.title, 60, version=version("posts"))

    def test_outside_of_a_transaction_it_is_done_at_once(self):
        self.read()

        self.save()

        self.assertEqual(self.read(), "new")

    def test_a_commit_invalidates(self):
        before = version("posts")

        with transaction.atomic():
            self.save()
            self.assertEqual(in_thread(lambda: version("posts")), before)

        self.assertNotEqual(version("posts"), before)

    def test_a_rollback_invalidates_nothing(self):
        before = version("posts")

        with transaction.atomic():
            self.save()
            transaction.set_rollback(True)

        self.assertEqual(version("posts"), before)

    def test_a_savepoint_that_is_rolled_back_invalidates_nothing(self):
        before = version("posts")

        with transaction.atomic():
            with transaction.atomic():
                self.save()
                transaction.set_rollback(True)
            self.assertEqual(version("posts"), before)

        self.assertEqual(version("posts"), before)

    def test_a_savepoint_that_is_released_invalidates_at_commit(self):
        before = version("posts")

        with transaction.atomic(), transaction.atomic():
            self.save()

        self.assertNotEqual(version("posts"), before)

    def test_what_is_read_before_a_rollback_is_not_shown_to_others(self):
        with transaction.atomic():
            self.save()
            self.assertEqual(self.read(), "new")
            transaction.set_rollback(True)

        self.assertEqual(self.read(), "old")

    def test_within_the_transaction_the_old_value_is_not_read(self):
        self.assertEqual(self.read(), "old")

        with transaction.atomic():
            self.save()
            self.assertEqual(self.read(), "new")

    def test_other_threads_read_and_store_meanwhile(self):
        calls = []

        def other():
            return cache.get_or_set(
                "n", lambda: calls.append(1) or len(calls), 60, version=version("posts")
            )

        with transaction.atomic():
            self.save()
            self.assertEqual([in_thread(other), in_thread(other)], [1, 1])

    def test_a_page_read_before_a_rollback_is_not_shown_to_others(self):
        view = cache_page(300, cache="view", group="posts")(
            lambda request: HttpResponse(self.title())
        )
        self.site.route(view)

        with transaction.atomic():
            self.save()
            self.assertEqual(self.site.body(), "new")
            transaction.set_rollback(True)

        self.assertEqual(self.site.body(), "old")

    def test_a_cached_page_is_not_read_within_the_transaction(self):
        self.site.route(cache_page(300, group="posts")(lambda request: HttpResponse(self.title())))
        self.assertEqual(self.site.body(), "old")

        with transaction.atomic():
            self.save()
            self.assertEqual(self.site.body(), "new")

    def test_pages_of_other_groups_are_read_within_the_transaction(self):
        self.site.route(cache_page(300, group="comments")(CountingView()))
        self.site.body()

        with transaction.atomic():
            self.save()
            self.assertEqual(self.site.body(), "build 1")

    def test_a_page_whose_view_changes_its_own_group_in_a_transaction_is_not_stored(self):
        # As with ATOMIC_REQUESTS: the page is stored before COMMIT.
        def view(request):
            if self.title() == "old":
                self.save()
            return HttpResponse(self.title())

        self.site.route(cache_page(300, cache="view", group="posts")(view))

        with transaction.atomic():
            self.assertEqual(self.site.body(), "new")
            transaction.set_rollback(True)

        with connection.cursor() as cursor:
            cursor.execute("UPDATE title SET text = 'other'")
        self.assertEqual(self.site.body(), "other")

    def test_a_group_is_read_again_after_the_transaction(self):
        with transaction.atomic():
            self.save()

        self.assertEqual(version("posts"), version("posts"))

    def test_the_callbacks_that_a_test_captures_invalidate(self):
        before = version("posts")

        with transaction.atomic():
            with TestCase.captureOnCommitCallbacks(execute=True):
                self.save()
            self.assertNotEqual(version("posts"), before)
            self.assertEqual(version("posts"), version("posts"))


@tag("outage")
class OutageTests(CacheTestCase):
    """An invalidation that Redis did not take is done before Redis is used again."""

    def setUp(self):
        super().setUp()
        self.server = RedisServer().start()
        self.addCleanup(self.server.close)
        self.enterContext(override_settings(CACHES=caches_at(self.server.url, 0.25)))
        self.enterContext(self.assertLogs("resilient_cache", "WARNING"))

    def closed(self):
        return wait_until(lambda: not cache.breaker.is_open)

    def stop(self):
        self.server.hang()
        self.addCleanup(self.server.wake)
        caches["site"].get("x")

    def test_versions_are_fresh_and_different_while_redis_hangs(self):
        self.stop()

        self.assertNotEqual(version("posts"), version("posts"))

    def test_an_invalidation_that_redis_did_not_take_is_done_when_it_is_back(self):
        before = {alias: version("posts", alias) for alias in LEVELS}
        self.stop()

        invalidate("posts")
        self.assertEqual(groups.owed(), {alias: {"group:posts"} for alias in LEVELS})
        self.server.wake()
        self.assertTrue(self.closed())

        self.assertEqual(groups.owed(), {})
        for alias in LEVELS:
            self.assertNotEqual(version("posts", alias), before[alias])

    def test_a_page_is_built_while_redis_hangs_and_tells_browsers_the_same(self):
        self.route(CountingView())
        self.stop()

        first, second = self.get(), self.get()

        self.assertEqual([first.text, second.text], ["build 1", "build 2"])
        self.assertEqual(second["Cache-Control"], "no-cache")

    def test_a_page_that_was_invalidated_while_redis_hung_is_not_shown_again(self):
        self.route(CountingView())
        self.body()
        self.stop()

        invalidate(self.path)
        self.server.wake()
        self.assertTrue(self.closed())

        self.assertEqual(self.body(), "build 2")

    def test_more_groups_than_a_process_remembers_empty_the_cache(self):
        self.route(CountingView())
        self.body()
        self.stop()
        self.addCleanup(groups._recent.clear)  # They would empty the cache of other tests, too.

        invalidate(*(f"group {number}" for number in range(1200)))
        self.server.wake()
        self.assertTrue(self.closed())

        self.assertEqual(groups.owed(), {})
        with self.server.client(db=1) as client:
            self.assertEqual(client.keys("site:1:page:*"), [])

    def test_the_groups_of_the_last_minute_are_invalidated_again_after_an_outage(self):
        invalidate("posts")
        before = version("posts")
        self.stop()

        self.server.wake()
        self.assertTrue(self.closed())

        self.assertNotEqual(version("posts"), before)

    def test_a_restart_with_an_old_copy_brings_nothing_back_that_was_just_invalidated(self):
        self.stop()  # Only for the log line that setUp() expects.
        self.server.wake()
        self.assertTrue(self.closed())
        self.route(CountingView())
        self.body()
        self.server.command("SAVE")
        invalidate(self.path)

        self.server.kill()
        self.server.start()

        self.assertEqual(self.body(), "build 2")

    def test_nothing_is_read_from_a_restarted_redis_that_takes_no_invalidation(self):
        self.route(CountingView())
        self.body()
        self.server.command("SAVE")
        invalidate(self.path)

        self.server.kill()
        self.server.start("--min-replicas-to-write", "1")

        self.assertEqual(self.body(), "build 2")

    def test_an_outage_leaves_other_values_however_many_groups_were_invalidated_before(self):
        invalidate(*(f"group {number}" for number in range(1200)))
        self.addCleanup(groups._recent.clear)
        cache.set("mine", "value")
        self.stop()

        self.server.wake()
        self.assertTrue(self.closed())

        self.assertEqual(cache.get("mine"), "value")

    def test_a_full_redis_takes_an_invalidation(self):
        self.route(CountingView())
        before = self.body()
        client = self.enterContext(self.server.client())
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)

        invalidate(self.path)

        self.assertNotEqual(self.body(), before)
        self.assertEqual(groups.owed(), {})
