"""
Pages of the lab that the blog's own page levels keep: rows for blog.caching.PAGES.

Each run has pages of its own, because its id is in their paths. What it drops, nobody misses.
"""

import re
import secrets

from django.core.cache import cache, caches

from mysite.caches.pages import generation_key, new_generations

RUN = "(?P<run>[0-9a-f]{12})"
TOKEN_TIMEOUT = 10 * 60  # Seconds. Longer than anything that carries the token is kept.

# Pattern, levels, generation, whether the browser may keep it: as in blog/caching.py.
PAGES = [
    (re.compile(f"/lab/race/page/site/{RUN}/"), ("site",), "lab-race:{run}", False),
    (re.compile(f"/lab/race/page/view/{RUN}/"), ("view",), "lab-race:{run}", False),
    (re.compile(f"/lab/stampede/page/site/{RUN}/"), ("site",), "lab-stampede:{run}", False),
    (re.compile(f"/lab/stampede/page/view/{RUN}/"), ("view",), "lab-stampede:{run}", False),
    (re.compile(f"/lab/peel/page/{RUN}/"), ("site", "view"), "lab-peel:{run}", True),
]


def new_run():
    """Return an id for a run that begins with the load of a page."""
    return secrets.token_hex(6)


def drop_page(alias, name):
    """Drop a run's page from one level. Raises ConnectionInterrupted when Redis is away."""
    new_generations(alias, [name])
    # A token lives for days, and this one's run is over soon.
    caches[alias].expire(generation_key(name), TOKEN_TIMEOUT)


def drop_fragment(key):
    """Drop a run's fragment. Raises ConnectionInterrupted when Redis is away."""
    fragments = caches["template_fragments"]
    fragments.client.delete(key)
    fragments.expire(generation_key(key), TOKEN_TIMEOUT)


def drop_value(key):
    """Drop a run's value. Raises ConnectionInterrupted when Redis is away."""
    cache.client.delete(key)
