"""The page x-ray in a real browser: five rings, drawn from the headers of the response itself."""

import re
from pathlib import Path
from urllib.parse import quote

from django.conf import settings
from django.test import override_settings

from watch.tests import views
from watch.tests.browser import BrowserCase

NAVIGATION = 'performance.getEntriesByType("navigation")[0]'
NO_SERVER_TIMING = "delete PerformanceResourceTiming.prototype.serverTiming"
# What of the page is behind the panel, at any place that the page is scrolled to.
COVERED = """() => {
  const edge = document.querySelector("#xray").getBoundingClientRect().left;
  return [...document.querySelectorAll("header *, main *, footer *")]
    .filter((element) => element.checkVisibility() && element.getBoundingClientRect().width > 1)
    .filter((element) => element.getBoundingClientRect().right > edge)
    .map((element) => element.outerHTML.slice(0, 80));
}"""
# Everything that could be read as markup, as the instrument writes it.
HOSTILE = quote("\"><img src=x onerror=document.title='owned'>\r\n\u202e", safe="")


class XrayTestCase(BrowserCase):
    watch = {"SHOW_CODE": True}
    size = (1280, 720)

    def open(self, path, page=None):
        page = page or self.page
        page.goto(path)
        page.wait_for_selector("#xray")

    def ring(self, level, page=None):
        """Return (state, text) of one level in the panel."""
        row = (page or self.page).locator(f'#xray [data-level="{level}"]')
        return row.get_attribute("data-state"), " ".join(row.inner_text().split())

    def assertRing(self, level, state, text="", page=None):
        found, said = self.ring(level, page)
        self.assertEqual(found, state, said)
        self.assertRegex(said, text or ".")

    def assertNotReached(self, levels, answered):
        for level in levels.split():
            self.assertRing(level, "idle", f"not reached: the {answered} answered$")

    def headline(self):
        return self.page.locator(".xray-headline").inner_text()

    def answer_with(self, page, headers, path="/about/"):
        """Let `path` come with these headers instead of its own: None removes one."""

        def fulfill(route):
            response = route.fetch()
            changed = {**response.headers, **headers}
            known = {name: value for name, value in changed.items() if value is not None}
            route.fulfill(response=response, headers=known)

        page.route(f"**{path}", fulfill)

    def drop(self, level, pattern):
        """Delete the keys of a level that match a pattern."""
        client = self.redis(level)
        client.delete(*client.scan_iter(f"{self.name}-{level}:{pattern}"))


class RingTests(XrayTestCase):
    """Who answered, and what those before and behind did."""

    def test_a_cold_page(self):
        self.open("/")

        self.assertEqual(self.headline(), "Django made this page")
        self.assertRing("browser", "miss", r"[\d.]+ KB .*Came over the network")
        self.assertRing(
            "site", "miss", r"(60|59) s left [\d.]+ KB [\d.]+ ms Stored for the next request"
        )
        self.assertRing("site", "miss", r"settings\.py:\d+$")
        for level in ("view", "fragment", "low-level"):
            self.assertRing(level, "idle", "not used$")

    def test_a_page_of_the_whole_site(self):
        self.get("/about/")

        self.open("/about/")

        self.assertEqual(self.headline(), "Whole site: hit")
        self.assertRing("browser", "miss")
        self.assertRing("site", "hit", r"\d+ s left [\d.]+ KB [\d.]+ ms settings\.py:\d+$")
        self.assertNotReached("view fragment low-level", "level “Whole site”")

    def test_a_page_of_a_view(self):
        self.get("/view/")
        self.drop("site", "*")

        self.open("/view/")

        at = next(
            number
            for number, line in enumerate(Path(views.__file__).read_text().splitlines(), 1)
            if "@cache_page(300" in line
        )
        self.assertRing("view", "hit", rf"\d min \d+ s left [\d.]+ KB [\d.]+ ms views\.py:{at}$")
        self.assertNotReached("fragment low-level", "level “Per view”")

    def test_a_page_that_the_site_level_leaves_to_the_view(self):
        timing = (
            'app;dur=9, req;desc="a@1767225600", why;desc="site cached-by-view", '
            'view;dur=2;desc="hit n=1 ttl=150 b=900 at=views.py:30"'
        )
        self.answer_with(self.page, {"server-timing": timing})

        self.open("/about/")

        self.assertRing("site", "bypass", "The level “Per view” caches this page")
        self.assertRing("view", "hit", r"2 min \d+ s left")

    def test_fragments_some_cached_some_not(self):
        self.get("/fragments/")
        self.drop("fragment", "*:template.cache.hours.*")

        self.open("/fragments/")

        self.assertEqual(self.headline(), "Django made this page from cached parts")
        self.assertRing("site", "miss", "The view says never_cache")
        self.assertRing("fragment", "mixed", r"1/2 hit .*2 fragments")
        self.assertRing("fragment", "mixed", r"hit months fragments\.html:6 \d+ s left")
        self.assertRing("fragment", "mixed", r"miss hours fragments\.html:12$")

    def test_values_of_the_low_level(self):
        self.get("/prices/")

        self.open("/prices/")

        self.assertRing("fragment", "idle", "not used")
        # Keys that one line asked for are one entry.
        self.assertRing("low-level", "hit", r"price:tea and 2 more prices\.py:\d+")

    def test_a_form_that_was_sent(self):
        self.open("/form/")
        with self.page.expect_navigation():
            self.page.locator("form button").click()
        self.page.wait_for_selector("#xray")

        self.assertRing("browser", "miss")
        self.assertRing("site", "bypass", "Only GET and HEAD are")

    def test_redis_down(self):
        for path, level in (
            ("/", "site"),
            ("/view/", "view"),
            ("/fragments/", "fragment"),
            ("/prices/", "low-level"),
        ):
            self.take_redis_away()
            self.open(path)

            with self.subTest(path):
                self.assertRing(level, "down", "Redis did not answer")
                self.assertIn("Redis is down", self.headline())

    def test_the_browsers_own_copy(self):
        self.open("/about/")
        self.open("/")
        self.page.locator('header a[href="/about/"]').click()
        self.page.wait_for_url("**/about/")
        self.page.wait_for_selector("#xray")

        self.assertEqual(self.page.evaluate(f"{NAVIGATION}.transferSize"), 0)
        self.assertEqual(self.headline(), "Your browser answered")
        self.assertRing("browser", "hit", r"Django was not asked\. Answered by Django \d+ s ago")
        self.assertNotReached("site view fragment low-level", "browser")
        left = self.page.locator("#xray .xray-note", has_text=re.compile(r"\d+ s left\."))
        left.wait_for()

    def test_ask_django_again(self):
        self.test_the_browsers_own_copy()

        with self.page.expect_navigation():
            self.page.get_by_role("button", name="Ask Django again").click()
        self.page.wait_for_selector("#xray")

        state, said = self.ring("browser")
        self.assertIn(state, ("confirmed", "miss"), said)
        self.assertRing("site", "hit")

    def test_a_copy_that_django_confirmed(self):
        self.open("/asks/")
        self.open("/about/")

        self.open("/asks/")

        self.assertRing("browser", "confirmed", "still right")

    def test_a_page_that_another_request_was_building(self):
        timing = (
            'app;dur=900, req;desc="a@1767225600", why;desc="site collapsed", '
            'site;dur=2;desc="miss n=1 ttl=-1 b=0 at=settings.py:86"'
        )
        self.answer_with(self.page, {"server-timing": timing})

        self.open("/about/")

        self.assertEqual(self.headline(), "Whole site: waited for another request")
        self.assertRing("site", "miss", "collapsed .*Another request was building it")
        self.assertNotReached("view fragment low-level", "level “Whole site”")

    def test_values_that_another_request_was_building(self):
        timing = (
            'req;desc="a@1767225600", low-level;dur=9;desc="1/2 n=2 ttl=9 b=9", '
            'l;dur=1;desc="hit a blog/a.py:1 ttl=9 b=9", '
            'l;dur=1;desc="miss b blog/a.py:1 collapsed"'
        )
        self.answer_with(self.page, {"server-timing": timing})

        self.open("/about/")

        self.assertRing("low-level", "mixed", "hit a blog.*miss b collapsed: another request")

    def test_back_from_the_browsers_memory(self):
        self.open("/")

        self.page.evaluate('dispatchEvent(new PageTransitionEvent("pageshow", {persisted: true}))')
        self.page.wait_for_selector('#xray [data-level="browser"][data-state="hit"]')

        self.assertRing("browser", "hit", "Back or Forward brought the page from memory")
        self.assertEqual(self.page.locator("#xray").count(), 1)

    def test_the_time_left_runs_down(self):
        self.open("/")
        left = self.page.locator('#xray [data-level="site"] .xray-numbers span').first
        before = left.inner_text()

        self.page.wait_for_function(
            "before => document.querySelector('[data-level=site] .xray-numbers span')"
            ".textContent !== before",
            arg=before,
        )

        after = left.inner_text()
        self.assertLess(int(after.split()[0]), int(before.split()[0]))

    def test_its_own_cost(self):
        self.open("/")

        facts = self.page.locator(".xray-facts").inner_text()
        self.assertRegex(facts, r"^[\d.]+ ms in Django, [\d.]+\sms of it watching$")

    def test_five_rings_as_a_figure(self):
        self.open("/")

        self.assertEqual(self.page.locator("#xray svg .xray-track").count(), 5)
        self.assertEqual(self.page.locator("#xray [style]").count(), 0)


class FragmentTests(XrayTestCase):
    """What the cache keeps is outlined on the page, with what became of it and its true age."""

    def tag(self, name):
        element = self.page.locator(f'[data-fragment="{name}"]')
        said = element.locator(".xray-tag").text_content()
        return element.get_attribute("data-xray"), said

    def test_hit_and_miss(self):
        self.get("/fragments/")
        self.drop("fragment", "*:template.cache.hours.*")

        self.open("/fragments/")

        state, said = self.tag("months")
        self.assertEqual(state, "hit")
        self.assertRegex(said, r"✓ hit · rendered \d+ s ago")
        state, said = self.tag("hours")
        self.assertEqual(state, "miss")
        self.assertRegex(said, r"✗ miss · rendered \d+ s ago")

    def test_the_age_is_by_the_servers_clock(self):
        self.get("/fragments/")
        page = self.visitor()
        page.add_init_script("""
            Date.now = (now => () => now() + 3_600_000)(Date.now);
            const value = performance.timeOrigin + 3_600_000;
            Object.defineProperty(performance, "timeOrigin", {value});
        """)
        self.page = page

        self.open("/fragments/")

        self.assertRegex(self.tag("months")[1], r"rendered \d+ s ago")

    def test_frozen_inside_a_page_that_is_cached(self):
        timing = 'app;dur=1, req;desc="a@1767225600", site;dur=1;desc="hit n=1 ttl=9 b=9 at=x:1"'
        self.answer_with(self.page, {"server-timing": timing}, "/fragments/")

        self.open("/fragments/")

        state, said = self.tag("months")
        self.assertEqual(state, "frozen")
        self.assertIn("frozen inside the copy of the level “Whole site” · rendered", said)

    def test_redis_down(self):
        timing = 'req;desc="a@1767225600", f;desc="down template.cache.days.1 a.html:1"'
        self.answer_with(self.page, {"server-timing": timing}, "/fragments/")

        self.open("/fragments/")

        self.assertEqual(self.tag("days")[0], "down")
        self.assertIn("Redis down", self.tag("days")[1])
        self.assertIn("not told", self.tag("months")[1])

    def test_one_within_another_is_frozen_with_it(self):
        parts = (
            '<div data-fragment="outer" data-rendered="1767225600">'
            '<div data-fragment="inner" data-rendered="1767225590"></div></div></main>'
        )
        timing = 'req;desc="a@1767225600", f;desc="hit template.cache.outer.1 a.html:1"'

        def fulfill(route):
            response = route.fetch()
            headers = response.headers | {"server-timing": timing}
            body = response.text().replace("</main>", parts)
            route.fulfill(response=response, headers=headers, body=body)

        self.page.route("**/about/", fulfill)
        self.open("/about/")

        self.assertEqual(self.tag("inner")[0], "frozen")
        self.assertIn("frozen inside outer · rendered", self.tag("inner")[1])
        outer = self.page.locator('[data-fragment="outer"] > .xray-tag')
        self.assertIn("hit", outer.text_content())


class OtherNamesTests(XrayTestCase):
    """The rings are the levels of the project, whatever it calls them."""

    def test_levels_of_other_names(self):
        names = {"site": "pages", "view": "posts", "template_fragments": "parts", "default": "data"}
        with override_settings(WATCH=settings.WATCH | {"LEVELS": names}):
            self.get("/fragments/")
            self.drop("fragment", "*:template.cache.hours.*")
            self.open("/fragments/")

        rows = self.page.locator("#xray [data-level]")
        found = rows.evaluate_all("rows => rows.map(row => row.dataset.level)")
        self.assertEqual(found, ["browser", "pages", "posts", "parts", "data"])
        self.assertRing("parts", "mixed", "1/2 hit .*hit months .*miss hours")
        hit = self.page.locator('[data-fragment="months"][data-xray="hit"]')
        self.assertEqual(hit.count(), 1)


class HeaderTests(XrayTestCase):
    """Where the headers come from, and what is done without them."""

    def test_nothing_is_drawn_without_them(self):
        self.answer_with(self.page, {"server-timing": None, "cache-status": None})

        self.page.goto("/about/", wait_until="networkidle")

        self.assertEqual(self.page.locator("#xray, .xray-tag, .xray-drawn").count(), 0)

    def test_metrics_of_others_are_no_reason_to_draw(self):
        self.answer_with(self.page, {"server-timing": "db;dur=3, cdn-cache;desc=HIT"})

        self.page.goto("/about/", wait_until="networkidle")

        self.assertEqual(self.page.locator("#xray").count(), 0)

    def test_a_browser_that_hides_them_has_them_in_its_copy(self):
        self.page.add_init_script(NO_SERVER_TIMING)

        self.open("/about/")

        self.assertRing("site", "miss", "Stored for the next request")

    def test_a_copy_of_another_size_is_an_older_answer_and_not_taken_for_this_one(self):
        self.page.add_init_script(NO_SERVER_TIMING)
        self.page.add_init_script(
            "Object.defineProperty(PerformanceResourceTiming.prototype, 'decodedBodySize',"
            " {get: () => 7})"
        )

        self.open("/about/")

        self.assertEqual(self.page.locator("#xray [data-level]").count(), 0)
        self.assertIn("Server-Timing", self.page.inner_text("#xray"))

    def test_a_browser_that_hides_them_and_keeps_no_copy_is_told_what_to_do(self):
        # Not visitor(): the console says that there is no copy.
        page = self.browser.new_page(base_url=self.server.url)
        self.addCleanup(page.close)
        page.add_init_script(NO_SERVER_TIMING)
        page.add_init_script("Object.defineProperty(window, 'isSecureContext', {value: false})")

        self.open("/fragments/", page)

        said = page.locator("#xray").inner_text()
        self.assertIn("http://localhost or by https", said)
        box = page.locator("#xray").bounding_box()
        self.assertLess(box["width"] * box["height"], 400 * 150)

        page.get_by_role("button", name="Hide this").click()
        self.assertEqual(page.locator("#xray").count(), 0)

        page.goto("/fragments/", wait_until="networkidle")
        self.assertEqual(page.locator("#xray").count(), 0)

    def test_markup_in_a_key_a_line_or_an_id_is_text(self):
        timing = (
            f'app;dur=1, req;desc="{HOSTILE}@1767225600", fragment;dur=1;desc="hit n=1 ttl=9 b=9", '
            f'low-level;dur=1;desc="1/2 n=2 ttl=9 b=9", why;desc="site {HOSTILE}", '
            f'f;dur=1;desc="hit template.cache.{HOSTILE}.1 {HOSTILE} ttl=9", '
            f'l;dur=1;desc="hit {HOSTILE} {HOSTILE} ttl=9", l;dur=1;desc="miss %E0%A4%A %"'
        )
        self.answer_with(self.page, {"server-timing": timing})

        self.open("/about/")

        self.assertEqual(self.page.locator("#xray img").count(), 0)
        self.assertIn("<img src=x onerror=", self.page.locator("#xray").inner_text())
        self.assertNotIn("\u202e", self.page.locator("#xray").inner_text())
        self.assertNotEqual(self.page.title(), "owned")

    def test_a_hostile_address(self):
        page = self.browser.new_page(base_url=self.server.url)
        self.addCleanup(page.close)

        self.open(f"/{HOSTILE}/?q={HOSTILE}#{HOSTILE}", page)

        self.assertRing("site", "miss", page=page)
        self.assertEqual(page.locator("#xray img").count(), 0)
        self.assertNotEqual(page.title(), "owned")

    def test_values_that_are_none(self):
        for timing in (
            'req;desc="@"',
            'req;desc="", site;desc="hit"',
            'req;desc="a@b", site;desc="?? n=x ttl=y b=z at=%"',
            'req;desc="a@1", site;desc="hit n=1 ttl=-1 b=0 at=", f;desc="", l, why;desc="a"',
        ):
            page = self.visitor()
            self.answer_with(page, {"server-timing": timing})
            self.open("/about/", page)

            with self.subTest(timing):
                self.assertNotRegex(page.locator("#xray").inner_text(), "NaN|undefined|null")


class PanelTests(XrayTestCase):
    """It can be put away, by anybody and on any screen, and stays out of the way."""

    paths = ("/", "/view/", "/fragments/", "/prices/", "/about/")

    def expanded(self, page=None):
        return (page or self.page).locator(".xray-toggle").get_attribute("aria-expanded")

    def test_the_keyboard_closes_and_opens_it(self):
        self.open("/")
        toggle = self.page.get_by_role("button", name="Cache x-ray")
        toggle.focus()

        for key, expanded in (("Enter", "false"), ("Space", "true"), ("Escape", "false")):
            self.page.keyboard.press(key)
            with self.subTest(key):
                self.assertEqual(self.expanded(), expanded)
                self.assertEqual(self.page.locator("#xray-body").is_visible(), expanded == "true")
                self.assertTrue(toggle.evaluate("button => button === document.activeElement"))

    def test_escape_from_within_returns_to_the_button(self):
        self.open("/")
        self.page.locator(".xray-code").focus()

        self.page.keyboard.press("Escape")

        self.assertTrue(self.page.locator(".xray-toggle:focus").count())

    def test_it_stays_as_it_was_left(self):
        self.open("/")
        self.assertEqual(self.expanded(), "true")
        self.page.locator(".xray-toggle").click()

        self.open("/about/")
        self.assertEqual(self.expanded(), "false")
        self.page.locator(".xray-toggle").click()

        self.open("/")
        self.assertEqual(self.expanded(), "true")

    def test_closed_it_still_says_who_answered(self):
        self.get("/about/")
        self.open("/about/")

        self.page.locator(".xray-toggle").click()

        self.assertRegex(self.headline(), r"^Whole site: hit · \d+ s left$")

    def test_it_does_without_storage(self):
        page = self.visitor()
        page.add_init_script(
            "Object.defineProperty(window, 'localStorage', {get() { throw new Error('no'); }})"
        )

        self.open("/", page)
        page.locator(".xray-toggle").click()

        self.assertEqual(self.expanded(page), "false")

    def test_a_phone_starts_with_it_closed(self):
        page = self.visitor(viewport={"width": 360, "height": 640})

        self.open("/", page)

        self.assertEqual(self.expanded(page), "false")

    def test_wide_the_page_makes_room_and_none_of_it_is_covered(self):
        page = self.visitor(viewport={"width": 1280, "height": 800})
        for path in self.paths:
            self.open(path, page)
            with self.subTest(path):
                self.assertEqual(self.expanded(page), "true")
                self.assertEqual(page.evaluate(COVERED), [])
                self.assertLessEqual(page.evaluate("document.documentElement.scrollWidth"), 1280)

    def test_closed_it_gives_the_room_back(self):
        page = self.visitor(viewport={"width": 1280, "height": 800})
        self.open("/", page)
        width = "document.querySelector('header').parentElement.clientWidth"

        page.locator(".xray-toggle").click()

        self.assertGreater(page.evaluate(width), 1200)

    def test_open_on_a_small_screen_it_leaves_half_of_it_to_the_page(self):
        for width, height in ((360, 640), (768, 1024), (1024, 700)):
            page = self.visitor(viewport={"width": width, "height": height})
            self.open("/fragments/", page)
            page.locator(".xray-toggle").click()

            with self.subTest(width):
                box = page.locator("#xray").bounding_box()
                self.assertLessEqual(box["height"], height / 2)
                self.assertAlmostEqual(box["y"] + box["height"], height, delta=1)

    def test_on_a_phone_nothing_is_wider_and_nothing_covered_for_good(self):
        page = self.visitor(viewport={"width": 360, "height": 640})
        for path in self.paths:
            self.open(path, page)
            page.locator(".xray-toggle").click()
            for state in (self.expanded(page), "other"):
                with self.subTest(path, expanded=state):
                    self.assertLessEqual(page.evaluate("document.documentElement.scrollWidth"), 360)
                    # The panel's height reaches the page with the observer of its size.
                    page.wait_for_function(
                        """() => {
                            const box = (name) =>
                                document.querySelector(name).getBoundingClientRect();
                            scrollTo(0, 1e6);
                            return box("footer").bottom <= box("#xray").top;
                        }"""
                    )
                page.locator(".xray-toggle").click()

    def test_screen_readers_have_a_list_with_a_name(self):
        self.open("/")

        panel = self.page.get_by_role("complementary", name="Cache x-ray")
        self.assertEqual(panel.get_by_role("listitem").count(), 5)
        self.assertEqual(panel.locator("[aria-live]:not([aria-live=off]), [role=timer]").count(), 0)

    def test_paper_has_none_of_it(self):
        self.open("/fragments/")

        self.page.emulate_media(media="print")

        self.assertFalse(self.page.locator("#xray").is_visible())
        self.assertFalse(self.page.locator(".xray-tag").first.is_visible())
        padding = "getComputedStyle(document.body).paddingBottom"
        self.assertEqual(self.page.evaluate(padding), "0px")

    def test_its_colours_are_dark_only_where_the_page_is(self):
        colour = "getComputedStyle(document.querySelector('.xray-is-miss.xray-word')).color"
        self.page.emulate_media(color_scheme="light")
        self.open("/")
        light = self.page.evaluate(colour)
        self.page.emulate_media(color_scheme="dark")
        self.assertNotEqual(self.page.evaluate(colour), light)

        self.page.evaluate("document.documentElement.style.colorScheme = 'only light'")

        self.assertEqual(self.page.evaluate(colour), light)

    def test_dark_and_light_differ(self):
        self.open("/")
        colours = set()
        for scheme in ("light", "dark"):
            self.page.emulate_media(color_scheme=scheme)
            script = "getComputedStyle(document.querySelector('#xray')).backgroundColor"
            colours.add(self.page.evaluate(script))

        self.assertEqual(len(colours), 2)

    def test_nothing_moves_for_those_who_want_less_movement(self):
        self.open("/")
        self.page.emulate_media(reduced_motion="reduce")

        script = "getComputedStyle(document.querySelector('.xray-arc')).transitionDuration"
        self.assertEqual(self.page.evaluate(script), "0s")

    def test_it_moves_nothing_when_it_is_drawn(self):
        script = """new Promise(resolve => new PerformanceObserver(list => resolve(
            list.getEntries().reduce((sum, entry) => sum + entry.value, 0)
        )).observe({type: "layout-shift", buffered: true}) || setTimeout(resolve, 300, 0))"""
        # So slow that the page is painted before all of it is there.
        network = {"offline": False, "latency": 20, "downloadThroughput": 60_000}
        session = self.page.context.new_cdp_session(self.page)
        session.send("Network.emulateNetworkConditions", network | {"uploadThroughput": -1})
        self.open("/fragments/")

        self.assertEqual(self.expanded(), "true")
        self.assertLess(self.page.evaluate(script), 0.01)


class CodeTests(XrayTestCase):
    """Show the code."""

    def show(self, path):
        self.open(path)
        self.page.get_by_role("link", name="Show the code").click()
        self.page.wait_for_selector(".watch-code")
        return self.page.inner_text("main")

    def test_the_lines_that_asked_are_marked_with_what_they_got(self):
        self.get("/fragments/")
        self.drop("fragment", "*:template.cache.hours.*")

        self.assertIn("def fragments(request):", self.show("/fragments/"))

        lines = [line.split("%}") for line in self.page.locator(".watch-asked").all_inner_texts()]
        self.assertEqual([got.strip() for _, got in lines], ["hit", "hit", "miss"])

    def test_a_page_from_the_cache(self):
        self.get("/about/")

        said = self.show("/about/")

        self.assertIn("The level “Whole site” answered with its copy", said)
        self.assertIn("FetchFromCacheMiddleware", said)
        self.assertNotIn("SECRET_KEY", said)

    def test_a_list_above_it_leads_to_each_line(self):
        self.get("/fragments/")
        self.show("/fragments/")

        links = self.page.locator(".watch-marked a")
        self.assertEqual(links.count(), 3)
        links.last.click()

        line = self.page.locator(".watch-line:target")
        self.assertIn("cache 300 hours", line.inner_text())
        self.assertLess(line.bounding_box()["y"], 720)

    def test_what_a_line_got_covers_none_of_it(self):
        self.page.goto("/watch/code?path=/fragments/&hit=fragments.html:6")

        room = self.page.locator(".watch-asked").evaluate("""line => {
          const got = line.querySelector(".watch-got");
          const code = document.createRange();
          code.selectNodeContents(line);
          code.setEndBefore(line.querySelector(".watch-words"));
          return got.getBoundingClientRect().left - code.getBoundingClientRect().right;
        }""")
        self.assertGreater(room, 0)

    def test_where_one_alias_has_pages_and_values(self):
        timing = (
            'app;dur=1, req;desc="a@1", site;dur=1;desc="2/3 n=3 ttl=9 b=9 at=settings.py:1"'
            ', l;dur=1;desc="hit price blog/search.py:5 in=site ttl=9 b=9"'
            ', l;dur=1;desc="hit offer blog/search.py:6 in=site ttl=9 b=9"'
        )
        self.answer_with(self.page, {"server-timing": timing})
        self.open("/about/")

        self.assertRing("site", "mixed", "2/3 hit .* 2 keys")
        link = self.page.get_attribute(".xray-code", "href")
        self.assertIn("miss=settings.py%3A1", link)
        self.assertIn("hit=blog%2Fsearch.py%3A5", link)
        self.assertIn("hit=blog%2Fsearch.py%3A6", link)

    def test_where_it_is_switched_off_there_is_no_link(self):
        with override_settings(WATCH=settings.WATCH | {"SHOW_CODE": False}):
            self.open("/fragments/")

        self.assertEqual(self.page.locator(".xray-code").count(), 0)


class WhyTests(XrayTestCase):
    """Why a level was bypassed is in Server-Timing too: a page can't read Cache-Status."""

    def test_why(self):
        timing = self.client.get("/never/").headers["Server-Timing"]

        self.assertIn(', why;desc="site never-cache"', timing)

    def test_a_hit_or_a_miss_needs_no_reason(self):
        for _ in range(2):
            self.assertNotIn("why", self.client.get("/about/").headers["Server-Timing"])
