"""
How long each value is cached, and which change invalidates which groups.

A group is a name for values that become outdated together. It has a version: a random number
in Redis. Each cached value belongs to the current version of its groups. To invalidate a group
is to delete its version. The next request makes a new one, and no value of the old one is used
again. That is one DEL per cache, however many values there are: see resilient_cache/README.md.

    site         all pages of the whole-site level; the middleware adds this group
    post:<slug>  the page of one post, at the per-view level
    posts        what is made from posts: the archive's months, the search
    comments     what is made from comments: the recent ones, their numbers

Each page is also in a group named after its path. Only `manage.py invalidate /about/` uses it.

The signals (signals.py), update(), bulk_update() and bulk_create() call invalidate() in models.py
around each change. It calls one of the two functions below.
"""

from resilient_cache.groups import invalidate_on_commit

# The whole site has its timeout in the settings: CACHE_MIDDLEWARE_SECONDS.
POST_TIMEOUT = 5 * 60  # Raw SQL invalidates nothing, so it shows up to 5 minutes late.
# {% cache %} has its timeouts in the template: templates/blog/archive.html.
SEARCH_TIMEOUT = 10 * 60  # The index, the answers and the numbers of comments.

# A visitor can think of any number of questions, and Redis has room for some. At most this many
# answers are stored per SEARCH_TIMEOUT seconds. Further ones are computed and not stored.
SEARCH_ANSWERS_LIMIT = 500
SEARCH_COUNT_TIMEOUT = 60 * 60  # A count of searches ends an hour after the last search.

# At most this many comments may come from one address per COMMENT_LIMIT_TIMEOUT seconds.
COMMENT_LIMIT = 5
COMMENT_LIMIT_TIMEOUT = 60


def posts_changed(slugs):
    """
    Invalidate what shows these posts, or their tags, once the transaction is committed.

    Invalidated any earlier, a value could be built again from the old rows by another
    request, and stay outdated until its timeout. A rollback invalidates nothing.
    """
    # "comments" too: the recent comments name their posts.
    invalidate_on_commit("site", "posts", "comments", *post_groups(slugs))


def comments_changed(slugs):
    """Invalidate what shows the comments on these posts, once the transaction is committed."""
    invalidate_on_commit("site", "comments", *post_groups(slugs))


def post_groups(slugs):
    return [f"post:{slug}" for slug in sorted(slugs)]
