"""`manage.py seed`: the tutorial's posts, and enough other content to make a cache worth it."""

import hashlib
import random

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.db.models import F

from blog import caching
from blog.content import written_posts
from blog.content.sample import sample_comment, sample_post
from blog.models import Comment, Post, Tag

BATCH = 500


def digest(post):
    """Return what tells an edited post from one that is still as it was seeded."""
    return hashlib.sha256("\0".join([post.title, post.summary, post.body]).encode()).hexdigest()


class Command(BaseCommand):
    help = (
        "Adds the tutorial's posts and deterministic sample content. Run it as often as you "
        "like: what is there stays, and a post that a person edited is never overwritten."
    )

    def add_arguments(self, parser):
        parser.add_argument("--posts", type=int, default=200, help="sample posts (200)")
        parser.add_argument("--comments", type=int, default=5000, help="sample comments (5000)")

    @transaction.atomic
    def handle(self, *, posts, comments, **options):
        if not (0 <= posts <= 20_000 and 0 <= comments <= 500_000):
            raise CommandError("Give 0 to 20,000 --posts and 0 to 500,000 --comments.")
        wanted = written_posts()
        first = min(fields["published_at"] for fields in wanted)
        wanted += [sample_post(number, before=first) for number in range(posts)]
        added, updated = self.add_posts(wanted)
        commented = self.add_comments(comments, [fields["slug"] for fields in wanted])
        self.stdout.write(f"Seeded {added} new posts, {updated} updated, {commented} comments.")

    def add_posts(self, wanted):
        """Create what is missing, and bring up to date what nobody edited."""
        old_posts = {post.slug: post for post in Post.objects.all()}
        tags_of = {fields["slug"]: fields.pop("tags") for fields in wanted}
        new, updated = [], 0
        for fields in wanted:
            post = Post(**fields)
            post.seeded_as = digest(post)
            old = old_posts.get(post.slug)
            if old is None:
                new.append(post)
            elif old.seeded_as not in ("", post.seeded_as) and digest(old) == old.seeded_as:
                post.pk, post.published_at = old.pk, old.published_at
                post.save()
                updated += 1
        for batch in self.progress("Posts", new):
            Post.objects.bulk_create(batch)
        created = Post.objects.filter(pk__in=[post.pk for post in new])
        created.update(updated_at=F("published_at"))  # Nobody has touched them since.
        names = {name for post in new for name in tags_of[post.slug]}
        tags = {
            name: Tag.objects.get_or_create(slug=name.replace(" ", "-"), defaults={"name": name})[0]
            for name in sorted(names)
        }
        pairs = [(post, tags[name]) for post in new for name in tags_of[post.slug]]
        through = Post.tags.through
        through.objects.bulk_create([through(post=post, tag=tag) for post, tag in pairs])
        # This bulk_create is Django's own, and it sends no signal.
        caching.drop_after_commit(caching.shown_on([post.pk for post in new]))
        return len(new), updated

    def add_comments(self, number, slugs):
        """Create the sample comments that are missing."""
        posts = {post.slug: post for post in Post.objects.published().filter(slug__in=slugs)}
        slugs = [slug for slug in slugs if slug in posts]
        existing = set(Comment.objects.exclude(seeded_as="").values_list("seeded_as", flat=True))
        new = []
        for index in range(number if slugs else 0):
            chance, name = random.Random(f"comment {index}"), f"sample-{index}"
            post = posts[chance.choice(slugs)]
            if name not in existing:
                new.append(Comment(post=post, seeded_as=name, **sample_comment(chance, post)))
        for batch in self.progress("Comments", new):
            Comment.objects.bulk_create(batch)
        return len(new)

    def progress(self, what, rows):
        """Yield `rows` in batches, and draw a bar on a terminal."""
        for start in range(0, len(rows), BATCH):
            yield rows[start : start + BATCH]
            done = min(start + BATCH, len(rows))
            if self.stdout.isatty():
                bar = "█" * (30 * done // len(rows))
                end = "\n" if done == len(rows) else "\r"
                self.stdout.write(f"{what:<9} {bar:<30} {done}/{len(rows)}", ending=end)
