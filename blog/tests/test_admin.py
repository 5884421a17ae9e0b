"""The admin, where authors write. What their changes invalidate: see test_invalidation.py."""

from datetime import UTC, datetime, timedelta

from django.contrib.auth.models import Permission, User
from django.utils import timezone

from blog.models import Comment, Post
from blog.tests import CacheTestCase

PAGES = [
    f"/admin/blog/{model}/{page}" for model in ("post", "tag", "comment") for page in ("", "add/")
]


class AdminTests(CacheTestCase):
    @classmethod
    def setUpTestData(cls):
        cls.post = cls.make_post("keys")
        cls.comment = cls.make_comment(cls.post)
        cls.author = User.objects.create_superuser("author")

    def setUp(self):
        super().setUp()
        self.client.force_login(self.author)

    def fields(self, **changes):
        fields = {"title": "A post", "slug": "a-post", "summary": "S", "body": "B"}
        return fields | {"published_at_0": "2026-03-01", "published_at_1": "12:00:00"} | changes

    def test_authors_see_posts_tags_and_comments(self):
        for url in [*PAGES, f"/admin/blog/post/{self.post.pk}/change/"]:
            with self.subTest(url):
                self.assertEqual(self.client.get(url).status_code, 200)

    def test_every_admin_page_has_an_icon(self):
        for url in ["/admin/", "/admin/login/", *PAGES]:
            with self.subTest(url):
                client = self.client_class() if "login" in url else self.client
                self.assertContains(client.get(url), '<link rel="icon"', 1)

    def test_readers_are_sent_to_the_login(self):
        for client in (self.client_class(), self.client_class()):
            for url in PAGES:
                with self.subTest(url):
                    response = client.get(url)
                    self.assertRedirects(
                        response, f"/admin/login/?next={url}", fetch_redirect_response=False
                    )
            client.force_login(User.objects.get_or_create(username="reader")[0])

    def test_staff_without_permission_get_403(self):
        self.client.force_login(User.objects.create_user("staff", is_staff=True))

        self.assertEqual(self.client.get("/admin/blog/post/").status_code, 403)

    def test_staff_with_a_permission_get_what_it_is_for(self):
        moderator = User.objects.create_user("moderator", is_staff=True)
        moderator.user_permissions.add(Permission.objects.get(codename="delete_comment"))
        self.client.force_login(moderator)

        url = f"/admin/blog/comment/{self.comment.pk}/delete/"
        self.assertEqual(self.client.post(url, {"post": "yes"}).status_code, 302)
        self.assertEqual(Comment.objects.count(), 0)

    def test_a_post_is_written_and_published(self):
        response = self.client.post("/admin/blog/post/add/", self.fields())

        self.assertEqual(response.status_code, 302)
        post = Post.objects.get(slug="a-post")
        self.assertEqual(post.published_at, datetime(2026, 3, 1, 12, tzinfo=UTC))

    def test_a_post_without_a_date_is_a_draft(self):
        self.client.post("/admin/blog/post/add/", self.fields(published_at_0="", published_at_1=""))

        self.assertIsNone(Post.objects.get(slug="a-post").published_at)
        self.assertEqual(self.client.get("/posts/a-post/").status_code, 404)

    def test_a_post_cannot_be_scheduled(self):
        # The date would arrive without a save, and nothing would be invalidated.
        tomorrow = timezone.now() + timedelta(days=1)
        fields = self.fields(published_at_0=tomorrow.date(), published_at_1="12:00:00")

        response = self.client.post("/admin/blog/post/add/", fields)

        self.assertContains(response, "scheduled")
        self.assertFalse(Post.objects.filter(slug="a-post").exists())

    def test_a_slug_that_is_taken_or_no_slug_is_refused(self):
        for slug in ("keys", "no slug", "", "a/b", "ü"):
            with self.subTest(slug):
                response = self.client.post("/admin/blog/post/add/", self.fields(slug=slug))
                self.assertEqual(response.status_code, 200)
                self.assertIn("slug", response.context["adminform"].form.errors)

    def test_authors_do_not_see_the_fields_that_seed_fills(self):
        self.assertNotContains(self.client.get("/admin/blog/post/add/"), "seeded_as")

        self.client.post("/admin/blog/post/add/", self.fields(seeded_as="x"))

        self.assertEqual(Post.objects.get(slug="a-post").seeded_as, "")

    def test_the_post_of_a_comment_is_found_by_its_title(self):
        # A list to choose from would have every post in it.
        self.assertContains(self.client.get("/admin/blog/comment/add/"), "admin-autocomplete")

        response = self.client.get(
            "/admin/autocomplete/",
            {"app_label": "blog", "model_name": "comment", "field_name": "post", "term": "keys"},
        )

        (found,) = response.json()["results"]
        self.assertEqual(found["text"], "About keys")

    def test_lists_are_searched(self):
        for url in ("/admin/blog/post/?q=keys", "/admin/blog/comment/?q=Ada"):
            with self.subTest(url):
                self.assertEqual(self.client.get(url).context["cl"].result_count, 1)
                self.assertEqual(self.client.get(f"{url}x").context["cl"].result_count, 0)

    def test_rows_have_the_names_that_readers_know(self):
        self.assertEqual(str(self.post), "About keys")
        self.assertEqual(str(self.post.tags.get()), "redis")
        self.assertEqual(str(self.comment), "Ada on About keys")

    def test_an_author_gets_from_a_post_or_a_comment_to_its_page(self):
        for model, row in (("post", self.post), ("comment", self.comment)):
            with self.subTest(model):
                response = self.client.get(f"/admin/blog/{model}/{row.pk}/change/")

                self.assertContains(response, f'href="{row.get_absolute_url()}"')
        self.assertEqual(self.comment.get_absolute_url(), f"/posts/keys/#comment-{self.comment.pk}")

    def test_a_draft_and_its_comments_have_no_link_to_a_page(self):
        draft = self.make_post("draft", published_at=None)
        comment = self.make_comment(draft)

        for model, row in (("post", draft), ("comment", comment)):
            with self.subTest(model):
                response = self.client.get(f"/admin/blog/{model}/{row.pk}/change/")

                self.assertNotContains(response, "View on site")

    def test_drafts_come_first_in_the_list(self):
        self.make_post("draft", published_at=None)
        self.make_post("newer", published_at=datetime(2026, 4, 1, tzinfo=UTC))

        rows = self.client.get("/admin/blog/post/").context["cl"].result_list

        self.assertEqual([post.slug for post in rows], ["draft", "newer", "keys"])
