"""`manage.py seed`: the tutorial's posts, and enough sample content for a cache to matter."""

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from blog.content.seeding import add_comments, add_posts, wanted_posts

BATCH = 500


class Command(BaseCommand):
    help = (
        "Adds the tutorial's posts and deterministic sample content. Run it as often as you "
        "like: existing content stays, and a post that a person edited is never overwritten."
    )

    def add_arguments(self, parser):
        parser.add_argument("--posts", type=int, default=200, help="sample posts (200)")
        parser.add_argument("--comments", type=int, default=5000, help="sample comments (5000)")

    @transaction.atomic
    def handle(self, *, posts, comments, **options):
        if not (0 <= posts <= 20_000 and 0 <= comments <= 500_000):
            raise CommandError("Give 0 to 20,000 --posts and 0 to 500,000 --comments.")
        wanted = wanted_posts(posts)
        slugs = [fields["slug"] for fields in wanted]
        added, updated = add_posts(wanted, self.in_batches)
        commented = add_comments(comments, slugs, self.in_batches)
        self.stdout.write(f"Seeded {added} new posts, {updated} updated, {commented} comments.")

    def in_batches(self, what, rows):
        """Yield `rows` in batches, and draw a bar on a terminal."""
        for start in range(0, len(rows), BATCH):
            yield rows[start : start + BATCH]
            done = min(start + BATCH, len(rows))
            if self.stdout.isatty():
                bar = "█" * (30 * done // len(rows))
                end = "\n" if done == len(rows) else "\r"
                self.stdout.write(f"{what:<9} {bar:<30} {done}/{len(rows)}", ending=end)
