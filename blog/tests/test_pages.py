"""What the pages show, the error pages, and what bad input gets."""

import re
from datetime import UTC, datetime, timedelta
from unittest import mock

from django.contrib.auth.models import User
from django.contrib.staticfiles import finders
from django.contrib.staticfiles.storage import staticfiles_storage
from django.core.exceptions import PermissionDenied
from django.db.models.sql.compiler import SQLCompiler
from django.test import Client, override_settings

from blog.content import written_posts
from blog.models import Post
from blog.tests import CacheTestCase

TOUR = ("/start/", "/posts/", "/cheatsheet/")
CACHED = ("/", *TOUR, "/tags/redis/", "/about/", "/feed/", "/sitemap.xml", "/posts/keys/")
READ_ONLY = CACHED + ("/archive/", "/archive/2026/03/", "/search/", "/search/?q=keys", "/healthz")
PAGES = ("/", *TOUR, "/tags/redis/", "/about/", "/posts/keys/", "/archive/", "/search/?q=keys")


class HomeTests(CacheTestCase):
    """/, the newest posts."""

    @classmethod
    def setUpTestData(cls):
        start = datetime(2026, 1, 1, tzinfo=UTC)
        for number in range(21):
            cls.make_post(f"n-{number}", published_at=start + timedelta(days=number))

    def shown(self, url):
        return [post.slug for post in self.client.get(url).context["posts"]]

    def test_it_shows_ten_posts_the_newest_first(self):
        self.assertEqual(self.shown("/"), [f"n-{number}" for number in range(20, 10, -1)])

    def test_older_posts_are_on_the_next_pages(self):
        self.assertEqual(self.shown("/?page=2"), [f"n-{number}" for number in range(10, 0, -1)])
        self.assertEqual(self.shown("/?page=3"), ["n-0"])

    def test_a_page_leads_to_its_neighbours(self):
        self.assertContains(self.client.get("/"), "?page=2")
        self.assertContains(self.client.get("/?page=2"), "?page=3")
        self.assertNotContains(self.client.get("/?page=3"), "?page=4")

    def test_it_links_to_posts_and_tags(self):
        response = self.client.get("/")

        self.assertContains(response, 'href="/posts/n-20/"')
        self.assertContains(response, 'href="/tags/redis/"')

    def test_it_shows_how_many_comments_a_post_has(self):
        for _ in range(7):
            self.make_comment(Post.objects.get(slug="n-20"))

        self.assertContains(self.client.get("/"), "7 comments")

    def test_drafts_are_not_shown(self):
        self.make_post("draft", title="Unfinished", published_at=None)

        self.assertNotContains(self.client.get("/"), "Unfinished")

    def test_it_shows_what_stands_before_the_first_heading(self):
        response = self.client.get("/")

        self.assertContains(response, "All about n-20.")
        self.assertNotContains(response, "<h2>Why</h2>")

    def test_it_runs_the_same_number_of_queries_for_any_number_of_posts(self):
        with self.assertNumQueries(4):
            self.client.get("/")
        with self.assertNumQueries(4):
            self.client.get("/?page=3")


class TagTests(CacheTestCase):
    """/tags/<slug>/, the posts of a tag."""

    def test_it_shows_the_posts_that_have_the_tag_and_no_other(self):
        self.make_post("keys", tags=["redis"])
        self.make_post("views", tags=["django"])

        response = self.client.get("/tags/redis/")

        self.assertContains(response, "/posts/keys/")
        self.assertNotContains(response, "/posts/views/")

    def test_drafts_are_not_shown(self):
        self.make_post("keys")
        self.make_post("draft", published_at=None)

        self.assertNotContains(self.client.get("/tags/redis/"), "About draft")

    def test_a_tag_that_only_drafts_have_is_not_there(self):
        self.make_post("draft", tags=["secret"], published_at=None)

        self.assertEqual(self.client.get("/tags/secret/").status_code, 404)
        self.assertNotContains(self.client.get("/"), "secret")

    def test_it_has_pages_of_ten_posts(self):
        for number in range(11):
            self.make_post(f"n-{number}")

        self.assertContains(self.client.get("/tags/redis/"), "?page=2")
        self.assertEqual(len(self.client.get("/tags/redis/?page=2").context["posts"]), 1)


class PostTests(CacheTestCase):
    """/posts/<slug>/, a post with its comments."""

    def test_markdown_is_html(self):
        table = "| a | b |\n|---|---|\n| 1 | 2 |"
        self.make_post("keys", body=f"A *word*, a [link](/about/).\n\n{table}")

        response = self.client.get("/posts/keys/")

        self.assertContains(response, "<em>word</em>")
        self.assertContains(response, '<a href="/about/">link</a>')
        self.assertContains(response, "<td>1</td>")

    def test_code_is_highlighted_with_classes_and_no_styles(self):
        self.make_post("keys", body="```python\ndef view(request):\n    return None\n```")

        response = self.client.get("/posts/keys/")

        self.assertContains(response, '<span class="k">def</span>')
        self.assertNotContains(response, "style=")

    def test_code_in_an_unknown_language_is_shown_as_it_is(self):
        self.make_post("keys", body="```nonsense\na < b\n```\n\n```\nplain & simple\n```")

        response = self.client.get("/posts/keys/")

        self.assertContains(response, "a &lt; b")
        self.assertContains(response, "plain &amp; simple")

    def test_raw_html_is_shown_as_text(self):
        self.make_post("keys", body="<script>alert(1)</script>\n\n[x](javascript:alert(2))")

        response = self.client.get("/posts/keys/")

        self.assertContains(response, "&lt;script&gt;alert(1)")
        self.assertNotContains(response, 'href="javascript:')

    def test_it_links_to_its_tags_and_to_the_comment_form(self):
        self.make_post("keys", tags=["redis", "django"])

        response = self.client.get("/posts/keys/")

        for href in ("/tags/redis/", "/tags/django/", "/posts/keys/comment/"):
            self.assertContains(response, f'href="{href}"')

    def test_a_draft_is_404(self):
        self.make_post("draft", published_at=None)

        self.assertEqual(self.client.get("/posts/draft/").status_code, 404)

    def test_an_author_sees_the_same(self):
        self.make_post("draft", published_at=None)
        self.client.force_login(User.objects.create_superuser("author"))

        self.assertEqual(self.client.get("/posts/draft/").status_code, 404)

    def test_a_long_post_takes_longer_to_read(self):
        self.assertEqual(Post(body="word " * 20).reading_minutes(), 1)
        self.assertEqual(Post(body="word " * 1000).reading_minutes(), 5)


class ArchiveTests(CacheTestCase):
    """/archive/ and /archive/<year>/<month>/, all posts by month."""

    @classmethod
    def setUpTestData(cls):
        dates = {"new-year": (2026, 1, 1), "eve": (2025, 12, 31), "march": (2026, 3, 9)}
        for slug, date in dates.items():
            cls.make_post(slug, published_at=datetime(*date, 23, 59, 59, 999999, tzinfo=UTC))

    def months(self):
        return [row["day"].strftime("%Y-%m") for row in Post.objects.published().months()]

    def shown(self, url):
        return sorted(post.slug for post in self.client.get(url).context["posts"]())

    def test_it_opens_with_the_newest_month(self):
        self.assertEqual(self.shown("/archive/"), ["march"])

    def test_it_links_to_each_month_that_has_posts(self):
        response = self.client.get("/archive/")

        self.assertEqual(self.months(), ["2026-03", "2026-01", "2025-12"])
        for month in ("2026/03", "2026/01", "2025/12"):
            self.assertContains(response, f'href="/archive/{month}/"')
        self.assertNotContains(response, "/archive/2026/02/")

    def test_a_month_has_its_posts_and_no_other(self):
        self.assertEqual(self.shown("/archive/2025/12/"), ["eve"])
        self.assertEqual(self.shown("/archive/2026/01/"), ["new-year"])

    def test_the_first_moment_of_a_month_belongs_to_it(self):
        self.make_post("first", published_at=datetime(2026, 1, 1, tzinfo=UTC))

        self.assertEqual(self.shown("/archive/2026/01/"), ["first", "new-year"])
        self.assertEqual(self.shown("/archive/2025/12/"), ["eve"])

    def test_a_month_shows_the_posts_whole(self):
        self.assertContains(self.client.get("/archive/2026/03/"), "<h2>Why</h2>")

    def test_months_count_their_posts_and_the_minutes_of_reading(self):
        self.make_post("long", body="word " * 1000, published_at=datetime(2026, 3, 1, tzinfo=UTC))

        march = Post.objects.published().months()[0]

        self.assertEqual((march["posts"], march["minutes"]), (2, 6))

    def test_drafts_are_not_shown(self):
        self.make_post("draft", published_at=None)

        self.assertNotContains(self.client.get("/archive/"), "About draft")

    def test_it_shows_the_most_discussed_posts_and_the_latest_comments(self):
        post = Post.objects.get(slug="eve")
        for number in range(7):
            self.make_comment(post, author=f"Guest {number}")

        response = self.client.get("/archive/")

        self.assertContains(response, 'href="/posts/eve/')
        for number in (2, 3, 4, 5, 6):
            self.assertContains(response, f"Guest {number}")
        self.assertNotContains(response, "Guest 1")

    def test_five_posts_are_the_most_discussed(self):
        for number in range(6):
            post = self.make_post(f"n-{number}")
            for _ in range(number):
                self.make_comment(post)

        most = Post.objects.published().most_discussed()

        self.assertEqual([post.slug for post in most], ["n-5", "n-4", "n-3", "n-2", "n-1"])

    def test_comments_on_drafts_are_not_shown(self):
        self.make_comment(self.make_post("draft", published_at=None), author="Insider")

        self.assertNotContains(self.client.get("/archive/"), "Insider")

    def test_an_empty_blog_has_an_archive(self):
        Post.objects.all().delete()

        self.assertEqual(self.client.get("/archive/").status_code, 200)

    def test_an_empty_blog_has_no_months(self):
        Post.objects.all().delete()

        self.assertEqual(self.client.get("/archive/2026/03/").status_code, 404)


class EveryPageTests(CacheTestCase):
    """What holds for all pages."""

    urls = (*PAGES, "/posts/keys/comment/", "/nonsense/")

    @classmethod
    def setUpTestData(cls):
        cls.make_comment(cls.make_post("keys"))
        responses = {url: Client().get(url) for url in cls.urls}
        cls.texts = {url: response.text for url, response in responses.items()}
        cls.policies = {url: each["Content-Security-Policy"] for url, each in responses.items()}

    def test_every_page_answers_on_an_empty_blog(self):
        Post.objects.all().delete()

        of_posts = {"/tags/redis/", "/posts/keys/", "/archive/2026/03/"}
        for url in [url for url in READ_ONLY if url not in of_posts]:
            with self.subTest(url):
                self.assertEqual(self.client.get(url).status_code, 200)

    def test_every_page_leads_to_the_others(self):
        for url, text in self.texts.items():
            with self.subTest(url):
                for href in ("/", *TOUR, "/archive/", "/search/", "/about/"):
                    self.assertIn(f'href="{href}"', text)

    def test_every_link_within_the_blog_works(self):
        links = set()
        for url, text in self.texts.items():
            with self.subTest(url):
                links |= set(re.findall(r'href="(/[^"#]*)', text))

        # The posts of blog/content/, which the pages lead to, are seeded, and tested there.
        links -= {f"/posts/{fields['slug']}/" for fields in written_posts()}
        for href in links:
            if not href.startswith(("/static/", "/admin/")):
                with self.subTest(href):
                    self.assertEqual(self.client.get(href).status_code, 200)

    def test_every_stylesheet_script_and_image_is_there(self):
        for url, text in self.texts.items():
            with self.subTest(url):
                for path in set(re.findall(r'(?:href|src)="/static/([^"]*)"', text)):
                    # In the sources, or collected under a name with its hash.
                    self.assertTrue(finders.find(path) or staticfiles_storage.exists(path), path)

    def test_no_page_loads_anything_from_elsewhere(self):
        for url, text in self.texts.items():
            with self.subTest(url):
                self.assertNotRegex(text, r'<(?:link|script|img)[^>]*(?:href|src)="(?:https?:)?//')

    def test_a_strict_policy_allows_no_inline_script_or_style(self):
        for url, policy in self.policies.items():
            with self.subTest(url):
                self.assertIn("default-src 'self'", policy)
                for word in ("unsafe", "http", "*"):
                    self.assertNotIn(word, policy)

    def test_a_page_from_the_cache_has_the_same_security_headers(self):
        for url in CACHED:
            first, second = self.assertMiss(url), self.assertHit(url)

            for header in (
                "Content-Security-Policy",
                "X-Content-Type-Options",
                "X-Frame-Options",
                "Referrer-Policy",
                "Cross-Origin-Opener-Policy",
            ):
                with self.subTest(url, header=header):
                    self.assertIn(header, first)
                    self.assertEqual(second[header], first[header])

    def test_no_page_has_inline_script_or_style(self):
        for url, text in self.texts.items():
            with self.subTest(url):
                self.assertNotRegex(text, r"(?i)<style|\sstyle=|\son\w+=|javascript:")
                self.assertNotRegex(text, r"(?i)<script(?![^>]*\ssrc=)")

    def test_no_page_shows_template_code(self):
        for url, text in self.texts.items():
            with self.subTest(url):
                self.assertNotRegex(text, r"\{#|#\}|\{%|%\}|\{\{|\}\}")

    def test_every_page_has_a_title_a_language_and_one_main_heading(self):
        for url, text in self.texts.items():
            with self.subTest(url):
                self.assertRegex(text, r"<title>\s*\S[^<]*</title>")
                self.assertRegex(text, r'<html[^>]* lang="en"')
                self.assertEqual(len(re.findall(r"<h1[ >]", text)), 1)

    def test_an_address_without_its_slash_leads_to_the_one_with_it(self):
        tour = [url.rstrip("/") for url in TOUR]
        for url in (*tour, "/about", "/posts/keys", "/tags/redis", "/archive", "/feed", "/search"):
            with self.subTest(url):
                response = self.client.get(url)
                self.assertRedirects(response, f"{url}/", 301, fetch_redirect_response=False)

    def test_healthz_says_that_redis_is_up(self):
        response = self.client.get("/healthz")

        self.assertEqual(response.status_code, 200)
        self.assertEqual(response.json()["redis"], "up")


class ErrorPageTests(CacheTestCase):
    """400, 403, 404 and 500."""

    @classmethod
    def setUpTestData(cls):
        cls.make_post("keys")

    def assertErrorPage(self, response, status):
        """Assert that it is a page of the blog's own, with a way out."""
        self.assertEqual(response.status_code, status)
        self.assertContains(response, 'href="/"', status_code=status)
        self.assertContains(response, "Cached four times", status_code=status)
        self.assertEqual(self.pages("site") + self.pages("view"), [])

    def test_a_missing_page_is_404(self):
        for url in ("/nonsense/", "/posts/nonsense/", "/tags/nonsense/", "/?page=99"):
            with self.subTest(url):
                self.assertErrorPage(self.client.get(url), 404)

    def test_403_for_a_form_without_a_token(self):
        client = Client(enforce_csrf_checks=True)

        with self.assertLogs("django.security.csrf"):
            self.assertErrorPage(client.post("/posts/keys/comment/", {"body": "x"}), 403)

    def test_403_if_a_view_denies_permission(self):
        with mock.patch("blog.views.render", side_effect=PermissionDenied):
            self.assertErrorPage(self.client.get("/about/"), 403)

    def test_an_error_in_a_view_is_500(self):
        self.client.raise_request_exception = False

        with (
            mock.patch("blog.views.render", side_effect=RuntimeError("a secret")),
            self.assertLogs("django.request", "ERROR"),
        ):
            response = self.client.get("/about/")

        self.assertErrorPage(response, 500)
        self.assertNotContains(response, "a secret", status_code=500)

    def test_the_500_page_needs_no_database(self):
        self.client.raise_request_exception = False

        with (
            mock.patch.object(SQLCompiler, "execute_sql", side_effect=OSError),
            self.assertLogs("django.request", "ERROR"),
        ):
            response = self.client.get("/")

        self.assertErrorPage(response, 500)

    def test_after_a_500_the_page_is_right_again(self):
        self.client.raise_request_exception = False
        with (
            mock.patch("blog.views.render", side_effect=RuntimeError),
            self.assertLogs("django.request", "ERROR"),
        ):
            self.client.get("/about/")

        self.assertEqual(self.assertMiss("/about/").status_code, 200)

    def test_an_error_page_escapes_the_address(self):
        response = self.client.get("/<script>alert(1)</script>/")

        self.assertNotContains(response, "<script>alert", status_code=404)


class BadInputTests(CacheTestCase):
    """Bad input is never a 500."""

    @classmethod
    def setUpTestData(cls):
        cls.make_post("keys")

    def statuses(self, urls, method="get", **extra):
        return {url: getattr(self.client, method)(url, **extra).status_code for url in urls}

    def assertStatus(self, status, urls, **extra):
        self.assertEqual(self.statuses(urls, **extra), dict.fromkeys(urls, status))

    def test_an_unknown_slug_tag_or_path_is_404(self):
        self.assertStatus(
            404,
            [
                *("/posts/nonsense/", "/posts/keys/nonsense/", "/posts/1/", "/tags/nonsense/"),
                *("/tags/", "/nonsense/", "/feed/nonsense/", "/posts/Keys/", "/.env", "/wp-admin/"),
            ],
        )

    def test_an_unknown_page_number_is_404(self):
        numbers = ["0", "-1", "2", "999999", "9999999999999999999999", "01", "1.0", "1e0", "abc"]
        numbers += ["", "%20", "%2B1", "+1", "1%20", "%EF%BC%91", "%D9%A1", "%00", "%0A1", "last"]
        for url in ("/", "/tags/redis/"):
            self.assertStatus(404, [f"{url}?page={number}" for number in numbers])
        # Without a list that goes on, there is no second page.
        for url in (*TOUR, "/about/", "/feed/", "/sitemap.xml"):
            self.assertStatus(404, [f"{url}?page={number}" for number in numbers])

    def test_page_1_is_there(self):
        self.assertStatus(200, [f"{url}?page=1" for url in CACHED])

    def test_an_unknown_month_is_404(self):
        self.assertStatus(
            404,
            [
                f"/archive/{month}/"
                for month in (
                    *("2026/04", "2025/03", "2026/13", "2026/00", "2026/3", "2026/003", "2026"),
                    *("0000/01", "0001/01", "9999/12", "9999/99", "10000/01", "2999/12", "1000/01"),
                    *("-2026/03", "2026/-3", "abc/03", "2026/ab", "２０２６/03", "2026/03/01"),
                )
            ],
        )

    def test_a_wrong_method_is_405(self):
        for method in ("post", "put", "patch", "delete"):
            with self.subTest(method):
                self.assertStatus(405, READ_ONLY, method=method)

    def test_a_wrong_method_says_which_are_right(self):
        for url in READ_ONLY:
            with self.subTest(url):
                self.assertEqual(self.client.post(url)["Allow"], "GET, HEAD")

    def test_a_wrong_method_stores_nothing(self):
        self.empty_caches()
        for method in ("post", "put", "patch", "delete", "options"):
            self.statuses(CACHED, method=method)

        self.assertEqual(self.stored(), {})

    def test_nul_in_a_path_is_404(self):
        self.assertStatus(
            404, ["/posts/ke%00ys/", "/tags/%00/", "/%00", "/archive/2026/0%00/", "/search/%00/"]
        )

    def test_nul_in_a_query_is_answered(self):
        self.assertStatus(200, ["/search/?q=%00", "/search/?q=ke%00ys", "/posts/keys/?x=%00"])
        self.assertStatus(404, ["/?page=%00", "/?page=1%00"])
        self.assertNotContains(self.client.get("/search/?q=ke%00ys"), "\0")

    def test_invalid_utf_8_in_a_path_is_404(self):
        # The test client takes a path apart as a server does: percent-decoded bytes.
        self.assertStatus(404, ["/posts/%FF%FE/", "/tags/%C3%28/", "/%80", "/archive/%F0%28/01/"])

    def test_invalid_utf_8_in_a_query_is_answered(self):
        self.assertStatus(200, ["/search/?q=%FF%FE", "/search/?q=%C3%28keys", "/?x=%FF", "/?%FF=1"])
        self.assertStatus(404, ["/?page=%FF", "/tags/redis/?page=%C3%28"])

    def test_raw_bytes_in_a_query_are_answered(self):
        for query in ("q=\xff\xfe", "q=\0", "page=\xff", "\xff", "&=;", "=", "%", "%%%"):
            for url in ("/search/", "/", "/posts/keys/"):
                with self.subTest(url, query=query):
                    response = self.client.get(url, QUERY_STRING=query)
                    self.assertIn(response.status_code, (200, 404))

    def test_lone_surrogates_in_a_query_are_answered(self):
        self.assertStatus(200, ["/search/?q=%ED%A0%80", "/search/?q=%ED%BF%BF&x=%ED%A0%80"])

    def test_a_search_of_10_000_characters_is_answered(self):
        for query in ("x" * 10_000, "word " * 2_000, "é" * 10_000, "%" * 10_000, "\0" * 10_000):
            with self.subTest(query[:10]):
                response = self.client.get("/search/", {"q": query})
                self.assertEqual(response.status_code, 200)
                self.assertLess(len(response.content), 20_000)

    def test_a_search_for_signs_only_is_answered(self):
        for query in ("!", "'", '"', "%", "_", "*", "<>", "\\", "' OR 1=1 --", "🦊", "ﬁ", "\u202e"):
            with self.subTest(query):
                self.assertEqual(self.client.get("/search/", {"q": query}).status_code, 200)

    def test_a_search_given_twice_is_answered(self):
        self.assertStatus(200, ["/search/?q=a&q=b", "/search/?q[]=a", "/search/?q"])

    def test_more_parameters_than_django_reads_are_400(self):
        query = "&".join(f"p{number}=1" for number in range(1001))

        for url in ("/", "/posts/keys/", "/search/"):
            with self.subTest(url), self.assertLogs("django.security"):
                self.assertEqual(self.client.get(f"{url}?{query}").status_code, 400)

    def test_a_long_path_is_404(self):
        for prefix in ("/posts/", "/tags/", "/"):
            with self.subTest(prefix):
                self.assertEqual(self.client.get(f"{prefix}{'x' * 10_000}/").status_code, 404)

    def test_a_huge_header_is_answered(self):
        for name in ("User-Agent", "Cookie", "Referer", "Accept-Language", "X-Whatever"):
            for value in ("x" * 100_000, "a=" + "b" * 100_000, "a=b; " * 20_000):
                with self.subTest(name):
                    response = self.client.get("/", headers={name: value})
                    self.assertEqual(response.status_code, 200)

    def test_broken_conditional_headers_are_answered(self):
        for headers in (
            {"If-None-Match": '"'},
            {"If-None-Match": "*"},
            {"If-None-Match": "x" * 10_000},
            {"If-Modified-Since": "yesterday"},
            {"If-Modified-Since": "Thu, 99 Foo 9999 99:99:99 GMT"},
            {"If-Match": '"other"'},
            {"If-Unmodified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"},
            {"Range": "bytes=0-1"},
            {"Accept": "nonsense"},
        ):
            for url in CACHED:
                with self.subTest(url, headers=headers):
                    self.assertIn(
                        self.client.get(url, headers=headers).status_code, (200, 304, 412)
                    )

    def test_broken_cookies_are_answered(self):
        for cookie in (
            "sessionid=\0",
            "visitor=",
            "=;=;",
            "visitor=%00:x",
            "csrftoken=é",
            ";" * 999,
        ):
            for url in ("/", "/archive/", "/posts/keys/comment/"):
                with self.subTest(url, cookie=cookie):
                    response = self.client_class().get(url, headers={"Cookie": cookie})
                    self.assertEqual(response.status_code, 200)

    def test_a_path_with_two_slashes_leads_to_no_other_site(self):
        for url in ("//elsewhere.example/about", "//about", "/posts//comment/"):
            with self.subTest(url):
                response = self.client.get("/", PATH_INFO=url)
                self.assertIn(response.status_code, (301, 404))
                self.assertFalse(response.get("Location", "/").startswith("//"))

    @override_settings(DEBUG=True)
    def test_bad_input_is_not_a_500_with_debug(self):
        urls = ["/?page=abc", "/posts/%FF/", "/archive/2026/13/", "/search/?q=%00"]

        self.assertLess(max(self.statuses(urls).values()), 500)
