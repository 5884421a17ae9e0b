from django.apps import AppConfig


class BlogConfig(AppConfig):
    name = "blog"

    def ready(self):
        from django.db.models.signals import m2m_changed

        from blog import caching
        from blog.models import Comment, Post, Tag

        caching.connect(Post, Comment, Tag)
        m2m_changed.connect(caching.tags_changed, sender=Post.tags.through)
