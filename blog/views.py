"""
The four cache levels, from the coarsest to the finest.

    whole site   home, posts, tag ...   nothing here: the middleware caches the pages
    per view     post                   one decorator
    fragment     archive                {% cache %} in templates/blog/archive.html
    low-level    search                 the calls in blog/search.py

How long, and until which change: blog/caching.py.

cache_page, never_cache, {% cache %} and the middleware come from resilient_cache. Use them like
Django's. Pages can also belong to groups (blog/caching.py). If many requests miss at once, one
builds the page and the others wait for it.
"""

import re
from datetime import date
from functools import wraps

from django.core.paginator import Paginator
from django.db import IntegrityError
from django.http import Http404
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from blog import search as search_engine
from blog.caching import POST_TIMEOUT
from blog.content import NUMBER_OF_LESSONS
from blog.forms import CommentForm, visitor_name
from blog.models import Comment, Post, Tag
from resilient_cache.groups import version
from resilient_cache.pages import cache_page, never_cache

POSTS_PER_PAGE = 10
COMMENTS_SHOWN = 200  # The latest. Without a limit, a page could become too large to cache.


def page_or_404(request, posts):
    """Return the page of `posts` that `?page=` asks for. "01", "+1" and "last" are a 404."""
    number = request.GET.get("page", "1")
    paginator = Paginator(posts, POSTS_PER_PAGE)
    if re.fullmatch("[1-9][0-9]{0,5}", number) and int(number) <= paginator.num_pages:
        return paginator.page(number)
    raise Http404(f"There is no page {number[:20]!r}.")


def single_page(view):
    """Refuse ?page=2 for a view without pages: each number would be one more entry in the cache."""

    @require_safe
    @wraps(view)
    def view_of_page_1(request, *args, **kwargs):
        page_or_404(request, [])
        return view(request, *args, **kwargs)

    return view_of_page_1


# Whole site -----------------------------------------------------------------------


@require_safe
def home(request):
    """
    Whole site: the middleware caches this page. There is nothing to do here.

    It fits a page that is the same for all visitors and asks for neither session nor user.
    Try it: curl -sD- -o /dev/null http://127.0.0.1:8000/ twice, and look for Age.
    Docs: https://docs.djangoproject.com/en/5.2/topics/cache/#the-per-site-cache
    """
    posts = page_or_404(request, Post.objects.published().for_cards())
    return render(request, "blog/home.html", {"posts": posts, "tags": Tag.objects.in_use()})


@single_page
def start(request):
    """Whole site, as the home page: fifteen minutes with the blog open."""
    return render(request, "blog/start.html")


@single_page
def posts(request):
    """Whole site, as the home page: all lessons in reading order."""
    return render(request, "blog/posts.html", {"lessons": Post.objects.published().lessons()})


@single_page
def cheatsheet(request):
    """Whole site, as the home page: the four levels on one printed page."""
    return render(request, "blog/cheatsheet.html")


@require_safe
def tag(request, slug):
    """Whole site, as the home page: one entry per tag, and per page of its list."""
    chosen = get_object_or_404(Tag.objects.in_use(), slug=slug)
    posts = page_or_404(request, chosen.posts.published().for_cards())
    return render(request, "blog/tag.html", {"tag": chosen, "posts": posts})


@single_page
def about(request):
    """Whole site, as the home page."""
    return render(request, "blog/about.html")


# Per view ---------------------------------------------------------------------------


@require_safe
# {slug} is the argument of the URL. query=(): no parameter changes the page, so each post is one
# entry, whatever comes after the question mark.
@cache_page(POST_TIMEOUT, cache="view", group="post:{slug}", query=())
def post(request, slug):
    """
    Per view: one decorator, with this view's own timeout and cache.

    It fits a page that changes with one post, its tags and comments, and with no other.
    The whole-site level leaves a view with this decorator alone. The comment form has a page
    to itself: a form in a cached page would give one visitor's CSRF token to all.
    Try it: python manage.py redis -n 2 --scan
    Docs: https://docs.djangoproject.com/en/5.2/topics/cache/#the-per-view-cache
    """
    chosen = get_object_or_404(Post.objects.published().for_cards(), slug=slug)
    context = {
        "post": chosen,
        "comments": chosen.comments.latest(COMMENTS_SHOWN),
        "number_of_lessons": NUMBER_OF_LESSONS,
    }
    return render(request, "blog/post.html", context)


# Fragment ---------------------------------------------------------------------------


@require_safe
@never_cache  # It greets the visitor by name, so the page as a whole is not cached.
def archive(request, year=None, month=None):
    """
    Fragment: the page is personal and built each time, its expensive parts are cached.

    The template gets functions, not results: a fragment that is cached never calls them.
    Try it: load /archive/ twice, comment on any post, and load it again.
    Docs: https://docs.djangoproject.com/en/5.2/topics/cache/#template-fragment-caching
    """
    published = Post.objects.published()
    newest = published.first()
    shown = date(int(year), int(month), 1) if year else newest and newest.published_at.date()
    day = shown and shown.replace(day=1)  # One key per month, however it is asked for.
    in_month = published.in_month(day.year, day.month) if day else published.none()
    updated = dict(in_month.values_list("pk", "updated_at"))
    if year and not updated:
        raise Http404("Nothing was published in that month.")
    context = {
        "visitor": request.user.get_username() or visitor_name(request),
        "month": day,
        # What the fragments vary on: {post: its last change}, and the versions of two groups.
        # Every cache keeps its own versions, so the cache of the fragments is named.
        "updated": updated,
        "posts_version": version("posts", cache="template_fragments"),
        "comments_version": version("comments", cache="template_fragments"),
        # Only the posts in `updated`: the key is made of them, and the fragment has to show them.
        # `.all` without () is the function: the template calls it where it needs the posts.
        "posts": in_month.filter(pk__in=updated).all,
        "months": published.months,
        "discussed": published.most_discussed,
        "comments": Comment.objects.recent,
    }
    return render(request, "blog/archive.html", context)


# Low-level --------------------------------------------------------------------------


@require_safe
@never_cache  # The page levels leave it alone, ?q= too: endless answers would fill Redis.
def search(request):
    """
    Low-level: the answer to a question is cached as plain values, the page around it is not.

    Try it: search for the same words in another order; then for nonsense.
    Docs: https://docs.djangoproject.com/en/5.2/topics/cache/#the-low-level-cache-api
    """
    query = request.GET.get("q", "")[: search_engine.MAX_QUERY].replace("\0", "").strip()
    context = search_engine.search(query) if query else {}
    return render(request, "blog/search.html", {"query": query, **context})


# Never cached ------------------------------------------------------------------------


@require_safe
@never_cache
def neighbour(request, slug, step):
    """
    Redirect to the lesson before this one (step -1) or after it (1), or to the list at an end.

    The page of a lesson links here and names no other lesson. So it need not change with one.
    """
    lessons = Post.objects.published().lessons()
    lesson = get_object_or_404(lessons, slug=slug).lesson
    if step > 0:
        return redirect(lessons.filter(lesson__gt=lesson).first() or "posts")
    return redirect(lessons.filter(lesson__lt=lesson).last() or "posts")


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache  # It has a CSRF token and the visitor's name.
def comment(request, slug):
    """Comment on a post. Saving invalidates its page, after COMMIT: see blog/caching.py."""
    commented = get_object_or_404(Post.objects.published(), slug=slug)
    data = request.POST if request.method == "POST" else None
    form = CommentForm(data, request=request, post=commented)
    if form.is_valid():
        try:
            response = redirect(form.save())
        except IntegrityError:
            raise Http404("The post was deleted meanwhile.") from None
        form.remember(response)
        return response
    context = {"post": commented, "form": form}
    return render(request, "blog/comment.html", context, status=form.status)
