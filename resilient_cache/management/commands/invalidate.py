from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from resilient_cache import groups


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
        if aliases := groups.settle():
            groups.forget()  # It need not try once more when it ends.
            raise CommandError(
                f"Redis did not take it within {groups.PATIENCE} s, at {', '.join(aliases)}. What "
                "is cached there may stay old until its timeout. Try again when Redis is back."
            )
        if options["verbosity"]:
            self.stdout.write(f"Invalidated {', '.join(options['groups'])}.")
