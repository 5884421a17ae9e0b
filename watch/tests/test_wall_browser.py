"""The wall in a real browser, under a policy that allows nothing inline."""

import json
import threading
import time
from unittest import mock

from django.core.cache import caches

from watch.feed import connect
from watch.tests.browser import BrowserCase
from watch.tests.walls import Listening, a_request, needs_gunicorn
from watch.wall import places, reader

HOSTILE = (
    "<img src=x onerror=\"document.title='run'\"></script><script>document.title='run'</script>"
)

# The longest time between two frames, from now on.
WATCH_FRAMES = """() => {
  let before = performance.now();
  window.longest = 0;
  const frame = (now) => {
    window.longest = Math.max(window.longest, now - before);
    before = now;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame((now) => { before = now; requestAnimationFrame(frame); });
}"""


class WallBrowserCase(BrowserCase):
    def open(self, words="Live"):
        """Open the wall, and wait until it says these words."""
        self.page.goto(f"{self.server.url}/watch/")
        self.has("#state-words", words)

    def has(self, selector, text):
        """Wait until an element has this text in it."""
        self.page.locator(selector, has_text=text).first.wait_for(state="attached")

    def card(self, index=0):
        """Return what the card of a level says: [hits, misses, bytes]."""
        return self.page.locator(".level").nth(index).locator(".counts b").all_inner_texts()


class WallTests(WallBrowserCase):
    """What is on the page."""

    def test_it_shows_requests_as_they_happen(self):
        self.open()

        for _ in range(3):
            self.get("/")

        self.has(".level .counts", "2 hits")
        self.assertEqual(self.card()[:2], ["2", "1"])
        self.assertEqual(self.page.inner_text(".level .ratio b"), "67 %")
        self.assertEqual(self.page.locator(".event").count(), 3)
        self.assertIn("Whole site miss", self.page.locator(".event").last.inner_text())

    def test_a_level_has_the_name_that_the_pages_have_for_it(self):
        caches["view"].set("answer", 42, 60)
        self.publish(a_request("/post/", "view"))
        self.open()
        self.page.locator(".key").wait_for()
        self.page.click("#numbers summary")

        titles = ["Whole site", "Per view", "Fragment", "Low-level"]
        self.assertEqual(self.page.locator(".level h3").all_inner_texts(), titles)
        self.assertEqual(self.page.locator("#plot .name").all_text_contents(), titles)
        rows = self.page.locator("#numbers-rows th").all_inner_texts()
        self.assertEqual(list(dict.fromkeys(rows)), titles)
        self.assertEqual(self.page.locator(".event .chip .of").inner_text(), "Per view")
        self.assertEqual(self.page.locator(".key .of").inner_text(), "Per view")

    def test_a_tab_that_was_opened_earlier_says_the_same(self):
        self.publish(*(a_request(f"/{number}/") for number in range(150)))
        self.open()
        self.has(".level .counts", "150 hits")
        self.publish(*(a_request(f"/{number}/", word="miss") for number in range(150)))
        self.has(".level .counts", "150 misses")

        earlier, first = self.card(), self.page
        self.page = self.visitor()
        self.open("Live")
        self.has(".level .counts", "150 misses")

        self.assertEqual(earlier[:2], ["50", "150"])
        self.assertEqual(self.card(), earlier)
        for selector in (".level .ratio b", "#workers"):
            with self.subTest(selector):
                texts = [page.locator(selector).first.inner_text() for page in (first, self.page)]
                self.assertEqual(texts[0], texts[1])

    def test_as_many_processes_are_named_as_the_breakers_are_told_of(self):
        state = {"redis": "up", "levels": [], "worker": "other:2", "at": 1, "now": 1}
        closed = [{"levels": ["site"], "redis": "up", "since": 1}]
        self.page.route(
            "**/watch/state", lambda route: route.fulfill(json=state | {"breakers": closed})
        )
        self.publish(a_request("/a/", worker="test:1"))

        self.open()

        self.has("#facts", "closed where asked: 1 of 2 processes")
        self.has("#workers", "2 processes: other:2 · test:1")

    def test_who_waited_for_another_request_is_told(self):
        event = a_request("/waited/", word="miss")
        event["levels"][0]["collapsed"] = 1
        self.publish(event)

        self.open()

        self.has(".event", "miss, collapsed")

    def test_what_asks_no_cache_again_and_again_is_one_row(self):
        self.open()
        for number in range(3):
            self.publish(*[a_request("/healthz", levels=[])] * 2, a_request(f"/{number}/"))
            self.has(".event", f"/{number}/")

        self.has(".event", "asked no cache, 6 times")
        self.assertEqual(self.page.locator(".event", has_text="/healthz").count(), 1)
        self.assertEqual(self.page.locator(".event").count(), 4)

    def test_the_plot_has_a_table_behind_it(self):
        self.publish(a_request(us=1500), a_request(word="miss", us=25_000))
        self.open()
        self.page.locator("#plot circle").wait_for()
        self.page.locator("#plot path").wait_for()

        self.page.click("#numbers summary")

        rows = self.page.locator("#numbers-rows tr")
        self.assertIn("1.5 ms", rows.nth(0).inner_text())
        self.assertIn("25 ms", rows.nth(1).inner_text())

    def test_what_comes_from_visitors_is_text(self):
        op = [
            "SET",
            "view",
            self.key(HOSTILE, "view"),
            "write",
            None,
            9,
            1,
            60_000,
            HOSTILE,
            "stored",
        ]
        names = {"method": HOSTILE, "worker": HOSTILE, "user_agent": HOSTILE, "ops": [op]}
        self.redis("view").set(self.key(HOSTILE, "view"), 1, ex=60)
        self.publish(
            a_request(HOSTILE, word=HOSTILE, **names),
            {"kind": "expired", "level": HOSTILE, "key": HOSTILE, "events": 1, "at": 1},
            {"kind": HOSTILE, "at": HOSTILE, "worker": HOSTILE},
        )
        self.open()
        agent = HOSTILE.replace("\n", "")
        self.get("/never/?" + "%3Cimg%20src=x%3E", **{"User-Agent": agent})

        self.has(".event", "/never/")
        self.has(".event", "expired")
        self.has(".key", "<img src=x")
        self.assertIn(HOSTILE, self.page.inner_text("#events"))
        self.assertEqual(self.page.locator("main img, main script").count(), 0)
        self.assertEqual(self.page.title(), "Cache wall")

    def test_events_that_nobody_should_write_do_no_harm(self):
        self.publish(
            *(
                "null",
                "[]",
                "7",
                '"text"',
                "{no json",
                '{"kind": "request"}',
                '{"kind": "expired"}',
            ),
            *({"kind": "request", "levels": value, "ops": value} for value in (1, "x", [None], {})),
            {"kind": "request", "levels": [{"level": "__proto__", "word": {}, "hits": "1e9"}]},
            {"kind": "request", "at": 1e300, "us": -1, "path": {}, "worker": ["x"]},
            a_request("/last/"),
        )

        self.open()

        self.has(".event", "/last/")

    def test_pause_stops_the_page_and_not_the_counting(self):
        self.open()
        self.publish(a_request("/before/"))
        self.has(".event", "/before/")
        self.page.focus("#pause")

        self.page.keyboard.press("Space")
        self.publish(*(a_request(f"/{number}/") for number in range(50)))

        self.has("#state-words", "Paused, 50 new events")
        self.assertEqual(self.page.locator(".event").count(), 1)
        self.assertEqual(self.page.get_attribute("#pause", "aria-pressed"), "true")

        self.page.keyboard.press("Space")

        self.has(".level .counts", "51 hits")

    def test_one_polite_region_speaks_and_the_list_does_not(self):
        self.open()

        regions = self.page.locator("[aria-live], [role=status], [role=alert], [role=log]")
        self.assertEqual(regions.count(), 1)
        self.assertEqual(regions.get_attribute("aria-live"), "polite")

    def test_every_15_seconds_the_region_sums_up(self):
        self.page.clock.install()
        self.open()
        self.publish(a_request("/a/"), a_request("/b/", word="miss"))
        self.has(".event", "/b/")

        self.page.clock.fast_forward(15_000)

        said = "2 requests, 1 hit, 1 miss, 0 keys expired, evicted or deleted."
        self.has("#news", f"Last 15 seconds: {said}")

    def test_a_key_is_shown_and_expired(self):
        caches["default"].set("answer", 42, 60)
        self.open()
        key = self.page.locator(".key", has_text="answer")

        key.get_by_role("button", name="Show").click()
        self.has("#shown-text", "42")
        self.page.keyboard.press("Escape")
        self.eventually(lambda: (self.holder() or {}).get("notifications") == "on")
        key.get_by_role("button", name="Expire now").click()

        self.has(".event", "expired")
        key.wait_for(state="detached")
        self.assertIsNone(caches["default"].get("answer"))

    def test_what_a_button_did_is_in_sight(self):
        caches["default"].set("answer", 42, 60)
        self.open()

        self.page.locator(".key").get_by_role("button", name="Expire now").click()

        self.has("#keys-note", f"Told Redis that {self.key('answer')} expires now.")
        self.assertTrue(self.page.locator("#keys-note").is_visible())

    def test_the_focus_stays_in_the_list_when_its_key_has_expired(self):
        caches["default"].set("answer", 42, 60)
        self.open()
        self.eventually(lambda: (self.holder() or {}).get("notifications") == "on")
        button = self.page.locator(".key").get_by_role("button", name="Expire now")

        button.press("Enter")
        self.page.locator(".key").wait_for(state="detached")

        focused = "document.activeElement.closest('#keys') !== null"
        self.assertTrue(
            self.page.evaluate(focused), self.page.evaluate("document.activeElement.tagName")
        )

    def names_of_keys(self, *names):
        """Store these keys at the site level, and return what the wall calls them."""
        caches["site"].set_many(dict.fromkeys(names, 1), 60)
        self.open()
        self.page.locator(".key").nth(len(names) - 1).wait_for()
        return self.page.locator(".key .name").all_inner_texts()

    def test_pages_of_one_path_are_told_apart_by_query_language_and_variant(self):
        page = "page:http://a.example/about/"
        names = self.names_of_keys(
            page, f"{page}?page=2", f"{page}|pt-br", f"{page}|en|Europe/Paris|0123456789abcdef"
        )

        expected = ["/about/", "/about/?page=2", "/about/ pt-br", "/about/ en Europe/Paris 012345"]
        self.assertEqual(sorted(names), sorted(expected))

    def test_pages_of_two_hosts_have_their_whole_keys_as_names(self):
        pages = [f"page:http://{host}/about/" for host in ("a.example", "b.example")]

        names = self.names_of_keys(*pages, "page:http://a.example/")

        self.assertEqual(names, ["/", *(self.key(page, "site") for page in pages)])

    def test_at_zero_a_key_is_due_until_redis_says_that_it_expired(self):
        key = self.key("answer", "view")
        op = ["SET", "view", key, "write", None, 9, 1, 100, "", "stored"]
        self.page.clock.install()
        self.open()

        self.publish(a_request(ops=[op]))

        row = self.page.locator(".key", has_text="answer")
        self.has(".key", "due")
        self.look()
        self.assertIn("due", row.inner_text())  # Redis can't list it any more, and said nothing.
        self.publish({"kind": "expired", "level": "view", "key": key, "events": 1})
        row.wait_for(state="detached")

    def test_a_key_of_which_nothing_is_heard_is_not_due_for_ever(self):
        op = ["SET", "view", self.key("answer", "view"), "write", None, 9, 1, 100, "", "stored"]
        self.page.clock.install()
        self.open()
        self.publish(a_request("/stored/", ops=[op], at=round(time.time()) - 31))

        self.has(".event", "/stored/")
        self.look()

        self.assertEqual(self.page.locator(".key", has_text="answer").count(), 0)

    def look(self):
        """Let the page look at what Redis holds, and draw it."""
        caches["default"].set("seen", 1, 60)
        self.page.clock.fast_forward(6000)
        self.has(".key", "seen")

    def test_it_keeps_120_keys(self):
        self.open()
        keys = [self.key(f"answer-{number}") for number in range(200)]
        ops = [["SET", "low-level", key, "write", None, 9, 1, 60_000, "", "stored"] for key in keys]
        later = time.time() + 60  # Stored since Redis was looked at, whenever that is.

        self.publish(*(a_request(ops=ops[at : at + 50], at=later) for at in range(0, 200, 50)))

        self.has(".key", "answer-119")
        self.assertEqual(self.page.locator(".key").count(), 120)

    def test_it_keeps_200_rows(self):
        # With a place of its own, or each look takes two seconds.
        self.eventually(lambda: not places._taken)
        self.open()

        for number in range(18):
            self.publish(*(a_request(f"/{number}-{row}/") for row in range(12)))
            self.has(".event", f"/{number}-11/")

        self.assertEqual(self.page.locator(".event").count(), 200)

    def test_at_the_keyboard_everything_is_reached_in_order(self):
        caches["default"].set("answer", 42, 60)
        self.open()
        self.page.locator(".key").first.wait_for()

        reached = []
        for _ in range(9):
            self.page.keyboard.press("Tab")
            reached.append(
                self.page.evaluate("document.activeElement.textContent.trim().slice(0, 8)")
            )

        for name in ("Skip to ", "Pause", "Back to ", "The same", "Show "[:5].strip()):
            self.assertTrue(any(text.startswith(name) for text in reached), (name, reached))


class ResumeTests(WallBrowserCase):
    """A wall that was cut off knows afterwards what it had known without."""

    def setUp(self):
        super().setUp()
        # The tab of another test has its place until the server notices that it was closed.
        self.eventually(lambda: not places._taken)

    def numbers(self):
        """Return what the rows say, the oldest first."""
        names = self.page.locator(".event .what").all_inner_texts()
        return [int(name.split("/")[1]) for name in reversed(names)]

    @mock.patch("watch.wall.LIFETIME", 0.3)
    def test_a_stream_that_ends_is_resumed_without_loss_or_repeat(self):
        streams = []
        self.page.on(
            "request",
            lambda request: (
                streams.append(request.headers.get("last-event-id"))
                if "/watch/stream" in request.url
                else None
            ),
        )
        self.open()

        # Two to the power of each number: the sum has each of them once, or is another.
        for number in range(40):
            event = a_request(f"/{number}/")
            event["levels"][0]["hits"] = 2**number
            self.publish(event)
            self.page.wait_for_timeout(50)  # Lets playwright take in what the browser tells.

        self.has("#facts", "40 events")
        self.assertEqual(self.card()[0], f"{2**40 - 1:,}")
        self.assertGreater(len(streams), 2)

    def hide(self, hidden):
        self.page.evaluate(
            """hidden => {
              Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
              document.dispatchEvent(new Event("visibilitychange"));
            }""",
            hidden,
        )

    def test_a_hidden_tab_gives_its_place_away_and_catches_up(self):
        self.page.clock.install()
        self.open()
        self.publish(a_request("/0/"))
        self.has(".event", "/0/")

        self.hide(True)
        self.page.clock.fast_forward(30_000)
        # Free: nobody else would get it before.
        self.eventually(lambda: self.has_a_place())
        self.publish(a_request("/1/"), a_request("/2/"))
        self.hide(False)

        self.has(".event", "/2/")
        self.assertEqual(self.numbers(), [0, 1, 2])

    def has_a_place(self):
        other = Listening(self.server)
        other.close()
        return other.status == 200

    def test_once_there_is_a_place_it_takes_it(self):
        other = Listening(self.server)
        self.page.clock.install()
        self.open("Live, asking every 2 seconds")
        self.publish(a_request("/0/"))
        self.has(".event", "/0/")

        other.close()
        self.eventually(lambda: not places._taken)
        self.page.clock.fast_forward(61_000)
        self.page.clock.fast_forward(2_500)

        self.page.locator("#state[data-state=live]").wait_for()
        self.publish(a_request("/1/"))
        self.has(".event", "/1/")
        self.assertEqual(self.numbers(), [0, 1])

    @mock.patch("watch.listener._logger")
    @mock.patch("watch.feed._logger")
    def test_when_redis_is_back_so_is_the_wall(self, *loggers):
        self.page.clock.install()
        with self.settings(WATCH={"STREAM_URL": "unix:///nowhere/redis.sock"}):
            self.open("Redis does not answer")
        reader.forget()

        self.page.clock.fast_forward(12_000)

        self.page.locator("#state[data-state=live]").wait_for()
        self.assertFalse(self.page.locator("#notice").is_visible())
        self.publish(a_request("/0/"))
        self.has(".event", "/0/")


@needs_gunicorn
class LoadTests(WallBrowserCase):
    """A thousand events a second."""

    def start(self):
        return self.serve(workers=1)

    def burst(self, seconds):
        """Publish for so long, in another thread. Return that thread."""

        def publish():
            client, start = connect(), time.monotonic()
            for tenth in range(seconds * 10):
                pipeline = client.pipeline(transaction=False)
                for index in range(100):
                    event = a_request(f"/{tenth}/{index}/", "site", "hit" if index % 3 else "miss")
                    key = f"{self.name}-site:1:views.decorators.cache.cache_page.{tenth}.{index}"
                    event["ops"] = [
                        ["GET", "site", key, "page", True, 9, 1, 60_000, "x.py:1", ""]
                    ] * 3
                    pipeline.xadd(self.name, {"e": json.dumps(event)}, maxlen=2000)
                pipeline.execute()
                time.sleep(max(0, start + (tenth + 1) / 10 - time.monotonic()))

        thread = threading.Thread(target=publish)
        thread.start()
        return thread

    def wait_for_the_last(self):
        """Wait until the wall shows an event that comes behind all others."""
        path = f"/last/{time.monotonic()}/"
        self.publish(a_request(path))
        self.has(".event", path)

    def heap(self, session):
        """Return the bytes that are in use after everything unused is gone."""
        session.send("HeapProfiler.collectGarbage")
        metrics = session.send("Performance.getMetrics")["metrics"]
        return {metric["name"]: metric["value"] for metric in metrics}

    def test_a_burst_neither_freezes_the_tab_nor_fills_its_memory(self):
        self.open()
        session = self.page.context.new_cdp_session(self.page)
        session.send("Performance.enable")
        self.burst(1).join()
        self.wait_for_the_last()
        before = self.heap(session)

        self.page.evaluate(WATCH_FRAMES)
        thread = self.burst(3)
        while thread.is_alive():
            self.page.wait_for_timeout(200)  # Lets playwright take in what the browser tells.
            rows = self.page.locator(".event").count()
            self.assertLessEqual(rows, 200)
        thread.join()
        self.wait_for_the_last()
        longest = self.page.evaluate("window.longest")
        after = self.heap(session)

        self.assertLess(longest, 10_000)  # Milliseconds. Only a tab that hangs needs as long.
        self.assertLess(after["JSHeapUsedSize"] - before["JSHeapUsedSize"], 3_000_000)
        self.assertLess(after["Nodes"] - before["Nodes"], 4000)
        self.has(".event", "more events, counted above")


class FallbackTests(WallBrowserCase):
    """All places are taken, or Redis is away."""

    def test_without_a_place_it_asks_every_two_seconds(self):
        other = Listening(self.server)
        self.addCleanup(other.close)

        self.open("Live, asking every 2 seconds")
        self.get("/never/")

        self.has(".event", "/never/")

    def test_what_arrives_twice_counts_once(self):
        self.page.route("**/watch/stream*", lambda route: route.fulfill(status=204))
        numbers = ["9007199254740993-0", "9007199254740993-0", "9007199254740992-9"]
        events = [{"id": number, "event": a_request("/a/")} for number in [*numbers, "5-1"]]
        events.append({"id": "9007199254740993-1", "event": a_request("/b/")})
        answer = {"events": events, "last": "9007199254740993-1", "redis": "up"}
        self.page.route("**/watch/events*", lambda route: route.fulfill(json=answer))

        self.open("Live, asking every 2 seconds")

        self.has(".event", "/b/")
        self.assertEqual(self.card()[:2], ["2", "0"])

    @mock.patch("watch.listener._logger")
    @mock.patch("watch.feed._logger")
    def test_a_redis_that_does_not_answer_is_told(self, *loggers):
        with self.settings(WATCH={"STREAM_URL": "unix:///nowhere/redis.sock"}):
            self.open("Redis does not answer")

            self.has("#notice", "Redis does not answer")
            self.has("#workers", "No event: they come by way of Redis.")
            self.page.context.close()


class EmptyTests(WallBrowserCase):
    """Before anything has happened, and without the script."""

    def test_it_says_what_to_do(self):
        self.open()

        self.has("#workers", "No event yet. Open a page of the site in another tab.")
        self.has("#keys-note", "No key yet. A page that is asked for brings some.")

    def test_without_javascript_it_shows_no_counts_and_the_recipe(self):
        context = self.browser.new_context(java_script_enabled=False)
        self.addCleanup(context.close)
        page = context.new_page()

        page.goto(f"{self.server.url}/watch/")

        self.assertIn("drawn by a script", page.inner_text("main"))
        self.assertIn(f"curl -s -o /dev/null -D - {self.server.url}/", page.inner_text("main"))
        self.assertNotIn("misses", page.inner_text("main"))
        self.assertNotIn("No event", page.inner_text("main"))


class NarrowTests(WallBrowserCase):
    """360 px."""

    size = (360, 740)

    def test_the_keyboard_scrolls_the_events(self):
        self.publish(*(a_request(f"/{number}/") for number in range(100)))
        self.open()
        self.has(".event", "/99/")
        events = self.page.locator("#events")

        def has_scrolled():
            events.focus()
            self.page.keyboard.press("End")
            return events.evaluate("events => events.scrollTop > 100")

        self.assertTrue(self.eventually(has_scrolled))

    def test_nothing_is_wider_than_the_screen(self):
        self.publish(
            a_request("/" + "a-long-path-without-end" * 20), a_request(word="miss", us=3_000_000)
        )
        caches["default"].set("a-long-key" * 15, 42, 60)
        self.open()
        self.page.locator(".key").first.wait_for()
        self.has(".event", "a-long-path")

        self.assertEqual(self.page.evaluate("document.documentElement.scrollWidth"), 360)
