"""`manage.py check` names what is set up wrongly, and what to do."""

from django.conf import settings
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.checks import Error, run_checks
from django.test import SimpleTestCase, override_settings
from django.urls import include, path, set_script_prefix

from resilient_cache.backend import RedisCache
from resilient_cache.tests import runner
from resilient_cache.tests.base import FETCH, UPDATE

BACKEND = "resilient_cache.backend.RedisCache"
LOCMEM = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
DJANGO = "django.middleware.cache"


class Mine(RedisCache):
    """A backend of a project's own."""


class MySessions(SessionMiddleware):
    """A middleware of a project's own."""


class Urls:
    """A project's URLs with an admin, as far as the check looks."""

    admin = [path("", lambda request: None, name="index")]
    urlpatterns = [path("secret/admin/", include((admin, "admin")))]


class NoUrls:
    """A project's URLs without an admin."""

    urlpatterns = []


def problems():
    """Return what the checks of this package say."""
    return [each for each in run_checks() if str(each.id).startswith("resilient_cache.")]


def redis_at(url, **options):
    return {"BACKEND": BACKEND, "LOCATION": url, "OPTIONS": options}


class CheckTests(SimpleTestCase):
    """Each wrong set-up has one message, which names it, and a hint."""

    def assert_named(self, id_, *words, **wrong):
        with override_settings(**wrong):
            (found,) = problems()
        self.assertEqual(found.id, f"resilient_cache.{id_}")
        for word in words:
            self.assertIn(word, f"{found.msg} {found.hint}")
        self.assertTrue(found.hint)
        return found

    def test_a_good_set_up_has_no_message(self):
        self.assertEqual(problems(), [])
        with override_settings(
            MIDDLEWARE=[UPDATE, "django.middleware.common.CommonMiddleware", FETCH],
            CACHE_MIDDLEWARE_ALIAS="site",
        ):
            self.assertEqual(problems(), [])

    def test_no_cache_of_this_package_has_no_message(self):
        with override_settings(CACHES={"default": LOCMEM}):
            self.assertEqual(problems(), [])

    def test_an_unknown_name_in_the_setting(self):
        found = self.assert_named("E001", "BROWSR", "BROWSER", RESILIENT_CACHE={"BROWSR": 1})

        self.assertIsInstance(found, Error)

    def test_a_setting_that_is_not_a_dict(self):
        for wrong in (None, [], "QUERY"):
            with self.subTest(wrong):
                self.assert_named("E001", "RESILIENT_CACHE", "dict", RESILIENT_CACHE=wrong)

    def test_an_entry_of_the_wrong_type(self):
        for name, takes, *wrong in (
            ("QUERY", "names of parameters", "page", [1], {"page": 1}),
            ("BROWSER", "seconds", "60", -1, 1.5, True),
            ("SKIP_PATHS", "start with /", "/admin/", None, ["admin/"], [1]),
            ("PORTS", "numbers", 8000, "8000", ["x"], [""]),
            ("MAX_WAITING", "threads", "50", None, -1, True),
        ):
            for value in wrong:
                with self.subTest(name, value=value):
                    self.assert_named("E001", name, takes, RESILIENT_CACHE={name: value})

    def test_entries_of_the_types_that_the_readme_names_have_no_message(self):
        for entries in (
            {"QUERY": None, "BROWSER": None, "PORTS": None},
            {"QUERY": [], "BROWSER": 0, "SKIP_PATHS": [], "PORTS": [], "MAX_WAITING": 0},
            {"QUERY": ("page",), "BROWSER": 9, "SKIP_PATHS": ("/a/",), "PORTS": (8000, "8443")},
        ):
            with self.subTest(entries), override_settings(RESILIENT_CACHE=entries):
                self.assertEqual(problems(), [])

    def test_an_option_that_redis_py_does_not_know_in_the_url(self):
        self.assert_named(
            "E002", "'default'", "typo", CACHES={"default": redis_at("redis://h?typo=1")}
        )

    def test_a_url_that_cannot_be_used(self):
        for url in ("", "h:6379", "http://h", "redis://h:port", "redis://h?decode_responses=1"):
            with self.subTest(url):
                self.assert_named("E002", "'default'", CACHES={"default": redis_at(url)})

    def test_a_location_that_is_missing(self):
        self.assert_named("E002", "'default'", CACHES={"default": {"BACKEND": BACKEND}})

    def test_a_host_that_cannot_be_looked_up(self):
        for host in ("a..b", "x" * 70):
            with self.subTest(host):
                caches = {"default": redis_at(f"redis://{host}")}
                self.assert_named("E002", "'default'", CACHES=caches)

    def test_a_limit_of_the_size_that_is_not_a_number(self):
        caches = {"default": redis_at("redis://h", MAX_VALUE_BYTES="5")}

        self.assert_named("E002", "'default'", "MAX_VALUE_BYTES", CACHES=caches)

    def test_an_option_that_the_pool_does_not_know(self):
        caches = {"default": redis_at("redis://h", CONNECTION_POOL_KWARGS={"typo": 1})}

        self.assert_named("E002", "'default'", "typo", CACHES=caches)

    def test_an_option_that_is_no_module(self):
        for name in ("SERIALIZER", "REDIS_CLIENT_CLASS", "CONNECTION_POOL_CLASS"):
            caches = {"default": redis_at("redis://h", **{name: "no.such.Thing"})}
            with self.subTest(name):
                self.assert_named("E002", "'default'", CACHES=caches)

    def test_a_database_that_is_no_number(self):
        self.assert_named("E002", "'default'", CACHES={"default": redis_at("redis://h", db="x")})

    def test_two_prefixes_in_one_database(self):
        one, two = ({**redis_at("redis://h"), "KEY_PREFIX": prefix} for prefix in "ab")

        self.assert_named(
            "W001", "'default', 'two'", "clear()", CACHES={"default": one, "two": two}
        )

    def test_two_numbers_of_databases_have_no_message(self):
        with override_settings(
            CACHES={"default": redis_at("redis://h"), "two": redis_at("redis://h", db=1)}
        ):
            self.assertEqual(problems(), [])

    def test_two_servers_have_no_message(self):
        with override_settings(
            CACHES={"default": redis_at("redis://one"), "two": redis_at("redis://two")}
        ):
            self.assertEqual(problems(), [])

    def test_one_of_the_two_classes_alone(self):
        for there, missing in ((UPDATE, FETCH), (FETCH, UPDATE)):
            with self.subTest(there):
                self.assert_named(
                    "E003", there, missing, MIDDLEWARE=[there], CACHE_MIDDLEWARE_ALIAS="site"
                )

    def test_the_two_classes_in_the_wrong_order(self):
        self.assert_named(
            "E004", UPDATE, FETCH, MIDDLEWARE=[FETCH, UPDATE], CACHE_MIDDLEWARE_ALIAS="site"
        )

    def test_a_middleware_above_whose_vary_header_comes_too_late(self):
        for late in (
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.locale.LocaleMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
            f"{__name__}.MySessions",
        ):
            with self.subTest(late):
                self.assert_named(
                    "W002",
                    late,
                    UPDATE,
                    MIDDLEWARE=[late, UPDATE, FETCH],
                    CACHE_MIDDLEWARE_ALIAS="site",
                )

    def test_a_class_of_django_beside_one_of_this_package(self):
        for mixed in (
            [UPDATE, f"{DJANGO}.FetchFromCacheMiddleware", FETCH],
            [f"{DJANGO}.UpdateCacheMiddleware", UPDATE, FETCH],
        ):
            with self.subTest(mixed):
                self.assert_named("E005", DJANGO, MIDDLEWARE=mixed, CACHE_MIDDLEWARE_ALIAS="site")

    def test_the_two_classes_of_django_have_no_message(self):
        with override_settings(
            MIDDLEWARE=[f"{DJANGO}.UpdateCacheMiddleware", f"{DJANGO}.FetchFromCacheMiddleware"]
        ):
            self.assertEqual(problems(), [])

    def test_an_alias_without_the_backend_under_the_site_level(self):
        self.assert_named(
            "W003",
            "'other'",
            LOCMEM["BACKEND"],
            BACKEND,
            MIDDLEWARE=[UPDATE, FETCH],
            CACHE_MIDDLEWARE_ALIAS="other",
            CACHES={**settings.CACHES, "other": LOCMEM},
        )

    def test_a_subclass_of_the_backend_has_no_message(self):
        mine = {"BACKEND": f"{__name__}.Mine", "LOCATION": f"{runner.server.url}/9"}
        with override_settings(
            MIDDLEWARE=[UPDATE, FETCH],
            CACHE_MIDDLEWARE_ALIAS="mine",
            CACHES={**settings.CACHES, "mine": mine},
        ):
            self.assertEqual(problems(), [])

    def test_an_alias_that_is_missing(self):
        self.assert_named(
            "W003", "'nothing'", MIDDLEWARE=[UPDATE, FETCH], CACHE_MIDDLEWARE_ALIAS="nothing"
        )

    def test_a_middleware_that_is_no_module_is_left_to_django(self):
        with override_settings(MIDDLEWARE=["no.such.Middleware"]):
            self.assertEqual(problems(), [])

    def test_sessions_in_the_cache_alone(self):
        engine = "django.contrib.sessions.backends.cache"
        self.assert_named("W005", "'default'", "cached_db", SESSION_ENGINE=engine)
        for fine in (
            {"SESSION_ENGINE": f"{engine}d_db"},
            {"SESSION_ENGINE": engine, "CACHES": {"default": LOCMEM}},
        ):
            with self.subTest(fine), override_settings(**fine):
                self.assertEqual(problems(), [])

    def test_connections_that_each_request_closes(self):
        self.assert_named("W006", "DJANGO_REDIS_CLOSE", DJANGO_REDIS_CLOSE_CONNECTION=True)
        caches = {"default": redis_at("redis://h", CLOSE_CONNECTION=True)}
        self.assert_named("W006", "CLOSE_CONNECTION", CACHES=caches)
        for fine in (
            {"DJANGO_REDIS_CLOSE_CONNECTION": False},
            {"DJANGO_REDIS_CLOSE_CONNECTION": True, "CACHES": {"default": LOCMEM}},
        ):
            with self.subTest(fine), override_settings(**fine):
                self.assertEqual(problems(), [])


@override_settings(
    INSTALLED_APPS=[*settings.INSTALLED_APPS, "django.contrib.admin"],
    MIDDLEWARE=[UPDATE, FETCH],
    CACHE_MIDDLEWARE_ALIAS="site",
    ROOT_URLCONF=Urls,
    RESILIENT_CACHE={"QUERY": ["page"]},
)
class AdminTests(SimpleTestCase):
    """QUERY without SKIP_PATHS takes the admin's own parameters from it."""

    def test_the_path_of_the_admin_is_named(self):
        (found,) = problems()

        self.assertEqual(found.id, "resilient_cache.W004")
        self.assertIn("/secret/admin/", found.msg)
        self.assertIn("SKIP_PATHS", found.hint)

    def test_with_a_script_name_the_path_is_the_one_below_it(self):
        self.addCleanup(set_script_prefix, "/")
        set_script_prefix("/blog/")

        (found,) = problems()

        self.assertIn("'/secret/admin/'", found.hint)

    def test_an_admin_that_is_left_alone_has_no_message(self):
        for entries in (
            {"QUERY": ["page"], "SKIP_PATHS": ["/secret/"]},
            {"QUERY": None},
            {},
        ):
            with self.subTest(entries), override_settings(RESILIENT_CACHE=entries):
                self.assertEqual(problems(), [])

    def test_without_an_admin_or_the_site_level_there_is_no_message(self):
        for changes in (
            {"INSTALLED_APPS": settings.INSTALLED_APPS[:-1]},
            {"ROOT_URLCONF": NoUrls},
            {"MIDDLEWARE": []},
        ):
            with self.subTest(changes), override_settings(**changes):
                self.assertEqual(problems(), [])
