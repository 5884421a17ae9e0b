"""
Make the secrets of a deployment. docker-compose.yml runs it before anything else.

Two volumes, so that each side gets only what it needs:

    /secrets         secret_key, redis_url          for the blog, readable by its user alone
    /redis-secrets   users.acl, password, redis-cli for Redis

The first start makes the key and the password and later ones keep them. users.acl is
written each time, so that a release can change the rules.
"""

import hashlib
import secrets
from pathlib import Path
from urllib.parse import urlsplit

BLOG = Path("/secrets")
REDIS = Path("/redis-secrets")

# What the user `blog` may do in Redis: what this project does, and nothing else. Left out
# are FLUSHALL, CONFIG, DEBUG, KEYS, MONITOR, SHUTDOWN, ACL, MODULE, REPLICAOF and the rest.
# Docs: https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/
RULES = """
~site:* ~view:* ~fragment:* ~low-level:* ~watch:* ~lab:*
resetchannels &__keyevent@*__:*
-@all
+auth +hello +ping +quit +reset +select +client|id +client|setinfo +client|setname
+get +mget +set +mset +setex +psetex +setnx +getex +getdel +exists +del +unlink
+type +strlen +touch
+incr +incrby +decr +decrby
+ttl +pttl +expire +pexpire +expireat +pexpireat +persist
+eval +evalsha +script|load +script|exists
+multi +exec +discard +watch +unwatch
+scan +dbsize +flushdb
+xadd +xread +xrange +xrevrange +xlen +xtrim +xdel +xinfo|stream
+subscribe +unsubscribe +psubscribe +punsubscribe
+info +time +memory|usage +object|encoding +object|freq +object|idletime
"""

# For people: docker compose exec redis /secrets/redis-cli -n 1 --scan
CLI = """#!/bin/sh
# redis-cli as the user that the blog is.
REDISCLI_AUTH=$(cat "${0%/*}/password") exec redis-cli --user blog "$@"
"""


def write(path, text, mode):
    """Write `text` so that a reader sees the whole file or none, and never with another mode."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_text(text)
    new.chmod(mode)
    new.replace(path)


def main():
    key, url = BLOG / "secret_key", BLOG / "redis_url"
    if not key.exists():
        write(key, secrets.token_urlsafe(50), 0o400)
    if not url.exists():
        write(url, f"redis://blog:{secrets.token_hex(32)}@redis:6379", 0o400)
    password = urlsplit(url.read_text()).password
    digest = hashlib.sha256(password.encode()).hexdigest()
    # Readable by all: the Redis image has another user, and nobody else has this volume.
    write(REDIS / "password", password, 0o444)
    write(REDIS / "redis-cli", CLI, 0o555)
    rules = " ".join(RULES.split())
    write(REDIS / "users.acl", f"user default off\nuser blog on #{digest} {rules}\n", 0o444)


if __name__ == "__main__":
    main()
