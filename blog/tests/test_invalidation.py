"""Invalidation: after a change, the next request to any page shows it."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from unittest import mock

from django.contrib.auth.models import User
from django.core.cache import caches
from django.core.management import call_command
from django.db import transaction
from django.test import TransactionTestCase, tag

from blog import caching, rendering, search, views
from blog.models import Comment, Post, PostQuerySet, Tag
from blog.tests import DATABASES, CacheTestCase

SITE = ("/", "/tags/redis/", "/tags/django/", "/feed/", "/sitemap.xml")
VIEW = ("/posts/keys/", "/posts/hashes/")
FRAGMENTS = ("/archive/", "/archive/2026/02/")
LOW_LEVEL = ("/search/?q=keys", "/search/?q=revised")
EVERY_PAGE = SITE + VIEW + FRAGMENTS + LOW_LEVEL


@tag("behaviour")
class InvalidationTestCase(CacheTestCase):
    """A small blog, with every page of it read, so that every page is cached."""

    @classmethod
    def setUpTestData(cls):
        def make_post(slug, tags, *date):
            published_at = datetime(*date, tzinfo=UTC) if date else None
            return cls.make_post(slug, tags, published_at=published_at)

        cls.keys_post = make_post("keys", ["redis"], 2026, 3, 1)
        cls.hashes = make_post("hashes", ["redis", "django"], 2026, 2, 1)
        cls.lists = make_post("lists", [], 2026, 1, 1)
        cls.draft = make_post("draft", ["redis", "drafts"])
        cls.comment = cls.make_comment(cls.keys_post, "Ada", "The first remark.")

    def setUp(self):
        super().setUp()
        self.stop_the_clock()
        self.before = self.fill_once(self.read)

    def read(self, urls=EVERY_PAGE):
        """Read pages, and return {url: what it shows}."""
        return {url: self.show(url) for url in urls}

    def show(self, url):
        response = self.client.get(url)
        if url in LOW_LEVEL:
            # The page also says how often the words were searched for, another number each time.
            return response.context["results"], response.context["related"]
        return response.status_code, response.content.decode()

    def assertRight(self, *changed, urls=None):
        """Assert that these pages changed, and are the same without caches."""
        served = self.read(urls or changed)
        self.empty_caches()
        right = self.read(urls or changed)
        for url in served:
            with self.subTest(url):
                self.assertEqual(served[url], right[url])
        for url in changed:
            with self.subTest(url):
                self.assertNotEqual(served[url], self.before[url], "The change shows nowhere")

    def assertEveryPageIsRight(self, *changed):
        """Assert that each page is the same without caches, and that these pages changed."""
        self.assertRight(*changed, urls=EVERY_PAGE)


class ReadFirstTests(InvalidationTestCase):
    """Before any change: what the tests below start from."""

    def test_every_page_of_a_page_level_is_a_hit(self):
        for url in SITE + VIEW:
            with self.subTest(url):
                self.assertHit(url)

    def test_every_cached_page_is_right(self):
        self.assertEveryPageIsRight()


class PostTests(InvalidationTestCase):
    """An author changes a post."""

    def test_saving_a_post_changes_every_page_that_shows_it(self):
        self.keys_post.title = "Keys, revised"
        self.keys_post.body = "A revised text."

        with self.commit():
            self.keys_post.save()

        shown_on = ("/", "/tags/redis/", "/feed/", "/posts/keys/", *FRAGMENTS[:1], *LOW_LEVEL[1:])
        self.assertEveryPageIsRight(*shown_on)
        for url in shown_on:
            with self.subTest(url):
                self.assertContains(self.client.get(url), "revised")

    def test_saving_single_fields_of_a_post_changes_its_pages(self):
        self.keys_post.title = "Keys, revised"

        with self.commit():
            self.keys_post.save(update_fields=["title", "updated_at"])

        self.assertRight("/", "/posts/keys/", "/search/?q=revised")

    def test_publishing_a_new_post_changes_the_lists(self):
        with self.commit():
            self.make_post("revised", title="Revised")

        self.assertEveryPageIsRight(
            *("/", "/tags/redis/", "/feed/", "/sitemap.xml"),
            *("/archive/", "/archive/2026/02/", "/search/?q=revised"),
        )
        self.assertContains(self.client.get("/"), "/posts/revised/")

    def test_publishing_a_draft_changes_the_lists(self):
        self.draft.published_at = datetime(2026, 3, 3, tzinfo=UTC)

        with self.commit():
            self.draft.save()

        self.assertEveryPageIsRight("/", "/tags/redis/", "/feed/", "/sitemap.xml", "/archive/")
        self.assertEqual(self.client.get("/posts/draft/").status_code, 200)
        self.assertEqual(self.client.get("/tags/drafts/").status_code, 200)

    def test_a_post_that_becomes_a_draft_disappears_everywhere(self):
        self.keys_post.published_at = None

        with self.commit():
            self.keys_post.save()

        self.assertEveryPageIsRight(
            "/", "/tags/redis/", "/feed/", "/sitemap.xml", "/posts/keys/", "/search/?q=keys"
        )
        self.assertEqual(self.client.get("/posts/keys/").status_code, 404)
        self.assertNotContains(self.client.get("/"), "About keys")

    def test_a_deleted_post_disappears_everywhere(self):
        with self.commit():
            self.keys_post.delete()

        self.assertEveryPageIsRight(
            *("/", "/tags/redis/", "/feed/", "/sitemap.xml", "/posts/keys/"),
            *("/archive/", "/archive/2026/02/", "/search/?q=keys"),
        )
        self.assertEqual(self.client.get("/posts/keys/").status_code, 404)

    def test_deleting_the_last_post_of_a_tag_removes_the_tag_page(self):
        with self.commit():
            self.hashes.delete()

        self.assertRight("/tags/django/", "/archive/2026/02/", "/search/?q=keys")
        self.assertEqual(self.client.get("/tags/django/").status_code, 404)

    def test_a_post_with_a_new_slug_moves_to_its_new_address(self):
        self.keys_post.slug = "names"

        with self.commit():
            self.keys_post.save()

        self.assertRight("/", "/tags/redis/", "/feed/", "/posts/keys/", "/archive/")
        self.assertEqual(self.client.get("/posts/keys/").status_code, 404)
        self.assertEqual(self.client.get("/posts/names/").status_code, 200)

    def test_an_address_that_goes_to_another_post_shows_that_post(self):
        with self.commit():
            self.keys_post.slug = "keys-of-old"
            self.keys_post.save()
        with self.commit():
            self.draft.slug, self.draft.published_at = "keys", datetime(2026, 3, 3, tzinfo=UTC)
            self.draft.save()

        self.assertRight("/posts/keys/")
        self.assertContains(self.client.get("/posts/keys/"), "About draft")

    def test_a_post_with_another_date_moves_to_another_month(self):
        self.keys_post.published_at = datetime(2026, 2, 2, tzinfo=UTC)

        with self.commit():
            self.keys_post.save()

        self.assertRight("/", "/archive/", "/archive/2026/02/")
        self.assertEqual(self.client.get("/archive/2026/03/").status_code, 404)

    def test_a_new_post_moves_an_old_one_to_the_second_page(self):
        older = datetime(2026, 1, 1, tzinfo=UTC)
        Post.objects.bulk_create(
            Post(slug=f"old-{n}", title=f"Old {n}", body="x", published_at=older) for n in range(9)
        )
        self.empty_caches()
        self.assertNotContains(self.client.get("/?page=2"), "Old 1")

        with self.commit():
            self.make_post("new")

        self.assertContains(self.client.get("/?page=2"), "Old 1")

    def test_several_changes_in_one_transaction_all_show(self):
        with self.commit(), transaction.atomic():
            self.hashes.delete()
            self.keys_post.title = "Keys, revised"
            self.keys_post.save()
            self.make_comment(self.keys_post)

        self.assertEveryPageIsRight("/", "/posts/keys/", "/posts/hashes/", "/tags/django/")


class TagTests(InvalidationTestCase):
    """An author tags posts, and names tags."""

    def setUp(self):
        super().setUp()
        self.django = Tag.objects.get(slug="django")

    def assertTagged(self, *slugs):
        """Assert that /tags/django/ is right, and shows these posts."""
        self.assertRight("/tags/django/")
        content = self.show("/tags/django/")[1]
        for slug in ("keys", "hashes"):
            with self.subTest(slug):
                self.assertIs(f'href="/posts/{slug}/"' in content, slug in slugs)

    def test_adding_a_tag_to_a_post_changes_the_tag_page(self):
        with self.commit():
            self.keys_post.tags.add(self.django)

        self.assertTagged("keys", "hashes")

    def test_adding_a_post_to_a_tag_changes_the_tag_page(self):
        with self.commit():
            self.django.posts.add(self.keys_post)

        self.assertTagged("keys", "hashes")

    def test_removing_a_tag_from_a_post_changes_the_tag_page(self):
        with self.commit():
            self.hashes.tags.remove(self.django)

        self.assertTagged()

    def test_removing_a_post_from_a_tag_changes_the_tag_page(self):
        with self.commit():
            self.django.posts.remove(self.hashes)

        self.assertTagged()

    def test_clearing_the_tags_of_a_post_changes_the_tag_page(self):
        with self.commit():
            self.hashes.tags.clear()

        self.assertTagged()

    def test_clearing_the_posts_of_a_tag_changes_the_tag_page(self):
        with self.commit():
            self.django.posts.clear()

        self.assertTagged()

    def test_renaming_a_tag_changes_the_pages_that_name_it(self):
        self.django.name = "The web framework"

        with self.commit():
            self.django.save()

        self.assertRight("/", "/tags/django/", "/feed/", "/posts/hashes/")
        for url in ("/", "/tags/django/", "/posts/hashes/"):
            self.assertContains(self.client.get(url), "The web framework")

    def test_a_tag_with_a_new_slug_moves_to_its_new_address(self):
        self.django.slug = "web"

        with self.commit():
            self.django.save()

        self.assertRight("/", "/tags/django/", "/sitemap.xml", "/posts/hashes/")
        self.assertEqual(self.client.get("/tags/django/").status_code, 404)
        self.assertEqual(self.client.get("/tags/web/").status_code, 200)

    def test_deleting_a_tag_changes_the_pages_that_named_it(self):
        with self.commit():
            self.django.delete()

        self.assertEveryPageIsRight("/", "/tags/django/", "/sitemap.xml", "/posts/hashes/")
        self.assertEqual(self.client.get("/tags/django/").status_code, 404)

    def test_a_new_tag_without_posts_shows_nowhere(self):
        with self.commit():
            Tag.objects.create(name="unused", slug="unused")

        self.assertEveryPageIsRight()


class CommentTests(InvalidationTestCase):
    """A reader comments, and an author tidies up."""

    shown_on = ("/posts/keys/", "/archive/", "/archive/2026/02/", "/search/?q=keys", "/")

    def test_a_comment_sent_through_the_form_shows_on_every_page(self):
        with self.commit():
            self.client.post("/posts/keys/comment/", {"author": "Grace", "body": "A new remark."})
        # From here on a visitor without a name, whom the archive doesn't greet by it.
        self.client = self.client_class()

        self.assertEveryPageIsRight(*self.shown_on)
        self.assertContains(self.client.get("/posts/keys/"), "A new remark.")

    def test_saving_a_comment_changes_every_page_that_shows_it(self):
        with self.commit():
            self.make_comment(self.keys_post, "Grace", "A new remark.")

        self.assertRight(*self.shown_on)

    def test_editing_a_comment_changes_its_post(self):
        self.comment.body = "The first remark, edited."

        with self.commit():
            self.comment.save()

        self.assertRight("/posts/keys/")
        self.assertContains(self.client.get("/posts/keys/"), "The first remark, edited.")

    def test_deleting_a_comment_changes_every_page_that_showed_it(self):
        with self.commit():
            self.comment.delete()

        self.assertRight(*self.shown_on)
        self.assertNotContains(self.client.get("/posts/keys/"), "The first remark.")

    def test_a_comment_that_moves_to_another_post_changes_both_posts(self):
        self.comment.post = self.hashes

        with self.commit():
            self.comment.save()

        self.assertRight("/posts/keys/", "/posts/hashes/", "/search/?q=keys")


class BulkTests(InvalidationTestCase):
    """update() and bulk_*() send no signals. The blog's own invalidate all the same."""

    def test_update_of_posts_changes_their_pages(self):
        with self.commit():
            Post.objects.filter(slug="keys").update(title="Keys, revised")

        self.assertEveryPageIsRight(
            "/", "/tags/redis/", "/feed/", "/posts/keys/", "/archive/", "/search/?q=revised"
        )

    def test_update_can_unpublish_posts_and_change_their_slugs(self):
        with self.commit():
            Post.objects.filter(slug="hashes").update(slug="names")
            Post.objects.filter(slug="keys").update(published_at=None)

        self.assertRight("/", *VIEW, "/tags/redis/", "/tags/django/", "/archive/")

    def test_bulk_update_of_posts_changes_their_pages(self):
        self.keys_post.title, self.hashes.title = "Keys, revised", "Hashes, revised"

        with self.commit():
            Post.objects.bulk_update([self.keys_post, self.hashes], ["title"])

        self.assertRight("/", "/tags/django/", *VIEW, "/archive/2026/02/", "/search/?q=revised")

    def test_bulk_create_of_posts_changes_the_lists(self):
        published_at = datetime(2026, 3, 3, tzinfo=UTC)

        with self.commit():
            Post.objects.bulk_create(
                [Post(slug="revised", title="Revised", body="x", published_at=published_at)]
            )

        self.assertEveryPageIsRight("/", "/feed/", "/sitemap.xml", *FRAGMENTS, "/search/?q=revised")

    def test_bulk_create_can_overwrite_posts(self):
        fields = {"title": "Keys, revised", "body": "x", "published_at": self.hashes.published_at}

        with self.commit():
            Post.objects.bulk_create(
                [Post(slug="keys", **fields)],
                update_conflicts=True,
                unique_fields=["slug"],
                update_fields=["title", "body"],
            )

        self.assertRight("/", "/tags/redis/", "/posts/keys/", "/search/?q=revised")

    def test_posts_deleted_by_a_query_disappear_everywhere(self):
        with self.commit():
            Post.objects.filter(slug__in=["keys", "hashes"]).delete()

        self.assertEveryPageIsRight("/", "/tags/redis/", "/tags/django/", *VIEW, *FRAGMENTS)

    def test_update_of_name_and_slug_of_tags_changes_the_pages_that_name_them(self):
        with self.commit():
            Tag.objects.filter(slug="django").update(name="The web framework", slug="web")

        self.assertRight("/", "/tags/django/", "/feed/", "/sitemap.xml", "/posts/hashes/")

    def test_bulk_create_of_comments_changes_every_page_that_shows_them(self):
        with self.commit():
            Comment.objects.bulk_create([Comment(post=self.keys_post, author="G", body="New.")])

        self.assertRight(*CommentTests.shown_on)

    def test_bulk_create_of_comments_may_ignore_conflicts(self):
        # Django learns no primary keys then.
        with self.commit():
            Comment.objects.bulk_create(
                [Comment(post=self.keys_post, author="G", body="New.")], ignore_conflicts=True
            )

        self.assertRight(*CommentTests.shown_on)

    def test_update_of_comments_changes_their_post(self):
        with self.commit():
            Comment.objects.filter(author="Ada").update(body="Edited.")

        self.assertRight("/posts/keys/")

    def test_update_can_move_comments_to_another_post(self):
        with self.commit():
            self.keys_post.comments.update(post=self.hashes)

        self.assertRight("/posts/keys/", "/posts/hashes/", "/search/?q=keys")

    def test_bulk_update_of_comments_changes_their_post(self):
        self.comment.body = "Edited."

        with self.commit():
            Comment.objects.bulk_update([self.comment], ["body"])

        self.assertRight("/posts/keys/")

    def test_comments_deleted_by_a_query_disappear_everywhere(self):
        with self.commit():
            self.keys_post.comments.all().delete()

        self.assertRight(*CommentTests.shown_on)

    def test_update_of_posts_also_sets_updated_at(self):
        before = self.keys_post.updated_at

        Post.objects.filter(slug="keys").update(title="Keys, revised")

        self.keys_post.refresh_from_db()
        self.assertGreater(self.keys_post.updated_at, before)


class AdminTests(InvalidationTestCase):
    """The same changes, made by an author in the admin."""

    def setUp(self):
        super().setUp()
        self.author = self.client_class()
        self.author.force_login(User.objects.create_superuser("author"))

    def send(self, url, **fields):
        """Send an admin form, and make sure that it was accepted."""
        with self.commit():
            response = self.author.post(url, fields)
        if response.status_code == 200:
            self.fail(response.context["errors"])
        self.assertEqual(response.status_code, 302)

    def post_fields(self, post, **changes):
        """Return the fields of the admin's form for `post`."""
        published_at = post.published_at or datetime(2026, 3, 3, tzinfo=UTC)
        fields = {
            "title": post.title,
            "slug": post.slug,
            "summary": post.summary,
            "body": post.body,
            "tags": [tag.pk for tag in post.tags.all()] if post.pk else [],
            "published_at_0": published_at.strftime("%Y-%m-%d"),
            "published_at_1": published_at.strftime("%H:%M:%S"),
        }
        return fields | changes

    def test_changing_title_and_tags_of_a_post_changes_every_page_that_shows_it(self):
        url = f"/admin/blog/post/{self.keys_post.pk}/change/"
        fields = {"title": "Keys, revised", "tags": [Tag.objects.get(slug="django").pk]}

        self.send(url, **self.post_fields(self.keys_post, **fields))

        self.assertRight(
            *("/", "/tags/redis/", "/tags/django/", "/feed/"),
            *("/posts/keys/", "/archive/", "/search/?q=revised"),
        )

    def test_adding_a_post_changes_the_lists(self):
        post = Post(title="Revised", slug="revised", summary="S", body="B")
        tags = [Tag.objects.get(slug="django").pk]

        self.send("/admin/blog/post/add/", **self.post_fields(post, tags=tags))

        self.assertRight("/", "/tags/django/", "/sitemap.xml", "/search/?q=revised")

    def test_a_post_can_lose_its_date_its_tags_and_its_slug_at_once(self):
        fields = {"slug": "names", "tags": [Tag.objects.get(slug="django").pk]}
        fields |= {"published_at_0": "", "published_at_1": ""}
        url = f"/admin/blog/post/{self.keys_post.pk}/change/"

        self.send(url, **self.post_fields(self.keys_post, **fields))

        self.assertRight("/", "/tags/redis/", "/posts/keys/", "/archive/")

    def test_deleting_posts_from_the_list_removes_them_everywhere(self):
        self.send(
            "/admin/blog/post/",
            action="delete_selected",
            _selected_action=[self.keys_post.pk, self.hashes.pk],
            post="yes",
        )

        self.assertRight("/", "/tags/django/", *VIEW, *FRAGMENTS)

    def test_renaming_a_tag_changes_the_pages_that_name_it(self):
        tag = Tag.objects.get(slug="django")

        self.send(f"/admin/blog/tag/{tag.pk}/change/", name="The web framework", slug="web")

        self.assertRight("/", "/tags/django/", "/posts/hashes/", "/sitemap.xml")

    def test_editing_a_comment_changes_its_post(self):
        self.send(
            f"/admin/blog/comment/{self.comment.pk}/change/",
            post=self.keys_post.pk,
            author="Ada",
            body="Edited.",
            created_at_0="2026-03-01",
            created_at_1="12:00:00",
        )

        self.assertRight("/posts/keys/")

    def test_deleting_comments_from_the_list_changes_every_page_that_showed_them(self):
        self.send(
            "/admin/blog/comment/",
            action="delete_selected",
            _selected_action=[self.comment.pk],
            post="yes",
        )

        self.assertRight(*CommentTests.shown_on)


class SurvivalTests(InvalidationTestCase):
    """A change invalidates no page that it can't show on. All of the whole site is one group."""

    def test_an_edit_leaves_the_other_posts_cached(self):
        with self.commit():
            self.keys_post.save()

        self.assertMiss("/posts/keys/")
        self.assertHit("/posts/hashes/")

    def test_a_comment_leaves_the_other_posts_cached(self):
        with self.commit():
            self.make_comment(self.keys_post)

        self.assertMiss("/posts/keys/")
        self.assertHit("/posts/hashes/")

    def test_a_deletion_leaves_the_other_posts_cached(self):
        with self.commit():
            self.keys_post.delete()

        self.assertHit("/posts/hashes/")

    def test_a_new_tag_on_a_post_leaves_the_other_posts_cached(self):
        with self.commit():
            self.keys_post.tags.add(Tag.objects.get(slug="django"))

        self.assertMiss("/posts/keys/")
        self.assertHit("/posts/hashes/")

    def test_a_new_post_on_a_tag_leaves_the_other_posts_cached(self):
        with self.commit():
            Tag.objects.get(slug="django").posts.add(self.keys_post)

        self.assertMiss("/posts/keys/")
        self.assertHit("/posts/hashes/")

    def test_a_comment_leaves_the_search_index_and_the_list_of_months_cached(self):
        with self.commit():
            self.make_comment(self.hashes)

        with (
            mock.patch("blog.search.build_index", side_effect=AssertionError),
            mock.patch.object(PostQuerySet, "months", side_effect=AssertionError),
        ):
            self.client.get("/search/?q=hashes")
            self.client.get("/archive/")

    def test_the_fragment_of_another_month_is_still_used(self):
        with self.commit():
            self.hashes.save()

        with mock.patch.object(rendering, "to_html", side_effect=AssertionError):
            self.client.get("/archive/")

    def test_a_user_who_logs_in_invalidates_no_page(self):
        with self.commit():
            self.client_class().force_login(User.objects.create_user("reader"))

        for url in SITE + VIEW:
            with self.subTest(url):
                self.assertHit(url)

    def test_a_change_that_shows_nowhere_invalidates_no_page(self):
        with self.commit():
            Tag.objects.create(name="unused", slug="unused")
            Post.objects.filter(slug="nonsense").update(title="x")

        for url in SITE + VIEW:
            with self.subTest(url):
                self.assertHit(url)


class CommitTests(InvalidationTestCase):
    """Invalidation waits for COMMIT."""

    def assertNothingInvalidated(self):
        for url in SITE + VIEW:
            with self.subTest(url):
                self.assertHit(url)

    def changes(self):
        """Make a change of each kind."""
        self.keys_post.title = "Keys, revised"
        self.keys_post.save()
        self.hashes.tags.clear()
        Post.objects.filter(slug="hashes").update(title="Hashes, revised")
        Post.objects.bulk_create([Post(slug="new", published_at=self.keys_post.published_at)])
        Comment.objects.create(post=self.keys_post, author="Ada", body="x")
        self.comment.delete()
        Tag.objects.filter(slug="django").delete()

    def test_each_change_waits_for_the_commit(self):
        with self.captureOnCommitCallbacks() as waiting:
            self.changes()

        self.assertGreaterEqual(len(waiting), 7)

    def test_a_change_that_is_rolled_back_invalidates_nothing(self):
        class RollBack(Exception):
            pass

        with self.commit() as waiting, self.assertRaises(RollBack), transaction.atomic():
            self.changes()
            raise RollBack

        self.assertEqual(waiting, [])
        self.assertNothingInvalidated()

    def test_an_admin_form_with_an_error_invalidates_nothing(self):
        author = self.client_class()
        author.force_login(User.objects.create_superuser("author"))

        with self.commit():
            author.post(f"/admin/blog/post/{self.keys_post.pk}/change/", {"title": ""})

        self.assertNothingInvalidated()

    def test_a_comment_with_an_error_invalidates_nothing(self):
        with self.commit():
            self.client.post("/posts/keys/comment/", {"author": "", "body": ""})

        self.assertNothingInvalidated()


@tag("behaviour")
class RealCommitTests(TransactionTestCase):
    """With a real COMMIT, as outside of the tests."""

    assertNoQueries = CacheTestCase.assertNoQueries
    assertHit = CacheTestCase.assertHit
    assertMiss = CacheTestCase.assertMiss
    make_post = CacheTestCase.make_post

    def setUp(self):
        CacheTestCase.empty_caches(self)
        self.post = self.make_post("keys")
        self.client.get("/posts/keys/")

    def get_in_another_thread(self, url):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(self.client.get, url).result()

    def test_other_visitors_get_the_cached_page_until_the_commit(self):
        with transaction.atomic():
            self.post.save()
            self.assertIn("Age", self.get_in_another_thread("/posts/keys/").headers)

        self.assertMiss("/posts/keys/")

    def test_a_rollback_leaves_the_page_cached(self):
        with transaction.atomic():
            self.post.save()
            transaction.set_rollback(True)

        self.assertHit("/posts/keys/")

    def test_a_change_that_is_rolled_back_is_never_shown_to_others(self):
        urls = ("/", "/posts/keys/", "/archive/", "/search/?q=revised")
        with transaction.atomic():
            Post.objects.filter(slug="keys").update(title="Keys, revised")
            for url in urls:
                self.assertContains(self.client.get(url), "Keys, revised")
            transaction.set_rollback(True)

        for url in urls:
            with self.subTest(url):
                self.assertNotContains(self.client.get(url), "Keys, revised")

    def test_a_save_outside_of_any_transaction_invalidates_at_once(self):
        self.post.save()

        self.assertMiss("/posts/keys/")

    def test_a_comment_through_the_form_is_on_the_page_it_leads_to(self):
        response = self.client.post(
            "/posts/keys/comment/", {"author": "Ada", "body": "I see."}, follow=True
        )

        self.assertContains(response, "I see.")


class RaceTests(InvalidationTestCase):
    """A request that began before the commit can't put the old page back."""

    def edit(self):
        """Do what an author and a reader do while another visitor's page is being built."""
        with self.commit():
            Post.objects.filter(slug="keys").update(title="Keys, revised")
            self.make_comment(self.keys_post, "Grace", "A remark in between.")
            self.make_post("between")

    @contextmanager
    def edit_after(self, target, name, edit=None):
        """Let the edit happen right after the first call of `target.name`."""
        original, edits = getattr(target, name), []

        def call(*args, **kwargs):
            result = original(*args, **kwargs)
            if not edits:
                edits.append(1)
                (edit or self.edit)()
            return result

        with mock.patch.object(target, name, call):
            yield
        self.assertEqual(edits, [1])

    @contextmanager
    def edit_before_set_many(self):
        """Let the edit happen once the comments are counted, and before the counts are stored."""
        original, edits = caches["default"].set_many, []

        def set_many(*args, **kwargs):
            if not edits:
                edits.append(1)
                self.edit()
            return original(*args, **kwargs)

        with mock.patch.object(caches["default"], "set_many", set_many):
            yield
        self.assertEqual(edits, [1])

    def test_a_slow_page_of_the_whole_site_is_not_served_after_the_edit(self):
        caches["site"].clear()

        with self.edit_after(views, "render"):
            slow = self.client.get("/")

        self.assertNotContains(slow, "Keys, revised")
        self.assertContains(self.client.get("/"), "Keys, revised")

    def test_a_slow_page_of_a_tag_is_not_served_after_the_edit(self):
        caches["site"].clear()

        with self.edit_after(views, "render"):
            slow = self.client.get("/tags/redis/")

        self.assertNotContains(slow, "Keys, revised")
        self.assertContains(self.client.get("/tags/redis/"), "Keys, revised")

    def test_a_slow_post_is_not_served_after_the_edit(self):
        caches["view"].clear()

        with self.edit_after(views, "render"):
            slow = self.client.get("/posts/keys/")

        self.assertNotContains(slow, "A remark in between.")
        self.assertContains(self.client.get("/posts/keys/"), "A remark in between.")

    def test_a_slow_list_of_months_is_not_served_after_the_edit(self):
        self.empty_caches()

        with self.edit_after(PostQuerySet, "months"):
            self.client.get("/archive/")

        self.assertEveryPageIsRight("/archive/")

    def test_a_slow_list_of_comments_is_not_served_after_the_edit(self):
        self.empty_caches()

        with self.edit_after(Comment, "get_absolute_url"):
            slow = self.client.get("/archive/")

        self.assertNotContains(slow, "Grace")
        self.assertContains(self.client.get("/archive/"), "Grace")

    def test_a_slow_month_is_not_served_after_the_edit(self):
        self.empty_caches()

        with self.edit_after(Post, "body_html"):
            self.client.get("/archive/")

        self.assertContains(self.client.get("/archive/"), "Keys, revised")

    def test_a_post_that_came_while_a_month_was_built_is_gone_once_it_is_deleted(self):
        # The last changes of the month's posts are read before the post comes, the posts after.
        self.empty_caches()
        came = []
        render = views.render

        def post_comes(*args, **kwargs):
            if not came:
                came.append(self.make_post("between"))
            return render(*args, **kwargs)

        with mock.patch.object(views, "render", post_comes):
            self.assertContains(self.client.get("/archive/"), "About between")

        with self.commit():
            came[0].delete()

        self.assertNotContains(self.client.get("/archive/"), "About between")

    def test_a_slow_search_index_is_not_used_after_the_edit(self):
        self.empty_caches()

        with self.edit_after(search, "build_index"):
            self.client.get("/search/?q=revised")

        self.assertContains(self.client.get("/search/?q=revised"), "Keys, revised")

    def test_slow_search_results_are_not_served_after_the_edit(self):
        self.empty_caches()

        with self.edit_after(search, "cards"):
            self.client.get("/search/?q=keys")

        self.assertContains(self.client.get("/search/?q=keys"), "Keys, revised")

    def test_slow_comment_counts_are_not_served_after_the_edit(self):
        self.empty_caches()

        with self.edit_before_set_many():
            self.client.get("/search/?q=keys")

        results = self.client.get("/search/?q=keys").context["results"]
        self.assertEqual({card["slug"]: card["comments"] for card in results}["keys"], 2)


class CostTests(CacheTestCase):
    """An invalidation costs the same, however much Redis holds."""

    def fill(self, number):
        """Let each page level hold `number` pages more."""
        script = """
            for i = 1, tonumber(ARGV[1]) do
                redis.call("SET", KEYS[1] .. i, "page", "EX", 300)
            end
        """
        for level in ("site", "view"):
            prefix = f"{level}:1:page:http://testserver/"
            self.redis(level).eval(script, 1, prefix, number)

    def cost(self, change):
        """Return the commands that Redis is sent for `change`."""
        with self.commands() as commands, self.commit():
            change()
        return commands

    def test_it_is_the_same_at_100_and_at_100_000_pages(self):
        post = self.make_post("keys")
        changes = (post.save, lambda: Comment.objects.create(post=post, author="A"))
        self.fill(50)
        few = [self.cost(change) for change in changes]

        self.fill(50_000)
        many = [self.cost(change) for change in changes]

        self.assertGreaterEqual(sum(self.redis(each).dbsize() for each in DATABASES), 100_000)
        self.assertEqual(many, few)

    def test_it_reads_no_keys_and_empties_no_database(self):
        post = self.make_post("keys", tags=["redis", "django"])

        commands = self.cost(post.save)

        self.assertEqual(set(commands), {"del"})

    def test_an_invalidated_page_expires_by_itself(self):
        post = self.make_post("keys")
        self.client.get("/posts/keys/")
        (page,) = self.pages("view")

        with self.commit():
            post.save()

        self.assertEqual(self.pages("view"), [page])
        self.assertGreater(self.ttl("view", page), 0)

    def test_the_version_of_a_group_lives_longer_than_any_page(self):
        self.make_post("keys")
        for url in ("/", "/posts/keys/"):
            self.client.get(url)

        for level, group in (("site", "site"), ("view", "post:keys")):
            with self.subTest(level):
                self.assertGreater(
                    self.ttl(level, f"{level}:1:group:{group}"), 10 * caching.POST_TIMEOUT
                )

    def test_versions_that_were_evicted_bring_no_old_page_back(self):
        post = self.make_post("keys")
        self.client.get("/posts/keys/")
        with self.commit():
            Post.objects.filter(pk=post.pk).update(title="Keys, revised")

        self.redis("view").delete(*self.keys("view", "view:1:group:*"))

        self.assertContains(self.client.get("/posts/keys/"), "Keys, revised")

    def test_clear_empties_one_level_and_no_other(self):
        self.make_post("keys")
        for url in ("/", "/posts/keys/", "/archive/", "/search/?q=keys"):
            self.client.get(url)

        caches["view"].clear()

        self.assertEqual(self.keys("view"), [])
        for level in ("site", "fragment", "low-level"):
            with self.subTest(level):
                self.assertNotEqual(self.keys(level), [])


class GroupTests(CacheTestCase):
    """By hand: a page is in the group of its path, and in the groups of blog/caching.py."""

    def test_the_command_invalidates_one_page_by_its_path(self):
        self.make_post("keys")
        for url in ("/", "/about/"):
            self.client.get(url)

        call_command("invalidate", "/about/")

        self.assertMiss("/about/")
        self.assertHit("/")

    def test_the_command_invalidates_the_whole_site(self):
        self.make_post("keys")
        for url in ("/", "/about/", "/posts/keys/"):
            self.client.get(url)

        call_command("invalidate", "site")

        self.assertMiss("/about/")
        self.assertMiss("/")
        self.assertHit("/posts/keys/")
