"""
What a value out of Redis has to look like before anybody uses it: somebody may have put another.

A shape is one of

- a type: exactly that, so that True is no int
- a range: an int in it
- a compiled regular expression: a str that is it from end to end
- [shape]: a list of such values
- {shape: shape}: a dict of such keys and values
- {"name": shape, ...}: a dict with these fields
- (shape, ...): one of them
- None
"""

import re

from django.urls.converters import SlugConverter

PK = range(1, 2**63)  # What a database may have as an integer key.
SLUG = re.compile(SlugConverter.regex)


def fits(value, shape):
    """Return whether `value` is of `shape`. Raises TypeError for what is no shape."""
    match shape:
        case None:
            return value is None
        case tuple():
            return any(fits(value, one) for one in shape)
        case [one]:
            return type(value) is list and _all_fit(value, one)
        case re.Pattern():
            return type(value) is str and shape.fullmatch(value) is not None
        case dict():
            return type(value) is dict and _dict_fits(value, shape)
        case type() | range():
            return _all_fit([value], shape)
    raise TypeError(f"{shape!r} is no shape. What is one stands at the top of this module.")


def _dict_fits(value, shape):
    if all(type(name) is str for name in shape):
        return value.keys() == shape.keys() and all(
            fits(value[name], shape[name]) for name in shape
        )
    ((key, one),) = shape.items()
    return _all_fit(value, key) and _all_fit(value.values(), one)


def _all_fit(values, shape):
    """Return whether all fit. Types and ranges at once: an index has a hundred thousand of them."""
    match shape:
        case type():
            return set(map(type, values)) <= {shape}
        case range():
            is_int = set(map(type, values)) <= {int}
            return is_int and (not values or (min(values) in shape and max(values) in shape))
    return all(fits(value, shape) for value in values)
