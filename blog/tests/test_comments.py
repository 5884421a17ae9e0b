"""Comments: plain text, limited, escaped. The form is never cached."""

import re
from html import escape

from django.core import signing
from django.core.cache import caches
from django.test import Client, override_settings

from blog import caching
from blog.models import Comment
from blog.tests import CacheTestCase


class CommentTestCase(CacheTestCase):
    url = "/posts/keys/comment/"

    @classmethod
    def setUpTestData(cls):
        cls.post = cls.make_post("keys")

    def send(self, author="Ada", body="I see.", client=None, **headers):
        """Send the form, as a visitor does, and commit."""
        with self.commit():
            return (client or self.client).post(
                self.url, {"author": author, "body": body}, headers=headers
            )

    def assertRefused(self, response, status=400):
        self.assertEqual(response.status_code, status)
        self.assertTrue(response.context["form"].errors)
        self.assertEqual(Comment.objects.count(), 0)


class CommentFormTests(CommentTestCase):
    """/posts/<slug>/comment/, a page of its own."""

    def test_the_form_is_reached_from_the_post(self):
        self.assertContains(self.client.get("/posts/keys/"), f'href="{self.url}"')

    def test_get_shows_the_form_with_a_token(self):
        response = self.client.get(self.url)

        self.assertContains(response, 'name="csrfmiddlewaretoken"')
        self.assertContains(response, 'name="author"')
        self.assertContains(response, 'name="body"')

    def test_a_comment_leads_to_its_place_on_the_post(self):
        response = self.send()

        comment = Comment.objects.get()
        self.assertRedirects(response, f"/posts/keys/#comment-{comment.pk}")
        self.assertContains(self.client.get("/posts/keys/"), f'id="comment-{comment.pk}"')

    def test_a_comment_is_on_its_post_at_once(self):
        self.client.get("/posts/keys/")

        self.send("Grace", "A remark on keys.")

        response = self.client.get("/posts/keys/")
        self.assertContains(response, "Grace")
        self.assertContains(response, "A remark on keys.")

    def test_a_comment_is_on_no_other_post(self):
        self.make_post("hashes")

        self.send(body="A remark on keys.")

        self.assertNotContains(self.client.get("/posts/hashes/"), "A remark on keys.")

    def test_comments_stand_in_the_order_they_were_written(self):
        for body in ("The first.", "The second.", "The third."):
            self.make_comment(self.post, body=body)

        self.assertRegex(
            self.client.get("/posts/keys/").content.decode(),
            re.compile("The first.*The second.*The third", re.DOTALL),
        )

    def test_a_post_that_is_missing_or_a_draft_has_no_form(self):
        self.make_post("draft", published_at=None)

        for slug in ("draft", "nonsense"):
            for method in (self.client.get, self.client.post):
                with self.subTest(slug, method=method.__name__):
                    self.assertEqual(method(f"/posts/{slug}/comment/").status_code, 404)

    def test_a_form_without_a_token_is_refused(self):
        with self.assertLogs("django.security.csrf"):
            response = self.send(client=Client(enforce_csrf_checks=True))

        self.assertEqual(response.status_code, 403)
        self.assertEqual(Comment.objects.count(), 0)

    def test_the_token_of_the_form_is_accepted(self):
        client = Client(enforce_csrf_checks=True)
        form = client.get(self.url).content.decode()
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', form)[1]

        fields = {"author": "Ada", "body": "I see.", "csrfmiddlewaretoken": token}
        response = client.post(self.url, fields)

        self.assertEqual(response.status_code, 302)

    def test_the_token_of_another_visitor_is_refused(self):
        form = Client().get(self.url).content.decode()
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', form)[1]
        client = Client(enforce_csrf_checks=True)
        client.get(self.url)

        fields = {"author": "Ada", "body": "I see.", "csrfmiddlewaretoken": token}
        with self.assertLogs("django.security.csrf"):
            response = client.post(self.url, fields)

        self.assertEqual(response.status_code, 403)

    def test_other_fields_are_ignored(self):
        other = self.make_post("hashes")

        self.client.post(
            self.url,
            {"author": "Ada", "body": "I see.", "post": other.pk, "seeded_as": "x", "id": 99},
        )

        comment = Comment.objects.get()
        self.assertEqual((comment.post, comment.seeded_as), (self.post, ""))
        self.assertNotEqual(comment.pk, 99)

    def test_head_shows_nothing_and_stores_nothing(self):
        self.assertEqual(self.client.head(self.url).status_code, 200)
        self.assertEqual(self.stored(), {})

    def test_other_methods_are_405(self):
        for method in ("put", "patch", "delete"):
            with self.subTest(method):
                self.assertEqual(getattr(self.client, method)(self.url).status_code, 405)


class CommentTextTests(CommentTestCase):
    """What a comment may be made of."""

    def test_an_empty_comment_is_a_form_error(self):
        empty = [("", "I see."), ("Ada", ""), ("", ""), ("  ", "I see."), ("Ada", "\n")]
        for author, body in empty:
            with self.subTest(author=author, body=body):
                self.assertRefused(self.send(author, body))

    def test_a_comment_without_any_field_is_a_form_error(self):
        self.assertRefused(self.client.post(self.url, {"other": "field"}))

    def test_an_empty_request_body_is_a_form_error(self):
        response = self.client.post(self.url, b"", content_type="application/x-www-form-urlencoded")

        self.assertRefused(response)

    def test_a_form_error_keeps_what_was_written(self):
        response = self.send("", "A long remark that took an hour.")

        self.assertContains(response, "A long remark that took an hour.", status_code=400)

    def test_a_name_of_60_characters_is_the_longest(self):
        self.assertRefused(self.send("x" * 61))
        self.assertEqual(self.send("x" * 60).status_code, 302)

    def test_a_comment_of_4000_characters_is_the_longest(self):
        self.assertRefused(self.send(body="x" * 4001))
        self.assertEqual(self.send(body="x" * 4000).status_code, 302)

    def test_a_comment_of_a_megabyte_is_a_form_error(self):
        self.assertRefused(self.send(body="x" * 2**20))

    def test_a_request_that_is_larger_than_django_reads_is_400(self):
        with self.assertLogs("django.security"):
            response = self.send(body="x" * 3 * 2**20)

        self.assertEqual(response.status_code, 400)

    def test_markup_is_shown_as_text(self):
        markup = '<script>alert(1)</script><img src=x onerror="alert(2)"> **bold** {{ 7|add:7 }}'
        self.send(markup[:60], markup)

        for url in ("/posts/keys/", "/archive/"):
            with self.subTest(url):
                response = self.client.get(url)
                self.assertContains(response, "&lt;script&gt;")
                self.assertNotContains(response, "<script>alert")
                self.assertNotContains(response, "<img src=x")
                self.assertNotContains(response, "<strong>bold")
                self.assertNotContains(response, ">14<")

    def test_markup_in_a_form_error_is_shown_as_text(self):
        response = self.send('"><script>alert(1)</script>', "")

        self.assertNotContains(response, "<script>alert", status_code=400)

    def test_line_breaks_stay(self):
        self.send(body="The first line.\nThe second line.")

        self.assertRegex(
            self.client.get("/posts/keys/").content.decode(),
            r"The first line\.<br ?/?>\s*The second line\.",
        )

    def test_control_characters_are_a_form_error_or_text(self):
        for character in "\0\1\b\t\n\v\f\r\x1b\x1f\x7f\x85\u200b\u202e\u2028\ufeff\ufffe":
            with self.subTest(character):
                caches["default"].clear()
                response = self.send(f"A{character}da", f"I {character}see.", Client())
                self.assertIn(response.status_code, (302, 400))
        for url in ("/posts/keys/", "/archive/"):
            with self.subTest(url):
                self.assertEqual(self.client.get(url).status_code, 200)

    def test_nul_is_a_form_error(self):
        self.assertRefused(self.send("A\0da"))
        self.assertRefused(self.send(body="I \0see."))

    def test_invalid_utf_8_is_a_form_error_or_text(self):
        response = Client().post(
            self.url,
            b"author=%FF%FE&body=\xff\xfe",
            content_type="application/x-www-form-urlencoded",
        )

        self.assertIn(response.status_code, (302, 400))
        self.assertEqual(self.client.get("/posts/keys/").status_code, 200)

    def test_a_broken_multipart_body_is_400(self):
        for content_type in ("multipart/form-data", "multipart/form-data; boundary=é"):
            with self.subTest(content_type), self.assertLogs("django.request", "WARNING"):
                response = self.client.post(self.url, b"--x", content_type=content_type)
                self.assertEqual(response.status_code, 400)

    def test_names_in_all_scripts_are_shown_as_they_are(self):
        for name in ("Zoë", "Łukasz", "王小明", "Ада", "🦊"):
            with self.subTest(name):
                caches["default"].clear()
                self.assertEqual(self.send(name, client=Client()).status_code, 302)
                self.assertContains(self.client.get("/posts/keys/"), name)


class RememberedNameTests(CommentTestCase):
    """The visitor's browser stores the name, for the next form and the archive's greeting."""

    def test_the_next_form_has_the_name(self):
        self.send("Grace")

        self.assertContains(self.client.get(self.url), 'value="Grace"')

    def test_a_refused_comment_leaves_no_cookie(self):
        self.assertNotIn("visitor", self.send("Grace", "").cookies)

    def test_the_cookie_is_for_this_site_only_and_out_of_reach_of_scripts(self):
        cookie = self.send("Grace").cookies["visitor"]

        self.assertTrue(cookie["httponly"])
        self.assertEqual(cookie["samesite"], "Lax")
        self.assertEqual(cookie["max-age"], 30 * 24 * 60 * 60)
        self.assertFalse(cookie["secure"])

    @override_settings(SESSION_COOKIE_SECURE=True)
    def test_under_https_the_cookie_is_sent_encrypted_only(self):
        self.assertTrue(self.send("Grace").cookies["visitor"]["secure"])

    def test_every_name_fits_into_a_cookie(self):
        # A server sends headers as Latin-1, and fails for what doesn't fit.
        for name in ("Zoë", "Łukasz", "王小明", "🦊", 'a; b="c", d\\e', "é" * 60, "🦊" * 60):
            with self.subTest(name):
                caches["default"].clear()
                client = Client()
                response = self.send(name, client=client)

                header = response.cookies["visitor"].OutputString()
                header.encode("latin-1")
                self.assertLess(len(header), 4096)
                self.assertContains(client.get(self.url), escape(name))

    def test_a_cookie_that_was_tampered_with_is_ignored(self):
        good = signing.get_cookie_signer(salt="visitor").sign("Grace")
        for value in ("Grace", good[:-1], good.replace("Grace", "Mallory"), "x" * 4000, "::", ""):
            self.client.cookies["visitor"] = value
            for url in (self.url, "/archive/"):
                with self.subTest(url, value=value[:60]):
                    response = self.client.get(url)
                    self.assertEqual(response.status_code, 200)
                    self.assertNotContains(response, "Grace")
                    self.assertNotContains(response, "Mallory")


class RateLimitTests(CommentTestCase):
    """Five comments a minute from an address."""

    def send_many(self, number, **headers):
        return [self.send(body=f"Number {n}", **headers).status_code for n in range(number)]

    def test_the_sixth_comment_of_a_minute_is_refused_with_429(self):
        self.assertEqual(self.send_many(6), [302] * 5 + [429])
        self.assertEqual(Comment.objects.count(), 5)

    def test_the_refusal_says_why_and_keeps_what_was_written(self):
        self.send_many(5)

        response = self.send(body="One more remark.")

        self.assertContains(response, "One more remark.", status_code=429)
        self.assertContains(response, "minute", status_code=429)

    def test_after_a_minute_the_next_is_taken(self):
        self.send_many(6)
        (key,) = self.keys("low-level", "*:comments:by:*")
        self.assertLessEqual(self.ttl("low-level", key), 60)

        self.redis("low-level").delete(key)

        self.assertEqual(self.send().status_code, 302)

    def test_trying_again_does_not_make_the_minute_longer(self):
        self.send_many(5)
        (key,) = self.keys("low-level", "*:comments:by:*")
        self.redis("low-level").expire(key, 20)

        self.send()

        self.assertLessEqual(self.ttl("low-level", key), 20)

    def test_another_address_has_a_minute_of_its_own(self):
        self.send_many(6)

        with self.commit():
            fields = {"author": "Ada", "body": "I see."}
            response = self.client.post(self.url, fields, REMOTE_ADDR="192.0.2.7")

        self.assertEqual(response.status_code, 302)

    def test_the_limit_is_for_all_posts_together(self):
        self.make_post("hashes")
        self.send_many(5)

        response = self.client.post("/posts/hashes/comment/", {"author": "Ada", "body": "I see."})

        self.assertEqual(response.status_code, 429)

    def test_a_comment_with_errors_is_not_counted(self):
        for _ in range(10):
            self.send("", "")

        self.assertEqual(self.send_many(5), [302] * 5)

    def test_a_new_browser_does_not_help(self):
        self.send_many(5)

        self.assertEqual(self.send(client=Client()).status_code, 429)

    def test_a_header_that_the_visitor_sends_does_not_help(self):
        statuses = [
            self.send(**{"X-Forwarded-For": f"192.0.2.{number}"}).status_code for number in range(6)
        ]

        self.assertEqual(statuses, [302] * 5 + [429])

    @override_settings(TRUST_PROXY=True)
    def test_behind_a_proxy_its_header_has_the_address(self):
        self.send_many(6, **{"X-Forwarded-For": "192.0.2.1"})

        response = self.send(**{"X-Forwarded-For": "192.0.2.2"})

        self.assertEqual(response.status_code, 302)

    @override_settings(TRUST_PROXY=True)
    def test_behind_a_proxy_what_the_visitor_wrote_before_the_address_counts_for_nothing(self):
        statuses = [
            self.send(**{"X-Forwarded-For": f"198.51.100.{number}, 192.0.2.1"}).status_code
            for number in range(6)
        ]

        self.assertEqual(statuses, [302] * 5 + [429])

    @override_settings(TRUST_PROXY=True)
    def test_behind_a_proxy_without_the_header_the_connections_address_counts(self):
        self.assertEqual(self.send_many(6), [302] * 5 + [429])

    def test_addresses_of_ipv4_on_a_socket_for_both_are_not_one_network(self):
        for number in range(6):
            response = self.client.post(
                self.url, {"author": "A", "body": "B"}, REMOTE_ADDR=f"::ffff:192.0.2.{number}"
            )

        self.assertEqual(response.status_code, 302)

    def test_the_address_itself_is_not_stored(self):
        self.client.post(self.url, {"author": "A", "body": "B"}, REMOTE_ADDR="192.0.2.77")

        for key, value in self.stored().items():
            self.assertNotIn("192.0.2.77", f"{key}={value}")

    def test_the_limit_is_five_in_sixty_seconds(self):
        self.assertEqual((caching.COMMENT_LIMIT, caching.COMMENT_LIMIT_TIMEOUT), (5, 60))
