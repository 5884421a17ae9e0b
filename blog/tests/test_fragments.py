"""Level 3, template fragments: /archive/ and /archive/<year>/<month>/."""

import re
from datetime import UTC, datetime
from unittest import mock

from django.contrib.auth.models import User
from django.test import tag

from blog.models import Comment, CommentQuerySet, Post, PostQuerySet
from blog.tests import CacheTestCase

NAME = re.compile(r"template\.cache\.(\w+)\.")


class FragmentTestCase(CacheTestCase):
    url = "/archive/"

    @classmethod
    def setUpTestData(cls):
        cls.post = cls.make_post("keys")
        cls.older = cls.make_post("hashes", published_at=datetime(2026, 2, 1, tzinfo=UTC))
        cls.make_comment(cls.post, author="Grace")

    def fragments(self, name="*"):
        """Return the keys of the stored fragments called `name`."""
        return self.keys("fragment", f"fragment:1:template.cache.{name}.*")


class FragmentInRedisTests(FragmentTestCase):
    """What Redis holds of the archive: database 3, and keys that begin with `fragment`."""

    def test_three_fragments_are_stored(self):
        self.client.get(self.url)

        names = sorted(NAME.search(key)[1] for key in self.fragments())
        self.assertEqual(names, ["archive_discussed", "archive_month", "archive_months"])

    def test_their_keys_have_the_prefix_fragment(self):
        self.client.get(self.url)

        for key in self.keys("fragment"):
            with self.subTest(key):
                self.assertTrue(key.startswith("fragment:"))

    def test_each_has_a_timeout_of_its_own(self):
        self.client.get(self.url)

        for name, timeout in (
            ("archive_months", 600),
            ("archive_month", 86400),
            ("archive_discussed", 60),
        ):
            (key,) = self.fragments(name)
            with self.subTest(name):
                self.assertLessEqual(timeout - 5, self.ttl("fragment", key))
                self.assertLessEqual(self.ttl("fragment", key), timeout)

    def test_the_page_around_them_is_not_stored(self):
        self.client.get(self.url)
        self.client.get(self.url)

        for level in ("site", "view", "low-level"):
            with self.subTest(level):
                self.assertEqual(self.keys(level), [])

    def test_a_month_without_posts_stores_nothing(self):
        self.assertEqual(self.client.get("/archive/2025/01/").status_code, 404)

        self.assertEqual(self.stored(), {})

    def test_every_key_has_a_timeout(self):
        self.client.get(self.url)

        for key in self.keys("fragment"):
            with self.subTest(key):
                self.assertGreater(self.ttl("fragment", key), 0)

    def test_an_expired_fragment_is_rendered_again_and_the_others_are_not(self):
        self.client.get(self.url)
        self.redis("fragment").delete(*self.fragments("archive_months"))

        with mock.patch.object(Post, "body_html", side_effect=AssertionError):
            self.client.get(self.url)

        self.assertEqual(len(self.fragments("archive_months")), 1)

    def test_all_months_share_the_list_of_months(self):
        self.client.get("/archive/2026/03/")
        self.client.get("/archive/2026/02/")

        self.assertEqual(len(self.fragments("archive_months")), 1)

    def test_each_month_is_a_fragment_of_its_own(self):
        march = self.client.get("/archive/2026/03/")
        february = self.client.get("/archive/2026/02/")

        self.assertEqual(len(self.fragments("archive_month")), 2)
        self.assertNotEqual(march.content, february.content)

    def test_the_newest_month_is_one_fragment_with_and_without_its_number(self):
        self.make_post("newest", published_at=datetime(2026, 6, 20, tzinfo=UTC))
        self.client.get("/archive/")
        self.client.get("/archive/2026/06/")

        self.assertEqual(len(self.fragments("archive_month")), 1)

    def test_an_edit_makes_a_new_key_for_the_month_and_deletes_none(self):
        self.client.get(self.url)
        before = self.fragments("archive_month")
        self.post.title = "Keys, revised"

        with self.commit():
            self.post.save()
        response = self.client.get(self.url)

        self.assertContains(response, "Keys, revised")
        self.assertLess(set(before), set(self.fragments("archive_month")))

    def test_a_new_version_of_the_posts_makes_a_new_key_for_the_list_of_months(self):
        self.client.get(self.url)
        before = self.fragments("archive_months")

        with self.commit():
            self.post.save()
        self.client.get(self.url)

        self.assertLess(set(before), set(self.fragments("archive_months")))

    def test_an_edit_in_another_month_leaves_this_months_fragment_alone(self):
        self.client.get("/archive/2026/03/")
        before = self.fragments("archive_month")

        with self.commit():
            self.older.save()
        self.client.get("/archive/2026/03/")

        self.assertEqual(self.fragments("archive_month"), before)

    def test_all_readers_who_are_not_staff_share_a_variant(self):
        self.client.get(self.url)
        self.client.force_login(User.objects.create_user("reader"))

        self.client.get(self.url)

        self.assertEqual(len(self.fragments("archive_discussed")), 1)


@tag("behaviour")
class FragmentTests(FragmentTestCase):
    """`{% cache %}`: the page is built each time, its expensive parts are cached."""

    def test_a_miss_counts_months_and_comments(self):
        with mock.patch.object(
            PostQuerySet, "months", autospec=True, side_effect=PostQuerySet.months
        ) as months:
            self.client.get(self.url)

        months.assert_called_once()

    def test_a_hit_computes_no_expensive_part(self):
        self.client.get(self.url)

        with (
            mock.patch.object(PostQuerySet, "months", side_effect=AssertionError),
            mock.patch.object(PostQuerySet, "most_discussed", side_effect=AssertionError),
            mock.patch.object(Post, "body_html", side_effect=AssertionError),
        ):
            response = self.client.get(self.url)

        self.assertContains(response, self.post.title)

    def test_a_hit_runs_two_small_queries(self):
        self.client.get(self.url)

        # The newest post, and the last change of each post of its month.
        with self.assertNumQueriesOn("blog_post", 2):
            self.client.get(self.url)

    def test_a_hit_shows_what_the_miss_did(self):
        self.stop_the_clock()
        first = self.client.get(self.url)

        second = self.client.get(self.url)

        self.assertEqual(second.content, first.content)

    def test_a_post_that_leaves_the_month_leaves_its_fragment(self):
        self.make_post("lists", published_at=datetime(2026, 3, 2, tzinfo=UTC))
        with self.commit():
            # The latest change in the month stays the same, so more than that has to count.
            Post.objects.filter(pk=self.post.pk).update(updated_at=datetime(2020, 1, 1, tzinfo=UTC))
        self.client.get(self.url)

        with self.commit():
            self.post.delete()

        self.assertNotContains(self.client.get(self.url), self.post.title)

    def test_a_comment_renders_the_recent_comments_again_for_readers_and_staff(self):
        staff = self.client_class()
        staff.force_login(User.objects.create_user("author", is_staff=True))
        for client in (self.client, staff):
            self.assertNotContains(client.get(self.url), "Edsger")

        self.make_comment(self.post, author="Edsger")

        for client in (self.client, staff):
            self.assertContains(client.get(self.url), "Edsger")

    def test_a_comment_leaves_the_list_of_months_cached(self):
        self.client.get(self.url)
        self.make_comment(self.post)

        with mock.patch.object(PostQuerySet, "months", side_effect=AssertionError):
            self.client.get(self.url)

    def test_staff_get_a_variant_with_links_to_edit(self):
        staff = User.objects.create_user("author", is_staff=True)
        reader = self.client.get(self.url)
        self.client.force_login(staff)

        author = self.client.get(self.url)

        edit = f'href="/admin/blog/comment/{Comment.objects.get().pk}/change/"'
        self.assertContains(author, edit)
        self.assertNotContains(reader, edit)

    def test_all_readers_who_are_not_staff_share_a_fragment(self):
        self.client.get(self.url)
        self.client.force_login(User.objects.create_user("reader"))

        with mock.patch.object(CommentQuerySet, "recent", side_effect=AssertionError):
            self.assertContains(self.client.get(self.url), "Grace")

    # The page around them

    def test_it_greets_a_user_by_name(self):
        self.client.force_login(User.objects.create_user("margaret"))

        self.assertContains(self.client.get(self.url), "margaret")

    def test_it_greets_a_visitor_by_the_name_of_the_last_comment(self):
        comment = {"author": "Radia P.", "body": "Hello."}
        self.client.post("/posts/keys/comment/", comment)
        # The name is there twice: as the author of a recent comment, and in the greeting.
        other = self.client_class().get(self.url)

        response = self.client.get(self.url)

        self.assertEqual(response.content.count(b"Radia P."), other.content.count(b"Radia P.") + 1)

    def test_it_tells_every_cache_on_the_way_to_store_nothing(self):
        response = self.client.get(self.url)

        for directive in ("no-store", "private"):
            self.assertIn(directive, response["Cache-Control"])
        self.assertIn("Cookie", response["Vary"])
