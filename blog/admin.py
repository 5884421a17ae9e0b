"""The authors' side. Every save here sends signals, so it invalidates: see signals.py."""

from django.contrib import admin
from django.db.models import F

from blog.models import Comment, Post, Tag


@admin.register(Tag)
class TagAdmin(admin.ModelAdmin):
    list_display = ["name", "slug"]
    prepopulated_fields = {"slug": ["name"]}


@admin.register(Post)
class PostAdmin(admin.ModelAdmin):
    list_display = ["title", "published_at", "updated_at"]
    list_filter = ["tags"]
    search_fields = ["title", "summary", "body"]
    ordering = [F("published_at").desc(nulls_first=True), "-pk"]  # Drafts first.
    prepopulated_fields = {"slug": ["title"]}
    filter_horizontal = ["tags"]

    def view_on_site(self, post):
        """Return the address of the post. A draft has none that can be visited."""
        return post.get_absolute_url() if post.published_at else None


@admin.register(Comment)
class CommentAdmin(admin.ModelAdmin):
    list_display = ["author", "post", "created_at"]
    search_fields = ["author", "body"]
    autocomplete_fields = ["post"]

    def view_on_site(self, comment):
        """Return the address of the comment. On a draft it has none that can be visited."""
        return comment.get_absolute_url() if comment.post.published_at else None
