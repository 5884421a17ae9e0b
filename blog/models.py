"""
Posts, tags and comments. Changing them through these classes invalidates the caches; raw
SQL, and writing to the table between posts and tags, does not.
"""

from datetime import UTC, datetime

from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import Count
from django.db.models.signals import m2m_changed
from django.urls import reverse
from django.utils import timezone

from blog import caching
from blog.content import rendering


class InvalidatingQuerySet(models.QuerySet):
    """update(), bulk_update() and bulk_create() send no signals, so they invalidate here."""

    post_field = "pk"  # The way from a row to the posts that show it.
    cached_keys = caching.POST_KEYS
    natural_key = "slug"  # What finds a row again that bulk_create() gave no primary key.

    def post_pks(self):
        """Return the primary keys of the posts that show these rows."""
        return list(self.order_by().values_list(self.post_field, flat=True).distinct())

    @transaction.atomic
    def update(self, **kwargs):
        """Update, as bulk_update() does through this method, and invalidate."""
        rows = self.model.objects.filter(pk__in=list(self.values_list("pk", flat=True)))
        before = caching.shown_on(rows.post_pks())
        updated = super().update(**kwargs)
        caching.drop_after_commit(before | caching.shown_on(rows.post_pks()), self.cached_keys)
        return updated

    update.alters_data = True

    @transaction.atomic
    def bulk_create(self, objs, *args, **kwargs):
        objs = super().bulk_create(objs, *args, **kwargs)
        keys = {f"{self.natural_key}__in": [getattr(row, self.natural_key) for row in objs]}
        posts = self.model.objects.filter(**keys).post_pks()
        caching.drop_after_commit(caching.shown_on(posts), self.cached_keys)
        return objs

    bulk_create.alters_data = True


class InvalidatingModel(models.Model):
    """A model whose signals invalidate: see connect() in caching.py."""

    class Meta:
        abstract = True

    @transaction.atomic  # With what the signals read: another save can't come in between.
    def save(self, *args, **kwargs):
        super().save(*args, **kwargs)


class TagQuerySet(InvalidatingQuerySet):
    post_field = "posts"

    def in_use(self):
        return self.filter(posts__published_at__isnull=False).distinct()


class Tag(InvalidatingModel):
    name = models.CharField(max_length=40, unique=True)
    slug = models.SlugField(max_length=40, unique=True)

    objects = TagQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        base_manager_name = "objects"

    def __str__(self):
        return self.name

    def get_absolute_url(self):
        return reverse("tag", args=[self.slug])


class PostQuerySet(InvalidatingQuerySet):
    def update(self, **kwargs):
        """Update and invalidate. Also sets updated_at, which auto_now does in save() alone."""
        return super().update(**{"updated_at": timezone.now()} | kwargs)

    def bulk_create(self, *args, update_fields=None, **kwargs):
        """Create and invalidate. Rows that are overwritten get an updated_at too."""
        if update_fields:
            update_fields = {"updated_at", *update_fields}
        return super().bulk_create(*args, update_fields=update_fields, **kwargs)

    def published(self):
        """Return what is no draft, newest first."""
        # Meta.ordering is dropped as soon as a query counts something.
        return self.filter(published_at__isnull=False).order_by("-published_at", "-pk")

    def for_cards(self):
        """Return the posts as lists show them: three queries, however many posts."""
        return self.prefetch_related("tags").annotate(comment_count=Count("comments"))

    def in_month(self, year, month):
        """Return the posts of one month."""
        start = datetime(year, month, 1, tzinfo=UTC)
        end = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
        return self.filter(published_at__gte=start, published_at__lt=end)

    def months(self):
        """Return posts and reading minutes of each month. Reads every post: costly."""
        months = {}
        for published_at, body in self.values_list("published_at", "body"):
            first_day = published_at.date().replace(day=1)
            month = months.setdefault(first_day, {"day": first_day, "posts": 0, "minutes": 0})
            month["posts"] += 1
            month["minutes"] += rendering.reading_minutes(body)
        return list(months.values())

    def most_discussed(self):
        """Return the five posts with the most comments. Counts all of them: costly."""
        return self.annotate(comment_count=Count("comments")).order_by("-comment_count", "-pk")[:5]


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
    seeded_as = models.CharField(max_length=64, blank=True, editable=False)

    objects = PostQuerySet.as_manager()

    class Meta:
        ordering = ["-published_at", "-pk"]
        base_manager_name = "objects"

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
            # A date that arrives by itself sends no signal, so no cache would hear of it.
            raise ValidationError({"published_at": "Posts can't be scheduled. Save a draft."})

    def body_html(self):
        return rendering.to_html(self.body)

    def excerpt_html(self):
        return rendering.to_html(rendering.excerpt(self.body))

    def reading_minutes(self):
        return rendering.reading_minutes(self.body)


class CommentQuerySet(InvalidatingQuerySet):
    post_field = natural_key = "post"
    cached_keys = caching.COMMENT_KEYS

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
    body = models.TextField("comment", max_length=4000, help_text="Plain text, up to 4,000 signs.")
    created_at = models.DateTimeField(default=timezone.now, db_index=True)
    seeded_as = models.CharField(max_length=64, blank=True, editable=False, db_index=True)

    objects = CommentQuerySet.as_manager()

    class Meta:
        ordering = ["created_at", "pk"]
        base_manager_name = "objects"  # post.comments.add() updates through this one.

    def __str__(self):
        return f"{self.author} on {self.post}"

    def get_absolute_url(self):
        return f"{self.post.get_absolute_url()}#comment-{self.pk}"


caching.connect(Post, Comment, Tag)
m2m_changed.connect(caching.tags_changed, sender=Post.tags.through)
