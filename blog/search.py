"""
Full-text search over all posts, cached through the low-level API.

Scores are TF-IDF: a word counts for more the oftener a post has it and the fewer posts
have it. See https://nlp.stanford.edu/IR-book/html/htmledition/tf-idf-weighting-1.html
"""

import hashlib
import math
import re
from collections import Counter, defaultdict

from django.core.cache import cache

from blog import caching
from blog.models import Comment, Post

WORD = re.compile(r"[a-z0-9_]{2,40}")
MAX_WORDS = 8
MAX_QUERY = 200  # characters
MAX_RESULTS = 20
MAX_RELATED = 4
MISS = object()  # cache.get() returns None for a stored None too. This it never returns.


def words(text):
    """Return the words of `text` that search looks at."""
    return WORD.findall(text.lower())


def build_index():
    """Return {word: {post pk: weight}} over all published posts. Costly: reads them all."""
    counts = {
        pk: Counter(words(f"{title} {title} {title} {summary} {body}"))
        for pk, title, summary, body in Post.objects.published().values_list(
            "pk", "title", "summary", "body"
        )
    }
    posts_with = Counter(word for counter in counts.values() for word in counter)
    index = defaultdict(dict)
    for pk, counter in counts.items():
        weights = {
            word: (1 + math.log(count)) * math.log(1 + len(counts) / posts_with[word])
            for word, count in counter.items()
        }
        norm = math.sqrt(sum(weight**2 for weight in weights.values()))
        for word, weight in weights.items():
            index[word][pk] = weight / norm
    return dict(index)


def best(total, limit):
    """Return the `limit` best (pk, score) pairs, and the newest first among equals."""
    return sorted(total.items(), key=lambda item: (-item[1], -item[0]))[:limit]


def scores(index, terms):
    """Return {pk: score} of the posts that have at least one of `terms`."""
    total = Counter()
    for term in terms:
        total.update(index.get(term, {}))
    return total


def related(index, pk):
    """Return {pk: similarity} of the other posts to post `pk`: the cosine of their words."""
    total = Counter()
    for postings in index.values():
        if pk in postings:
            for other, weight in postings.items():
                total[other] += weight * postings[pk]
    del total[pk]
    return total


def cards(pairs):
    """Return what the page shows of each post, as plain values: no models in the cache."""
    posts = Post.objects.in_bulk([pk for pk, _ in pairs])
    return [
        {
            "pk": pk,
            "title": posts[pk].title,
            "url": posts[pk].get_absolute_url(),
            "summary": posts[pk].summary,
            "score": round(score, 3),
        }
        for pk, score in pairs
        if pk in posts
    ]


def search(query):
    """Return what the search page shows for `query`."""
    terms = sorted(set(words(query)))[:MAX_WORDS]
    digest = hashlib.sha256(" ".join(terms).encode()).hexdigest()[:32]
    version = caching.search_generation()
    answer = find(terms, f"search:results:{digest}", version) or {"results": [], "related": []}
    counts = comment_counts([card["pk"] for card in answer["results"]], version)
    return {
        "results": [card | {"comments": counts[card["pk"]]} for card in answer["results"]],
        "related": answer["related"],
        "searches": count_up(f"search:count:{digest}", caching.SEARCH_COUNT_TIMEOUT),
    }


def find(terms, key, version):
    """Return {"results": [...], "related": [...]}, or None when nothing has these words."""
    # `if answer:` would take a stored None for a miss, and search again each time.
    answer = cache.get(key, MISS, version=version)
    if answer is not MISS:
        # Somebody wants it: it has its whole timeout again.
        cache.touch(key, caching.SEARCH_RESULTS_TIMEOUT, version=version)
        return answer

    index = cache.get_or_set(
        caching.SEARCH_INDEX_KEY, build_index, caching.SEARCH_INDEX_TIMEOUT, version=version
    )
    answer = None
    if found := best(scores(index, terms), MAX_RESULTS):
        similar = best(related(index, found[0][0]), MAX_RELATED)
        answer = {"results": cards(found), "related": cards(similar)}
    stored = count_up(caching.SEARCH_STORED_KEY, caching.SEARCH_RESULTS_TIMEOUT)
    if stored <= caching.SEARCH_RESULTS_LIMIT:
        cache.set(key, answer, caching.SEARCH_RESULTS_TIMEOUT, version=version)
    return answer


def comment_counts(pks, version):
    """Return {pk: comments}: one round trip for all posts, one query for what is missing."""
    keys = {f"comments:{pk}": pk for pk in pks}
    counts = {keys[key]: value for key, value in cache.get_many(keys, version=version).items()}
    if missing := set(pks) - set(counts):
        posts = Comment.objects.filter(post__in=missing).values_list("post", flat=True)
        counts |= dict.fromkeys(missing, 0) | Counter(posts)
        fresh = {f"comments:{pk}": counts[pk] for pk in missing}
        cache.set_many(fresh, caching.COMMENTS_TIMEOUT, version=version)
    return counts


def count_up(key, timeout):
    """
    Add one to the counter at `key` and return its value; 0 when Redis is away.

    incr() is one command in Redis, so no two processes count the same number. It refuses
    a key that is not there: add() makes it, and does nothing when it is there already.
    """
    cache.add(key, 0, timeout)
    try:
        return cache.incr(key) or 0
    except ValueError:  # It expired between the two commands.
        return 0
