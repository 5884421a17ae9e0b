"""
The four cache levels, a view each, from the coarsest to the finest.

    whole site   home, tag, about   nothing here: settings.MIDDLEWARE keeps the pages
    per view     post               one decorator
    fragment     archive            {% cache %} in templates/blog/archive.html
    low-level    search             the calls in blog/search.py
Each value's key, timeout and invalidation stand in blog/caching.py.
"""

import re
from datetime import date

from django.core.paginator import Paginator
from django.db import IntegrityError
from django.http import Http404
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import cache_page, never_cache
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_http_methods, require_safe

from blog import caching
from blog import search as search_engine
from blog.forms import CommentForm, visitor_name
from blog.models import Comment, Post, Tag

COMMENTS_SHOWN = 200  # The latest. Without a limit, anybody could make a page too large to keep.


def read_only(view):
    """Allow GET and HEAD. Anything else is 405, before anybody asks for a CSRF token."""
    return csrf_exempt(require_safe(view))


def page_or_404(request, posts):
    """Return the page of `posts` that `?page=` asks for. There is no page 01, +1 or last."""
    number, paginator = request.GET.get("page", "1"), Paginator(posts, 10)
    if re.fullmatch("[1-9][0-9]{0,5}", number) and int(number) <= paginator.num_pages:
        return paginator.page(number)
    raise Http404(f"There is no page {number[:20]!r}.")


# Whole site -----------------------------------------------------------------------


@read_only
def home(request):
    """
    Whole site: the middleware keeps what this returns. There is nothing to do here.
    It fits a page that is the same for everybody and asks for neither session nor user.
    Try it: curl -sI http://127.0.0.1:8000/ twice, and look for Age.
    Docs: https://docs.djangoproject.com/en/5.2/topics/cache/#the-per-site-cache
    """
    posts = page_or_404(request, Post.objects.published().for_cards())
    return render(request, "blog/home.html", {"posts": posts, "tags": Tag.objects.in_use()})


@read_only
def tag(request, slug):
    """Whole site: as the home page, one entry a tag."""
    chosen = get_object_or_404(Tag.objects.in_use(), slug=slug)
    posts = page_or_404(request, chosen.posts.published().for_cards())
    return render(request, "blog/tag.html", {"tag": chosen, "posts": posts})


@read_only
def about(request):
    """Whole site, and the browser's own copy: no edit changes it, so max-age stays."""
    return render(request, "blog/about.html")


# Per view ---------------------------------------------------------------------------


@read_only
# One owner: what this level keeps, the whole site leaves alone. Kept twice, a page has
# to be dropped twice, and the outer copy outlives the inner one.
@cache_page(caching.POST_TIMEOUT, cache="view")
def post(request, slug):
    """
    Per view: one decorator, this view's own timeout, its own Redis database.
    It fits a page that costs more than the others and changes at other times. Comments have a
    page of their own: a form in a cached page gives one visitor's CSRF token to all.
    Try it: redis-cli -n 2 --scan
    Docs: https://docs.djangoproject.com/en/5.2/topics/cache/#the-per-view-cache
    """
    chosen = get_object_or_404(Post.objects.published().prefetch_related("tags"), slug=slug)
    context = {"post": chosen, "comments": chosen.comments.latest(COMMENTS_SHOWN)}
    return render(request, "blog/post.html", context)


# Fragment ---------------------------------------------------------------------------


@read_only
@never_cache  # It greets the visitor by name, so nobody keeps the page as a whole.
def archive(request, year=None, month=None):
    """
    Fragment: the page is personal and lives for one request, its costly parts are kept.
    The template gets functions, not results: what no fragment asks for is never computed.
    Try it: load /archive/ twice, comment on any post, and load it again.
    Docs: https://docs.djangoproject.com/en/5.2/topics/cache/#template-fragment-caching
    """
    published = Post.objects.published()
    newest = published.first()
    day = date(int(year), int(month), 1) if year else newest and newest.published_at.date()
    in_month = published.in_month(day.year, day.month) if day else published.none()
    versions = dict(in_month.values_list("pk", "updated_at"))
    if year and not versions:
        raise Http404("Nothing was published in that month.")
    context = {
        "visitor": request.user.get_username() or visitor_name(request),
        "month": day,
        "versions": versions,
        # By primary key: a post that arrives meanwhile is not in `versions` and not in here.
        "posts": in_month.filter(pk__in=versions).all,
        "months": published.months,
        "discussed": published.most_discussed,
        "comments": Comment.objects.recent,
    }
    return render(request, "blog/archive.html", context)


# Low-level --------------------------------------------------------------------------


@read_only
@never_cache  # Queries are endless: as pages, they would fill Redis.
def search(request):
    """
    Low-level: the answer to a query is kept as plain values, the page around it is not.
    Try it: search for the same words in another order; then for nonsense.
    Docs: https://docs.djangoproject.com/en/5.2/topics/cache/#the-low-level-cache-api
    """
    query = request.GET.get("q", "")[: search_engine.MAX_QUERY].replace("\0", "").strip()
    context = search_engine.search(query) if query else {}
    return render(request, "blog/search.html", {"query": query, **context})


# Never cached ------------------------------------------------------------------------


@csrf_exempt
@require_http_methods(["GET", "HEAD", "POST"])
@csrf_protect  # Below the line above, so that a wrong method is 405 and not 403.
@never_cache  # It has a CSRF token and the visitor's name.
def comment(request, slug):
    """Comment on a post. Saving drops its page, after COMMIT: see blog/caching.py."""
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
