"""
Posts, tags and comments.

Any change made through these classes invalidates the caches. What goes around them does not:
raw SQL, the models that a data migration gets, the table between posts and tags
(`Post.tags.through`). And a change that leaves `updated_at` as it was, as `loaddata` may, reaches
the archive's month a day late at the latest, because its key is made of `updated_at`.
"""

from datetime import UTC, datetime

from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import Count, Q
from django.urls import reverse
from django.utils import timezone

from blog import caching, rendering


class InvalidatingQuerySet(models.QuerySet):
    """
    update(), bulk_update() and bulk_create() send no signals, so they invalidate here.

    The three attributes are those of posts. Tags and comments have their own.
    """

    slug_path = "slug"  # From a row to the slugs of the posts whose pages show it.
    found_by = "slug"  # How bulk_create() finds the rows that it has written.
    changed = staticmethod(caching.posts_changed)  # What invalidates them.

    def invalidate(self):
        """Invalidate what shows these rows, as the database has them at this moment."""
        slugs = set(self.order_by().values_list(self.slug_path, flat=True)) - {None}
        if slugs:  # A tag that no post has is shown nowhere.
            self.changed(slugs)

    @transaction.atomic
    def update(self, **kwargs):
        """Update these rows and invalidate. bulk_update() calls this method too."""
        # Found by primary key: after the update, the query itself may find other rows.
        rows = self.model.objects.filter(pk__in=list(self.values_list("pk", flat=True)))
        rows.invalidate()
        updated = super().update(**kwargs)
        rows.invalidate()
        return updated

    update.alters_data = True

    @transaction.atomic
    def bulk_create(self, objs, *args, **kwargs):
        """Create these rows, or overwrite those that exist, and invalidate."""
        objs = list(objs)
        # With update_conflicts=True, an existing comment may move to another post: its old page
        # is outdated too.
        self.model.objects.filter(pk__in=[row.pk for row in objs if row.pk]).invalidate()
        objs = super().bulk_create(objs, *args, **kwargs)
        # Not by primary key: with ignore_conflicts=True, Django doesn't learn it.
        found_by = {f"{self.found_by}__in": [getattr(row, self.found_by) for row in objs]}
        self.model.objects.filter(**found_by).invalidate()
        return objs

    bulk_create.alters_data = True


class InvalidatingModel(models.Model):
    """A model whose changes invalidate: see signals.py."""

    class Meta:
        abstract = True

    @transaction.atomic  # One transaction with what the signals read before and after.
    def save(self, *args, **kwargs):
        super().save(*args, **kwargs)


class TagQuerySet(InvalidatingQuerySet):
    slug_path = "posts__slug"

    def in_use(self):
        """Return the tags of published posts."""
        return self.filter(posts__published_at__isnull=False).distinct()


class Tag(InvalidatingModel):
    name = models.CharField(max_length=40, unique=True)
    slug = models.SlugField(max_length=40, unique=True)

    objects = TagQuerySet.as_manager()

    class Meta:
        ordering = ["name"]

    def __str__(self):
        return self.name

    def get_absolute_url(self):
        return reverse("tag", args=[self.slug])


# A made-up post: `manage.py seed` wrote it, and it is not a lesson.
NOTE = Q(lesson__isnull=True) & ~Q(seeded_as="")


class PostQuerySet(InvalidatingQuerySet):
    def update(self, **kwargs):
        """Update and invalidate. Also sets updated_at, which auto_now does in save() alone."""
        return super().update(**{"updated_at": timezone.now()} | kwargs)

    update.alters_data = True

    def bulk_create(self, *args, update_fields=None, **kwargs):
        """Create and invalidate. Rows that are overwritten get an updated_at too."""
        if update_fields:
            update_fields = {"updated_at", *update_fields}
        return super().bulk_create(*args, update_fields=update_fields, **kwargs)

    bulk_create.alters_data = True

    def published(self):
        """Return all posts but the drafts, newest first."""
        # The order is named here, because Django ignores Meta.ordering in a query with Count().
        return self.filter(published_at__isnull=False).order_by("-published_at", "-pk")

    def lessons(self):
        """Return the lessons of the tutorial, in reading order."""
        return self.filter(lesson__isnull=False).order_by("lesson")

    def notes(self):
        """Return the made-up posts that `manage.py seed` adds."""
        return self.filter(NOTE)

    def for_cards(self):
        """Add tags and comment_count to each post: two queries, however many posts."""
        return self.prefetch_related("tags").annotate(comment_count=Count("comments"))

    def in_month(self, year, month):
        """Return the posts of one month."""
        start = datetime(year, month, 1, tzinfo=UTC)
        end = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
        return self.filter(published_at__gte=start, published_at__lt=end)

    def months(self):
        """Return posts and reading minutes of each month. Expensive: it reads every post."""
        months = {}
        for published_at, body in self.values_list("published_at", "body"):
            first_day = published_at.date().replace(day=1)
            month = months.setdefault(first_day, {"day": first_day, "posts": 0, "minutes": 0})
            month["posts"] += 1
            month["minutes"] += rendering.reading_minutes(body)
        return list(months.values())

    def most_discussed(self):
        """
        Return the five posts with the most comments. Expensive: it counts all of them.

        Made-up notes come last, with their made-up comments.
        """
        counted = self.alias(is_note=NOTE).annotate(comment_count=Count("comments"))
        return counted.order_by("is_note", "-comment_count", "-pk")[:5]


class Post(InvalidatingModel):
    title = models.CharField(max_length=120)
    slug = models.SlugField(max_length=80, unique=True)
    summary = models.CharField(max_length=200)
    body = models.TextField(help_text="Markdown. Raw HTML is shown as text.")
    tags = models.ManyToManyField(Tag, related_name="posts", blank=True)
    published_at = models.DateTimeField(
        "published", null=True, blank=True, db_index=True, help_text="Empty: a draft."
    )
    updated_at = models.DateTimeField(auto_now=True)
    # Only the posts of blog/content/ have these four.
    # The place in the tutorial's reading order, which is the order of the files.
    lesson = models.PositiveSmallIntegerField(null=True, blank=True, editable=False)
    # The next three are from the first lines of the file.
    # The part of the tutorial. templates/blog/_part.html has the names of the parts.
    part = models.CharField(max_length=20, blank=True, editable=False)
    # "django": it holds in any Django project. "blog": it is how this blog does it.
    scope = models.CharField(max_length=20, blank=True, editable=False)
    # The experiments of the lab that show it, such as "peel race".
    lab = models.CharField(max_length=80, blank=True, editable=False)
    # A hash of the content that `manage.py seed` wrote. Empty: written by a person.
    seeded_as = models.CharField(max_length=64, blank=True, editable=False)

    objects = PostQuerySet.as_manager()

    class Meta:
        ordering = ["-published_at", "-pk"]

    def __str__(self):
        return self.title

    def save(self, *args, update_fields=None, **kwargs):
        """Save, and always with updated_at: the archive's key is made of it."""
        if update_fields:
            update_fields = {"updated_at", *update_fields}
        super().save(*args, update_fields=update_fields, **kwargs)

    def get_absolute_url(self):
        return reverse("post", args=[self.slug])

    def clean(self):
        if self.published_at and self.published_at > timezone.now():
            # When that date comes, no signal is sent, so no page would be invalidated.
            raise ValidationError({"published_at": "Posts can't be scheduled. Save a draft."})

    def body_html(self):
        return rendering.to_html(self.body)

    def excerpt_html(self):
        return rendering.to_html(rendering.excerpt(self.body))

    def reading_minutes(self):
        return rendering.reading_minutes(self.body)

    def is_note(self):
        """Return whether the post is made up: see NOTE."""
        return self.lesson is None and self.seeded_as != ""

    def experiments(self):
        return self.lab.split()


class CommentQuerySet(InvalidatingQuerySet):
    slug_path = "post__slug"
    found_by = "post"
    changed = staticmethod(caching.comments_changed)

    def latest(self, number):
        """Return the `number` latest comments, oldest first."""
        return list(self.order_by("-created_at", "-pk")[:number])[::-1]

    def recent(self):
        """Return the five latest comments on published posts."""
        published = self.filter(post__published_at__isnull=False).select_related("post")
        return published.order_by("-created_at", "-pk")[:5]


class Comment(InvalidatingModel):
    post = models.ForeignKey(Post, on_delete=models.CASCADE, related_name="comments")
    author = models.CharField("your name", max_length=60)
    body = models.TextField(
        "comment", max_length=4000, help_text="Plain text, up to 4,000 characters."
    )
    created_at = models.DateTimeField(default=timezone.now, db_index=True)
    seeded_as = models.CharField(max_length=64, blank=True, editable=False, db_index=True)

    objects = CommentQuerySet.as_manager()

    class Meta:
        ordering = ["created_at", "pk"]
        # post.comments.add(comment) calls update() of this manager. By default it is Django's.
        base_manager_name = "objects"

    def __str__(self):
        return f"{self.author} on {self.post}"

    def get_absolute_url(self):
        return f"{self.post.get_absolute_url()}#comment-{self.pk}"
