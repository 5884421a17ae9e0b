"""
Every undocumented name of another library that this package needs, with its reason.

Each function also says what happens if the name is removed: the instrument then sees less, and
pages and caches work as before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from django.http import HttpRequest
from redis import Redis
from redis.client import Pipeline
from redis.exceptions import ResponseError

try:
    from django.templatetags.cache import CacheNode
except ImportError:
    CacheNode = None  # Then fragments are named by the view's line.
try:
    from django.template.loader_tags import ExtendsNode, IncludeNode
except ImportError:  # Then "Show the code" shows the view's own template only.
    ExtendsNode = IncludeNode = None


def new_pipeline(
    client: Redis, kind: Callable[..., Pipeline], transaction: bool, shard_hint: Any
) -> Pipeline | None:
    """
    Return a pipeline of a class of our own, as `client.pipeline()` makes one of redis-py's.

    `response_callbacks`, and the arguments of Pipeline, are in no documentation. If they are
    removed, the answer is None: the commands of pipelines are not seen.
    """
    try:
        return kind(client.connection_pool, client.response_callbacks, transaction, shard_hint)
    except (AttributeError, TypeError):
        return None


def raise_first_error(
    pipeline: Pipeline, commands: Sequence[tuple[Any, ...]], replies: Sequence[Any]
) -> None:
    """
    Raise the first error among the replies, as `execute(raise_on_error=True)` does.

    `Pipeline.raise_first_error` adds to its message which command it was. If it is removed, the
    error is raised without that.
    """
    explain = getattr(pipeline, "raise_first_error", None)
    if explain and len(commands) == len(replies):
        explain([(args, {}) for args in commands], replies)
    for reply in replies:
        if isinstance(reply, ResponseError):
            raise reply


def has_reached_page_cache(request: HttpRequest) -> bool:
    """
    Return whether FetchFromCacheMiddleware has seen this request.

    `_cache_update_cache` is what it leaves at the request. If Django renames it, a page that a
    middleware above it answered is no longer told from one that the page cache does not want.
    """
    return hasattr(request, "_cache_update_cache")


def template_line(frame: FrameType) -> str | None:
    """
    Return the template and line of the {% cache %} tag that this frame renders, or None.

    Django's `CacheNode`, and the name `self` of its first argument, are not documented. If they
    change, a fragment is named by the line of the view that rendered the template.
    """
    if CacheNode is None or frame.f_code.co_name != "render":
        return None
    node: Any = frame.f_locals.get("self")
    if not isinstance(node, CacheNode):
        return None
    try:
        return f"{node.origin.template_name}:{node.token.lineno}"
    except AttributeError:
        return None


def templates_named_in(template: Any) -> list[str]:
    """
    Return the names of the templates that this one extends or includes, where they are literal.

    How Django holds a parsed template is not documented. If it changes, the list is empty, and
    "Show the code" does not follow from one template to the next.
    """
    try:
        nodes = template.template.nodelist
        expressions = [node.parent_name for node in nodes.get_nodes_by_type(ExtendsNode)]
        expressions += [node.template for node in nodes.get_nodes_by_type(IncludeNode)]
    except (AttributeError, TypeError):  # Also: a template of another engine.
        return []
    names = [getattr(expression, "var", None) for expression in expressions]
    return list(dict.fromkeys(name for name in names if isinstance(name, str)))
