"""Brings the content of this folder into the database, and only what is missing there."""

import hashlib
import random

from django.db.models import F, Q
from django.utils.text import slugify

from blog import caching
from blog.content import written_posts
from blog.content.sample import sample_comment, sample_post
from blog.models import Comment, Post, Tag


def digest(post):
    """Return what tells an edited post from one that is still as it was seeded."""
    return hashlib.sha256("\0".join([post.title, post.summary, post.body]).encode()).hexdigest()


def wanted_posts(number):
    """Return the fields of the hand-written posts and of `number` sample posts, which are older."""
    posts = written_posts()
    first = min(fields["published_at"] for fields in posts)
    return posts + [sample_post(index, before=first) for index in range(number)]


def add_posts(wanted, in_batches):
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
    for batch in in_batches("Posts", new):
        Post.objects.bulk_create(batch)
    created = Post.objects.filter(pk__in=[post.pk for post in new])
    created.update(updated_at=F("published_at"))  # Nobody has touched them since.
    names = {name for post in new for name in tags_of[post.slug]}
    tags = {name: tag_named(name) for name in sorted(names)}
    pairs = [(post, tags[name]) for post in new for name in tags_of[post.slug]]
    through = Post.tags.through
    through.objects.bulk_create([through(post=post, tag=tag) for post, tag in pairs])
    # This bulk_create is Django's own, and it sends no signal.
    caching.drop_after_commit(caching.shown_on([post.pk for post in new]))
    return len(new), updated


def tag_named(name):
    """Return the tag of that name or slug, whoever made it."""
    slug = slugify(name)
    tag = Tag.objects.filter(Q(name=name) | Q(slug=slug)).first()
    return tag or Tag.objects.create(name=name, slug=slug)


def add_comments(number, slugs, in_batches):
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
    for batch in in_batches("Comments", new):
        Comment.objects.bulk_create(batch)
    return len(new)
