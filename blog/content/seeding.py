"""Brings the content of this folder into the database. What a person wrote or edited stays."""

import hashlib
import random

from django.db.models import F, Q
from django.utils.text import slugify

from blog.content import written_posts
from blog.content.sample import sample_comment, sample_post
from blog.models import Comment, Post, Tag

PLACE = ("lesson", "part", "scope", "lab")  # What says where a lesson belongs.


def digest(post):
    """Return a hash that differs once a person has edited the post."""
    return hashlib.sha256("\0".join([post.title, post.summary, post.body]).encode()).hexdigest()


def wanted_posts(number):
    """Return the fields of the lessons, and of `number` sample posts, which are older."""
    posts = written_posts()
    first = min(fields["published_at"] for fields in posts)
    return posts + [sample_post(index, before=first) for index in range(number)]


def add_posts(wanted, in_batches):
    """Create the posts that are missing, and update those that no person edited."""
    old_posts = {post.slug: post for post in Post.objects.all()}
    tags_of = {fields["slug"]: fields.pop("tags") for fields in wanted}
    new, updated = [], 0
    for fields in wanted:
        post = Post(**fields)
        post.seeded_as = digest(post)
        old = old_posts.get(post.slug)
        if old is None:
            new.append(post)
        elif is_outdated(old, post):
            post.pk, post.published_at = old.pk, old.published_at
            post.save()
            updated += 1
        elif old.seeded_as and place(old) != place(post):  # Also of a post that a person edited.
            for name, value in place(post).items():
                setattr(old, name, value)
            old.save(update_fields=PLACE)
    for batch in in_batches("Posts", new):
        Post.objects.bulk_create(batch)
    names = {name for post in new for name in tags_of[post.slug]}
    tags = {name: tag_named(name) for name in sorted(names)}
    pairs = [(post, tags[name]) for post in new for name in tags_of[post.slug]]
    # This bulk_create() is Django's own and invalidates nothing. The update() below does.
    through = Post.tags.through
    through.objects.bulk_create([through(post=post, tag=tag) for post, tag in pairs])
    created = Post.objects.filter(pk__in=[post.pk for post in new])
    created.update(updated_at=F("published_at"))  # They have not been edited since.
    return len(new), updated


def place(post):
    """Return {field: value} of what says where a lesson belongs."""
    return {name: getattr(post, name) for name in PLACE}


def is_outdated(old, post):
    """Return whether `old` is an earlier edition of `post` that no person edited."""
    return old.seeded_as not in ("", post.seeded_as) and old.seeded_as == digest(old)


def tag_named(name):
    """Return the tag of that name or slug. It may exist under one of them."""
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
