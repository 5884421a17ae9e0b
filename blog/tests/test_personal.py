"""Personal pages: what belongs to one person never reaches another, at any level."""

import re
from dataclasses import dataclass

from django.contrib.auth.models import User
from django.test import Client, tag

from blog.models import Comment
from blog.tests import CacheTestCase

SHARED = (
    *("/", "/start/", "/posts/", "/cheatsheet/"),
    *("/tags/redis/", "/about/", "/feed/", "/sitemap.xml", "/posts/keys/"),
)
PERSONAL = ("/archive/", "/archive/2026/03/", "/search/?q=keys", "/posts/keys/comment/")
MISSING = ("/nonsense/", "/posts/nonsense/")
EVERY_PAGE = SHARED + PERSONAL + MISSING
FLASH = "Flash of the author"
CSRF_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="(\w+)"')


class Person:
    """A visitor with a browser, and the secrets that no other visitor may see."""

    def __init__(self, name):
        self.name = name
        self.client = Client()
        self.secrets = {name}

    def get(self, url):
        """Get a page and remember the secrets of this person on it. Return its text."""
        response = self.client.get(url)
        text = response.content.decode()
        self.secrets |= set(CSRF_TOKEN.findall(text))
        # Cookies are long; a deleted one is empty.
        self.secrets |= {c.value for c in self.client.cookies.values() if c.value}
        headers = "\n".join(f"{name}: {value}" for name, value in response.items())
        return f"{headers}\n{text}"


class PersonalTestCase(CacheTestCase):
    """Two users, one of them staff, and a visitor who commented."""

    @classmethod
    def setUpTestData(cls):
        cls.post = cls.make_post("keys")
        cls.staff = User.objects.create_superuser("alma-the-author")
        cls.user = User.objects.create_user("rufus-the-reader")

    def setUp(self):
        super().setUp()
        self.author = Person("alma-the-author")
        self.reader = Person("rufus-the-reader")
        self.visitor = Person("vera-the-visitor")
        self.author.client.force_login(self.staff)
        self.reader.client.force_login(self.user)
        self.leave_a_message(self.author, FLASH)
        self.leave_a_name(self.visitor)
        self.people = (self.author, self.reader, self.visitor)

    def leave_a_message(self, person, text):
        """Let `person`, who is staff, have a flash message that waits to be shown."""
        comment = self.make_comment(self.post, author=text)
        fields = {"created_at_0": "2026-03-01", "created_at_1": "12:00:00"}
        fields |= {"post": self.post.pk, "author": text, "body": "x"}
        with self.commit():
            response = person.client.post(f"/admin/blog/comment/{comment.pk}/change/", fields)
            self.assertEqual(response.status_code, 302)
            self.assertIn(text, str(dict(person.client.session)))
            comment.delete()
        person.secrets.add(text)

    def leave_a_name(self, person):
        """Let the browser of `person` remember a name, as it does after a comment."""
        comment = {"author": person.name, "body": "Hello."}
        with self.commit():
            response = person.client.post("/posts/keys/comment/", comment)
            self.assertEqual(response.status_code, 302)
            Comment.objects.all().delete()

    def read_in_turn(self, order, urls=EVERY_PAGE):
        """Let the people of `order` read each page; return {(name, url): what they saw}."""
        self.empty_caches()
        return {(person.name, url): person.get(url) for url in urls for person in order}


def orders(people):
    """Return three orders of the three, so that each of them reads what each other one filled."""
    return [people[first:] + people[:first] for first in range(len(people))]


@dataclass
class Reading:
    """What happened when each person read each page, in one order."""

    order: list  # of names
    seen: dict  # {(name, url): text}
    secrets: dict  # {name: what no other person may see}


@tag("behaviour")
class OrderTests(PersonalTestCase):
    """Three people read each page, each of them once as the first."""

    readings = []  # Made by the first test and used by all of them.

    def setUp(self):
        super().setUp()
        self.comment = self.make_comment(self.post, "Ada")
        if not self.readings:
            for order in orders(self.people):
                self.leave_a_message(self.author, FLASH)
                seen = self.read_in_turn(order)
                secrets = {person.name: set(person.secrets) for person in order}
                self.readings.append(Reading(list(secrets), seen, secrets))

    def test_the_second_and_the_third_person_get_shared_pages_from_the_cache(self):
        for reading in self.readings:
            with self.subTest(order=reading.order):
                for url in SHARED:
                    ages = ["\nAge: " in reading.seen[name, url] for name in reading.order]
                    self.assertEqual(ages, [False, True, True], url)

    def test_no_page_shows_a_secret_of_another_person(self):
        for reading in self.readings:
            with self.subTest(order=reading.order):
                for (name, url), text in reading.seen.items():
                    others = [reading.secrets[other] for other in reading.order if other != name]
                    for secret in set().union(*others) - reading.secrets[name]:
                        self.assertNotIn(secret, text, f"{name} at {url}")

    def test_shared_pages_are_the_same_for_all(self):
        for reading in self.readings:
            with self.subTest(order=reading.order):
                for url in SHARED:
                    bodies = {reading.seen[name, url].partition("\n<")[2] for name in reading.order}
                    self.assertEqual(len(bodies), 1, url)

    def test_the_archive_greets_each_by_name(self):
        for reading in self.readings:
            with self.subTest(order=reading.order):
                for name in reading.order:
                    self.assertIn(name, reading.seen[name, "/archive/"])

    def test_links_to_edit_are_for_staff_alone(self):
        edit = re.compile(r"/admin/blog/comment/\d+/change/")
        for reading in self.readings:
            with self.subTest(order=reading.order):
                for (name, url), text in reading.seen.items():
                    # The message of the author has such a link too, and is shown once.
                    links = set(edit.findall(text)) if name != self.author.name else ()
                    self.assertFalse(links, f"{name} at {url}")
                self.assertRegex(reading.seen[self.author.name, "/archive/2026/03/"], edit)

    def test_a_flash_message_is_shown_once_to_its_owner(self):
        for reading in self.readings:
            with self.subTest(order=reading.order):
                shown = [page for page, text in reading.seen.items() if FLASH in text]
                self.assertEqual(shown, [(self.author.name, "/archive/")])


class PersonalInRedisTests(PersonalTestCase):
    """No level stores anything that belongs to one person."""

    def test_a_shared_page_is_one_entry_for_all(self):
        self.read_in_turn(self.people)

        self.assertEqual(len(self.pages("site") + self.pages("view")), len(SHARED))

    def test_the_page_levels_store_no_personal_page(self):
        self.read_in_turn(self.people * 2, PERSONAL)

        self.assertEqual(self.pages("site") + self.pages("view"), [])

    def test_the_admin_is_not_stored(self):
        self.empty_caches()
        for url in ("/admin/", "/admin/login/", "/admin/blog/post/"):
            for client in (self.author.client, self.reader.client, Client()):
                client.get(url)

        self.assertEqual(self.stored(), {})


@tag("behaviour")
class PersonalTests(PersonalTestCase):
    """Shared pages, personal pages, and what tells them apart."""

    def test_shared_pages_set_no_cookie(self):
        for person in self.people:
            for url in SHARED:
                with self.subTest(url, person=person.name):
                    self.assertEqual(person.client.get(url).cookies, {})

    def test_shared_pages_do_not_depend_on_cookies(self):
        for person in self.people:
            for url in SHARED:
                with self.subTest(url, person=person.name):
                    self.assertNotIn("cookie", person.client.get(url).get("Vary", "").lower())

    def test_shared_pages_ask_for_neither_session_nor_user(self):
        for url in SHARED:
            self.author.client.get(url)

            with self.subTest(url), self.assertNoQueries():
                self.author.client.get(url)

    def test_a_flash_message_is_shown_on_no_shared_page(self):
        for url in SHARED + MISSING:
            with self.subTest(url):
                self.assertNotIn(FLASH, self.author.get(url))

    def test_a_flash_message_waits_while_its_owner_reads_shared_pages(self):
        for url in SHARED:
            self.author.get(url)

        self.assertIn(FLASH, self.author.get("/admin/"))

    def test_each_comment_form_has_a_token_of_its_own(self):
        url = "/posts/keys/comment/"
        forms = self.read_in_turn(self.people * 2, [url])

        tokens = {CSRF_TOKEN.search(text)[1] for text in forms.values()}
        self.assertEqual(len(tokens), len(self.people))

    def test_personal_pages_tell_caches_on_the_way_not_to_store_them(self):
        for person in self.people:
            for url in PERSONAL:
                with self.subTest(url, person=person.name):
                    directives = person.client.get(url)["Cache-Control"]
                    self.assertIn("no-store", directives)
                    self.assertIn("private", directives)

    def test_a_name_in_the_cookie_counts_only_with_its_signature(self):
        self.client.cookies["visitor"] = "mallory"

        self.assertNotContains(self.client.get("/archive/"), "mallory")
