"""Sample posts and comments: made up, and the same on every machine."""

import random
from datetime import UTC, datetime, timedelta

SUBJECTS = (
    "The report page",
    "A product list",
    "The sidebar",
    "Our smallest service",
    "The price table",
    "A nightly import",
    "The login page",
    "One slow query",
    "The mobile API",
)
EVENTS = (
    "was rebuilt on every request",
    "answered from the old row",
    "lost its entries to eviction",
    "missed far more often than it hit",
    "stored a key without a timeout",
    "was faster without any cache",
    "waited for one worker",
    "served a page from yesterday",
)
LESSONS = (
    "The timeout was longer than the readers' patience.",
    "A shorter key would not have helped.",
    "The first fix was to measure.",
    "The hit ratio was on no dashboard.",
    "The query was cheap; the template was not.",
    "Two workers computed the same value at once.",
    "An index would have done it.",
    "The entry was fresh and the browser's copy was stale.",
)
ADVICE = (
    "Look at the keys before you change the code.",
    "Write down how stale each page may be.",
    "Invalidate after the commit, not before.",
    "Give each entry an owner.",
    "Cache the value that is expensive, not the one that is near.",
    "Count the round trips.",
)
TOPICS = ("field notes", "postgres", "templates", "deployment", "performance", "debugging")
NAMES = (
    "Ada",
    "Grace",
    "Barbara",
    "Edsger",
    "Tony",
    "Margaret",
    "Donald",
    "Frances",
    "Alan",
    "Radia",
)
REMARKS = (
    "We saw the same with our search page.",
    "Which timeout did you end up with?",
    "This saved me an afternoon.",
    "Does it hold with more than one worker?",
    "Our entries were evicted long before that.",
    "I would have blamed the database.",
    "Measured it here: about the same.",
    "Thanks, the key was the problem.",
)
CODE = """```python
def {name}(request):
    rows = cache.get("{name}:rows")
    if rows is None:
        rows = list({model}.objects.filter(active=True)[:{limit}])
        cache.set("{name}:rows", rows, timeout={timeout})
    return render(request, "{name}.html", {{"rows": rows}})
```"""

LAST_COMMENT = datetime(2026, 11, 22, 12, tzinfo=UTC)


def sample_post(number, *, before):
    """Return the fields of sample post `number`, published before the moment `before`."""
    chance = random.Random(f"post {number}")
    subject, event = chance.choice(SUBJECTS), chance.choice(EVENTS)
    parts = [paragraph(chance)]
    for heading in chance.sample(("What happened", "What it cost", "The cause", "The change"), 3):
        name = chance.choice(("report", "products", "sidebar", "prices", "orders"))
        code = CODE.format(
            name=name,
            model=name.capitalize(),
            limit=chance.randrange(10, 200, 10),
            timeout=chance.randrange(30, 600, 30),
        )
        parts += [f"## {heading}", paragraph(chance), code, paragraph(chance)]
    return {
        "slug": f"note-{number + 1:04}",
        "title": f"Note {number + 1}: {subject.lower()} {event}"[:120],
        "summary": f"{subject} {event}. {chance.choice(LESSONS)}",
        "body": "\n\n".join(parts) + "\n",
        "published_at": before - timedelta(days=3 * (number + 1), minutes=chance.randrange(600)),
        "tags": chance.sample(TOPICS, 2),
    }


def paragraph(chance):
    """Return four to seven sentences."""
    sentences = [f"{chance.choice(SUBJECTS)} {chance.choice(EVENTS)}."]
    sentences += chance.sample(LESSONS, chance.randrange(2, 4)) + chance.sample(ADVICE, 2)
    return " ".join(sentences)


def sample_comment(chance, post):
    """Return the fields of a comment on `post`, up to three days after it."""
    author, body = chance.choice(NAMES), chance.sample(REMARKS, chance.randrange(1, 4))
    written = post.published_at + timedelta(minutes=chance.randrange(5, 3 * 24 * 60))
    return {
        "author": author,
        "body": " ".join(body),
        # Not in the future, and the same on every machine.
        "created_at": max(post.published_at, min(written, LAST_COMMENT)),
    }
