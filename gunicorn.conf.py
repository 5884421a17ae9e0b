"""
gunicorn's settings, with the reason for each.

Docs: https://docs.gunicorn.org/en/stable/settings.html
"""

import gc
import os
import resource
import socket
import struct
import sys
from pathlib import Path

wsgi_app = "mysite.wsgi"

# Only this machine can connect, by default. A container needs BIND=0.0.0.0, because
# 127.0.0.1 is the container itself there.
bind = f"{os.environ.get('BIND', '127.0.0.1')}:{os.environ.get('PORT', '8000')}"

# gunicorn's gthread, but a request of up to 64 KB gets a thread only when all of it has arrived:
# 400 silent or half-sent connections don't stop the blog.
worker_class = "mysite.worker.PatientWorker"
# Processes use the cores.
workers = os.environ.get("WEB_CONCURRENCY", "2")
# Threads wait: for Redis, for a page that another thread builds, for a stream. MAX_WAITING in
# the settings lets 50 wait for pages, so 100 leave as many for the rest. A pool of redis-py has
# 100 connections at most. Threads start when they are needed.
threads = 100

# Load Django once and fork: the workers share that memory, and a wrong setting ends gunicorn
# at once. Connections to Redis and to the database are opened after the fork.
preload_app = True

# Seconds. A worker whose main loop is silent for that long is replaced. Threads that work
# on a page don't count as silence.
timeout = 30
# Seconds that requests have to end after SIGTERM. `docker stop` kills after 10.
graceful_timeout = 3
# Seconds that an idle connection stays open. It holds no thread.
keepalive = 5

# Seconds that a thread waits for a client that sends a long body or takes a long answer.
# gunicorn itself waits for ever. A slow client can still hold a thread by a byte now and then:
# a proxy in front, such as nginx, keeps those off.
STALLED = 10

# Longer requests get 414 or 431 before Django sees them. The longest URL of the blog is a
# search. Browsers send about 20 header fields, of which cookies are the longest.
limit_request_line = 4094
limit_request_fields = 50
limit_request_field_size = 8190

# gunicorn believes X-Forwarded-Proto and SCRIPT_NAME from 127.0.0.1 by default. Here Django
# decides: see TRUST_PROXY in mysite/settings.py.
forwarded_allow_ips = ""

# A worker touches a file to show that it lives. A disk can block for long, and a read-only
# container has no disk.
worker_tmp_dir = next((path for path in ("/dev/shm",) if os.access(path, os.W_OK)), None)  # noqa: S108

# gunicornc is not used. Its socket would be in the home directory.
control_socket_disable = True

# Off: one line per request costs more than a cached page. "-" prints it.
accesslog = None

# Each connection is an open file, and so is each database connection. Many shells allow 1,024.
files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
if 0 < files < 8192:
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192 if most < 0 else min(most, 8192), most))


def when_ready(server):
    """
    Bound the waits, and exclude what Django has loaded from the search for cycles.

    Before the fork, as the documentation of gc.freeze() says, so that this memory stays shared.
    """
    gc.collect()
    gc.freeze()
    # Connections inherit these options from their listener.
    for listener in server.LISTENERS:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            listener.sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", STALLED, 0))


def post_fork(server, worker):
    """Search for cycles less often: a page from the cache makes hardly any."""
    gc.set_threshold(10_000, 10, 10)
    worker.log.error_log.addFilter(is_no_stalled_client)


def is_no_stalled_client(record):
    """Remove the traceback that gunicorn logs for each client that STALLED ends."""
    return not record.exc_info or not issubclass(record.exc_info[0], BlockingIOError)


def worker_exit(server, worker):
    """
    Leave at once, with threads that are still at work.

    Requests had graceful_timeout to end. A stream has no end, and Python would wait for its
    thread until the server kills this process.
    """
    if worker.booted:
        # os._exit() runs no function of atexit. This one has what is left of graceful_timeout.
        from resilient_cache.groups import settle_before_exit

        settle_before_exit()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def one_line_for_what_is_wrong():
    """End gunicorn with one line instead of a traceback if the settings can't be used."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
    sys.path.insert(0, str(Path(__file__).parent))
    import django
    from django.core.exceptions import ImproperlyConfigured

    try:
        django.setup()
    except ImproperlyConfigured as error:
        sys.exit(f"gunicorn: {error}")


one_line_for_what_is_wrong()
