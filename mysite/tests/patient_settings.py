"""The settings, with a Redis that may take long to answer. See PATIENT in served.py."""

from mysite.settings import *  # noqa: F403
from mysite.settings import CACHES

for cache in CACHES.values():
    # Seconds.
    cache["OPTIONS"]["CONNECTION_POOL_KWARGS"] = {
        "socket_timeout": 10,
        "socket_connect_timeout": 10,
    }
