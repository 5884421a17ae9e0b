"""`manage.py seed`: the lessons, and enough sample content for a cache to matter."""

from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

from django.conf import settings
from django.core.management import CommandError, call_command
from django.db.models import F
from django.test import SimpleTestCase, tag

from blog.content import written_posts
from blog.models import Comment, Post, Tag
from blog.tests import CacheTestCase
from mysite.tests.processes import run

WRITTEN = len(written_posts())


def seed(posts=3, comments=20):
    """Run the command and return what it printed."""
    output = StringIO()
    call_command("seed", f"--posts={posts}", f"--comments={comments}", stdout=output)
    return output.getvalue()


def rows():
    """Return all that the command writes, without the time at which it was written."""
    posts = Post.objects.values("pk", "slug", "title", "summary", "body", "published_at")
    comments = Comment.objects.values("pk", "post__slug", "author", "body", "created_at")
    return [list(posts), list(comments), list(Post.tags.through.objects.values("post", "tag"))]


class SeededTests(CacheTestCase):
    """What `manage.py seed --posts 30 --comments 50` has added to an empty database."""

    @classmethod
    def setUpTestData(cls):
        with cls.captureOnCommitCallbacks(execute=True):
            seed(posts=30, comments=50)

    def test_there_are_the_written_posts_and_as_many_others_as_asked_for(self):
        self.assertEqual(Post.objects.count(), WRITTEN + 30)
        self.assertEqual(Comment.objects.count(), 50)

    def test_a_written_post_is_as_its_file_says(self):
        for fields in written_posts():
            post = Post.objects.get(slug=fields["slug"])
            with self.subTest(post.slug):
                self.assertEqual(post.title, fields["title"])
                self.assertEqual(post.summary, fields["summary"])
                self.assertEqual(post.body, fields["body"])
                self.assertEqual(post.published_at, fields["published_at"])
                for name in ("lesson", "part", "scope", "lab"):
                    self.assertEqual(getattr(post, name), fields[name])
                self.assertEqual({tag.name for tag in post.tags.all()}, set(fields["tags"]))

    def test_the_written_posts_come_first(self):
        first = [post.slug for post in Post.objects.published()[:WRITTEN]]

        self.assertEqual(set(first), {fields["slug"] for fields in written_posts()})

    def test_the_written_posts_are_lessons_in_the_order_of_their_files(self):
        lessons = [post.slug for post in Post.objects.lessons()]

        self.assertEqual(lessons, [fields["slug"] for fields in written_posts()])
        self.assertEqual(Post.objects.notes().count(), 30)

    def test_a_search_finds_lessons_before_notes(self):
        for query in (
            "invalidate one page",
            "redis down timeout",
            "how to avoid a stampede",
            "what does the browser do with its copy of a cached page after an edit",
        ):
            with self.subTest(query):
                results = self.client.get("/search/", {"q": query}).context["results"]
                notes = [card["slug"].startswith("note-") for card in results]
                self.assertGreater(notes.count(False), 3)
                self.assertEqual(notes, sorted(notes))

    def test_the_other_posts_have_text_code_tags_and_a_date_of_their_own(self):
        notes = Post.objects.notes().prefetch_related("tags")

        self.assertEqual(len({post.body for post in notes}), 30)
        self.assertEqual(len({post.published_at for post in notes}), 30)
        for post in notes:
            with self.subTest(post.slug):
                self.assertIn("```python", post.body)
                self.assertTrue(post.tags.all())

    def test_no_post_says_that_it_was_updated(self):
        for post in Post.objects.all():
            with self.subTest(post.slug):
                self.assertEqual(post.updated_at, post.published_at)

    def test_a_comment_is_younger_than_its_post(self):
        self.assertFalse(Comment.objects.filter(created_at__lte=F("post__published_at")).exists())

    def test_every_written_post_every_tag_and_a_made_up_post_answers(self):
        for page in (*Post.objects.lessons(), *Tag.objects.all(), Post.objects.notes()[0]):
            with self.subTest(page.slug):
                self.assertContains(self.client.get(page.get_absolute_url()), "<h1")


class SeedTests(CacheTestCase):
    """On a database without these posts."""

    @tag("slow")
    def test_the_default_is_200_posts_and_5000_comments(self):
        call_command("seed", stdout=StringIO())

        self.assertEqual(Post.objects.count(), WRITTEN + 200)
        self.assertEqual(Comment.objects.count(), 5000)

    def test_it_says_what_it_did(self):
        self.assertRegex(seed(), rf"{WRITTEN + 3} new .* 20 comments")

    def test_a_terminal_gets_a_progress_bar_and_a_log_does_not(self):
        output = StringIO()
        output.isatty = lambda: True

        call_command("seed", posts=3, comments=20, stdout=output, no_color=True)

        self.assertIn(f"{WRITTEN + 3}/{WRITTEN + 3}", output.getvalue())
        self.assertIn("20/20", output.getvalue())
        self.assertEqual(seed().count("\n"), 1)

    def test_it_is_the_same_on_every_machine(self):
        seed(posts=10, comments=50)
        first = rows()
        Post.objects.all().delete()
        Tag.objects.all().delete()

        seed(posts=10, comments=50)

        def without_keys(tables):
            return [[{k: row[k] for k in row if k != "pk"} for row in t] for t in tables[:2]]

        self.assertEqual(without_keys(rows()), without_keys(first))

    def test_it_can_add_nothing_but_the_written_posts(self):
        seed(posts=0, comments=0)

        self.assertEqual((Post.objects.count(), Comment.objects.count()), (WRITTEN, 0))

    def test_pages_that_were_cached_before_show_the_new_content(self):
        name, slug = written_posts()[0]["tags"][0], written_posts()[0]["slug"]
        self.make_post("mine", tags=[name])
        of_tag = f"/tags/{name}/"
        urls = ("/", "/feed/", "/sitemap.xml", "/archive/", of_tag)
        before = {url: self.client.get(url).content for url in urls}

        with self.commit():
            seed()

        for url in urls:
            with self.subTest(url):
                self.assertNotEqual(self.client.get(url).content, before[url])
        self.assertContains(self.client.get(of_tag), f"/posts/{slug}/")

    def test_an_error_in_the_middle_leaves_nothing_behind(self):
        with (
            mock.patch.object(Comment.objects, "bulk_create", side_effect=OSError),
            self.assertRaises(OSError),
        ):
            seed()

        self.assertEqual((Post.objects.count(), Tag.objects.count()), (0, 0))


class SeedAgainTests(CacheTestCase):
    """On a database that is in use: idempotent, and nothing that a person wrote is lost."""

    @classmethod
    def setUpTestData(cls):
        with cls.captureOnCommitCallbacks(execute=True):
            seed()
        cls.post = Post.objects.get(slug=written_posts()[0]["slug"])

    def revised(self):
        """Return the written posts as a later release has them: the first one revised."""
        posts = written_posts()
        posts[0] |= {"title": "Revised title", "body": "Revised body.\n"}
        return mock.patch("blog.content.seeding.written_posts", return_value=posts)

    def test_the_second_run_changes_nothing(self):
        before = rows()

        output = seed()

        self.assertEqual(rows(), before)
        self.assertIn("0 new", output)

    def test_the_second_run_invalidates_no_page(self):
        self.client.get(self.post.get_absolute_url())

        with self.commit():
            seed()

        self.assertHit(self.post.get_absolute_url())

    def test_more_can_be_asked_for_later(self):
        seed(posts=5, comments=30)

        self.assertEqual(Post.objects.count(), WRITTEN + 5)
        self.assertEqual(Comment.objects.count(), 30)

    def test_less_takes_nothing_away(self):
        seed(posts=0, comments=0)

        self.assertEqual(Post.objects.count(), WRITTEN + 3)
        self.assertEqual(Comment.objects.count(), 20)

    def test_a_post_that_a_person_wrote_stays(self):
        mine = self.make_post("mine", body="My own words.")

        seed()

        mine.refresh_from_db()
        self.assertEqual(mine.body, "My own words.")

    def test_a_comment_that_a_person_wrote_stays(self):
        self.make_comment(self.post, "Grace", "My own remark.")

        seed()

        self.assertEqual(self.post.comments.get(author="Grace", body="My own remark.").pk, 21)

    def test_a_person_s_post_that_has_the_slug_of_a_written_one_stays(self):
        slug = self.post.slug
        self.post.delete()
        mine = self.make_post(slug, title="Mine", body="My own words.")

        with self.revised():
            seed()

        mine.refresh_from_db()
        self.assertEqual((mine.title, mine.body), ("Mine", "My own words."))

    def test_a_post_that_a_person_edited_is_not_brought_up_to_date(self):
        self.post.body = "Edited by a person."
        self.post.save()

        with self.revised():
            seed()

        self.post.refresh_from_db()
        self.assertEqual(self.post.body, "Edited by a person.")

    def test_a_post_that_was_not_edited_is_brought_up_to_date(self):
        with self.revised():
            output = seed()

        self.post.refresh_from_db()
        self.assertEqual((self.post.title, self.post.body), ("Revised title", "Revised body.\n"))
        self.assertIn("1 updated", output)

    def test_a_post_that_is_brought_up_to_date_keeps_comments_tags_and_date(self):
        comments, tags = self.post.comments.count(), set(self.post.tags.all())

        with self.revised():
            seed()

        post = Post.objects.get(pk=self.post.pk)
        self.assertEqual(post.comments.count(), comments)
        self.assertEqual(set(post.tags.all()), tags)
        self.assertEqual(post.published_at, self.post.published_at)

    def test_a_post_that_is_brought_up_to_date_is_new_on_its_page(self):
        self.client.get(self.post.get_absolute_url())

        with self.commit(), self.revised():
            seed()

        self.assertContains(self.client.get(self.post.get_absolute_url()), "Revised body.")

    def test_a_post_that_was_brought_up_to_date_can_be_so_again(self):
        with self.revised():
            seed()

        seed()

        self.post.refresh_from_db()
        self.assertEqual(self.post.title, written_posts()[0]["title"])

    def test_a_post_seeded_by_an_earlier_release_becomes_a_lesson(self):
        # With or without an edit by a person: a reader finds it at its place.
        for body in (self.post.body, "Edited by a person."):
            earlier = {"lesson": None, "part": "", "scope": "", "lab": "", "body": body}
            Post.objects.filter(pk=self.post.pk).update(**earlier)

            seed()

            with self.subTest(body[:10]):
                self.post.refresh_from_db()
                self.assertEqual((self.post.lesson, self.post.part), (1, "redis"))
                self.assertEqual((self.post.scope, self.post.lab), ("django", "wire"))
                self.assertEqual(self.post.body, body)

    def test_a_post_of_a_person_becomes_no_lesson(self):
        slug = self.post.slug
        self.post.delete()
        self.make_post(slug)

        seed()

        self.assertIsNone(Post.objects.get(slug=slug).lesson)

    def test_a_post_that_an_author_took_back_stays_a_draft(self):
        self.post.published_at = None
        self.post.save()

        with self.revised():
            seed()

        self.post.refresh_from_db()
        self.assertIsNone(self.post.published_at)

    def test_a_comment_that_a_person_edited_stays(self):
        comment = Comment.objects.first()
        comment.body = "Edited by a person."
        comment.save()

        seed()

        self.assertEqual(Comment.objects.get(pk=comment.pk).body, "Edited by a person.")
        self.assertEqual(Comment.objects.count(), 20)

    def test_a_tag_that_a_person_renamed_keeps_its_name(self):
        Tag.objects.filter(slug="redis").update(name="Redis, the server")

        seed(posts=5)

        self.assertEqual(Tag.objects.get(slug="redis").name, "Redis, the server")

    def test_tags_that_a_person_took_off_stay_off(self):
        self.post.tags.clear()

        seed()

        self.assertEqual(self.post.tags.count(), 0)


class SeedUsedTests(CacheTestCase):
    """On a database that a person filled before the first run."""

    def test_a_tag_of_the_same_name_and_another_slug_is_used(self):
        name = written_posts()[0]["tags"][0]
        mine = Tag.objects.create(name=name, slug="my-own-slug")

        seed()

        mine.refresh_from_db()
        self.assertEqual((mine.name, mine.slug), (name, "my-own-slug"))
        self.assertEqual(Post.objects.exclude(seeded_as="").count(), WRITTEN + 3)

    def test_a_tag_of_the_same_slug_and_another_name_is_used(self):
        name = written_posts()[0]["tags"][0]
        mine = Tag.objects.create(name="My own name", slug=name)

        seed()

        mine.refresh_from_db()
        self.assertEqual(mine.name, "My own name")
        self.assertGreater(mine.posts.count(), 0)

    def test_posts_and_comments_of_a_person_stay(self):
        mine = self.make_post("mine")
        self.make_comment(mine, "Grace", "My own remark.")

        seed()

        self.assertEqual(Post.objects.get(slug="mine").comments.get().body, "My own remark.")
        self.assertEqual(Post.objects.count(), WRITTEN + 3 + 1)


class SeedNumbersTests(CacheTestCase):
    """Numbers that make no sense are one line."""

    def test_numbers_out_of_range_are_refused(self):
        for numbers in ({"posts": -1}, {"comments": -1}, {"posts": 20_001}, {"comments": 500_001}):
            with self.subTest(numbers), self.assertRaisesMessage(CommandError, "Give 0 to"):
                seed(**numbers)

    def test_an_argument_that_is_not_a_number_is_refused(self):
        for option in ("--posts=abc", "--comments=1.5", "--posts=", "--nonsense"):
            with self.subTest(option), self.assertRaises(CommandError):
                call_command("seed", option)

    def test_a_refused_command_writes_nothing(self):
        with self.assertRaises(CommandError):
            seed(posts=5, comments=-1)

        self.assertEqual(Post.objects.count(), 0)


@tag("slow")
class SeedDatabaseTests(SimpleTestCase):
    """A database that can't be used is one line that says what to do."""

    def seed(self, content=None):
        with TemporaryDirectory() as folder:
            path = Path(folder, "db.sqlite3")
            if content:
                path.write_text(content)
            return run("manage.py", "seed", DATABASE_PATH=str(path), REDIS_URL=settings.REDIS_URL)

    def assert_one_line(self, done, says):
        self.assertEqual(done.returncode, 1)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertIn(says, done.stderr)
        self.assertIn("migrate", done.stderr)

    def test_a_database_without_tables_is_one_line_that_says_migrate(self):
        self.assert_one_line(self.seed(), "no such table")

    def test_a_file_that_is_not_a_database_is_one_line_that_says_migrate(self):
        self.assert_one_line(self.seed("This is a letter to my aunt.\n" * 100), "not a database")
