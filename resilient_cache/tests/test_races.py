"""All orders of what a slow builder, another client, an eviction and an invalidation do."""

import threading
from itertools import permutations

from django.core.cache import cache
from django.http import HttpResponse
from django.template import Context, Template
from django.test import override_settings

from resilient_cache.groups import invalidate, version
from resilient_cache.pages import cache_page
from resilient_cache.tests.base import PATIENCE, CacheTestCase

# A slow client looks up, builds and stores; another one looks up, and builds and stores what it
# misses, in one step.
STEPS = ("look up", "store", "another", "evict", "invalidate")
ORDERS = [each for each in permutations(STEPS) if each.index("look up") < each.index("store")]
# Two slow clients.
TWO_STEPS = ("look up", "store", "look up 2", "store 2", "evict", "invalidate")
TWO_ORDERS = [
    each
    for each in permutations(TWO_STEPS)
    if each.index("look up") < each.index("store")
    and each.index("look up 2") < each.index("store 2")
    and each.index("look up") < each.index("look up 2")  # The other half is the same.
]


class Client:
    """A client in a thread of its own: it stops between reading and storing."""

    def __init__(self, read):
        self.building, self.go_on = threading.Event(), threading.Event()
        self.stops = True
        self.value = None
        self.thread = threading.Thread(target=self.run, args=(read,), daemon=True)

    def run(self, read):
        current.client = self
        try:
            self.value = read()
        finally:
            self.building.set()

    def look_up(self):
        """Go on until it builds, or until it has its answer."""
        self.thread.start()
        if not self.building.wait(PATIENCE):
            raise AssertionError("A client hangs")

    def store(self):
        self.go_on.set()
        self.thread.join(PATIENCE)
        if self.thread.is_alive():
            raise AssertionError("A client hangs")
        return self.value


current = threading.local()


def build(truth):
    """Return the truth as it is now, which a slow client stores only when it is told to."""
    value = truth[0]
    client = getattr(current, "client", None)
    if client and client.stops:
        client.building.set()
        client.go_on.wait(PATIENCE)
    return value


# Every client builds at once: two who miss don't wait for each other, which is the worst case.
@override_settings(RESILIENT_CACHE={"MAX_WAITING": 0})
class RaceTests(CacheTestCase):
    """After an invalidation, no client that comes then is served the old value."""

    def levels(self):
        """Yield the name, how a client reads at that level, and the group."""
        truth = self.truth
        self.route(lambda request: HttpResponse(build(truth)), "/site/")
        self.route(
            cache_page(300, cache="view", group="posts")(
                lambda request: HttpResponse(build(truth))
            ),
            "/view/",
        )
        template = Template(
            "{% load resilient_cache %}{% cache 60 box posts %}{{ build }}{% endcache %}"
        )
        yield "site by its path", lambda: self.body("/site/"), "/site/"
        yield "site by its group", lambda: self.body("/site/"), "site"
        yield "view by its path", lambda: self.body("/view/"), "/view/"
        yield "view by its group", lambda: self.body("/view/"), "posts"
        yield (
            "fragment",
            lambda: template.render(
                Context(
                    {
                        "posts": lambda: version("posts", "template_fragments"),
                        "build": lambda: build(truth),
                    }
                )
            ),
            "posts",
        )
        yield (
            "get_or_set",
            lambda: cache.get_or_set("k", lambda: build(truth), 60, version=version("posts")),
            "posts",
        )

    def evict(self):
        for alias in ("site", "view", "template_fragments", "default"):
            client = self.redis(alias)
            if keys := client.keys("*:group:*"):
                client.delete(*keys)

    def run_order(self, order, read, group):
        """Take the steps in this order. Return what was read after the invalidation."""
        clients = {"": Client(read), " 2": Client(read)}
        read_after = []
        for step in order:
            is_after = self.truth[0] == "new"
            match step:
                case "look up" | "look up 2":
                    client = clients[step[7:]]
                    client.is_after = is_after
                    client.look_up()
                case "store" | "store 2":
                    client = clients[step[5:]]
                    value = client.store()
                    if client.is_after:
                        read_after.append(value)
                case "another":
                    value = read()
                    if is_after:
                        read_after.append(value)
                case "evict":
                    self.evict()
                case "invalidate":
                    self.truth[0] = "new"
                    invalidate(group)
        # Two more: one may build, and the next one reads what was stored by anyone.
        return [*read_after, read(), read()]

    def assert_no_old_value(self, orders, *names):
        self.truth = ["old"]
        for name, read, group in self.levels():
            if names and name not in names:
                continue
            for order in orders:
                self.empty()
                self.truth[0] = "old"
                with self.subTest(name, order=" - ".join(order)):
                    self.assertEqual(set(self.run_order(order, read, group)), {"new"})

    def test_no_order_of_one_slow_builder_serves_the_old_value(self):
        self.assertEqual(len(ORDERS), 60)
        self.assert_no_old_value(ORDERS)

    def test_no_order_of_two_slow_builders_serves_the_old_value(self):
        self.assertEqual(len(TWO_ORDERS), 90)
        self.assert_no_old_value(TWO_ORDERS, "view by its group")
