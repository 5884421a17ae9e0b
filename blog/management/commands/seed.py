"""`manage.py seed`: the tutorial's posts, and enough other content to make a cache worth it."""

import hashlib
import random
from datetime import UTC, datetime
from pathlib import Path

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils.text import slugify

from blog import caching
from blog.management.commands._sample import sample_comment, sample_post
from blog.models import Comment, Post, Tag

CONTENT = Path(__file__).resolve().parents[2] / "content"
BATCH = 500


def read_post(path):
    """Return the post in a file of blog/content: `name: value` lines, `---`, Markdown."""
    _, head, body = path.read_text(encoding="utf-8").split("---\n", 2)
    meta = dict(line.split(": ", 1) for line in head.strip().splitlines())
    return {
        "slug": path.stem.partition("-")[2],
        "title": meta["title"],
        "summary": meta["summary"],
        "body": body.strip() + "\n",
        "published_at": datetime.fromisoformat(meta["date"]).replace(hour=9, tzinfo=UTC),
        "tags": [tag.strip() for tag in meta["tags"].split(",")],
    }


def digest(post):
    """Return what tells an edited post from one that is still as it was seeded."""
    return hashlib.sha256("\0".join([post.title, post.summary, post.body]).encode()).hexdigest()


class Command(BaseCommand):
    help = (
        "Adds the tutorial's posts and deterministic sample content. Run it as often as you "
        "like: what is there stays, and a post that a person edited is never overwritten."
    )

    def add_arguments(self, parser):
        parser.add_argument("--posts", type=int, default=200, help="sample posts (default 200)")
        parser.add_argument("--comments", type=int, default=5000, help="on all posts (5000)")

    @transaction.atomic
    def handle(self, *, posts, comments, **options):
        if not (0 <= posts <= 20_000 and 0 <= comments <= 500_000):
            raise CommandError("Give 0 to 20,000 --posts and 0 to 500,000 --comments.")
        written = [read_post(path) for path in sorted(CONTENT.glob("*.md"))]
        first = min((post["published_at"] for post in written), default=datetime.now(UTC))
        sample = [sample_post(number, before=first) for number in range(posts)]
        added, updated = self.add_posts(written + sample)
        commented = self.add_comments(comments, [post["slug"] for post in written + sample])
        self.stdout.write(f"Seeded {added} new posts, {updated} updated, {commented} comments.")

    def add_posts(self, wanted):
        """Create what is missing. Bring what nobody edited up to date."""
        existing = {post.slug: post for post in Post.objects.exclude(seeded_as="")}
        taken = set(Post.objects.values_list("slug", flat=True))
        tags = {
            name: Tag.objects.get_or_create(slug=slugify(name), defaults={"name": name})[0]
            for name in sorted({tag for post in wanted for tag in post["tags"]})
        }
        new, updated, tags_of = [], 0, {}
        for fields in wanted:
            tags_of[fields["slug"]] = fields.pop("tags")
            post = Post(**fields)
            post.seeded_as = digest(post)
            if post.slug not in taken:
                new.append(post)
                continue
            old = existing.get(post.slug)
            if old and digest(old) == old.seeded_as != post.seeded_as:
                post.pk, post.published_at = old.pk, old.published_at
                post.save()
                updated += 1
        for batch in self.progress("Posts", new):
            Post.objects.bulk_create(batch)
        through = Post.tags.through
        through.objects.bulk_create(
            [through(post=post, tag=tags[name]) for post in new for name in tags_of[post.slug]],
            batch_size=BATCH,
        )
        caching.drop_after_commit(caching.shown_on([post.pk for post in new]))
        return len(new), updated

    def add_comments(self, number, slugs):
        """Create the sample comments that are missing."""
        posts = dict(Post.objects.filter(slug__in=slugs).values_list("slug", "pk"))
        dates = dict(Post.objects.filter(slug__in=slugs).values_list("slug", "published_at"))
        slugs = [slug for slug in slugs if dates.get(slug)]
        existing = set(Comment.objects.exclude(seeded_as="").values_list("seeded_as", flat=True))
        new = []
        for index in range(number if slugs else 0):
            chance = random.Random(f"comment {index}")
            slug = chance.choice(slugs)
            if (name := f"sample-{index}") not in existing:
                author, body, delay = sample_comment(chance)
                new.append(
                    Comment(
                        post_id=posts[slug],
                        author=author,
                        body=body,
                        created_at=dates[slug] + delay,
                        seeded_as=name,
                    )
                )
        for batch in self.progress("Comments", new):
            Comment.objects.bulk_create(batch)
        return len(new)

    def progress(self, what, rows):
        """Yield `rows` in batches and draw a bar on a terminal."""
        for start in range(0, len(rows), BATCH):
            yield rows[start : start + BATCH]
            done = min(start + BATCH, len(rows))
            if self.stdout.isatty():
                bar = "█" * (30 * done // len(rows))
                end = "\n" if done == len(rows) else "\r"
                self.stdout.write(f"{what:<9} {bar:<30} {done}/{len(rows)}", ending=end)
