"""{% load resilient_cache %}: Django's {% cache %}, where one request builds what many miss."""

from typing import Any

from django.core.cache import InvalidCacheBackendError, caches
from django.core.cache.utils import make_template_fragment_key
from django.template import Context, Library, TemplateSyntaxError, VariableDoesNotExist
from django.template.base import Parser, Token
from django.templatetags.cache import CacheNode as DjangoCacheNode
from django.templatetags.cache import do_cache as django_do_cache

register = Library()


class CacheNode(DjangoCacheNode):
    """Django's node, which asks the cache by get_or_set()."""

    def render(self, context: Context) -> str:
        timeout = self._resolve(self.expire_time_var, context)
        if timeout is not None:
            try:
                timeout = int(timeout)
            except (ValueError, TypeError):
                raise TemplateSyntaxError(
                    f'"cache" tag got a non-integer timeout value: {timeout!r}'
                ) from None
        name = "template_fragments"
        if self.cache_name is not None:
            name = self._resolve(self.cache_name, context)
        try:
            cache = caches[name]
        except InvalidCacheBackendError:
            if self.cache_name:
                raise TemplateSyntaxError(
                    f"Invalid cache name specified for cache tag: {name!r}"
                ) from None
            cache = caches["default"]
        vary_on = [variable.resolve(context) for variable in self.vary_on]
        key = make_template_fragment_key(self.fragment_name, vary_on)
        text = cache.get_or_set(key, lambda: self.nodelist.render(context), timeout)
        if not isinstance(text, str):  # Another client's value is a miss: here, a fragment is text.
            text = self.nodelist.render(context)
            cache.set(key, text, timeout)
        return text

    def _resolve(self, variable: Any, context: Context) -> Any:
        try:
            return variable.resolve(context)
        except VariableDoesNotExist:
            raise TemplateSyntaxError(
                f'"cache" tag got an unknown variable: {variable.var!r}'
            ) from None


@register.tag("cache")
def do_cache(parser: Parser, token: Token) -> CacheNode:
    """
    Cache the contents of a template fragment for a given time. The syntax is Django's.

        {% load resilient_cache %}
        {% cache 600 sidebar request.user.username using="fragments" %} ... {% endcache %}
    """
    node = django_do_cache(parser, token)
    return CacheNode(
        node.nodelist, node.expire_time_var, node.fragment_name, node.vary_on, node.cache_name
    )
