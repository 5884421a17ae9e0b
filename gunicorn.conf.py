"""
gunicorn's settings, with the reason for each.

Docs: https://docs.gunicorn.org/en/stable/settings.html
"""

import gc
import os
import socket
import struct
import sys
from pathlib import Path

wsgi_app = "mysite.wsgi"

# 127.0.0.1: only this machine, unless somebody says otherwise. A container must say
# BIND=0.0.0.0, because 127.0.0.1 is the container itself there.
bind = f"{os.environ.get('BIND', '127.0.0.1')}:{os.environ.get('PORT', '8000')}"

# Processes use the cores, threads wait for Redis and for readers on slow lines. gthread
# also keeps idle keep-alive connections without giving each a thread.
worker_class = "gthread"
workers = os.environ.get("WEB_CONCURRENCY", "2")
threads = 4

# Load Django once and fork: the workers share that memory, and a setting that is wrong
# ends gunicorn at once instead of each worker in turn. Nothing is connected before the
# fork: connections to Redis and to the database are opened by the first who needs them.
preload_app = True

# Seconds. A worker whose main loop is silent for that long is replaced. Threads that work
# on a page don't count as silence.
timeout = 30
# Seconds that requests may take to end after SIGTERM. `docker stop` kills after 10.
graceful_timeout = 3
# Seconds that an idle connection is kept: a reader opens the next page within that time,
# or not at all.
keepalive = 5

# Seconds without a byte after which a client that sends a request, or takes an answer, is given
# up. gunicorn itself waits for ever, and as many as there are threads stop the blog. Who sends a
# byte now and then still holds a thread: a proxy in front that collects requests, as nginx does,
# is what keeps those off.
STALLED = 10

# Longer ones are refused with 414 and 431 before Django sees them. The longest URL of the
# blog is a search; browsers send some 20 header fields, cookies being the longest.
limit_request_line = 4094
limit_request_fields = 50
limit_request_field_size = 8190

# gunicorn believes X-Forwarded-Proto and SCRIPT_NAME from 127.0.0.1 by default. Here Django
# alone decides whom to believe: see TRUST_PROXY in mysite/settings.py.
forwarded_allow_ips = ""

# A worker touches a file to show that it lives. On disk that can block for long, and a
# read-only container has no disk to write to.
worker_tmp_dir = next((path for path in ("/dev/shm",) if os.access(path, os.W_OK)), None)  # noqa: S108

# gunicornc is not used, and its socket would be made in the home directory.
control_socket_disable = True

# Off: a line a request costs more than a cached page. "-" prints it.
accesslog = None


def when_ready(server):
    """
    Bound the waits, and take what Django has loaded out of what is searched for cycles: it stays.

    Before the fork, as the documentation of gc.freeze() has it, so that it stays shared, too.
    """
    gc.collect()
    gc.freeze()
    # Connections have from their listener what the kernel waits at most.
    for listener in server.LISTENERS:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            listener.sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", STALLED, 0))


def post_fork(server, worker):
    """Search less often: hardly anything that a page from the cache makes is in a cycle."""
    gc.set_threshold(10_000, 10, 10)
    worker.log.error_log.addFilter(is_no_stalled_client)


def is_no_stalled_client(record):
    """Keep what gunicorn says of STALLED out of the log, which is a traceback each."""
    return not record.exc_info or not issubclass(record.exc_info[0], BlockingIOError)


def worker_exit(server, worker):
    """
    Leave at once, with threads that are still at work.

    A stream has no end, and Python would wait for its thread until the server kills this
    process; after `kill -9` of the server nobody would. They had graceful_timeout.
    """
    if worker.booted:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def one_line_for_what_is_wrong():
    """End gunicorn with one line instead of a traceback when the settings are unusable."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
    sys.path.insert(0, str(Path(__file__).parent))
    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured

    try:
        settings.INSTALLED_APPS  # noqa: B018 - the first access reads the settings.
    except ImproperlyConfigured as error:
        sys.exit(f"gunicorn: {error}")


one_line_for_what_is_wrong()
