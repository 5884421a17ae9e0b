"""The page cache: what is a hit, what is stored, and what the client is told."""

from http import HTTPStatus

from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.http import HttpResponse, StreamingHttpResponse
from django.middleware.csrf import get_token
from django.test import Client, override_settings
from django.urls import reverse
from django.utils import timezone, translation
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import cache_control
from django.views.decorators.cache import never_cache as django_never_cache
from django.views.decorators.vary import vary_on_cookie, vary_on_headers

from resilient_cache.groups import invalidate
from resilient_cache.pages import cache_page, never_cache
from resilient_cache.tests.base import FETCH, UPDATE, CacheTestCase, CountingView

SESSION = "django.contrib.sessions.middleware.SessionMiddleware"

CONDITIONAL = "django.middleware.http.ConditionalGetMiddleware"


class HitTests(CacheTestCase):
    """A page is built once, at either level."""

    def test_the_second_request_for_a_page_of_the_site_is_a_hit(self):
        self.route(view := CountingView())

        bodies = [self.body(), self.body()]

        self.assertEqual(bodies, ["build 1", "build 1"])
        self.assertEqual(view.calls, 1)

    def test_the_second_request_for_a_decorated_view_is_a_hit(self):
        view = CountingView()
        self.route(cache_page(300, cache="view")(view))

        bodies = [self.body(), self.body()]

        self.assertEqual(bodies, ["build 1", "build 1"])
        self.assertEqual(view.calls, 1)

    def test_a_hit_is_one_command_to_redis(self):
        self.route(CountingView())
        self.body()
        before = self.commands("site")

        self.body()

        self.assertEqual(self.commands("site") - before, 1)

    def commands(self, alias):
        """Return how many commands Redis has run, without the ones that ask for this."""
        stats = self.redis(alias).info("commandstats")
        ignored = ("cmdstat_info", "cmdstat_hello", "cmdstat_select", "cmdstat_client")
        return sum(s["calls"] for name, s in stats.items() if not name.startswith(ignored))

    def test_two_urls_are_two_pages(self):
        self.route(CountingView(), "/one/")
        self.route(CountingView(), "/two/")

        self.body("/one/")
        self.body("/two/")

        self.assertEqual(len(self.keys("site", "*:?:page:*")), 2)

    def test_a_hit_has_the_status_headers_and_body_of_the_miss(self):
        self.route(CountingView(X_Custom="kept", Content_Type="text/plain; charset=latin-1"))

        miss, hit = self.get(), self.get()

        self.assertEqual((hit.status_code, hit.content), (miss.status_code, miss.content))
        self.assertEqual(
            {k: v for k, v in hit.headers.items() if k != "Age"}, dict(miss.headers.items())
        )

    def test_a_post_is_answered_by_the_view_each_time_and_stores_nothing(self):
        self.route(view := CountingView())

        for _ in range(2):
            Client().post(self.path)

        self.assertEqual(view.calls, 2)
        self.assertEqual(self.keys("site"), [])

    def test_a_post_to_a_decorated_view_stores_nothing_at_either_level(self):
        view = CountingView()
        self.route(cache_page(300, cache="view")(view))

        for _ in range(2):
            Client().post(self.path)

        self.assertEqual(view.calls, 2)
        self.assertEqual(self.keys("site") + self.keys("view"), [])

    def test_a_post_leaves_the_page_of_get_alone(self):
        self.route(CountingView())
        self.body()

        Client().post(self.path)

        self.assertEqual(self.body(), "build 1")

    def test_the_default_alias_is_used_where_a_decorated_view_names_none(self):
        self.route(cache_page(300)(CountingView()))

        self.body()

        self.assertEqual(len(self.keys("default", "*:?:page:*")), 1)

    def test_the_timeout_of_a_decorated_view_is_the_ttl_of_its_page(self):
        self.route(cache_page(300, cache="view")(CountingView()))

        self.body()

        ttl = self.redis("view").ttl(self.page_key("view"))
        self.assertIn(ttl, range(290, 301))

    @override_settings(CACHE_MIDDLEWARE_SECONDS=77)
    def test_the_timeout_of_the_site_is_a_setting(self):
        self.route(CountingView())

        self.body()

        self.assertIn(self.redis("site").ttl(self.page_key()), range(70, 78))

    def test_the_max_age_of_the_view_is_the_timeout_at_the_site(self):
        self.route(cache_control(max_age=33)(CountingView()))

        self.body()

        self.assertIn(self.redis("site").ttl(self.page_key()), range(28, 34))

    def test_a_page_with_max_age_0_is_not_stored(self):
        self.route(view := cache_control(max_age=0)(CountingView()))

        bodies = [self.body(), self.body()]

        self.assertEqual(bodies, ["build 1", "build 2"])
        self.assertIsNotNone(view)

    def test_a_timeout_of_0_stores_nothing(self):
        self.route(cache_page(0, cache="view")(CountingView()))

        self.assertEqual([self.body(), self.body()], ["build 1", "build 2"])

    def test_a_decorated_function_that_gets_no_request_says_so(self):
        view = cache_page(60)(CountingView())

        with self.assertRaisesMessage(TypeError, "didn't receive an HttpRequest"):
            view(object())


class HeaderTests(CacheTestCase):
    """What a cached page tells browsers."""

    def site_headers(self):
        self.route(CountingView())
        return self.get(), self.get()

    def test_browsers_ask_for_a_page_of_the_site_each_time_on_miss_and_hit(self):
        miss, hit = self.site_headers()

        self.assertEqual(miss["Cache-Control"], "no-cache")
        self.assertEqual(hit["Cache-Control"], "no-cache")
        self.assertNotIn("Expires", miss)
        self.assertNotIn("Expires", hit)

    def test_browsers_ask_for_a_decorated_view_each_time_on_miss_and_hit(self):
        self.route(cache_page(300, cache="view")(CountingView()))

        self.assertEqual([self.get()["Cache-Control"] for _ in "12"], ["no-cache"] * 2)

    def test_the_public_and_max_age_of_a_view_become_no_cache(self):
        self.route(cache_page(300)(CountingView(Cache_Control="public, max-age=100")))

        self.assertEqual([self.get()["Cache-Control"] for _ in "12"], ["no-cache"] * 2)

    @override_settings(RESILIENT_CACHE={"BROWSER": 60})
    def test_browsers_may_show_their_copy_for_the_seconds_in_the_setting(self):
        miss, hit = self.site_headers()

        self.assertEqual(miss["Cache-Control"], "max-age=60")
        self.assertEqual(hit["Cache-Control"], "max-age=60")
        self.assertNotIn("Expires", hit)

    def test_browsers_may_show_their_copy_for_the_seconds_that_a_view_says(self):
        self.route(cache_page(300, browser=60)(CountingView()))

        self.assertEqual([self.get()["Cache-Control"] for _ in "12"], ["max-age=60"] * 2)

    @override_settings(RESILIENT_CACHE={"BROWSER": None}, CACHE_MIDDLEWARE_SECONDS=77)
    def test_browser_none_says_what_django_says(self):
        miss, hit = self.site_headers()

        self.assertEqual(miss["Cache-Control"], "max-age=77")
        self.assertIn("Expires", miss)
        self.assertEqual(hit["Expires"], miss["Expires"])

    def test_a_hit_tells_its_age_and_a_miss_does_not(self):
        miss, hit = self.site_headers()

        self.assertNotIn("Age", miss)
        self.assertRegex(hit["Age"], r"^\d+$")

    @override_settings(RESILIENT_CACHE={"BROWSER": 60})
    def test_a_hit_with_a_max_age_for_browsers_tells_no_age(self):
        _, hit = self.site_headers()

        self.assertNotIn("Age", hit)

    def test_a_hit_has_an_etag(self):
        miss, hit = self.site_headers()

        self.assertEqual(hit["ETag"], miss["ETag"])

    def test_the_etag_of_the_view_stays(self):
        self.route(CountingView(ETag='"mine"'))

        self.assertEqual([self.get()["ETag"] for _ in "12"], ['"mine"'] * 2)

    def test_the_last_modified_of_the_view_stays(self):
        date = "Wed, 21 Oct 2015 07:28:00 GMT"
        self.route(CountingView(Last_Modified=date))

        self.assertEqual([self.get()["Last-Modified"] for _ in "12"], [date] * 2)

    def test_head_is_told_what_get_is_told_on_a_miss(self):
        self.route(CountingView())

        head = Client().head(self.path)

        self.assertEqual(head["Cache-Control"], "no-cache")

    def test_a_status_that_is_not_stored_keeps_the_headers_of_the_view(self):
        self.route(CountingView(status=404, Cache_Control="max-age=5"))

        self.assertEqual(self.get()["Cache-Control"], "max-age=5")


class ConditionalTests(CacheTestCase):
    """Django's ConditionalGetMiddleware works above the cache."""

    middleware = [CONDITIONAL, UPDATE, FETCH]

    def test_a_hit_with_the_known_etag_is_a_304(self):
        self.route(CountingView())
        etag = self.get()["ETag"]

        again = self.get(headers={"If-None-Match": etag})

        self.assertEqual(again.status_code, HTTPStatus.NOT_MODIFIED)
        self.assertEqual(again.content, b"")

    def test_a_miss_answered_by_a_304_is_stored(self):
        self.route(view := CountingView())
        etag = self.get()["ETag"]
        self.empty()
        view.calls = 0

        self.get(headers={"If-None-Match": etag})

        self.assertEqual(self.body(), "build 1")
        self.assertEqual(view.calls, 1)

    def test_an_invalidated_page_is_sent_again(self):
        self.route(CountingView())
        etag = self.get()["ETag"]
        invalidate(self.path)

        again = self.get(headers={"If-None-Match": etag})

        self.assertEqual((again.status_code, again.text), (HTTPStatus.OK, "build 2"))


class HeadTests(CacheTestCase):
    """HEAD reads what GET stored and stores nothing."""

    def test_head_is_answered_by_the_entry_of_get(self):
        self.route(view := CountingView())
        etag = self.get()["ETag"]

        head = Client().head(self.path)

        self.assertEqual(head["ETag"], etag)
        self.assertEqual(view.calls, 1)

    def test_a_head_first_stores_nothing_for_get(self):
        self.route(CountingView())

        Client().head(self.path)

        self.assertEqual(self.keys("site", "*:?:page:*"), [])
        self.assertEqual(self.body(), "build 2")

    def test_a_head_first_to_a_decorated_view_stores_nothing_for_get(self):
        self.route(cache_page(300, cache="view")(CountingView()))

        Client().head(self.path)

        self.assertEqual(self.keys("view", "*:?:page:*"), [])
        self.assertEqual(self.body(), "build 2")

    def test_a_head_first_takes_no_lock(self):
        self.route(lambda request: HttpResponse(" ".join(self.keys("site", "*lock:*"))))

        Client().head(self.path)

        self.assertEqual(self.keys("site", "*lock:*"), [])


class NotStoredTests(CacheTestCase):
    """What must not be shown to others is not stored, and stays as the view said."""

    def assert_not_stored(self, view=None, **headers):
        view = view or CountingView(**headers)
        at = self.route(view, f"{self.path}{len(self.urls.urlpatterns)}/")
        decorated = self.route(cache_page(300, cache="view")(view), f"{at}view/")

        for each in (at, decorated):
            first, second = self.get(each), self.get(each)

            self.assertEqual(first.status_code, second.status_code)
            self.assertEqual(self.keys("site", "*:?:page:*") + self.keys("view", "*:?:page:*"), [])
            for name, value in headers.items():
                self.assertEqual(second[name.replace("_", "-")], value)
        return second

    def test_a_page_that_sets_a_cookie_is_not_stored(self):
        def view(request):
            response = HttpResponse("yours")
            response.set_cookie("id", "1")
            return response

        self.assertIn("id", self.assert_not_stored(view).cookies)

    def test_a_page_that_deletes_a_cookie_is_not_stored(self):
        def view(request):
            response = HttpResponse("bye")
            response.delete_cookie("id")
            return response

        self.assertIn("id", self.assert_not_stored(view).cookies)

    @override_settings(SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies")
    def test_a_page_that_changes_the_session_is_not_stored(self):
        def view(request):
            request.session["seen"] = True
            return HttpResponse("yours")

        with override_settings(MIDDLEWARE=[UPDATE, SESSION, FETCH]):
            self.assertIn("sessionid", self.assert_not_stored(view).cookies)

    @override_settings(SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies")
    def test_a_decorated_view_that_reads_the_session_varies_on_the_cookie(self):
        def view(request):
            return HttpResponse(f"cart of {request.session.get('name')}")

        self.route(cache_page(300, cache="view")(view))
        with override_settings(MIDDLEWARE=[SESSION]):
            for name in ("ada", "bob"):
                session = SessionStore()
                session["name"] = name
                session.save()
                headers = {"Cookie": f"sessionid={session.session_key}"}

                self.assertEqual(self.body(headers=headers), f"cart of {name}")
                self.assertIn("Age", self.get(headers=headers))

    def test_a_page_with_a_csrf_token_is_not_stored(self):
        csrf = "django.middleware.csrf.CsrfViewMiddleware"
        with override_settings(MIDDLEWARE=[UPDATE, csrf, FETCH]):
            response = self.assert_not_stored(lambda request: HttpResponse(get_token(request)))

        self.assertIn("csrftoken", response.cookies)

    def test_a_set_cookie_header_is_not_stored(self):
        self.assert_not_stored(Set_Cookie="id=1")

    def test_private_no_store_and_no_cache_stay_in_any_case_of_letters(self):
        for directive in ("private", "no-store", "no-cache"):
            for text in (directive, directive.title(), directive.upper()):
                with self.subTest(text):
                    self.assert_not_stored(Cache_Control=text)
                with self.subTest(text, others=True):
                    self.assert_not_stored(Cache_Control=f"max-age=60 , {text}")

    def test_directives_with_field_names_stay(self):
        self.assert_not_stored(Cache_Control='no-cache="Set-Cookie"')

    def test_vary_on_everything_is_not_stored(self):
        self.assert_not_stored(Vary="*")
        self.assert_not_stored(Vary="Accept, *")

    def test_streams_are_not_stored(self):
        def view(request):
            return StreamingHttpResponse([b"a", b"b"])

        response = self.assert_not_stored(view)

        self.assertEqual(b"".join(response.streaming_content), b"ab")

    def test_only_200_is_stored(self):
        for status in (201, 204, 206, 301, 302, 304, 400, 403, 404, 410, 429, 500, 503):
            with self.subTest(status):
                self.assert_not_stored(CountingView(status=status))

    def test_a_malformed_max_age_is_not_an_error(self):
        for text in (
            "max-age=abc",
            "max-age='5'",
            'max-age="5"',
            "max-age=",
            "max-age= 5 5",
            "max-age=1.5",
            "max-age=0x10",
            "max-age=-",
            "public, max-age=NaN",
            "max-age=1,max-age=x",
        ):
            with self.subTest(text):
                last = self.assert_not_stored(Cache_Control=text)
                self.assertEqual(last.status_code, HTTPStatus.OK)

    def test_the_expires_of_a_view_with_a_malformed_max_age_stays(self):
        self.assert_not_stored(Cache_Control="max-age=abc", Expires="Thu, 01 Jan 1970 00:00:00 GMT")

    def test_an_endless_max_age_is_not_an_error(self):
        for number in ("9" * 12, "9" * 30, "9" * 400, "9" * 5000):
            for sign in ("", "-"):
                at = self.route(
                    CountingView(Cache_Control=f"max-age={sign}{number}"),
                    f"{self.path}{sign}{len(number)}/",
                )
                with self.subTest(at):
                    self.assertEqual(self.get(at).status_code, HTTPStatus.OK)
                    self.assertEqual(self.get(at).status_code, HTTPStatus.OK)

    def test_a_max_age_without_a_number_is_not_an_error(self):
        self.route(CountingView(Cache_Control="max-age"))

        self.assertEqual(self.get().status_code, HTTPStatus.OK)


class VaryTests(CacheTestCase):
    """A page that varies has an entry for each variant."""

    def test_each_variant_is_built_once(self):
        self.route(vary_on_headers("Accept")(CountingView()))

        html = [self.body(headers={"Accept": "text/html"}) for _ in "12"]
        json = [self.body(headers={"Accept": "application/json"}) for _ in "12"]

        self.assertEqual((html, json), (["build 1"] * 2, ["build 2"] * 2))

    def test_each_variant_of_a_decorated_view_is_built_once(self):
        self.route(cache_page(300, cache="view")(vary_on_headers("Accept")(CountingView())))

        html = [self.body(headers={"Accept": "text/html"}) for _ in "12"]
        json = [self.body(headers={"Accept": "application/json"}) for _ in "12"]

        self.assertEqual((html, json), (["build 1"] * 2, ["build 2"] * 2))

    def test_a_header_that_is_missing_is_a_variant_of_its_own(self):
        self.route(vary_on_headers("Accept")(CountingView()))

        bodies = [self.body(), self.body(headers={"Accept": ""}), self.body()]

        self.assertEqual(bodies, ["build 1", "build 2", "build 1"])

    def test_values_of_two_headers_are_not_mixed_up(self):
        self.route(vary_on_headers("X-One", "X-Two")(CountingView()))

        one = self.body(headers={"X-One": "ab", "X-Two": "c"})
        two = self.body(headers={"X-One": "a", "X-Two": "bc"})

        self.assertNotEqual(one, two)

    def test_two_visitors_see_pages_of_their_own(self):
        self.route(vary_on_cookie(lambda request: HttpResponse(request.COOKIES.get("id", "-"))))
        ann, bob = Client(), Client()
        ann.cookies["id"], bob.cookies["id"] = "ann", "bob"

        bodies = [client.get(self.path).text for client in (ann, bob, ann, bob, Client())]

        self.assertEqual(bodies, ["ann", "bob", "ann", "bob", "-"])

    def test_invalidation_reaches_every_variant(self):
        self.route(vary_on_headers("Accept")(CountingView()))
        accepts = ({"Accept": "a"}, {"Accept": "b"})
        before = [self.body(headers=each) for each in accepts]

        invalidate(self.path)

        after = [self.body(headers=each) for each in accepts]
        self.assertEqual((before, after), (["build 1", "build 2"], ["build 3", "build 4"]))

    def test_the_answer_to_a_request_with_authorization_is_not_stored(self):
        self.route(
            lambda request: HttpResponse(request.headers.get("Authorization", "-")), self.path
        )

        bodies = [self.body(headers={"Authorization": name}) for name in ("ann", "bob", "ann")]

        self.assertEqual(bodies, ["ann", "bob", "ann"])
        self.assertEqual(self.keys("site", "*:?:page:*"), [])

    def test_the_answer_to_a_request_with_authorization_varies_for_other_caches(self):
        self.route(CountingView())

        response = self.get(headers={"Authorization": "ann"})

        self.assertEqual(response["Vary"], "Authorization")

    def test_visitors_without_authorization_do_not_see_the_page_of_one_with_it(self):
        self.route(lambda request: HttpResponse(request.headers.get("Authorization", "-")))

        self.body(headers={"Authorization": "ann"})

        self.assertEqual(self.body(), "-")

    def test_a_variant_has_a_key_of_its_own_behind_the_url(self):
        self.route(vary_on_headers("Accept")(CountingView()))

        self.body()

        base, variant = self.keys("site", "*:?:page:*")
        self.assertRegex(variant.removeprefix(base), r"^\|[0-9a-f]{16}$")


class QueryTests(CacheTestCase):
    """Which query parameters are part of a page."""

    def view(self):
        return lambda request: HttpResponse(
            f"{request.GET.urlencode()} {request.META['QUERY_STRING']} {request.get_full_path()}"
        )

    def bodies(self, *queries):
        return [self.body(f"{self.path}?{query}") for query in queries]

    def test_the_whole_query_counts_by_default(self):
        self.route(CountingView())

        self.assertEqual(
            self.bodies("a=1", "a=2", "a=1&b=2", "a=1"),
            ["build 1", "build 2", "build 3", "build 1"],
        )

    def test_the_whole_query_of_a_decorated_view_counts_by_default(self):
        self.route(cache_page(300)(CountingView()))

        self.assertEqual(self.bodies("a=1", "a=2", "a=1"), ["build 1", "build 2", "build 1"])

    @override_settings(RESILIENT_CACHE={"QUERY": ["page"]})
    def test_other_parameters_reach_neither_key_nor_view(self):
        self.route(self.view())

        one, two = self.bodies("utm=1&page=2&x=3", "page=2&utm=7")

        self.assertEqual(one, f"page=2 page=2 {self.path}?page=2")
        self.assertEqual(two, one)
        self.assertEqual(len(self.keys("site", "*:?:page:*")), 1)

    @override_settings(RESILIENT_CACHE={"QUERY": []})
    def test_no_parameter_reaches_a_page_that_takes_none(self):
        self.route(self.view())

        self.assertEqual(self.bodies("a=1", "page=2"), [f"  {self.path}"] * 2)

    def test_a_decorated_view_names_its_own_parameters(self):
        self.route(cache_page(300, query=("q", "page"))(self.view()))

        one, two = self.bodies("page=1&q=x&utm=1", "utm=2&q=x&page=1")

        self.assertEqual(one, f"q=x&page=1 q=x&page=1 {self.path}?q=x&page=1")
        self.assertEqual(two, one)

    def test_a_decorated_view_may_take_no_parameters(self):
        self.route(cache_page(300, query=())(self.view()))

        self.assertEqual(self.bodies("a=1", ""), [f"  {self.path}"] * 2)

    def test_of_a_parameter_given_twice_the_last_value_counts(self):
        self.route(cache_page(300, query=["page"])(self.view()))

        self.assertEqual(len(set(self.bodies("page=1&page=2", "page=2"))), 1)

    def test_an_empty_value_is_not_a_missing_one(self):
        self.route(cache_page(300, query=["page"])(self.view()))

        self.assertEqual(len(set(self.bodies("page=", ""))), 2)

    def test_values_reach_the_view_as_they_were_sent(self):
        view = cache_page(300, query=["q"])(
            lambda request: HttpResponse(request.GET["q"].encode("unicode_escape"))
        )
        self.route(view)
        for sent, value in (
            ("q=a%26b%3Dc", "a&b=c"),
            ("q=a+b", "a b"),
            ("q=%C3%A9", "é"),
            ("q=é".encode().decode("latin-1"), "é"),  # Not quoted, as curl sends it.
            ("q=%E9", "\ufffd"),
            ("q=%00%0A", "\x00\n"),
        ):
            with self.subTest(sent):
                response = Client().get(self.path, QUERY_STRING=sent)
                self.assertEqual(response.content, value.encode("unicode_escape"))

    def test_a_charset_in_the_content_type_does_not_change_how_the_query_reads(self):
        view = cache_page(300, query=["q"])(lambda request: HttpResponse(request.GET["q"]))
        self.route(view)

        hostile = self.get(f"{self.path}?q=%C3%A9", CONTENT_TYPE="text/plain; charset=utf-16")

        self.assertEqual(hostile.text, "é")
        self.assertEqual(self.body(f"{self.path}?q=%C3%A9"), "é")

    def test_a_charset_in_the_content_type_does_not_poison_the_page_of_others(self):
        self.route(lambda request: HttpResponse(request.GET["q"]))

        self.get(f"{self.path}?q=%C3%A9", CONTENT_TYPE="text/plain; charset=latin-1")

        self.assertEqual(self.body(f"{self.path}?q=%C3%A9"), "é")

    def test_more_parameters_than_django_reads_are_a_bad_request(self):
        self.route(cache_page(300, query=["page"])(CountingView()))

        response = self.get(f"{self.path}?{'a=1&' * 1001}")

        self.assertEqual(response.status_code, HTTPStatus.BAD_REQUEST)

    def test_bytes_that_are_not_quoted_have_no_key_of_another_url(self):
        self.route(lambda request: HttpResponse(request.GET.get("q", "")))

        raw = self.body(QUERY_STRING="q=caf\xc3\xa9")  # As a WSGI server passes on bytes.
        quoted = self.body(f"{self.path}?q=caf%C3%83%C2%A9")

        self.assertEqual((raw, quoted), ("caf\xe9", "caf\xc3\xa9"))

    def test_a_view_of_django_rest_framework_gets_the_named_parameters_alone(self):
        class Request:
            """As that framework's: what it has not itself, it takes from Django's request."""

            def __init__(self, request):
                self._request = request

            def __getattr__(self, name):
                return getattr(self._request, name)

            @property
            def query_params(self):
                return self._request.GET

        @cache_page(300, cache="view", query=("page",))
        def view(request):
            return HttpResponse(f"{dict(request.query_params.items())}")

        self.route(lambda request: view(Request(request)))

        self.assertEqual(self.body(f"{self.path}?q=mine&page=2"), "{'page': '2'}")
        self.assertEqual(self.body(f"{self.path}?q=yours&page=2"), "{'page': '2'}")

    def test_a_text_instead_of_a_list_is_refused(self):
        with self.assertRaisesMessage(ValueError, "['page']"):
            cache_page(300, query="page")


class HostTests(CacheTestCase):
    """A host has one spelling."""

    def view(self):
        return lambda request: HttpResponse(request.build_absolute_uri())

    def bodies(self, *hosts, **extra):
        return [self.body(headers={"Host": host}, **extra) for host in hosts]

    def test_letters_a_trailing_dot_and_the_default_port_make_no_other_page(self):
        self.route(self.view())

        bodies = self.bodies(
            "LOCALHOST", "localhost", "localhost.", "localhost:80", "LocalHost.:0080"
        )

        self.assertEqual(set(bodies), {f"http://localhost{self.path}"})
        self.assertEqual(len(self.keys("site", "*:?:page:*")), 1)

    def test_a_port_of_thousands_of_digits_is_a_port(self):
        self.route(self.view())

        self.assertEqual(self.bodies("localhost:" + 5000 * "0" + "80"), self.bodies("localhost"))

    def test_the_default_port_of_https_is_443(self):
        self.route(self.view())

        bodies = self.bodies("localhost:443", "localhost", secure=True)

        self.assertEqual(set(bodies), {f"https://localhost{self.path}"})

    def test_http_and_https_are_two_pages(self):
        self.route(self.view())

        self.assertEqual(
            [self.body(secure=secure) for secure in (True, False)],
            [f"https://testserver{self.path}", f"http://testserver{self.path}"],
        )

    def test_an_ipv6_address_is_a_host(self):
        self.route(self.view())

        bodies = self.bodies("[::1]", "[::1]:80", "[::1]:8000")

        self.assertEqual(
            bodies, [f"http://[::1]{self.path}"] * 2 + [f"http://[::1]:8000{self.path}"]
        )

    def test_two_hosts_are_two_pages(self):
        self.route(self.view())

        self.assertEqual(len(set(self.bodies("one.example", "two.example"))), 2)

    @override_settings(USE_X_FORWARDED_HOST=True)
    def test_a_forwarded_host_has_one_spelling_too(self):
        self.route(self.view())

        bodies = [
            self.body(headers={"X-Forwarded-Host": host})
            for host in ("WWW.example.", "www.example")
        ]

        self.assertEqual(bodies, [f"http://www.example{self.path}"] * 2)
        self.assertEqual(len(self.keys("site", "*:?:page:*")), 1)

    @override_settings(ALLOWED_HOSTS=["good.example"])
    def test_a_host_that_is_not_allowed_is_a_bad_request_and_stores_nothing(self):
        self.route(self.view())

        response = self.get(headers={"Host": "evil.example"})

        self.assertEqual(response.status_code, HTTPStatus.BAD_REQUEST)
        self.assertEqual(self.keys("site"), [])

    @override_settings(RESILIENT_CACHE={"PORTS": ["8443"]})
    def test_a_page_asked_for_by_another_port_is_built_and_not_stored(self):
        self.route(self.view())

        bodies = self.bodies("localhost:8443", "localhost:1", "localhost", "localhost:1")

        self.assertEqual(bodies[1], f"http://localhost:1{self.path}")
        self.assertEqual(len(self.keys("site", "*:?:page:*")), 2)

    @override_settings(RESILIENT_CACHE={"PORTS": [8443]})
    def test_a_port_may_be_a_number_in_the_setting(self):
        self.route(self.view())

        self.bodies("localhost:8443")

        self.assertEqual(len(self.keys("site", "*:?:page:*")), 1)

    @override_settings(RESILIENT_CACHE={"PORTS": []})
    def test_the_port_of_the_server_itself_counts(self):
        self.route(self.view())

        self.body(headers={"Host": "localhost:8017"}, SERVER_PORT="8017")

        self.assertEqual(len(self.keys("site", "*:?:page:*")), 1)

    def test_any_port_counts_by_default(self):
        self.route(self.view())

        self.bodies("localhost:1", "localhost:2")

        self.assertEqual(len(self.keys("site", "*:?:page:*")), 2)


class KeyTests(CacheTestCase):
    """Keys read as the URLs that they stand for, and are bounded."""

    def assert_good(self, key):
        self.assertLessEqual(len(key), 250)
        self.assertTrue(all(32 < ord(each) < 127 for each in key), key)

    def test_a_key_is_the_url_behind_the_prefix_and_the_version(self):
        self.route(CountingView(), "/about/")

        self.body("/about/?page=2", headers={"Host": "127.0.0.1:8000"})

        self.assertEqual(self.page_key(), "site:1:page:http://127.0.0.1:8000/about/?page=2|en-us")

    @override_settings(USE_I18N=False)
    def test_a_key_is_the_plain_url_without_translations(self):
        self.route(CountingView(), "/about/")

        self.body("/about/")

        self.assertEqual(self.page_key(), "site:1:page:http://testserver/about/")

    @override_settings(CACHE_MIDDLEWARE_KEY_PREFIX="v7", USE_I18N=False)
    def test_the_key_prefix_of_the_setting_stands_before_the_url_at_both_levels(self):
        self.route(CountingView(), "/site/")
        self.route(cache_page(60, cache="view")(CountingView()), "/view/")

        self.body("/site/")
        self.body("/view/")

        self.assertEqual(self.page_key("site"), "site:1:page:v7:http://testserver/site/")
        self.assertEqual(self.page_key("view"), "view:1:page:v7:http://testserver/view/")

    @override_settings(CACHE_MIDDLEWARE_KEY_PREFIX="v7", USE_I18N=False)
    def test_a_decorated_view_may_have_another_key_prefix_or_none(self):
        self.route(cache_page(60, cache="view", key_prefix="mine")(CountingView()), "/mine/")
        self.route(cache_page(60, cache="view", key_prefix="")(CountingView()), "/none/")

        self.body("/mine/")
        self.body("/none/")

        self.assertEqual(
            self.keys("view", "*:?:page:*"),
            ["view:1:page:http://testserver/none/", "view:1:page:mine:http://testserver/mine/"],
        )

    def test_another_key_prefix_makes_another_page(self):
        self.route(CountingView())
        bodies = []
        for prefix in ("old", "new", "old"):
            with override_settings(CACHE_MIDDLEWARE_KEY_PREFIX=prefix):
                bodies.append(self.body())

        self.assertEqual(bodies, ["build 1", "build 2", "build 1"])

    def test_each_language_has_a_page_of_its_own(self):
        def view(request):
            return HttpResponse(translation.get_language())

        self.route(view)
        middleware = [UPDATE, "django.middleware.locale.LocaleMiddleware", FETCH]
        with override_settings(MIDDLEWARE=middleware, LANGUAGES=[("en", "en"), ("de", "de")]):
            bodies = [self.body(headers={"Accept-Language": each}) for each in ("de", "en", "de")]

        self.assertEqual(bodies, ["de", "en", "de"])
        self.assertEqual([key[-3:] for key in self.keys("site", "*:?:page:*")], ["|de", "|en"])

    def test_each_time_zone_has_a_page_of_its_own(self):
        self.route(cache_page(60, cache="view")(CountingView()))

        with timezone.override("Asia/Tokyo"):
            tokyo = self.body()
        chicago = self.body()

        self.assertNotEqual(tokyo, chicago)
        self.assertTrue(any(key.endswith("|Asia/Tokyo") for key in self.keys("view", "*:?:page:*")))

    def test_keys_have_no_spaces_or_control_characters_and_at_most_250_bytes(self):
        view = CountingView()
        self.route(view, "/p/<path:rest>")
        for url in (
            "/p/with space/",
            "/p/é/日本/",
            "/p/" + "x" * 3000,
            "/p/" + "é" * 3000,
            "/p/a?q=" + "y" * 3000,
            "/p/a?q=%00%0a%7f",
            "/p/%00%01",
            "/p/{}|~`'\"<>\\^",
        ):
            self.get(url)
            self.get(url, headers={"Accept": "x"})

        keys = self.keys("site")

        self.assertGreaterEqual(len(keys), 16)
        for key in keys:
            self.assert_good(key)

    def test_a_query_that_is_not_quoted_makes_a_good_key(self):
        self.route(CountingView())
        for query in ("q=a b", "q=\x01\x7f", "q=\xe9", "q=\t\r"):
            Client().get(self.path, QUERY_STRING=query)

        for key in self.keys("site"):
            self.assert_good(key)

    def test_two_long_urls_are_two_pages(self):
        self.route(CountingView(), "/p/<path:rest>")

        bodies = [self.body("/p/" + "x" * 500 + last) for last in "ab"]

        self.assertEqual(len(set(bodies)), 2)

    def test_the_keys_of_variants_of_a_long_url_are_valid_for_memcached(self):
        self.route(vary_on_headers("Accept")(CountingView()), "/p/<path:rest>")

        self.body("/p/" + "x" * 3000)

        for key in self.keys("site"):
            self.assert_good(key)

    def test_paths_that_are_not_stored_leave_keys_for_a_minute_at_most(self):
        self.route(CountingView(status=404), "/p/<path:rest>")
        for number in range(20):
            self.get(f"/p/{number}")
        client = self.redis("site")

        ttls = {key: client.ttl(key) for key in self.keys("site") if key != "site:1:group:site"}

        self.assertGreaterEqual(len(ttls), 20)
        for key, ttl in ttls.items():
            self.assertIn(ttl, range(61), key)

    def test_the_version_of_a_stored_page_lives_longer_than_the_page(self):
        self.route(cache_page(72 * 3600, cache="view", group="g")(CountingView()))

        self.body()

        client = self.redis("view")
        page = client.ttl(self.page_key("view"))
        for key in self.keys("view", "*:group:*"):
            self.assertGreaterEqual(client.ttl(key), page)


class OwnerTests(CacheTestCase):
    """One level owns a page."""

    def test_a_view_that_caches_its_own_page_is_left_alone_by_the_site(self):
        self.route(cache_page(300, cache="view")(CountingView()))

        self.body()
        self.body()

        self.assertEqual(self.keys("site"), [])

    def test_the_site_does_not_store_the_page_that_a_decorator_refused(self):
        self.route(cache_page(300, cache="view")(CountingView(Cache_Control="private")))

        self.body()

        self.assertEqual(self.keys("site"), [])

    def test_a_decorated_method_of_a_class_means_two_owners_that_both_work(self):
        view = CountingView()

        class Page(View):
            @method_decorator(cache_page(300, cache="view", group="mine", browser=None))
            def get(self, request):
                return view(request)

        self.route(Page.as_view())

        self.assertEqual([self.body(), self.body()], ["build 1", "build 1"])
        self.assertTrue(self.keys("view", "*:?:page:*"))
        self.assertTrue(self.keys("site", "*:?:page:*"))
        invalidate(self.path)
        self.assertEqual([self.body(), self.body()], ["build 2", "build 2"])

    def test_the_site_does_not_store_what_a_decorated_method_tells_browsers_to_ask_for(self):
        class Page(View):
            @method_decorator(cache_page(300, cache="view"))
            def get(self, request):
                return HttpResponse("page")

        self.route(Page.as_view())

        self.body()

        self.assertEqual(self.keys("site", "*:?:page:*"), [])

    def test_a_class_with_a_decorated_dispatch_is_left_alone(self):
        @method_decorator(cache_page(300, cache="view"), name="dispatch")
        class Page(View):
            def get(self, request):
                return HttpResponse("page")

        self.route(Page.as_view())

        self.body()

        self.assertEqual(self.keys("site"), [])

    def test_a_decorated_class_view_in_the_urls_is_left_alone(self):
        class Page(View):
            def get(self, request):
                return HttpResponse("page")

        self.route(cache_page(300, cache="view")(Page.as_view()))

        self.body()

        self.assertEqual(self.keys("site"), [])

    def test_never_cache_leaves_the_view_and_its_query_alone(self):
        self.route(never_cache(lambda request: HttpResponse(request.GET["q"])))

        with override_settings(RESILIENT_CACHE={"QUERY": []}):
            response = self.get(f"{self.path}?q=mine", headers={"Host": "LOCALHOST"})

        self.assertEqual(response.text, "mine")
        self.assertIn("no-store", response["Cache-Control"])
        self.assertEqual(self.keys("site"), [])

    def test_the_never_cache_of_django_stores_nothing(self):
        self.route(django_never_cache(CountingView()))

        self.assertEqual([self.body(), self.body()], ["build 1", "build 2"])
        self.assertEqual(self.keys("site", "*:?:page:*"), [])

    @override_settings(RESILIENT_CACHE={"SKIP_PATHS": ["/admin/"], "QUERY": []})
    def test_pages_below_a_skipped_path_are_left_alone(self):
        self.route(lambda request: HttpResponse(request.GET["q"]), "/admin/page/")

        self.assertEqual(self.body("/admin/page/?q=1"), "1")
        self.assertEqual(self.keys("site"), [])

    def test_a_url_without_a_view_is_a_404(self):
        self.assertEqual(self.get("/nothing/").status_code, HTTPStatus.NOT_FOUND)
        self.assertEqual(self.keys("site", "*:?:page:*"), [])

    def test_a_view_called_within_another_of_the_same_alias_is_part_of_its_page(self):
        inner = cache_page(300, cache="view")(CountingView())
        outer = cache_page(300, cache="view")(lambda request: inner(request))
        self.route(outer)

        self.assertEqual([self.body(), self.body()], ["build 1", "build 1"])
        self.assertEqual(self.keys("view", "*lock:*"), [])

    def test_a_view_called_within_another_of_another_alias_works(self):
        inner = cache_page(300, cache="default")(CountingView())
        self.route(cache_page(300, cache="view")(lambda request: inner(request)))

        self.assertEqual([self.body(), self.body()], ["build 1", "build 1"])

    @override_settings(RESILIENT_CACHE={"SKIP_PATHS": ["/"]})
    def test_a_view_may_call_a_cached_view_twice(self):
        part = CountingView()
        cached = cache_page(300, cache="view")(part)
        self.route(lambda request: HttpResponse(cached(request).text + cached(request).text))

        self.assertEqual([self.body(), self.body()], ["build 1build 1", "build 1build 1"])

    @override_settings(RESILIENT_CACHE={"SKIP_PATHS": ["/"]})
    def test_a_view_called_after_a_hit_is_cached_too(self):
        first = cache_page(300, cache="view")(CountingView())
        second = cache_page(300, cache="view", key_prefix="second")(CountingView())
        self.route(lambda request: HttpResponse(f"{first(request).text}, {second(request).text}"))
        self.body()
        self.redis("view").delete(*self.keys("view", "*:page:second:*"))

        self.assertEqual([self.body(), self.body()], ["build 1, build 2", "build 1, build 2"])

    def test_a_page_that_shows_a_hit_is_not_stored_by_the_outer_level(self):
        first = cache_page(300, cache="view")(CountingView())
        second = cache_page(300, cache="view", key_prefix="second")(CountingView())
        self.route(lambda request: HttpResponse(f"{first(request).text}, {second(request).text}"))
        self.body()
        self.redis("site").flushdb()
        self.redis("view").delete(*self.keys("view", "*:page:second:*"))

        self.assertEqual(self.body(), "build 1, build 2")

        self.assertEqual(self.keys("site", "site:?:page:*"), [])


class GroupOfAPageTests(CacheTestCase):
    """Pages are invalidated by their path and by their group."""

    def view(self, group=None, route="/posts/<slug:slug>/", **kwargs):
        view = CountingView()
        self.route(cache_page(300, cache="view", group=group, **kwargs)(view), route, name="post")
        return view

    def test_a_path_invalidates_the_page_at_every_host_and_query(self):
        self.view()
        asked = [
            {"headers": {"Host": host}, "query_params": {"page": page}}
            for host in ("one.example", "two.example:8000")
            for page in "12"
        ]
        for each in asked:
            self.body("/posts/keys/", **each)

        invalidate("/posts/keys/")

        self.assertEqual(
            [self.body("/posts/keys/", **each) for each in asked],
            ["build 5", "build 6", "build 7", "build 8"],
        )

    def test_a_path_leaves_the_pages_at_other_paths_alone(self):
        self.view()
        self.body("/posts/keys/")

        invalidate("/posts/", "/posts/keys", "/posts/other/")

        self.assertEqual(self.body("/posts/keys/"), "build 1")

    def test_a_group_is_named_by_the_arguments_of_the_url(self):
        self.view("post:{slug}")
        self.body("/posts/keys/")
        self.body("/posts/other/")

        invalidate("post:keys")

        self.assertEqual(self.body("/posts/keys/"), "build 3")
        self.assertEqual(self.body("/posts/other/"), "build 2")

    def test_an_argument_may_be_a_number(self):
        self.view("year:{year}", "/archive/<int:year>/")
        self.body("/archive/2026/")

        invalidate("year:2026")

        self.assertEqual(self.body("/archive/2026/"), "build 2")

    def test_every_page_of_the_site_is_in_the_group_site(self):
        self.route(CountingView(), "/one/")
        self.route(CountingView(), "/two/")
        for each in ("/one/", "/two/"):
            self.body(each)

        invalidate("site")

        self.assertEqual([self.body("/one/"), self.body("/two/")], ["build 2", "build 2"])

    def test_a_path_from_reverse_invalidates_a_path_that_is_not_ascii(self):
        self.view(route="/p/<path:rest>")
        for rest in ("é/日本/", "a b/", "100%/", "%41/", "a%2Fb/", "~'()*!/", "ü?x/", "a;b,c=d&e/"):
            with self.subTest(rest):
                url = reverse("post", kwargs={"rest": rest}, urlconf=self.urls)
                before = self.body(url)

                invalidate(url)

                self.assertNotEqual(self.body(url), before)

    def test_a_path_that_is_not_quoted_invalidates_the_page_too(self):
        self.view(route="/p/<path:rest>")
        before = self.body("/p/%C3%A9/")

        invalidate("/p/é/")

        self.assertNotEqual(self.body("/p/%C3%A9/"), before)

    def test_a_group_that_is_not_a_format_of_plain_arguments_is_refused_where_it_is_written(self):
        for group in (
            *(
                "post:{slug.x}",
                "post:{slug[0]}",
                "{}",
                "{0}",
                "{slug!r}",
                "{slug:>9}",
                "{slug:{x}}",
            ),
            *("{", "}", "{slug", "post:{ slug }", "", b"post", 7, ["post"]),
        ):
            with self.subTest(group), self.assertRaises(ValueError):
                cache_page(60, group=group)

    def test_double_braces_are_braces(self):
        self.view("{{post}}:{slug}")
        self.body("/posts/keys/")

        invalidate("{post}:keys")

        self.assertEqual(self.body("/posts/keys/"), "build 2")

    def test_an_argument_that_the_url_lacks_is_named(self):
        self.route(cache_page(60, group="post:{slug}")(CountingView()))

        with self.assertRaisesMessage(ValueError, "'post:{slug}' needs the URL's argument 'slug'"):
            Client().get(self.path)
