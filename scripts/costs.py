"""
What each level saves: CPU of a page without cache against the CPU of its hit.

    python scripts/costs.py [--rounds 30]

One process, one run: a private Redis, a temporary database with the default seed data,
production settings. A request goes through the whole of Django (WSGI handler and every
middleware), not through a network. "Without" empties all caches before each request.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mysite.private_redis import PrivateRedis

PAGES = [
    ("whole site", "/"),
    ("per view", "/posts/the-whole-site/"),
    ("fragment", "/archive/"),
    ("low-level", "/search/?q=cache+redis"),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=30, help="requests without cache (30)")
    rounds = parser.parse_args().rounds
    if not 1 <= rounds <= 1000:
        parser.error("--rounds takes 1 to 1000.")
    with tempfile.TemporaryDirectory() as folder, PrivateRedis() as redis:
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "mysite.settings",
            "DEBUG": "0",
            "SECRET_KEY": "measured",
            "REDIS_URL": redis.url,
            "DATABASE_PATH": f"{folder}/db.sqlite3",
            "STATIC_ROOT": f"{folder}/static",
        }
        measure(rounds)


def measure(rounds):
    import django
    from django.core.cache import caches
    from django.core.management import call_command

    django.setup()
    call_command("collectstatic", interactive=False, verbosity=0)
    call_command("migrate", verbosity=0)
    call_command("seed")

    from mysite.wsgi import application

    print(f"{'level':<11} {'page':<24} {'without':>10} {'hit':>10} {'ratio':>7}")
    for level, path in PAGES:
        without = hit = 0
        for _ in range(rounds):
            for alias in caches:
                caches[alias].clear()
            without += cpu_of(application, path)
            hit += sum(cpu_of(application, path) for _ in range(10)) / 10
        print(
            f"{level:<11} {path:<24} {without / rounds:>7.2f} ms {hit / rounds:>7.2f} ms "
            f"{without / hit:>6.1f}x"
        )


def cpu_of(application, path):
    """Return the milliseconds of CPU that this process spends on one GET of `path`."""
    from django.test import RequestFactory

    request = RequestFactory().get(path, headers={"host": "localhost"})
    statuses = []
    start = time.process_time()
    response = application(request.environ, lambda status, headers: statuses.append(status))
    for _ in response:
        pass
    response.close()
    spent = (time.process_time() - start) * 1000
    if statuses != ["200 OK"]:
        sys.exit(f"{path} answered {statuses[0]}.")
    return spent


if __name__ == "__main__":
    main()
