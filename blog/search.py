"""
Full-text search over all posts, cached through the low-level API.

Scores are TF-IDF: a word counts for more the oftener a post has it and the fewer posts
have it. The index of a blog of some 1,500 posts fits into one cached value; a larger one
wants a search engine. See https://nlp.stanford.edu/IR-book/html/htmledition/tf-idf-weighting-1.html
"""

import hashlib
import math
import re
from collections import Counter, defaultdict

from django.core.cache import cache

from blog import caching
from blog.models import Comment, Post
from mysite.caches.shapes import PK, SLUG, fits
from mysite.caches.stampede import NotKept, get_or_build

WORD = re.compile(r"[a-z0-9_]{2,40}")
MAX_WORDS = 8
MAX_QUERY = 200  # characters
MAX_RESULTS, MAX_RELATED = 20, 4
CARD = {"pk": PK, "slug": SLUG, "title": str, "summary": str}  # See shapes.py.
FOUND = (None, {"results": [CARD], "related": [CARD]})


def words(text):
    """Return the words of `text` that search looks at."""
    return WORD.findall(text.lower())


def build_index():
    """Return {word: {post pk: weight}} over all published posts. Costly: it reads them all."""
    rows = Post.objects.published().values_list("pk", "title", "summary", "body")
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
    return dict(index)


def best(index, terms, limit):
    """Return (pk, score) of the posts with most of {word: weight} `terms`, newest among equals."""
    scores = Counter()
    for term, weight in terms.items():
        for pk, post_weight in index.get(term, {}).items():
            scores[pk] += weight * post_weight
    return sorted(scores.items(), key=lambda item: (-item[1], -item[0]))[:limit]


def terms_of(index, pk):
    """Return {word: weight} of post `pk`: asked for these, best() finds what is related."""
    return {word: posts[pk] for word, posts in index.items() if pk in posts}


def cards(pairs):
    """Return what the page shows of each post, as plain values: no models in the cache."""
    rows = Post.objects.filter(pk__in=dict(pairs)).values(*CARD)
    posts = {row["pk"]: row for row in rows}
    return [posts[pk] for pk, _ in pairs if pk in posts]


def search(query):
    """Return what the search page shows for `query`."""
    terms = sorted(set(words(query)))[:MAX_WORDS]
    digest = hashlib.sha256(" ".join(terms).encode()).hexdigest()[:32]
    answer, kept = find(terms, f"search:results:{digest}")
    answer = answer or {"results": [], "related": []}
    counts = comment_counts([card["pk"] for card in answer["results"]])
    return {
        "results": [card | {"comments": counts[card["pk"]]} for card in answer["results"]],
        "related": answer["related"],
        # Only of what is kept: endless queries would make endless counters.
        "searches": count_up(f"search:count:{digest}", caching.SEARCH_COUNT_TIMEOUT) if kept else 0,
    }


def find(terms, key):
    """Return ({"results": [...], "related": [...]} or None, whether it is kept in the cache)."""
    version = caching.version(caching.SEARCH_GENERATION_KEY)

    def build():
        # What get_or_set() does, and of all who miss the index at the same time, one builds it.
        name, timeout = caching.SEARCH_INDEX_KEY, caching.SEARCH_INDEX_TIMEOUT
        index = get_or_build(cache, name, build_index, timeout, version, {str: {PK: float}})
        cache.touch(name, timeout, version=version)  # Used, it has its whole timeout again.
        answer = None
        if found := best(index, dict.fromkeys(terms, 1), MAX_RESULTS):
            first, _ = found[0]
            similar = best(index, terms_of(index, first), 1 + MAX_RELATED)
            related = [pair for pair in similar if pair[0] != first][:MAX_RELATED]
            answer = {"results": cards(found), "related": cards(related)}
        stored = count_up(caching.SEARCH_STORED_KEY, caching.SEARCH_RESULTS_TIMEOUT)
        if stored > caching.SEARCH_RESULTS_LIMIT:
            raise NotKept(answer)
        return answer  # None is one too, and is kept: nothing was found.

    try:
        return get_or_build(cache, key, build, caching.SEARCH_RESULTS_TIMEOUT, version, FOUND), True
    except NotKept as error:
        return error.value, False


def comment_counts(pks):
    """Return {pk: comments}: one round trip for all posts, one query for what is missing."""
    version = caching.version(caching.COMMENTS_GENERATION_KEY)
    keys = {f"comments:{pk}": pk for pk in pks}
    counts = {keys[k]: n for k, n in cache.get_many(keys, version=version).items() if fits(n, int)}
    if missing := set(pks) - set(counts):
        posts = Comment.objects.filter(post__in=missing).values_list("post", flat=True)
        counts |= dict.fromkeys(missing, 0) | Counter(posts)
        fresh = {f"comments:{pk}": counts[pk] for pk in missing}
        cache.set_many(fresh, caching.COMMENTS_TIMEOUT, version=version)
    return counts


def count_up(key, timeout):
    """
    Add one to the counter at `key` and return its value; 0 when Redis is away.
    incr() is one step in Redis, so no two processes count the same number. It refuses a key
    that is not there: add() makes it, and does nothing when it is there already.
    """
    cache.add(key, 0, timeout)
    try:
        return cache.incr(key) or 0
    except ValueError:  # It expired between the two commands.
        return 0
