import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from resilient_cache import groups

# Seconds that the command goes on trying when Redis does not take the invalidation.
PATIENCE = 5


class Command(BaseCommand):
    help = (
        "Invalidate groups of cached values at every alias: post:keys, /about/, site. "
        "What belongs to them is never served again."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("groups", nargs="+", metavar="GROUP")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            groups.invalidate(*options["groups"])
        except ValueError as error:
            raise CommandError(str(error)) from None
        ends = time.monotonic() + PATIENCE
        while (owed := groups.owed()) and time.monotonic() < ends:
            time.sleep(0.1)  # The breaker's probe tries again twice a second.
        if owed:
            raise CommandError(
                f"Redis did not take it within {PATIENCE} s, at {', '.join(sorted(owed))}. What "
                "is cached there may stay old until its timeout. Try again when Redis is back."
            )
        if options["verbosity"]:
            self.stdout.write(f"Invalidated {', '.join(options['groups'])}.")
