"""
A Redis cache that a Django site can depend on. README.md shows how to set it up.

    backend.py     the BACKEND: short timeouts, errors that never escape, a guarded get_or_set()
    breaker.py     what happens when Redis is down
    quiet.py       the methods of django-redis, none of which raises an error of Redis
    serializer.py  values that run no code when they are read
    guard.py       of many requests that miss, one builds
    groups.py      invalidation of any number of entries by one write
    pages.py       the per-site and the per-view cache, on all of the above
    compat.py      every private name of another library that this package needs
"""
