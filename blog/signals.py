"""
Signals: what is saved, deleted or tagged invalidates the caches.

update(), bulk_update() and bulk_create() send no signals: see InvalidatingQuerySet in models.py.
Docs: https://docs.djangoproject.com/en/5.2/topics/signals/
"""

from django.db.models.signals import m2m_changed, post_save, pre_delete, pre_save
from django.dispatch import receiver

from blog.models import Comment, Post, Tag


# Before and after a save, because a post can get another slug, and a comment can move to another
# post: then two pages are outdated. Before a delete, while the row is there. save() and delete()
# are one transaction each, so the invalidations wait for COMMIT.
@receiver([pre_save, post_save, pre_delete], sender=Post)
@receiver([pre_save, post_save, pre_delete], sender=Tag)
@receiver([pre_save, post_save, pre_delete], sender=Comment)
def row_changes(sender, instance, origin=None, **kwargs):
    """Invalidate what shows this row, as the database has it at this moment."""
    # `origin` is the object or queryset that delete() was called on. A comment that is deleted
    # with its post needs no query of its own: the post invalidates all that shows it.
    if origin is None or getattr(origin, "model", type(origin)) is sender:
        sender.objects.filter(pk=instance.pk).invalidate()


@receiver(m2m_changed, sender=Post.tags.through)
def tags_change(sender, instance, reverse, pk_set, **kwargs):
    """Invalidate what shows the posts that are given a tag or lose one."""
    if not reverse:  # post.tags.add(tag)
        posts = [instance.pk]
    elif pk_set is not None:  # tag.posts.add(post)
        posts = pk_set
    else:  # tag.posts.clear()
        posts = instance.posts.values("pk")
    Post.objects.filter(pk__in=posts).invalidate()
