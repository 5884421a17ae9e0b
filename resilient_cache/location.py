"""LOCATION: the URL of a Redis server, and of one of its databases."""

from urllib.parse import parse_qsl, urlencode, urlsplit

from django.core.exceptions import ImproperlyConfigured
from redis.connection import Connection, parse_url
from redis.exceptions import RedisError

# Options of a connection that redis-py takes from a URL as text, and can't use as text.
OBJECTS = {
    *("command_packer", "credential_provider", "driver_info", "encoding_errors"),
    *("event_dispatcher", "maint_notifications_config", "parser_class", "redis_connect_func"),
    *("retry", "socket_keepalive_options", "ssl_ocsp_context"),
}


def database_url(url: str, number: int = 0) -> str:
    """
    Return `url` with its database, 0 if it names none, raised by `number`.

    Raises ImproperlyConfigured, without the password, for a URL that redis-py can't use.
    """
    scheme, separator, rest = url.partition("://")
    url = f"{scheme.lower()}{separator}{rest}"
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        if parts.scheme == "unix" and parts.path.strip("/"):
            query["db"] = str(int(query.get("db") or 0) + number)
            # urlunsplit() would write unix:/path.
            result = f"unix://{parts.netloc}{parts.path}?{urlencode(query)}"
        elif parts.scheme in ("redis", "rediss") and parts.hostname and parts.port != 0:
            parts.hostname.encode("idna")  # Raises UnicodeError, which is a ValueError.
            database = int(query.pop("db", None) or parts.path.strip("/") or 0) + number
            result = parts._replace(path=f"/{database}", query=urlencode(query)).geturl()
        else:
            raise ValueError("it is not of one of these forms")
        options = parse_url(result)
        if options.get("decode_responses"):
            raise ValueError("decode_responses would break every value: they are bytes.")
        if wrong := OBJECTS.intersection(options):
            raise ValueError(f"{wrong.pop()} can't be written as text.")
        options.pop("max_connections", None)  # It is for the pool.
        # This connects to nothing, and complains about unknown options.
        options.pop("connection_class", Connection)(**options)
    except (ValueError, TypeError, RedisError) as error:
        reason = str(error).rpartition("__init__() ")[2].rstrip(".")
        raise ImproperlyConfigured(
            f"The URL of Redis is not usable: {reason}. It takes "
            "redis://[[user]:password@]host[:port][/database], rediss:// with the same, or "
            "unix:///path/to/redis.sock, with options of redis-py behind a question mark."
        ) from None
    return result
