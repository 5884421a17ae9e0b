"""Counters in the cache: limits on what one visitor, or all of them, may do in a while."""

from contextlib import suppress
from ipaddress import ip_address, ip_network

from django.conf import settings
from django.core.cache import cache


def count_up(key, timeout):
    """
    Add one to the counter at `key` and return its value; 0 if the cache is down.

    add() starts the counter, and does nothing if it exists: its `timeout`, in seconds, runs
    from the first call. incr() is one step in Redis, so two requests never get the same number.
    It returns None while Redis is down.
    """
    cache.add(key, 0, timeout)
    try:
        return cache.incr(key) or 0
    except ValueError:  # The counter expired between the two calls.
        return 0


def visitor_address(request):
    """
    Return the visitor's IP address. Of IPv6 return the network: one visitor has 2^64 addresses.

    X-Forwarded-For counts only if settings.TRUST_PROXY says that a proxy sets it.
    """
    forwarded = ""
    if getattr(settings, "TRUST_PROXY", False):
        forwarded = request.headers.get("X-Forwarded-For", "")
    # The proxy appends the last address. A visitor can write anything before it.
    address = forwarded.rpartition(",")[2].strip() or request.META["REMOTE_ADDR"]
    with suppress(ValueError):
        ip = ip_address(address)
        if ip.version == 6:
            # A socket for both versions writes IPv4 as ::ffff:192.0.2.1.
            return str(ip.ipv4_mapped or ip_network(f"{address}/64", strict=False))
    return address
