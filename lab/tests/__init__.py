"""Tests of the experiments: what each of them shows, against a real Redis."""

import json
import re
from collections import Counter

from django.conf import settings
from django.core.cache import caches
from django.test import TransactionTestCase, override_settings

from blog.tests import CacheTestCase
from lab.caches import DATABASE, lab_cache

IMPLIED = {"section": "region", "nav": "navigation", "aside": "complementary", "form": "form"}
LANDMARKS = {*IMPLIED.values(), "search", "main", "banner", "contentinfo"}


def doubles(html):
    """Return what is there twice in a page: ids, and (role, name) of landmarks."""
    ids = re.findall(r'\sid="([^"]+)"', html)
    landmarks = []
    for tag, attributes in re.findall(r"<(\w+)([^>]*)>", html):
        has = dict(re.findall(r'([\w-]+)="([^"]*)"', attributes))
        role = has.get("role", IMPLIED.get(tag))
        name = has.get("aria-label") or text_of(html, has.get("aria-labelledby"))
        if role in LANDMARKS and name:
            landmarks.append((role, name))
    return [item for item, times in Counter([*ids, *landmarks]).items() if times > 1]


def text_of(html, identity):
    """Return the text of the element with this id, "" without one."""
    found = identity and re.search(rf'\sid="{identity}"[^>]*>(.*?)</(?:h\d|p)>', html, re.DOTALL)
    return re.sub(r"<[^>]*>", "", found[1]).strip() if found else ""


def entries():
    """Return {(alias, key): value} of all that the four levels have stored."""
    clients = {alias: caches[alias].client.get_client() for alias in caches}
    return {
        (alias, key): redis.get(key)
        for alias, redis in clients.items()
        for key in redis.scan_iter(count=1000)
    }


# With the watch, whose headers the pages of the lab read.
@override_settings(ROOT_URLCONF="lab.tests.urls", MIDDLEWARE=settings.MIDDLEWARE)
class LabPageTestCase(CacheTestCase):
    """A page of the lab that answers at once."""

    def setUp(self):
        super().setUp()
        lab_cache("", DATABASE).clear()


@override_settings(ROOT_URLCONF="lab.tests.urls")
class LabTestCase(TransactionTestCase):
    """A TransactionTestCase, because a run works in threads that have connections of their own."""

    def setUp(self):
        for cache in caches.all():
            cache.clear()
        lab_cache("", DATABASE).clear()

    def run_experiment(self, slug, **options):
        """Start a run, wait for its end, and return its lines."""
        response = self.client.post(f"/lab/{slug}/", options)
        self.assertEqual(response.status_code, 200, response)
        lines = [json.loads(line) for line in b"".join(response).splitlines() if line]
        response.close()
        return lines

    def rows(self, lines, table):
        """Return {key: cells} of a table, as the page has it at the end."""
        return {
            line["key"]: line["cells"]
            for line in lines
            if line["kind"] == "row" and line["table"] == table
        }
