"""Serializers and compressors: what packing a value costs, and how much is left to store."""

import json
import pickle
from functools import partial
from importlib import import_module

from django.core.signing import Signer

from lab.bench.report import Table
from lab.bench.rounds import microseconds, ratio
from lab.bench.values import cards, page
from resilient_cache.serializer import SafeSerializer

PAGE, CARDS = "a page of 30 KB", "20 search results"
THIS, PICKLE = "msgpack (this blog)", "pickle"
# django-redis's own, by the names that OPTIONS["COMPRESSOR"] takes.
COMPRESSORS = {
    "zlib": "zlib.ZlibCompressor",
    "lzma": "lzma.LzmaCompressor",
    "zstd": "zstd.ZStdCompressor",
    "lz4": "lz4.Lz4Compressor",
}


class PickleSerializer:
    """For Signer.sign_object()."""

    dumps = staticmethod(pickle.dumps)
    loads = staticmethod(pickle.loads)


class JSON:
    """Plain values only: it has no idea what a response is."""

    def dumps(self, value):
        return json.dumps(value).encode()

    def loads(self, value):
        return json.loads(value)


class SignedPickle:
    """A pickle that is read only if its HMAC says that this project wrote it."""

    signer = Signer(key="of the bench")

    def dumps(self, value):
        return self.signer.sign_object(value, serializer=PickleSerializer).encode()

    def loads(self, value):
        return self.signer.unsign_object(value.decode(), serializer=PickleSerializer)


def measure(bench):
    seconds = 0.005 if bench.quick else 0.03
    values = {PAGE: page(30_000), CARDS: cards(20)}
    serializers = {
        PICKLE: PickleSerializer,
        THIS: SafeSerializer({}),
        "pickle with HMAC": SignedPickle(),
    }
    both = {PAGE: serializers, CARDS: serializers | {"JSON": JSON()}}
    contestants = {
        (what, name): partial(there_and_back, serializer.dumps, serializer.loads, value, seconds)
        for what, value in values.items()
        for name, serializer in both[what].items()
    }
    packed = serializers[THIS].dumps(values[PAGE])
    compressors = {name: compressor(path) for name, path in COMPRESSORS.items()}
    contestants |= {
        ("bytes", name): partial(there_and_back, each.compress, each.decompress, packed, seconds)
        for name, each in compressors.items()
        if each
    }
    seen = bench.in_turns(contestants)
    return [
        *(serializer_table(what, both[what], seen, bench.rounds) for what in values),
        compressor_table(compressors, seen, len(packed), bench.rounds),
    ]


def there_and_back(dumps, loads, value, seconds):
    """Return the microseconds each way, and the bytes in between."""
    packed = dumps(value)
    return {
        "there": microseconds(partial(dumps, value), seconds),
        "back": microseconds(partial(loads, packed), seconds),
        "bytes": len(packed),
    }


def compressor(path):
    """Return a compressor of django-redis, or None where the package below it is missing."""
    module, name = path.split(".")
    try:
        found = getattr(import_module(f"django_redis.compressors.{module}"), name)
    except ImportError:
        return None
    return found({})


def serializer_table(what, serializers, seen, rounds):
    return Table(
        "serializers",
        f"Serializers, {what}, us",
        "To dump and to load, in one process. Pickle runs code when it is read; with "
        "an HMAC (django.core.signing) only code that this project signed. "
        f"The least of {rounds} rounds in turns.",
        "us",
        [
            {
                "serializer": name,
                "dump": seen[what, name]["there"],
                "load": seen[what, name]["back"],
                "bytes": int(seen[what, name]["bytes"]),
                "both / pickle": ratio(both_ways(seen[what, name]), both_ways(seen[what, PICKLE])),
            }
            for name in serializers
        ],
        ["dump", "load"],
        ["both / pickle"],
    )


def both_ways(figures):
    return figures["there"] + figures["back"]


def compressor_table(compressors, seen, size, rounds):
    missing = {"there": None, "back": None, "bytes": None}
    rows = []
    for name, found in compressors.items():
        figures = seen.get(("bytes", name), missing)
        rows.append(
            {
                "compressor": name if found else f"{name} (not installed)",
                "compress": figures["there"],
                "decompress": figures["back"],
                "bytes": figures["bytes"] and int(figures["bytes"]),
                "bytes / before": ratio(figures["bytes"], size),
            }
        )
    return Table(
        "serializers",
        f"Compressors, the {size:,} bytes of a packed page, us",
        "Each way, in one process, with django-redis's own compressors and their "
        f"default levels. The least of {rounds} rounds in turns.",
        "us",
        rows,
        ["compress", "decompress"],
        ["bytes / before"],
    )
