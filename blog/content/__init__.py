"""The content of the blog: hand-written posts in this folder, and made-up ones in sample.py."""

from datetime import UTC, datetime
from pathlib import Path

FOLDER = Path(__file__).parent
NUMBER_OF_LESSONS = len(list(FOLDER.glob("*.md")))


def written_posts():
    """Return the fields of each lesson in this folder, in reading order."""
    paths = sorted(FOLDER.glob("*.md"))
    return [read_post(path) | {"lesson": place} for place, path in enumerate(paths, start=1)]


def read_post(path):
    """
    Return the fields of the post in the file `NN-<slug>.md`.

    NN sorts the files into the reading order. The file has `name: value` lines, `---`, and
    Markdown. Only the line `lab` may be missing.
    """
    _, head, body = path.read_text(encoding="utf-8").split("---\n", 2)
    meta = dict(line.split(": ", 1) for line in head.strip().splitlines())
    _, _, slug = path.stem.partition("-")
    return {
        "slug": slug,
        "part": meta["part"],
        "scope": meta["scope"],
        "lab": meta.get("lab", ""),
        "title": meta["title"],
        "summary": meta["summary"],
        "body": body.strip() + "\n",
        "published_at": datetime.fromisoformat(meta["date"]).replace(hour=9, tzinfo=UTC),
        "tags": [tag.strip() for tag in meta["tags"].split(",")],
    }
