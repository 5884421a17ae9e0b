"""
Make the secrets of a deployment. docker-compose.yml runs it before anything else.

There are two volumes, so that each side gets only what it needs:

    /secrets         secret_key, redis_url             for the blog, readable by its user alone
    /redis-secrets   users.acl, look, look-password    for Redis, which knows the blog's
                                                       password by its hash only

The first start makes the key and the passwords. Later starts write only the rules, so that a
release can change them. Redis reads them when it starts.
"""

import hashlib
import secrets
from pathlib import Path
from urllib.parse import urlsplit

BLOG = Path("/secrets")
REDIS = Path("/redis-secrets")

# What the user `blog` may do in Redis: only what this project does. It may not use FLUSHALL,
# CONFIG, DEBUG, KEYS, MONITOR, SHUTDOWN, ACL, MODULE, REPLICAOF and others.
# Docs: https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/
BLOG_RULES = """
~site:* ~view:* ~fragment:* ~low-level:* ~resilient_cache:* ~watch:* ~lab:*
resetchannels &__keyevent@*__:*
-@all
+auth +hello +ping +quit +reset +select +client|id +client|setinfo +client|setname
+get +mget +set +mset +setex +psetex +setnx +getex +exists +del +unlink
+type +strlen +touch
+incr +incrby +decr +decrby
+ttl +pttl +expire +pexpire +persist
+eval +evalsha +script|load +script|exists
+multi +exec +discard
+scan +dbsize +flushdb
+xadd +xread +xrange +xrevrange +xtrim
+subscribe +unsubscribe
+info +memory|usage
"""

# What the user `look` may do, for a person: read everything, change nothing.
LOOK_RULES = """
~* resetchannels
-@all +@read -@dangerous +auth +hello +ping +quit +select +info +monitor +command +readonly
+slowlog|get +slowlog|len +latency|latest +latency|history +client|list +client|info
"""

# docker compose exec redis look -n 1 --scan
LOOK = """#!/bin/sh
export REDISCLI_AUTH="$(cat "${0%/*}/look-password")"
exec redis-cli --user look "$@"
"""


def write(path, text, mode):
    """Write a file with this mode. Its readers see the old text or all of the new one."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_text(text)
    new.chmod(mode)
    new.replace(path)


def main():
    key, url, look = BLOG / "secret_key", BLOG / "redis_url", REDIS / "look-password"
    if not key.exists():
        write(key, secrets.token_urlsafe(50), 0o400)
    if not url.exists():
        write(url, f"redis://blog:{secrets.token_hex(32)}@redis:6379", 0o400)
    # Readable by all, because Redis runs as another user. Only Redis has this volume.
    if not look.exists():
        write(look, secrets.token_hex(32), 0o444)
    write(REDIS / "look", LOOK, 0o555)
    users = {
        "blog": (urlsplit(url.read_text()).password, BLOG_RULES),
        "look": (look.read_text(), LOOK_RULES),
    }
    acl = "user default off\n"
    for name, (password, rules) in users.items():
        digest = hashlib.sha256(password.encode()).hexdigest()
        acl += f"user {name} on #{digest} {' '.join(rules.split())}\n"
    write(REDIS / "users.acl", acl, 0o444)


if __name__ == "__main__":
    main()
