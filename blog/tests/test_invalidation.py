"""Invalidation: what an author or a reader changes is right on the next request, everywhere."""

from contextlib import contextmanager
from datetime import UTC, datetime
from unittest import mock

from django.contrib.auth.models import User
from django.core.cache import caches
from django.db import transaction
from django.test import TransactionTestCase

from blog import caching, search, views
from blog.content import rendering
from blog.models import Comment, Post, Tag
from blog.tests import CacheTestCase
from mysite.caches.pages import page

SITE = ("/", "/tags/redis/", "/tags/django/", "/feed/", "/sitemap.xml")
VIEW = ("/posts/keys/", "/posts/hashes/")
FRAGMENTS = ("/archive/", "/archive/2026/02/")
LOW_LEVEL = ("/search/?q=keys", "/search/?q=revised")
EVERY_PAGE = SITE + VIEW + FRAGMENTS + LOW_LEVEL


class InvalidationTestCase(CacheTestCase):
    """A small blog, with every page of it read."""

    @classmethod
    def setUpTestData(cls):
        def make_post(slug, tags, *date):
            published_at = datetime(*date, tzinfo=UTC) if date else None
            return cls.make_post(cls, slug, tags, published_at=published_at)

        cls.keys_post = make_post("keys", ["redis"], 2026, 3, 1)
        cls.hashes = make_post("hashes", ["redis", "django"], 2026, 2, 1)
        cls.lists = make_post("lists", [], 2026, 1, 1)
        cls.draft = make_post("draft", ["redis", "drafts"])
        cls.comment = cls.make_comment(cls, cls.keys_post, "Ada", "The first remark.")

    def setUp(self):
        super().setUp()
        self.stop_the_clock()
        self.before = self.read()

    def read(self):
        """Read every page, and return {url: what it shows}."""
        return {url: self.show(url) for url in EVERY_PAGE}

    def show(self, url):
        response = self.client.get(url)
        if url in LOW_LEVEL:
            # The page also says how often the words were searched for: new each time.
            return response.context["results"], response.context["related"]
        return response.status_code, response.content.decode()

    def assertEveryPageIsRight(self, *changed):
        """Assert that each page is what it is without caches, and that `changed` changed."""
        served = self.read()
        self.empty_caches()
        right = self.read()
        for url in EVERY_PAGE:
            with self.subTest(url):
                self.assertEqual(served[url], right[url])
        for url in changed:
            with self.subTest(url):
                self.assertNotEqual(served[url], self.before[url], "The change shows nowhere")


class ReadFirstTests(InvalidationTestCase):
    """Before any change: what the tests below start from."""

    def test_each_level_holds_its_pages(self):
        self.assertEqual(len(self.pages("site")), len(SITE))
        self.assertEqual(len(self.pages("view")), len(VIEW))
        self.assertEqual(len(self.keys("fragment", "*[0-9]:template.cache.*")), 4)
        self.assertEqual(len(self.keys("low-level", "*:search:results:*")), len(LOW_LEVEL))

    def test_what_is_kept_is_right(self):
        self.assertEveryPageIsRight()

    def test_reading_again_shows_the_same(self):
        self.assertEqual(self.read(), self.before)


class PostTests(InvalidationTestCase):
    """An author changes a post."""

    def test_a_post_saved(self):
        self.keys_post.title = "Keys, revised"
        self.keys_post.body = "A revised text."

        with self.commit():
            self.keys_post.save()

        shown_on = ("/", "/tags/redis/", "/feed/", "/posts/keys/", *FRAGMENTS[:1], *LOW_LEVEL[1:])
        self.assertEveryPageIsRight(*shown_on)
        for url in shown_on:
            with self.subTest(url):
                self.assertContains(self.client.get(url), "revised")

    def test_a_post_saved_with_update_fields(self):
        self.keys_post.title = "Keys, revised"

        with self.commit():
            self.keys_post.save(update_fields=["title", "updated_at"])

        self.assertEveryPageIsRight("/", "/posts/keys/", "/search/?q=revised")

    def test_a_new_post_published(self):
        with self.commit():
            self.make_post("revised", title="Revised")

        self.assertEveryPageIsRight(
            *("/", "/tags/redis/", "/feed/", "/sitemap.xml"),
            *("/archive/", "/archive/2026/02/", "/search/?q=revised"),
        )
        self.assertContains(self.client.get("/"), "/posts/revised/")

    def test_a_draft_published(self):
        self.draft.published_at = datetime(2026, 3, 3, tzinfo=UTC)

        with self.commit():
            self.draft.save()

        self.assertEveryPageIsRight("/", "/tags/redis/", "/feed/", "/sitemap.xml", "/archive/")
        self.assertEqual(self.client.get("/posts/draft/").status_code, 200)
        self.assertEqual(self.client.get("/tags/drafts/").status_code, 200)

    def test_a_post_unpublished(self):
        self.keys_post.published_at = None

        with self.commit():
            self.keys_post.save()

        self.assertEveryPageIsRight(
            "/", "/tags/redis/", "/feed/", "/sitemap.xml", "/posts/keys/", "/search/?q=keys"
        )
        self.assertEqual(self.client.get("/posts/keys/").status_code, 404)
        self.assertNotContains(self.client.get("/"), "About keys")

    def test_a_post_deleted(self):
        with self.commit():
            self.keys_post.delete()

        self.assertEveryPageIsRight(
            *("/", "/tags/redis/", "/feed/", "/sitemap.xml", "/posts/keys/"),
            *("/archive/", "/archive/2026/02/", "/search/?q=keys"),
        )
        self.assertEqual(self.client.get("/posts/keys/").status_code, 404)

    def test_the_last_post_of_a_tag_deleted(self):
        with self.commit():
            self.hashes.delete()

        self.assertEveryPageIsRight("/tags/django/", "/archive/2026/02/", "/search/?q=keys")
        self.assertEqual(self.client.get("/tags/django/").status_code, 404)

    def test_a_slug_changed(self):
        self.keys_post.slug = "names"

        with self.commit():
            self.keys_post.save()

        self.assertEveryPageIsRight("/", "/tags/redis/", "/feed/", "/posts/keys/", "/archive/")
        self.assertEqual(self.client.get("/posts/keys/").status_code, 404)
        self.assertEqual(self.client.get("/posts/names/").status_code, 200)

    def test_a_slug_that_goes_to_another_post(self):
        with self.commit():
            self.keys_post.slug = "keys-of-old"
            self.keys_post.save()
        with self.commit():
            self.draft.slug, self.draft.published_at = "keys", datetime(2026, 3, 3, tzinfo=UTC)
            self.draft.save()

        self.assertEveryPageIsRight("/posts/keys/")
        self.assertContains(self.client.get("/posts/keys/"), "About draft")

    def test_a_post_moved_to_another_month(self):
        self.keys_post.published_at = datetime(2026, 2, 2, tzinfo=UTC)

        with self.commit():
            self.keys_post.save()

        self.assertEveryPageIsRight("/", "/archive/", "/archive/2026/02/")
        self.assertEqual(self.client.get("/archive/2026/03/").status_code, 404)

    def test_the_second_page_of_a_list(self):
        older = datetime(2026, 1, 1, tzinfo=UTC)
        Post.objects.bulk_create(
            Post(slug=f"old-{n}", title=f"Old {n}", body="x", published_at=older) for n in range(9)
        )
        self.empty_caches()
        self.assertNotContains(self.client.get("/?page=2"), "Old 1")

        with self.commit():
            self.make_post("new")

        self.assertContains(self.client.get("/?page=2"), "Old 1")

    def test_several_changes_in_one_transaction(self):
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
        """Assert that every page is right, and that /tags/django/ shows these posts."""
        self.assertEveryPageIsRight("/tags/django/")
        content = self.show("/tags/django/")[1]
        for slug in ("keys", "hashes"):
            with self.subTest(slug):
                self.assertIs(f'href="/posts/{slug}/"' in content, slug in slugs)

    def test_a_tag_added_to_a_post(self):
        with self.commit():
            self.keys_post.tags.add(self.django)

        self.assertTagged("keys", "hashes")

    def test_a_post_added_to_a_tag(self):
        with self.commit():
            self.django.posts.add(self.keys_post)

        self.assertTagged("keys", "hashes")

    def test_a_tag_removed_from_a_post(self):
        with self.commit():
            self.hashes.tags.remove(self.django)

        self.assertTagged()

    def test_a_post_removed_from_a_tag(self):
        with self.commit():
            self.django.posts.remove(self.hashes)

        self.assertTagged()

    def test_all_tags_cleared_from_a_post(self):
        with self.commit():
            self.hashes.tags.clear()

        self.assertTagged()

    def test_all_posts_cleared_from_a_tag(self):
        with self.commit():
            self.django.posts.clear()

        self.assertTagged()

    def test_other_tags_set(self):
        with self.commit():
            self.keys_post.tags.set([self.django])
            self.hashes.tags.set([])

        self.assertTagged("keys")

    def test_other_posts_set(self):
        with self.commit():
            self.django.posts.set([self.keys_post])

        self.assertTagged("keys")

    def test_a_tag_renamed(self):
        self.django.name = "The web framework"

        with self.commit():
            self.django.save()

        self.assertEveryPageIsRight("/", "/tags/django/", "/feed/", "/posts/hashes/")
        for url in ("/", "/tags/django/", "/posts/hashes/"):
            self.assertContains(self.client.get(url), "The web framework")

    def test_a_tag_with_another_slug(self):
        self.django.slug = "web"

        with self.commit():
            self.django.save()

        self.assertEveryPageIsRight("/", "/tags/django/", "/sitemap.xml", "/posts/hashes/")
        self.assertEqual(self.client.get("/tags/django/").status_code, 404)
        self.assertEqual(self.client.get("/tags/web/").status_code, 200)

    def test_a_tag_deleted(self):
        with self.commit():
            self.django.delete()

        self.assertEveryPageIsRight("/", "/tags/django/", "/sitemap.xml", "/posts/hashes/")
        self.assertEqual(self.client.get("/tags/django/").status_code, 404)

    def test_a_new_tag_that_no_post_has(self):
        with self.commit():
            Tag.objects.create(name="unused", slug="unused")

        self.assertEveryPageIsRight()


class CommentTests(InvalidationTestCase):
    """A reader comments, and an author tidies up."""

    shown_on = ("/posts/keys/", "/archive/", "/archive/2026/02/", "/search/?q=keys", "/")

    def test_a_comment_sent_through_the_form(self):
        with self.commit():
            self.client.post("/posts/keys/comment/", {"author": "Grace", "body": "A new remark."})
        # From here on somebody who isn't greeted by name.
        self.client = self.client_class()

        self.assertEveryPageIsRight(*self.shown_on)
        self.assertContains(self.client.get("/posts/keys/"), "A new remark.")

    def test_a_comment_saved(self):
        with self.commit():
            self.make_comment(self.keys_post, "Grace", "A new remark.")

        self.assertEveryPageIsRight(*self.shown_on)

    def test_a_comment_edited(self):
        self.comment.body = "The first remark, edited."

        with self.commit():
            self.comment.save()

        self.assertEveryPageIsRight("/posts/keys/")
        self.assertContains(self.client.get("/posts/keys/"), "The first remark, edited.")

    def test_a_comment_deleted(self):
        with self.commit():
            self.comment.delete()

        self.assertEveryPageIsRight(*self.shown_on)
        self.assertNotContains(self.client.get("/posts/keys/"), "The first remark.")

    def test_a_comment_moved_to_another_post(self):
        self.comment.post = self.hashes

        with self.commit():
            self.comment.save()

        self.assertEveryPageIsRight("/posts/keys/", "/posts/hashes/", "/search/?q=keys")

    def test_a_comment_moved_through_the_post_it_goes_to(self):
        with self.commit():
            self.hashes.comments.add(self.comment)

        self.assertEveryPageIsRight("/posts/keys/", "/posts/hashes/", "/search/?q=keys")


class BulkTests(InvalidationTestCase):
    """update() and bulk_*() send no signals. The blog's own invalidate all the same."""

    def test_posts_updated(self):
        with self.commit():
            Post.objects.filter(slug="keys").update(title="Keys, revised")

        self.assertEveryPageIsRight(
            "/", "/tags/redis/", "/feed/", "/posts/keys/", "/archive/", "/search/?q=revised"
        )

    def test_posts_unpublished(self):
        with self.commit():
            Post.objects.filter(slug="keys").update(published_at=None)

        self.assertEveryPageIsRight("/", "/posts/keys/", "/tags/redis/", "/archive/")

    def test_a_slug_updated(self):
        with self.commit():
            Post.objects.filter(slug="keys").update(slug="names")

        self.assertEveryPageIsRight("/", "/posts/keys/", "/tags/redis/", "/archive/")

    def test_posts_updated_in_bulk(self):
        self.keys_post.title, self.hashes.title = "Keys, revised", "Hashes, revised"

        with self.commit():
            Post.objects.bulk_update([self.keys_post, self.hashes], ["title"])

        self.assertEveryPageIsRight(
            "/", "/tags/django/", *VIEW, "/archive/2026/02/", "/search/?q=revised"
        )

    def test_posts_created_in_bulk(self):
        published_at = datetime(2026, 3, 3, tzinfo=UTC)

        with self.commit():
            Post.objects.bulk_create(
                [Post(slug="revised", title="Revised", body="x", published_at=published_at)]
            )

        self.assertEveryPageIsRight("/", "/feed/", "/sitemap.xml", *FRAGMENTS, "/search/?q=revised")

    def test_posts_overwritten_in_bulk(self):
        fields = {"title": "Keys, revised", "body": "x", "published_at": self.hashes.published_at}

        with self.commit():
            Post.objects.bulk_create(
                [Post(slug="keys", **fields)],
                update_conflicts=True,
                unique_fields=["slug"],
                update_fields=["title", "body"],
            )

        self.assertEveryPageIsRight("/", "/tags/redis/", "/posts/keys/", "/search/?q=revised")

    def test_posts_deleted_by_a_query(self):
        with self.commit():
            Post.objects.filter(slug__in=["keys", "hashes"]).delete()

        self.assertEveryPageIsRight("/", "/tags/redis/", "/tags/django/", *VIEW, *FRAGMENTS)

    def test_posts_updated_or_created(self):
        with self.commit():
            Post.objects.update_or_create(slug="keys", defaults={"title": "Keys, revised"})

        self.assertEveryPageIsRight("/", "/tags/redis/", "/posts/keys/", "/search/?q=revised")

    def test_the_posts_of_a_tag_updated(self):
        with self.commit():
            Tag.objects.get(slug="django").posts.update(title="Hashes, revised")

        self.assertEveryPageIsRight("/", "/tags/django/", "/posts/hashes/", "/search/?q=revised")

    def test_tags_updated(self):
        with self.commit():
            Tag.objects.filter(slug="django").update(name="The web framework")

        self.assertEveryPageIsRight("/", "/tags/django/", "/feed/", "/posts/hashes/")

    def test_a_tags_slug_updated(self):
        with self.commit():
            Tag.objects.filter(slug="django").update(slug="web")

        self.assertEveryPageIsRight("/", "/tags/django/", "/sitemap.xml", "/posts/hashes/")

    def test_tags_created_in_bulk(self):
        with self.commit():
            Tag.objects.bulk_create([Tag(name="new", slug="new")])

        self.assertEveryPageIsRight()

    def test_comments_created_in_bulk(self):
        with self.commit():
            Comment.objects.bulk_create([Comment(post=self.keys_post, author="G", body="New.")])

        self.assertEveryPageIsRight(*CommentTests.shown_on)

    def test_comments_created_in_bulk_unless_they_exist(self):
        # Django learns no primary keys then.
        with self.commit():
            Comment.objects.bulk_create(
                [Comment(post=self.keys_post, author="G", body="New.")], ignore_conflicts=True
            )

        self.assertEveryPageIsRight(*CommentTests.shown_on)

    def test_comments_updated(self):
        with self.commit():
            Comment.objects.filter(author="Ada").update(body="Edited.")

        self.assertEveryPageIsRight("/posts/keys/")

    def test_comments_moved_to_another_post(self):
        with self.commit():
            self.keys_post.comments.update(post=self.hashes)

        self.assertEveryPageIsRight("/posts/keys/", "/posts/hashes/", "/search/?q=keys")

    def test_comments_updated_in_bulk(self):
        self.comment.body = "Edited."

        with self.commit():
            Comment.objects.bulk_update([self.comment], ["body"])

        self.assertEveryPageIsRight("/posts/keys/")

    def test_comments_deleted_by_a_query(self):
        with self.commit():
            self.keys_post.comments.all().delete()

        self.assertEveryPageIsRight(*CommentTests.shown_on)

    def test_an_update_also_sets_when_the_post_was_updated(self):
        before = self.keys_post.updated_at

        Post.objects.filter(slug="keys").update(title="Keys, revised")

        self.keys_post.refresh_from_db()
        self.assertGreater(self.keys_post.updated_at, before)

    def test_an_update_of_nothing_drops_nothing_but_lists(self):
        with self.commit():
            self.assertEqual(Post.objects.filter(slug="nonsense").update(title="x"), 0)

        for url in VIEW + ("/tags/redis/", "/tags/django/"):
            self.assertHit(url)


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

    def test_a_post_changed(self):
        url = f"/admin/blog/post/{self.keys_post.pk}/change/"

        self.send(url, **self.post_fields(self.keys_post, title="Keys, revised"))

        self.assertEveryPageIsRight(
            "/", "/tags/redis/", "/feed/", "/posts/keys/", "/archive/", "/search/?q=revised"
        )

    def test_a_post_added(self):
        post = Post(title="Revised", slug="revised", summary="S", body="B")
        tags = [Tag.objects.get(slug="django").pk]

        self.send("/admin/blog/post/add/", **self.post_fields(post, tags=tags))

        self.assertEveryPageIsRight("/", "/tags/django/", "/sitemap.xml", "/search/?q=revised")

    def test_a_draft_published(self):
        url = f"/admin/blog/post/{self.draft.pk}/change/"

        self.send(url, **self.post_fields(self.draft))

        self.assertEveryPageIsRight("/", "/tags/redis/", "/archive/")

    def test_a_post_unpublished_retagged_and_given_another_slug_at_once(self):
        fields = {"slug": "names", "tags": [Tag.objects.get(slug="django").pk]}
        fields |= {"published_at_0": "", "published_at_1": ""}
        url = f"/admin/blog/post/{self.keys_post.pk}/change/"

        self.send(url, **self.post_fields(self.keys_post, **fields))

        self.assertEveryPageIsRight("/", "/tags/redis/", "/posts/keys/", "/archive/")

    def test_other_tags_chosen(self):
        tags = [Tag.objects.get(slug="django").pk]
        url = f"/admin/blog/post/{self.keys_post.pk}/change/"

        self.send(url, **self.post_fields(self.keys_post, tags=tags))

        self.assertEveryPageIsRight("/tags/redis/", "/tags/django/", "/posts/keys/")

    def test_a_post_deleted(self):
        self.send(f"/admin/blog/post/{self.keys_post.pk}/delete/", post="yes")

        self.assertEveryPageIsRight("/", "/tags/redis/", "/posts/keys/", "/archive/")

    def test_posts_deleted_from_the_list(self):
        self.send(
            "/admin/blog/post/",
            action="delete_selected",
            _selected_action=[self.keys_post.pk, self.hashes.pk],
            post="yes",
        )

        self.assertEveryPageIsRight("/", "/tags/django/", *VIEW, *FRAGMENTS)

    def test_a_tag_renamed(self):
        tag = Tag.objects.get(slug="django")

        self.send(f"/admin/blog/tag/{tag.pk}/change/", name="The web framework", slug="web")

        self.assertEveryPageIsRight("/", "/tags/django/", "/posts/hashes/", "/sitemap.xml")

    def test_a_tag_deleted(self):
        tag = Tag.objects.get(slug="django")

        self.send(f"/admin/blog/tag/{tag.pk}/delete/", post="yes")

        self.assertEveryPageIsRight("/", "/tags/django/", "/posts/hashes/", "/sitemap.xml")

    def test_a_comment_edited(self):
        self.send(
            f"/admin/blog/comment/{self.comment.pk}/change/",
            post=self.keys_post.pk,
            author="Ada",
            body="Edited.",
            created_at_0="2026-03-01",
            created_at_1="12:00:00",
        )

        self.assertEveryPageIsRight("/posts/keys/")

    def test_a_comment_deleted(self):
        self.send(f"/admin/blog/comment/{self.comment.pk}/delete/", post="yes")

        self.assertEveryPageIsRight(*CommentTests.shown_on)

    def test_comments_deleted_from_the_list(self):
        self.send(
            "/admin/blog/comment/",
            action="delete_selected",
            _selected_action=[self.comment.pk],
            post="yes",
        )

        self.assertEveryPageIsRight(*CommentTests.shown_on)


class SurvivalTests(InvalidationTestCase):
    """What has nothing to do with a change stays where it is."""

    def test_an_edit_leaves_the_other_posts_and_other_tags_alone(self):
        with self.commit():
            self.keys_post.save()

        self.assertHit("/posts/hashes/")
        self.assertHit("/tags/django/")
        self.assertMiss("/posts/keys/")
        self.assertMiss("/tags/redis/")

    def test_a_comment_leaves_the_other_posts_and_other_tags_alone(self):
        with self.commit():
            self.make_comment(self.keys_post)

        self.assertHit("/posts/hashes/")
        self.assertHit("/tags/django/")

    def test_a_deletion_leaves_the_other_posts_and_other_tags_alone(self):
        with self.commit():
            self.keys_post.delete()

        self.assertHit("/posts/hashes/")
        self.assertHit("/tags/django/")

    def test_a_new_tag_on_a_post_leaves_the_other_posts_alone(self):
        with self.commit():
            self.keys_post.tags.add(Tag.objects.get(slug="django"))

        self.assertHit("/posts/hashes/")

    def test_the_fragment_of_another_month_is_still_used(self):
        with self.commit():
            self.hashes.save()

        with mock.patch.object(rendering, "to_html", side_effect=AssertionError):
            self.client.get("/archive/")

    def test_a_user_who_logs_in_drops_nothing(self):
        with self.commit():
            self.client_class().force_login(User.objects.create_user("reader"))

        for url in SITE + VIEW:
            with self.subTest(url):
                self.assertHit(url)


class CommitTests(InvalidationTestCase):
    """Invalidation waits for COMMIT."""

    def assertNothingDropped(self):
        stored = self.stored()
        for url in SITE + VIEW:
            with self.subTest(url):
                self.assertHit(url)
        self.assertEqual(self.stored(), stored)

    def changes(self):
        """Make a change of each kind."""
        self.keys_post.title = "Keys, revised"
        self.keys_post.save()
        self.hashes.tags.clear()
        Post.objects.filter(slug="hashes").update(title="Hashes, revised")
        Post.objects.bulk_create([Post(slug="new", published_at=self.keys_post.published_at)])
        self.make_comment(self.keys_post)
        self.comment.delete()
        Tag.objects.filter(slug="django").delete()

    def test_a_change_that_is_not_committed_drops_nothing(self):
        with self.captureOnCommitCallbacks() as waiting:
            self.changes()

        self.assertNothingDropped()
        self.assertGreaterEqual(len(waiting), 7)

    def test_a_change_that_is_rolled_back_drops_nothing(self):
        class RollBack(Exception):
            pass

        with self.commit() as waiting, self.assertRaises(RollBack), transaction.atomic():
            self.changes()
            raise RollBack

        self.assertEqual(waiting, [])
        self.assertNothingDropped()

    def test_an_admin_form_with_an_error_drops_nothing(self):
        author = self.client_class()
        author.force_login(User.objects.create_superuser("author"))

        with self.commit():
            author.post(f"/admin/blog/post/{self.keys_post.pk}/change/", {"title": ""})

        self.assertNothingDropped()

    def test_a_comment_with_an_error_drops_nothing(self):
        with self.commit():
            self.client.post("/posts/keys/comment/", {"author": "", "body": ""})

        self.assertNothingDropped()


class RealCommitTests(TransactionTestCase):
    """With a real COMMIT, as outside of the tests."""

    assertHit = CacheTestCase.assertHit
    assertMiss = CacheTestCase.assertMiss
    make_post = CacheTestCase.make_post

    def setUp(self):
        CacheTestCase.empty_caches(self)
        self.post = self.make_post("keys")
        self.client.get("/posts/keys/")

    def test_pages_are_kept_until_the_transaction_commits(self):
        with transaction.atomic():
            self.post.save()
            self.assertIn("Age", self.client.get("/posts/keys/").headers)

        self.assertMiss("/posts/keys/")

    def test_pages_are_kept_when_the_transaction_is_rolled_back(self):
        with transaction.atomic():
            self.post.save()
            transaction.set_rollback(True)

        self.assertHit("/posts/keys/")

    def test_a_save_outside_of_any_transaction_drops_at_once(self):
        self.post.save()

        self.assertMiss("/posts/keys/")

    def test_a_comment_through_the_form_is_on_the_page_it_leads_to(self):
        response = self.client.post(
            "/posts/keys/comment/", {"author": "Ada", "body": "I see."}, follow=True
        )

        self.assertContains(response, "I see.")


class RaceTests(InvalidationTestCase):
    """A reader whose page was begun before the commit can't put the old page back."""

    def edit(self):
        """Do what an author and a reader do while somebody's page is being built."""
        # page(): in requests of their own.
        with page(), self.commit():
            Post.objects.filter(slug="keys").update(title="Keys, revised")
            self.make_comment(self.keys_post, "Grace", "A remark in between.")
            self.make_post("between")

    def after(self, target, name):
        """Let the edit happen right after the first call of `target.name`."""
        return self.around(target, name, lambda *args: True, edit_first=False)

    def before_storing(self, fragment):
        """Let the edit happen when `fragment` is rendered and not yet stored."""

        def is_it(key, *args):
            return f".{fragment}." in key

        return self.around(caches["template_fragments"], "set", is_it, edit_first=True)

    @contextmanager
    def around(self, target, name, is_it, edit_first):
        original, edits = getattr(target, name), []

        def call(*args, **kwargs):
            edit_now = not edits and is_it(*args)
            if edit_now:
                edits.append(1)
            if edit_now and edit_first:
                self.edit()
            result = original(*args, **kwargs)
            if edit_now and not edit_first:
                self.edit()
            return result

        with mock.patch.object(target, name, call):
            yield
        self.assertEqual(edits, [1])

    def expire(self, level):
        """Let the pages of `level` expire. Their generations are still there."""
        self.redis(level).delete(*self.pages(level))

    def test_a_page_of_the_whole_site(self):
        self.expire("site")

        with self.after(views, "render"):
            slow = self.client.get("/")

        self.assertNotContains(slow, "Keys, revised")
        self.assertContains(self.client.get("/"), "Keys, revised")
        self.assertEveryPageIsRight("/", "/tags/redis/")

    def test_a_page_of_a_tag(self):
        self.expire("site")

        with self.after(views, "render"):
            slow = self.client.get("/tags/redis/")

        self.assertNotContains(slow, "Keys, revised")
        self.assertContains(self.client.get("/tags/redis/"), "Keys, revised")

    def test_a_post(self):
        self.expire("view")

        with self.after(views, "render"):
            slow = self.client.get("/posts/keys/")

        self.assertNotContains(slow, "A remark in between.")
        self.assertContains(self.client.get("/posts/keys/"), "A remark in between.")
        self.assertEveryPageIsRight("/posts/keys/")

    def test_the_first_page_that_a_generation_ever_had(self):
        self.empty_caches()

        with self.after(views, "render"):
            self.client.get("/posts/keys/")

        self.assertContains(self.client.get("/posts/keys/"), "A remark in between.")

    def test_the_fragment_of_the_months(self):
        self.empty_caches()

        with self.before_storing("archive_months"):
            self.client.get("/archive/")

        self.assertEveryPageIsRight("/archive/")

    def test_the_fragment_of_recent_comments(self):
        self.empty_caches()

        with self.before_storing("archive_discussed"):
            self.client.get("/archive/")

        self.assertContains(self.client.get("/archive/"), "Grace")
        self.assertEveryPageIsRight("/archive/")

    def test_the_fragment_of_a_month(self):
        self.empty_caches()

        with self.before_storing("archive_month"):
            self.client.get("/archive/")

        self.assertContains(self.client.get("/archive/"), "Keys, revised")
        self.assertEveryPageIsRight("/archive/")

    def test_the_fragment_of_a_month_after_a_post_came_and_went(self):
        # The month's count and last change are read before the post comes, the posts after.
        self.empty_caches()
        came = []
        render = views.render

        def post_comes(*args, **kwargs):
            if not came:
                with page(), self.commit():
                    came.append(self.make_post("between"))
            return render(*args, **kwargs)

        with mock.patch.object(views, "render", post_comes):
            self.assertContains(self.client.get("/archive/"), "About between")

        with self.commit():
            came[0].delete()

        self.assertNotContains(self.client.get("/archive/"), "About between")

    def test_the_search_index(self):
        self.empty_caches()

        with self.after(search, "build_index"):
            self.client.get("/search/?q=revised")

        self.assertContains(self.client.get("/search/?q=revised"), "Keys, revised")
        self.assertEveryPageIsRight("/search/?q=revised")

    def test_search_results(self):
        self.empty_caches()

        with self.after(search, "cards"):
            self.client.get("/search/?q=keys")

        self.assertContains(self.client.get("/search/?q=keys"), "Keys, revised")

    def test_comment_counts(self):
        self.empty_caches()

        with self.after(search, "find"):
            self.client.get("/search/?q=keys")

        results = self.client.get("/search/?q=keys").context["results"]
        self.assertEqual({card["slug"]: card["comments"] for card in results}["keys"], 2)


class CostTests(CacheTestCase):
    """What an invalidation costs, whatever Redis holds."""

    def fill(self, number):
        """Let each page level hold `number` pages more."""
        script = """
            for i = 1, tonumber(ARGV[1]) do
                redis.call("SET", KEYS[1] .. i, "page", "EX", 300)
            end
        """
        for level in ("site", "view"):
            prefix = f"{level}:f1.1:views.decorators.cache.cache_page..GET."
            self.redis(level).eval(script, 1, prefix, number)

    def cost(self, change):
        """Return the commands that Redis is sent for `change`."""
        with self.commands() as commands, self.commit():
            change()
        return commands

    def test_it_is_the_same_at_100_and_at_100_000_pages(self):
        post = self.make_post("keys")
        for change in (post.save, lambda: self.make_comment(post)):
            self.empty_caches()
            self.fill(100)
            few = self.cost(change)
            self.empty_caches()
            self.fill(100_000)
            many = self.cost(change)

            self.assertEqual(self.redis("site").dbsize(), 100_002)
            self.assertEqual(many, few)

    def test_it_reads_no_keys_and_empties_no_database(self):
        post = self.make_post("keys", tags=["redis", "django"])

        commands = self.cost(post.save)

        # A new token for home, two tags, the post and three fragments, in a pipeline a level.
        # The fragments themselves and the generation of search are deleted.
        pipelines = {"multi": 3, "exec": 3}
        self.assertEqual(commands, {"set": 7, "del": 2} | pipelines)

    def test_a_page_that_was_dropped_expires_by_itself(self):
        post = self.make_post("keys")
        self.client.get("/posts/keys/")
        (page,) = self.pages("view")

        with self.commit():
            post.save()

        self.assertEqual(self.pages("view"), [page])
        self.assertGreater(self.ttl("view", page), 0)

    def test_a_generation_lives_longer_than_any_page(self):
        self.make_post("keys")
        for url in ("/", "/posts/keys/"):
            self.client.get(url)

        for level, name in (("site", "posts"), ("view", "post:keys")):
            with self.subTest(level):
                (key,) = self.keys(level, f"*:generation:{name}")
                self.assertGreater(self.ttl(level, key), 10 * caching.POST_TIMEOUT)

    def test_generations_that_were_evicted_bring_no_old_page_back(self):
        post = self.make_post("keys")
        self.client.get("/posts/keys/")
        with self.commit():
            Post.objects.filter(pk=post.pk).update(title="Keys, revised")

        self.redis("view").delete(*self.keys("view", "*:generation:*"))

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
