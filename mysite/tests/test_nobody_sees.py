"""Whatever people do in whatever order, nobody sees what is not theirs."""

import re
from unittest import skipUnless

from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client, override_settings, tag

from blog.models import Comment, Tag
from blog.tests import CacheTestCase

try:
    import hypothesis
    from hypothesis import strategies as st
except ImportError:  # It is in requirements-dev.txt.
    hypothesis = None

PAGES = (
    *("/", "/?page=2", "/tags/redis/", "/about/", "/feed/", "/sitemap.xml", "/posts/keys/"),
    *("/archive/", "/archive/2026/03/", "/search/?q=keys", "/search/?q=nonsense"),
    *("/posts/keys/comment/", "/admin/", "/admin/login/", "/admin/blog/post/", "/healthz"),
    *("/nonsense/", "/posts/nonsense/", "/about", "//about/"),
    *("/watch/", "/watch/state", "/watch/events"),
)
NAMES = ("alma-the-author", "rufus-the-reader", "vera-the-visitor", "nobody")
CSRF_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="(\w+)"')
LANGUAGE = "x-speaks-{}"  # What only this person's browser sends ...
AUTHORIZATION = "Basic belongs-to-{}"


class Person:
    """Somebody with a browser, and everything that nobody else may see."""

    def __init__(self, name):
        self.name = name
        self.client = Client()
        self.secrets = {LANGUAGE.format(name), AUTHORIZATION.format(name)}
        if name != "nobody":
            self.secrets.add(name)

    def headers(self, sends, etag):
        """Return the header fields of a request."""
        headers = {}
        if "language" in sends:
            headers["Accept-Language"] = LANGUAGE.format(self.name)
        if "authorization" in sends:
            headers["Authorization"] = AUTHORIZATION.format(self.name)
        if "condition" in sends and etag:
            headers["If-None-Match"] = etag
        return headers

    def note(self, response):
        """Note what is this person's own, and return all of the answer as one text."""
        text = response.content.decode()
        self.secrets |= set(CSRF_TOKEN.findall(text))
        self.secrets |= {c.value for c in self.client.cookies.values() if c.value}
        headers = "\n".join(f"{name}: {value}" for name, value in response.items())
        return f"{headers}\n{response.cookies.output()}\n{text}"


@override_settings(MIDDLEWARE=settings.MIDDLEWARE)  # With the watch: its pages are asked for.
class NobodySeesTests(CacheTestCase):
    """An author, a reader who is logged in, a visitor who commented, and nobody."""

    @classmethod
    def setUpTestData(cls):
        for number in range(11):  # A second page of the list.
            cls.make_post("keys" if number == 0 else f"post-{number}")
        cls.make_post("fragments", tags=("redis", "django"))
        staff = User.objects.create_superuser(NAMES[0])
        cls.users = {NAMES[0]: staff, NAMES[1]: User.objects.create_user(NAMES[1])}

    def begin(self):
        """Let everybody come anew to empty caches."""
        self.empty_caches()
        self.people = {name: Person(name) for name in NAMES}
        for name, user in self.users.items():
            self.people[name].client.force_login(user)
        visitor = self.people[NAMES[2]]
        sent = visitor.client.post("/posts/keys/comment/", {"author": visitor.name, "body": "Hi."})
        self.assertEqual(sent.status_code, 302)
        # What somebody signs is public. The name in the cookie is not.
        Comment.objects.all().delete()
        self.leave_a_message(self.people[NAMES[0]], "flash-of-alma")
        self.empty_caches()
        for person in self.people.values():
            person.secrets |= {c.value for c in person.client.cookies.values() if c.value}
        self.etags = {}

    def leave_a_message(self, author, text):
        """Let the author have a message that waits to be shown."""
        saved = author.client.post("/admin/blog/tag/add/", {"name": text, "slug": text})
        self.assertEqual(saved.status_code, 302)
        Tag.objects.filter(slug=text).delete()
        author.secrets.add(text)

    def step(self, name, method, page, sends):
        """Let somebody do one thing, and look at what comes back."""
        person = self.people[name]
        known = set(person.secrets)  # Before: what is new may be another's.
        headers = person.headers(sends, self.etags.get(page))
        if method == "comment":
            # Refused, and shown again with what was typed.
            typed = f"typed-by-{name}"
            known.add(typed)
            person.secrets.add(typed)
            response = person.client.post(
                "/posts/keys/comment/", {"author": typed, "body": ""}, headers=headers
            )
        elif method == "edit":
            response = person.client.post("/admin/blog/comment/add/", headers=headers)
        else:
            response = getattr(person.client, method)(page, headers=headers)
        text = person.note(response)
        self.etags[page] = response.get("ETag")
        self.assertNotEqual(response.status_code, 500)
        for other in self.people.values():
            if other is not person:
                for secret in other.secrets - known:
                    self.assertNotIn(secret, text, f"{name} sees what is {other.name}'s at {page}")

    def look_into_redis(self):
        """Assert that nothing of anybody is stored."""
        stored = b"\n".join(
            key.encode() + b" " + value for key, value in self.stored().items() if value
        )
        for person in self.people.values():
            for secret in person.secrets:
                self.assertNotIn(secret.encode(), stored, f"{person.name}'s")

    def go_through(self, steps):
        self.begin()
        for step in steps:
            self.step(*step)
        self.look_into_redis()

    def test_no_page_shows_and_no_level_stores_what_is_another_persons(self):
        every = ("language", "authorization", "condition")

        self.go_through((name, "get", page, every) for page in PAGES for name in NAMES)
        for person in self.people.values():  # Each had something to hide.
            self.assertGreaterEqual(len(person.secrets), 4, person.name)

    @tag("slow")
    @skipUnless(hypothesis, "pip install -r requirements-dev.txt")
    def test_no_sequence_of_requests_shows_or_stores_what_is_another_persons(self):
        methods = ("get", "get", "get", "head", "options", "post", "comment", "edit")
        sends = ("language", "authorization", "condition")
        steps = st.tuples(
            *(st.sampled_from(NAMES), st.sampled_from(methods), st.sampled_from(PAGES)),
            st.sets(st.sampled_from(sends)),
        )

        # Derandomized: the same sequences each time. begin() undoes what one has done.
        # Not made smaller either: that takes minutes.
        @hypothesis.settings(
            max_examples=50,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[hypothesis.Phase.generate],
        )
        @hypothesis.given(st.lists(steps, min_size=4, max_size=20))
        def run(steps):
            self.go_through(steps)

        run()
