"""The way through the tutorial: /start/, /posts/, /cheatsheet/, and from lesson to lesson."""

import json
import re
import subprocess
import sys
from html import unescape
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from django.conf import settings
from django.core.cache import cache, caches
from django.core.cache.utils import make_template_fragment_key
from django.core.management import call_command
from django.http import HttpResponse
from django.test import RequestFactory, SimpleTestCase, override_settings, tag
from django.utils import timezone
from django.utils.cache import learn_cache_key
from redis import Redis

from blog import search
from blog.content import written_posts
from blog.models import Post
from blog.tests import CacheTestCase
from blog.tests.test_content import PARTS
from lab.urls import EXPERIMENTS
from mysite.private_redis import PrivateRedis
from mysite.processes import environment

LESSONS = written_posts()
SLUGS = [fields["slug"] for fields in LESSONS]


def main_of(response):
    """Return the HTML of the page's own content, without header and footer."""
    return response.text.partition("<main")[2].partition("</main>")[0]


def posts_in(html):
    """Return the slugs of the posts that this HTML links to, in its order."""
    return re.findall(r'href="/posts/([\w-]+)/"', html)


def neighbour(response, direction):
    """Return the address that `rel` leads to: "prev" or "next". None if there is none."""
    found = re.search(rf'<a rel="{direction} nofollow" href="([^"]+)"', main_of(response))
    return found and response.client.get(found[1])["Location"]


class SeededTestCase(CacheTestCase):
    """All lessons, and three made-up notes with comments."""

    @classmethod
    def setUpTestData(cls):
        with cls.captureOnCommitCallbacks(execute=True):
            call_command("seed", posts=3, comments=40, stdout=StringIO())
        cls.note = Post.objects.notes()[0]


class LessonsTests(SeededTestCase):
    """/posts/, all lessons in reading order."""

    def test_it_lists_all_lessons_in_reading_order(self):
        lessons = main_of(self.client.get("/posts/")).partition('class="part"')[2]

        self.assertEqual(posts_in(lessons), SLUGS)

    def test_it_has_a_summary_of_each(self):
        page = self.client.get("/posts/")

        for fields in LESSONS:
            with self.subTest(fields["slug"]):
                self.assertIn(fields["title"], unescape(page.text))
                self.assertIn(fields["summary"], unescape(page.text))

    def test_the_six_parts_follow_each_other(self):
        page = main_of(self.client.get("/posts/"))

        self.assertEqual(re.findall(r'<h2 id="(\w+)">', page), PARTS)

    def test_a_lesson_has_the_number_of_its_place(self):
        page = main_of(self.client.get("/posts/"))

        numbers = [int(number) for number in re.findall(r'<li value="(\d+)">', page)]
        self.assertEqual(numbers, [fields["lesson"] for fields in LESSONS])

    def test_notes_and_drafts_are_not_listed(self):
        Post.objects.filter(slug=SLUGS[3]).update(published_at=None)

        page = self.client.get("/posts/")

        self.assertNotContains(page, f"/posts/{SLUGS[3]}/")
        self.assertNotContains(page, self.note.get_absolute_url())

    def test_a_changed_lesson_changes_it(self):
        self.client.get("/posts/")
        lesson = Post.objects.get(slug=SLUGS[0])
        lesson.title = "Another title"

        with self.commit():
            lesson.save()

        self.assertContains(self.client.get("/posts/"), "Another title")

    def test_a_lesson_without_a_part_is_listed(self):
        Post.objects.filter(slug=SLUGS[0]).update(part="")

        self.assertContains(self.client.get("/posts/"), f"/posts/{SLUGS[0]}/")

    def test_an_empty_blog_says_how_to_get_lessons(self):
        Post.objects.all().delete()

        self.assertContains(self.client.get("/posts/"), "manage.py seed")


class NeighboursTests(SeededTestCase):
    """A lesson says where it stands, and leads on."""

    def test_next_leads_through_all_lessons(self):
        way, url = [], f"/posts/{SLUGS[0]}/"
        while url:
            way.append(url.split("/")[2])
            url = neighbour(self.client.get(url), "next")

        self.assertEqual(way, SLUGS)

    def test_previous_leads_back(self):
        way, url = [], f"/posts/{SLUGS[-1]}/"
        while url:
            way.append(url.split("/")[2])
            url = neighbour(self.client.get(url), "prev")

        self.assertEqual(way, SLUGS[::-1])

    def test_a_lesson_says_its_number_and_its_part(self):
        last = LESSONS[-1]["lesson"]
        for fields in (LESSONS[0], LESSONS[6], LESSONS[-1]):
            with self.subTest(fields["slug"]):
                page = self.client.get(f"/posts/{fields['slug']}/")

                self.assertContains(page, f"Lesson {fields['lesson']} of {last}")
                self.assertContains(page, f'href="/posts/#{fields["part"]}"')

    def test_a_draft_is_left_out(self):
        Post.objects.filter(slug=SLUGS[1]).update(published_at=None)

        page = self.client.get(f"/posts/{SLUGS[0]}/")

        self.assertEqual(neighbour(page, "next"), f"/posts/{SLUGS[2]}/")

    def test_a_draft_at_the_end_leads_to_the_list(self):
        Post.objects.filter(slug=SLUGS[0]).update(published_at=None)

        page = self.client.get(f"/posts/{SLUGS[1]}/")

        self.assertEqual(neighbour(page, "prev"), "/posts/")

    def test_a_changed_lesson_leaves_the_others_cached(self):
        for slug in SLUGS[:3]:
            self.client.get(f"/posts/{slug}/")
        lesson = Post.objects.get(slug=SLUGS[1])
        lesson.title = "Another title"

        with self.commit():
            lesson.save()

        self.assertHit(f"/posts/{SLUGS[0]}/")
        self.assertHit(f"/posts/{SLUGS[2]}/")
        self.assertMiss(f"/posts/{SLUGS[1]}/")

    def test_what_is_no_lesson_has_no_neighbours(self):
        self.make_post("mine")
        for url in ("/posts/mine/next/", "/posts/nonsense/previous/", "/posts/mine/previous/"):
            with self.subTest(url):
                self.assertEqual(self.client.get(url).status_code, 404)

    def test_a_comment_on_a_lesson_leaves_the_others_cached(self):
        for slug in SLUGS[:3]:
            self.client.get(f"/posts/{slug}/")

        self.make_comment(Post.objects.get(slug=SLUGS[1]))

        self.assertHit(f"/posts/{SLUGS[0]}/")
        self.assertHit(f"/posts/{SLUGS[2]}/")
        self.assertMiss(f"/posts/{SLUGS[1]}/")

    def test_a_changed_note_leaves_the_lessons_cached(self):
        self.client.get(f"/posts/{SLUGS[0]}/")

        with self.commit():
            self.note.save()

        self.assertHit(f"/posts/{SLUGS[0]}/")

    def test_a_post_that_is_no_lesson_has_no_neighbours(self):
        self.make_post("mine")

        page = self.client.get("/posts/mine/")

        self.assertNotContains(page, "Lesson ")
        self.assertIsNone(neighbour(page, "next"))


class LabLinksTests(SeededTestCase):
    """A lesson and its experiments link to each other, while the lab is there."""

    lesson = next(fields for fields in LESSONS if fields["lab"])

    def test_each_experiment_and_its_lesson_name_each_other(self):
        told = {experiment.slug: experiment.post for experiment in EXPERIMENTS if experiment.post}

        named = {name: fields["slug"] for fields in LESSONS for name in fields["lab"].split()}
        self.assertEqual(named, told)

    @override_settings(ROOT_URLCONF="lab.tests.urls")
    def test_with_the_lab_a_lesson_leads_to_its_experiment(self):
        page = self.client.get(f"/posts/{self.lesson['slug']}/")

        for name in self.lesson["lab"].split():
            self.assertContains(page, f'href="/lab/{name}/"')

    @override_settings(ROOT_URLCONF="lab.tests.urls")
    def test_with_the_lab_the_start_leads_to_it(self):
        page = self.client.get("/start/")

        for name in ("peel", "leak"):
            self.assertContains(page, f'href="/lab/{name}/"')

    def test_without_the_lab_no_link_leads_there(self):
        for url in ("/start/", "/posts/", "/cheatsheet/", f"/posts/{self.lesson['slug']}/"):
            with self.subTest(url):
                self.assertNotContains(self.client.get(url), 'href="/lab/')


class BadgeTests(SeededTestCase):
    """What a reader may expect: plain Django, this blog's own, or made up."""

    words = {"django": "Plain Django", "blog": "How this blog does it"}

    def test_each_lesson_says_what_it_is_about(self):
        for fields in LESSONS:
            with self.subTest(fields["slug"]):
                page = main_of(self.client.get(f"/posts/{fields['slug']}/"))

                badge = re.search(r'class="badge[^"]*">([^<]*)<', page)[1]
                self.assertEqual(badge, self.words[fields["scope"]])

    def test_a_note_says_that_it_is_made_up(self):
        self.assertContains(self.client.get(self.note.get_absolute_url()), "This note is made up")

    def test_a_post_that_a_person_wrote_has_no_badge(self):
        self.make_post("mine")

        self.assertNotContains(self.client.get("/posts/mine/"), 'class="badge')
        self.assertNotContains(self.client.get("/posts/mine/"), "made up")

    def test_lists_say_which_posts_are_made_up(self):
        tag = self.note.tags.all()[0]
        archive = self.note.published_at.strftime("/archive/%Y/%m/")
        of_lessons = search.words(" ".join(fields["body"] for fields in LESSONS))
        rare = min(set(search.words(self.note.body)) - set(of_lessons))
        for url in (tag.get_absolute_url(), archive, f"/search/?q={rare}"):
            with self.subTest(url):
                page = main_of(self.client.get(url))

                after = page.partition(f'href="{self.note.get_absolute_url()}"')[2]
                self.assertIn("Made up", after.partition('href="/posts/')[0])

    def test_lists_do_not_call_a_lesson_made_up(self):
        for url in ("/", "/tags/redis/", "/search/?q=stampede"):
            with self.subTest(url):
                page = main_of(self.client.get(url)).partition("/posts/note-")[0]

                self.assertTrue(posts_in(page))
                self.assertNotIn("Made up", page)

    def test_the_home_page_shows_lessons_before_notes(self):
        first = self.client.get("/").context["posts"]
        numbers = first.paginator.page_range
        pages = [self.client.get("/", {"page": n}).context["posts"] for n in numbers]

        notes = [post.is_note() for page in pages for post in page]
        self.assertEqual(notes, sorted(notes))
        self.assertIn(True, notes)

    def test_the_most_discussed_posts_are_lessons_before_notes(self):
        for _ in range(9):
            self.make_comment(self.note)

        most = Post.objects.published().most_discussed()

        self.assertEqual([post.is_note() for post in most], [False] * 5)


class HomeTests(SeededTestCase):
    """The home page begins with the way in."""

    def test_it_begins_with_the_start_and_the_lessons(self):
        links = re.findall(r'href="([^"]+)"', main_of(self.client.get("/")))

        self.assertEqual(links[:2], ["/start/", "/posts/"])

    def test_the_newest_lesson_comes_first(self):
        self.assertEqual(self.client.get("/").context["posts"][0].slug, SLUGS[-1])


class WayTests(SeededTestCase):
    """Every link of these pages works. Those to other posts need the lessons, which are seeded."""

    def test_every_link_works(self):
        for url in ("/", "/start/", "/posts/", "/cheatsheet/", "/about/"):
            for href in sorted(set(re.findall(r'href="(/[^"#]*)', main_of(self.client.get(url))))):
                with self.subTest(url, href=href):
                    self.assertEqual(self.client.get(href).status_code, 200)

    def test_the_cheat_sheet_leads_from_each_symptom_to_a_lesson(self):
        sheet = main_of(self.client.get("/cheatsheet/"))
        rows = re.findall(r"<tr>(.*?)</tr>", sheet.partition('class="symptoms"')[2])

        self.assertGreater(len(rows), 10)
        for row in rows[1:]:
            with self.subTest(row):
                (slug,) = posts_in(row)
                self.assertIn(slug, SLUGS)

    def test_these_pages_run_no_query_of_their_own(self):
        with self.assertNumQueries(0):
            self.client.get("/start/")
            self.client.get("/cheatsheet/")
        with self.assertNumQueries(1):
            self.client.get("/posts/")


class CheatSheetTests(CacheTestCase):
    """What the cheat sheet says of the keys, asked of Django itself."""

    def page_key(self, url="/a/", method="get", prefix="", language="en", zone="UTC", **headers):
        """Return the key under which Django stores a page that varies on Accept."""
        request = getattr(RequestFactory(), method)(url, headers=headers)
        request.LANGUAGE_CODE = language  # As LocaleMiddleware sets it.
        response = HttpResponse(headers={"Vary": "Accept"})
        with self.settings(USE_I18N=True, USE_TZ=True), timezone.override(zone):
            return learn_cache_key(request, response, 60, prefix, cache=caches["default"])

    def test_the_key_of_a_page_is_made_of_what_the_sheet_says(self):
        keys = [
            self.page_key(),
            self.page_key("/b/"),
            self.page_key("/a/?utm_source=x"),
            self.page_key(method="head"),
            self.page_key(prefix="release-2"),
            self.page_key(language="pt-br"),
            self.page_key(zone="Europe/Oslo"),
            self.page_key(host="127.0.0.1"),
            self.page_key(accept="text/plain"),
        ]

        self.assertEqual(len(set(keys)), len(keys))
        self.assertEqual(self.page_key(cookie="a=b"), keys[0])

    def test_the_key_of_a_fragment_is_its_name_and_the_values(self):
        key = make_template_fragment_key("months", [7])

        self.assertTrue(key.startswith("template.cache.months."))
        self.assertNotEqual(make_template_fragment_key("months", [8]), key)

    def test_the_key_of_a_value_is_prefix_version_and_key(self):
        prefix = settings.CACHES["default"]["KEY_PREFIX"]

        self.assertEqual(cache.make_key("posts:months"), f"{prefix}:1:posts:months")


ASK = """
import json
from django.core.cache import cache
from django.test import Client
stored = cache.set("probe", 1, 5)
pages = [Client(headers={"host": "127.0.0.1"}).get("/clock/") for _ in range(2)]
told = [[page.status_code, page.has_header("Age"), page["Cache-Control"]] for page in pages]
print(json.dumps([stored, told, pages[0].text == pages[1].text]))
"""


@tag("slow")
class OwnProjectTests(SimpleTestCase):
    """The last step of /start/, in a new project, with what the page says to paste."""

    def block(self, name):
        """Return the text of the block to paste with this id, as a browser copies it."""
        page = self.client.get("/start/").text
        return unescape(re.search(rf'<pre[^>]* id="{name}"><code>(.*?)</code>', page, re.DOTALL)[1])

    def run_python(self, folder, *arguments):
        """Run Python in the folder and return what it printed."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment(DJANGO_SETTINGS_MODULE="mysite.settings"),
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def ask(self, location):
        """Follow the steps with a Redis at `location`. Return what ASK has printed."""
        with TemporaryDirectory() as folder:
            self.run_python(folder, "-m", "django", "startproject", "mysite", ".")
            for name in ("settings", "urls"):
                text = self.block(f"own-{name}").replace("redis://127.0.0.1:6379/1", location)
                with Path(folder, "mysite", f"{name}.py").open("a") as file:
                    file.write(f"\n{text}\n")
            return json.loads(self.run_python(folder, "manage.py", "shell", "-v", "0", "-c", ASK))

    def test_the_second_answer_is_a_hit(self):
        with PrivateRedis() as server:
            stored, told, is_same = self.ask(server.url)

            keys = Redis.from_url(server.url).keys()

        self.assertIs(stored, True)
        self.assertEqual(told, [[200, False, "max-age=60"], [200, True, "max-age=60"]])
        self.assertTrue(is_same)
        self.assertGreater(len(keys), 2)
        for key in keys:
            self.assertTrue(key.startswith(b"mysite:1:"), key)

    def test_without_redis_both_answers_are_built(self):
        stored, told, _ = self.ask("redis://127.0.0.1:1")

        self.assertIsNone(stored)
        self.assertEqual(told, [[200, False, "max-age=60"]] * 2)
