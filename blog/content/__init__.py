"""What the blog is filled with: hand-written posts beside this file, and made-up ones."""

from datetime import UTC, datetime
from pathlib import Path

FOLDER = Path(__file__).parent


def written_posts():
    """Return the fields of each post in this folder: `name: value` lines, `---`, Markdown."""
    return [read_post(path) for path in sorted(FOLDER.glob("*.md"))]


def read_post(path):
    """Return the fields of the post in the file `NN-<slug>.md`."""
    _, head, body = path.read_text(encoding="utf-8").split("---\n", 2)
    meta = dict(line.split(": ", 1) for line in head.strip().splitlines())
    return {
        "slug": path.stem.partition("-")[2],
        "title": meta["title"],
        "summary": meta["summary"],
        "body": body.strip() + "\n",
        "published_at": datetime.fromisoformat(meta["date"]).replace(hour=9, tzinfo=UTC),
        "tags": [tag.strip() for tag in meta["tags"].split(",")],
    }
