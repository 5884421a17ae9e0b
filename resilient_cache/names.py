"""The cache keys of groups and paths: readable, bounded, and valid for memcached."""

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import quote, unquote

# The longest name that becomes part of a key as it is. Memcached takes keys of 250 bytes.
MOST_BYTES = 200


@lru_cache(maxsize=1000)
def bounded(name: str) -> str:
    """Return `name` as part of a key: no spaces or control characters, at most 200 bytes."""
    name = quote(name, safe="!$&'()*+,/:;=?@[]~%|")
    if len(name) > MOST_BYTES:
        name = f"{name[:120]}~{hashlib.sha256(name.encode()).hexdigest()[:32]}"
    return name


def group_key(group: str) -> str:
    """
    Return the cache key of a group's version. Raises ValueError for a name that is not one.

    >>> group_key("post:keys")
    'group:post:keys'
    """
    if not isinstance(group, str) or not group:
        raise ValueError(f"A group is a text with at least one character, not {group!r}.")
    if group.startswith("/"):
        return path_key(unquote(group))  # What reverse() gives is quoted.
    return _name_key(group)


def keys_to_invalidate(groups: Iterable[str]) -> set[str]:
    """Return the keys of groups that are to be invalidated. Raises ValueError for URLs, too."""
    for group in groups:
        if not isinstance(group, str):
            continue  # See group_key().
        if group.startswith(("http://", "https://")):
            raise ValueError(f"{group!r} is a URL. The group of a page is its path: /about/.")
        if group.startswith("/") and ("?" in group or "#" in group):
            raise ValueError(f"{group!r} is not a path: leave out what follows ? or #.")
    return {group_key(group) for group in groups}


@lru_cache(maxsize=1000)  # A hit asks for two keys, and quote() takes 2 us.
def _name_key(group: str) -> str:
    return f"group:{bounded(quote(group, safe='!$&()*+,/:;=?@[]~'))}"


@lru_cache(maxsize=1000)
def path_key(path: str) -> str:
    """Return the key of the group that all pages at `path` (as request.path has it) belong to."""
    return f"group:{bounded(quote(path))}"
