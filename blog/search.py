"""
Full-text search over all posts, cached through the low-level API.

A word counts for more the more often a post has it, and the fewer posts have it (TF-IDF).
The index of some 1,500 posts fits into one cached value. A larger blog wants a search engine.
See https://nlp.stanford.edu/IR-book/html/htmledition/tf-idf-weighting-1.html

    get, set          the answer to a question, None included
    get_or_set        the index
    get_many, set_many  the numbers of comments of all results, in one round trip each
    add, incr, touch  how often a question was asked: see also limits.py
    version=          all but the counters: a new version of a group means new keys
"""

import hashlib
import math
import re
import unicodedata
from collections import Counter, defaultdict

from django.core.cache import cache

from blog import caching
from blog.limits import count_up
from blog.models import NOTE, Comment, Post
from resilient_cache.groups import version

WORD = re.compile(r"\w{2,40}")
MAX_QUERY = 200  # characters
MAX_RESULTS = 20
MAX_RELATED = 4
MISS = object()  # None is an answer that is cached, so it can't stand for a miss.


def search(query):
    """Return what the search page shows for `query`."""
    terms = sorted(set(words(query)))
    if not terms:
        return {"results": [], "related": [], "searches": 0, "no_words": True}
    # Any text becomes a key of the same length, without spaces.
    digest = hashlib.sha256(" ".join(terms).encode()).hexdigest()[:32]

    # Read first: if a post changes while the answer is computed, the answer is stored under the
    # old version, where no request looks.
    posts_version = version("posts")
    key = f"search:answer:{digest}"
    answer = cache.get(key, MISS, version=posts_version)
    is_stored = answer is not MISS
    if not is_stored:
        answer = find(terms, posts_version)
        is_stored = may_store()
        if is_stored:
            cache.set(key, answer, caching.SEARCH_TIMEOUT, version=posts_version)

    # Only questions with a stored answer are counted. Endless ones would make endless counters.
    searches = count_search(digest) if is_stored else 0
    if answer is None:
        return {"results": [], "related": [], "searches": searches}
    counts = comment_counts([card["pk"] for card in answer["results"]])
    results = [card | {"comments": counts[card["pk"]]} for card in answer["results"]]
    return {"results": results, "related": answer["related"], "searches": searches}


def find(terms, posts_version):
    """Return {"results": [...], "related": [...]}, or None if no post has any of the words."""
    index = cache.get_or_set(
        "search:index", build_index, caching.SEARCH_TIMEOUT, version=posts_version
    )
    found = best(index, dict.fromkeys(terms, 1), MAX_RESULTS)
    if not found:
        return None
    first = found[0]
    similar = best(index, terms_of(index, first), 1 + MAX_RELATED)
    related = [pk for pk in similar if pk != first][:MAX_RELATED]
    return {"results": cards(found), "related": cards(related)}


def may_store():
    """Return whether one more answer may be stored, and count it."""
    stored = count_up("search:stored", caching.SEARCH_TIMEOUT)
    return stored <= caching.SEARCH_ANSWERS_LIMIT


def count_search(digest):
    """Return how often this was searched for, this time included."""
    key = f"search:count:{digest}"
    searches = count_up(key, caching.SEARCH_COUNT_TIMEOUT)
    cache.touch(key, caching.SEARCH_COUNT_TIMEOUT)  # The hour begins again with each search.
    return searches


def comment_counts(pks):
    """Return {pk: number of comments}. What is not cached costs one query, for all together."""
    comments_version = version("comments")  # A comment changes these numbers, but no answer.
    keys = {f"comments:{pk}": pk for pk in pks}
    cached = cache.get_many(keys, version=comments_version)
    counts = {keys[key]: count for key, count in cached.items()}
    missing = [pk for pk in pks if pk not in counts]
    if missing:
        posts = Comment.objects.filter(post__in=missing).values_list("post", flat=True)
        counted = dict.fromkeys(missing, 0) | Counter(posts)
        cache.set_many(
            {f"comments:{pk}": count for pk, count in counted.items()},
            caching.SEARCH_TIMEOUT,
            version=comments_version,
        )
        counts |= counted
    return counts


# Without a cache from here on ---------------------------------------------------------


def words(text):
    """Return the words of `text`, in lower case and without accents: "Página" is "pagina"."""
    letters = unicodedata.normalize("NFKD", text)
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return WORD.findall(plain.casefold())


def build_index():
    """
    Return the index of all published posts. Expensive: it reads them all.

    {"weights": {word: {post pk: weight}}, "notes": [post pk, ...]}
    """
    posts = Post.objects.published()
    rows = posts.values_list("pk", "title", "summary", "body")
    # The title twice: a word in it says more about the post.
    counts = {pk: Counter(words(" ".join([title, title, *text]))) for pk, title, *text in rows}
    posts_with = Counter(word for counter in counts.values() for word in counter)
    index = defaultdict(dict)
    for pk, counter in counts.items():
        weights = {
            word: (1 + math.log(count)) * math.log(1 + len(counts) / posts_with[word])
            for word, count in counter.items()
        }
        norm = math.hypot(*weights.values())
        for word, weight in weights.items():
            index[word][pk] = weight / norm
    return {"weights": dict(index), "notes": list(posts.notes().values_list("pk", flat=True))}


def best(index, terms, limit):
    """
    Return the primary keys of the posts that match {word: weight} `terms` best.

    Made-up notes come last, the newest post first among equals.
    """
    scores = Counter()
    for term, weight in terms.items():
        for pk, post_weight in index["weights"].get(term, {}).items():
            scores[pk] += weight * post_weight
    notes = set(index["notes"])
    return sorted(scores, key=lambda pk: (pk in notes, -scores[pk], -pk))[:limit]


def terms_of(index, pk):
    """Return {word: weight} of the post `pk`. With these, best() finds posts like it."""
    return {word: posts[pk] for word, posts in index["weights"].items() if pk in posts}


def cards(pks):
    """Return what the page shows of each post, as plain values: no models in the cache."""
    rows = Post.objects.filter(pk__in=pks).values("pk", "slug", "title", "summary", is_note=NOTE)
    posts = {row["pk"]: row for row in rows}
    return [posts[pk] for pk in pks if pk in posts]
