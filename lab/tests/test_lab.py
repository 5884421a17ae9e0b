"""The lab as a whole: there with LAB=1, 404 with LAB=0, and the same for each experiment."""

import json
import socket
from contextlib import nullcontext, suppress
from pathlib import Path
from unittest import mock, skipUnless
from urllib.parse import urlencode

from django.conf import settings
from django.test import Client, SimpleTestCase, tag

from blog.tests import CacheTestCase
from blog.tests.test_browser import BrowserTestCase
from lab import leak, outage, race
from lab.experiment import with_code
from lab.tests import LabPageTestCase, LabTestCase, doubles, entries
from lab.urls import EXPERIMENTS
from mysite.private_redis import PrivateRedis
from mysite.processes import wait_until
from mysite.tests.served import Form, Gunicorn, Home

ASK = """
import django
django.setup()
from django.test import Client
client = Client(headers={"host": "127.0.0.1"})
names = ["", "peel/", "race/", "stampede/", "leak/", "stale/", "outage/", "keys/", "wire/"]
urls = [f"/lab/{name}" for name in names]
print([client.get(url).status_code for url in urls], [client.post(url).status_code for url in urls])
print('href="/lab/"' in client.get("/nonsense/").content.decode())
print(client.post("/watch/keys/expire", {"key": "nonsense"}).status_code)
print(client.post("/lab/leak/", {"page": "greeting"}).content.decode().count("<mark>"))
"""


def ask(home, **variables):
    """Ask for pages of the lab in a process of its own, and return what it printed."""
    return home.run("-c", ASK, REDIS_URL=settings.REDIS_URL, **variables).splitlines()


@tag("slow")
class SwitchTests(SimpleTestCase):
    """LAB=1 and LAB=0."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.home = cls.enterClassContext(Home())

    def test_off_nothing_of_it_is_there(self):
        statuses, is_linked, expire, _ = ask(self.home, LAB="0")

        self.assertEqual(statuses, f"{[404] * 9} {[404] * 9}")
        self.assertEqual(is_linked, "False")
        self.assertEqual(expire, "404", "keys can be expired by hand")

    def test_on_it_is_there_and_linked(self):
        statuses, is_linked, expire, marks = ask(self.home, LAB="1")

        # A POST without fields is not what the forms want.
        # Peel has no form: its button asks for pages.
        self.assertEqual(statuses, f"{[200] * 9} {[405, 200] + [400] * 7}")
        self.assertEqual(is_linked, "True")
        self.assertEqual(expire, "403", "this key belongs to no level")
        self.assertEqual(marks, "4", "what differs in the keys of three pages, and the legend")

    @tag("slow")
    @skipUnless(Path("/proc").is_dir(), "needs Linux's list of processes")
    def test_a_closed_tab_ends_its_experiment(self):
        with PrivateRedis() as redis, Gunicorn(self.home, redis.url, LAB="1") as gunicorn:
            browser = gunicorn.browser()
            body = self.form_of(browser, "/lab/outage/")
            tab = socket.create_connection(("127.0.0.1", gunicorn.port))
            head = (
                f"POST /lab/outage/ HTTP/1.1\r\nHost: 127.0.0.1:{gunicorn.port}\r\n"
                f"Cookie: csrftoken={browser.cookies['csrftoken']}\r\n"
                "Content-Type: application/x-www-form-urlencoded\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            )
            tab.sendall((head + body).encode())
            self.assertIn(b"200 OK", tab.recv(1000))
            self.assertTrue(wait_until(lambda: self.servers(gunicorn)), "no Redis of its own")

            tab.close()

            self.assertTrue(wait_until(lambda: not self.servers(gunicorn), 10), "it goes on")

    def form_of(self, browser, path):
        form = Form()
        form.feed(browser.get(path).text)
        return urlencode(form.fields, doseq=True)

    def servers(self, gunicorn):
        """Return the process ids of what the workers have started."""
        workers, found = set(map(str, gunicorn.workers())), []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # It has just ended.
                if path.read_text().rpartition(")")[2].split()[1] in workers:
                    found.append(path.parent.name)
        return found


class PageTests(LabPageTestCase):
    """What every experiment has."""

    def test_the_list_leads_to_each(self):
        page = self.client.get("/lab/")

        for experiment in EXPERIMENTS:
            with self.subTest(experiment.slug):
                self.assertContains(page, f'href="/lab/{experiment.slug}/"')

    def test_each_has_a_form_the_code_that_runs_and_what_to_take_home(self):
        for experiment in EXPERIMENTS:
            with self.subTest(experiment.slug):
                page = self.client.get(f"/lab/{experiment.slug}/")

                self.assertContains(page, "<form")
                self.assertContains(page, "lab/" + experiment.slug.replace("-", "_") + ".py")
                self.assertContains(page, "To take home")
                # Its post tells the rest, and no cache on the way stores the page.
                self.assertContains(page, f'href="/posts/{experiment.post}/"')
                self.assertIn("no-store", page["Cache-Control"])

    def test_no_id_and_no_name_of_a_landmark_is_there_twice(self):
        asked = [(f"/lab/{experiment.slug}/", None) for experiment in EXPERIMENTS]
        asked += [("/lab/leak/", {"page": page}) for page in leak.PAGES]
        asked += [("/lab/keys/", {"url": "http://testserver/about/"})]
        scratch = {"scratch": "0123456789ab"}
        asked += [("/lab/wire/", {"command": "SET a b"} | scratch)]
        asked += [("/lab/wire/", {"measure": "on"} | scratch)]
        for path, data in asked:
            page = self.client.post(path, data) if data else self.client.get(path)

            with self.subTest(path, data=data):
                self.assertEqual(page.status_code, 200)
                self.assertEqual(doubles(page.text), [])

    def test_what_is_there_twice_is_found(self):
        for html in (
            '<p id="a"></p><p id="a"></p>',
            '<section aria-label="Table"></section><pre role="region" aria-label="Table"></pre>',
            '<nav aria-labelledby="a"></nav><h2 id="a">It</h2><nav aria-label="It"></nav>',
        ):
            with self.subTest(html):
                self.assertEqual(len(doubles(html)), 1)

    def test_an_unknown_experiment_is_404(self):
        for method in (self.client.get, self.client.post):
            self.assertEqual(method("/lab/nonsense/").status_code, 404)

    def test_no_other_method_is_allowed(self):
        for experiment in EXPERIMENTS:
            with self.subTest(experiment.slug):
                response = self.client.delete(f"/lab/{experiment.slug}/")

                self.assertEqual(response.status_code, 405)

    def test_each_wants_a_csrf_token(self):
        client = Client(enforce_csrf_checks=True)
        for experiment in EXPERIMENTS:
            with self.subTest(experiment.slug), self.assertLogs("django.security.csrf"):
                self.assertEqual(client.post(f"/lab/{experiment.slug}/").status_code, 403)

    def test_code_in_a_sentence_is_code_and_the_rest_is_text(self):
        self.assertEqual(
            with_code("Use `a<b>()`, not <b>."),
            "Use <code>a&lt;b&gt;()</code>, not &lt;b&gt;.",
        )


class BlogEntriesTests(LabTestCase):
    """
    After each experiment, the blog's levels have the same keys and values as before.

    Stale invalidates groups of the blog, and says so: see test_stale.py.
    """

    RUN = "0123456789ab"
    make_post = CacheTestCase.make_post

    def setUp(self):
        super().setUp()
        self.make_post("keys", tags=["redis"])
        for path in ("/", "/about/", "/feed/", "/posts/keys/", "/archive/", "/search/?q=keys"):
            self.client.get(path)
        self.before = entries()
        self.addCleanup(self.check)

    def check(self):
        after = entries()
        self.assertEqual(after.keys(), self.before.keys())
        self.assertEqual(after, self.before)

    def test_peel_leaves_the_entries_of_the_blog_as_they_were(self):
        self.client.get(f"/lab/peel/page/{self.RUN}/")
        self.client.get(f"/lab/peel/rings/{self.RUN}/")
        deleted = self.client.post(f"/lab/peel/delete/{self.RUN}/", {"all": "1"}).json()["deleted"]

        self.assertEqual(deleted, ["site", "view", "fragment", "low-level"])

    def test_race_leaves_the_entries_of_the_blog_as_they_were(self):
        for level in race.LEVELS:
            self.client.get(f"/lab/race/page/{level}/{self.RUN}/")

        response = self.client.post("/lab/race/delete/", {"run": self.RUN, "rounds": 1})

        self.assertEqual(response.status_code, 204)

    @tag("slow")
    def test_stampede_leaves_the_entries_of_the_blog_as_they_were(self):
        for part in ("bursts", "dead"):
            with self.subTest(part):
                self.run_experiment("stampede", requests=2, part=part)

    @tag("slow")
    def test_stampede_on_pages_leaves_the_entries_of_the_blog_as_they_were(self):
        self.run_experiment("stampede", requests=2, part="pages")

    def test_leak_leaves_the_entries_of_the_blog_as_they_were(self):
        for page in leak.PAGES:
            with self.subTest(page):
                logs = self.assertLogs("django.security.csrf") if page == "form" else nullcontext()
                with logs:
                    response = self.client.post("/lab/leak/", {"page": page})
                self.assertEqual(response.status_code, 200)

    @tag("outage")
    def test_outage_leaves_the_entries_of_the_blog_as_they_were(self):
        phases = ((None, 0.5), (outage.hangs, 1), (None, 1.5))
        with (
            mock.patch.object(outage, "PHASES", phases),
            self.assertLogs("resilient_cache", "WARNING"),
        ):
            self.run_experiment("outage", visitors_each=1)

    def test_keys_leaves_the_entries_of_the_blog_as_they_were(self):
        for path in ("/about/", "/posts/keys/", "/archive/", "/nonsense/", "/about/?utm_source=x"):
            with self.subTest(path):
                response = self.client.post("/lab/keys/", {"url": f"http://testserver{path}"})
                self.assertEqual(response.status_code, 200)

    def test_wire_leaves_the_entries_of_the_blog_as_they_were(self):
        for data in ({"command": "SET group:site x"}, {"command": "DEL a"}):
            with self.subTest(data):
                response = self.client.post("/lab/wire/", data | {"scratch": self.RUN})
                self.assertEqual(response.status_code, 200)


ERROR_IS_IN_SIGHT = """() =>
  [...document.querySelectorAll(".errorlist, .lab-said")]
    .filter((element) => element.textContent.trim())
    .map((element) => element.getBoundingClientRect())
    .some(({ top, bottom }) => top >= 0 && bottom <= innerHeight)
"""
CELLS_OUT_OF_SIGHT = """() =>
  [...document.querySelectorAll(":is(.lab-numbers, .lab-parts, .leak) :is(th, td)")]
    .filter((cell) => cell.checkVisibility())
    .filter((cell) => {
      const text = document.createRange();
      text.selectNodeContents(cell);
      const inside = [cell, cell.closest(".scroll")].map((it) => it.getBoundingClientRect().right);
      return text.getBoundingClientRect().right > Math.min(...inside) + 1;
    })
    .map((cell) => cell.textContent)
"""
SLOW = {"Server-Timing": "app;dur=1234.5"}
# The widest rows that an experiment tells.
NUMBERS = {
    "race": [],
    "outage": [("phases", ["6. is full", "this blog’s", "123", "1,234.5", "12,345", "0"])],
    "stampede": [
        ("bursts", ["resilient_cache, in the last second", 50, "1234", "12345", "12345", 50])
    ],
}


@tag("browser")
class LabInTheBrowserTests(BrowserTestCase, LabTestCase):
    """Every page of it, without a complaint of the browser: visitor() fails on those."""

    def test_on_a_phone_nothing_hangs_over(self):
        page = self.visitor(viewport={"width": 360, "height": 640})
        for slug in ["", *(f"{experiment.slug}/" for experiment in EXPERIMENTS)]:
            with self.subTest(slug):
                page.goto(f"/lab/{slug}")

                self.assertEqual(page.evaluate("document.documentElement.scrollWidth"), 360)

    def test_an_error_is_in_sight(self):
        for slug, field, value in (
            ("keys", "url", "http://example.com/"),
            ("wire", "command", "FLUSHALL"),
            ("race", "rounds", "51"),
            ("stampede", "requests", "1"),
            ("outage", "visitors_each", "9"),
        ):
            for width in (1280, 360):
                page = self.visitor(viewport={"width": width, "height": 400})
                page.goto(f"/lab/{slug}/")
                page.locator(".lab-form").evaluate("(form) => { form.noValidate = true; }")
                page.locator(f'.lab-form [name="{field}"]').fill(value)
                page.locator("[data-start]").click()

                with self.subTest(slug, width=width):
                    page.wait_for_function(ERROR_IS_IN_SIGHT)

    def test_an_error_of_the_server_is_in_sight(self):
        for slug, path in (
            ("race", "**/lab/race/delete/"),
            ("stampede", "**/lab/stampede/"),
            ("outage", "**/lab/outage/"),
            ("peel", "**/lab/peel/delete/**"),
        ):
            page = self.visitor(viewport={"width": 360, "height": 400})
            page.goto(f"/lab/{slug}/")
            self.answer(page, path, status=400, body="Not today.")
            page.locator("[data-start], [data-tour]").first.click()

            with self.subTest(slug):
                page.wait_for_function(ERROR_IS_IN_SIGHT)

    def test_the_pressed_button_has_the_focus_after_a_run_and_starts_the_next_one(self):
        for slug in ("race", "stampede", "outage"):
            page, runs = self.visitor(), []
            page.goto(f"/lab/{slug}/")
            self.answer(page, f"**/lab/{slug}/page/**", body="")
            self.answer(page, f"**/lab/{slug}/delete/", status=204)
            self.answer(page, f"**/lab/{slug}/", body='{"kind": "end"}\n')
            page.on("request", lambda request, runs=runs: runs.append(request.method))
            self.shorten(page)
            button = page.locator("[data-start]")
            for _ in range(2):
                before = len(runs)
                button.press("Enter")
                page.locator('.lab[data-state="done"]').wait_for()

                with self.subTest(slug):
                    focused = "button => button === document.activeElement"
                    self.assertTrue(button.evaluate(focused))
                    self.assertGreater(len(runs), before)

    def answer(self, page, path, **answer):
        """Let requests for `path` have this answer, and not reach the server."""
        page.route(path, lambda route: route.fulfill(**answer))

    def shorten(self, page):
        """Let a race have one round."""
        if (rounds := page.locator('[name="rounds"]')).count():
            rounds.fill("1")

    def test_on_a_phone_every_column_of_numbers_is_in_sight(self):
        for slug, rows in NUMBERS.items():
            page = self.visitor(viewport={"width": 360, "height": 640})
            page.goto(f"/lab/{slug}/")
            lines = [
                json.dumps({"kind": "row", "table": table, "key": str(number), "cells": cells})
                for number, (table, cells) in enumerate(rows)
            ]
            body = "\n".join([*lines, '{"kind": "end"}', ""])
            self.answer(page, f"**/lab/{slug}/", body=body)
            self.answer(page, "**/lab/race/delete/", status=204)
            self.shorten(page)
            self.answer(page, "**/race/page/**", body="", headers=SLOW)
            page.locator("[data-start]").click()
            page.locator('.lab[data-state="done"]').wait_for()

            with self.subTest(slug):
                self.assertEqual(page.evaluate(CELLS_OUT_OF_SIGHT), [])

    def test_on_a_phone_both_keys_are_in_sight_part_by_part(self):
        page = self.visitor(viewport={"width": 360, "height": 640})
        for stored in (False, True):
            page.goto("/lab/keys/")
            page.get_by_role("button", name="over https").click()
            page.locator(".lab-parts").wait_for()

            with self.subTest(stored=stored):
                self.assertEqual(page.evaluate(CELLS_OUT_OF_SIGHT), [])
            page.goto("/about/")

    def test_on_a_phone_who_got_what_is_in_sight(self):
        page = self.visitor(viewport={"width": 360, "height": 640})
        for shown in leak.PAGES:
            page.goto("/lab/leak/")
            page.locator('[name="page"]').select_option(shown)
            page.locator("[data-start]").click()
            page.locator(".leak table").first.wait_for()

            with self.subTest(shown):
                self.assertEqual(page.evaluate(CELLS_OUT_OF_SIGHT), [])

    def test_the_button_is_in_sight_without_scrolling(self):
        page = self.visitor(viewport={"width": 1280, "height": 800})
        for experiment in EXPERIMENTS:
            with self.subTest(experiment.slug):
                page.goto(f"/lab/{experiment.slug}/")

                button = page.locator("[data-start], [data-tour]").first
                box = button.bounding_box()
                self.assertLess(box["y"] + box["height"], 800)
