"""
A run: an experiment at work, and the stream that tells the browser how it goes.

One JSON object per line (application/x-ndjson). The browser reads each line as it comes
(static/lab/lab.js). When its tab is closed, or Stop is pressed, the connection ends. The server
notices it at the second line that it can't deliver, and ends the run. A heartbeat per second
makes sure that such a line comes.
"""

import json
import logging
import secrets
import threading
import time
from queue import Empty, SimpleQueue

import redis
from django.db import connections
from django.http import StreamingHttpResponse
from django_redis.exceptions import ConnectionInterrupted

RUNS = 2  # per process: each holds a thread until it ends
HEARTBEAT = 1  # seconds between two lines at most
LIMIT = 120  # seconds after which a run is ended, whatever it does
logger = logging.getLogger(__name__)
places = threading.BoundedSemaphore(RUNS)


class Busy(Exception):
    """As many runs as allowed are going on."""


class Stopped(Exception):
    """The tab was closed, Stop was pressed, or the run took too long."""


class Run:
    """
    One run. The experiment's function gets it as its first argument.

    `id` is part of the keys that this run stores in Redis, so two runs of the same experiment
    don't disturb each other.
    """

    def __init__(self, function, options):
        """Take one of the RUNS places. Raises Busy when all are taken."""
        if not places.acquire(blocking=False):
            raise Busy("As many experiments are running as this server takes. Try again soon.")
        self.id = secrets.token_hex(6)
        self._function, self._options = function, options
        self._lines = SimpleQueue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._deadline = time.monotonic() + LIMIT
        self._ended = False

    # For experiments ----------------------------------------------------------------

    def tell(self, kind, **fields):
        """
        Send one line to the browser. Raises Stopped when the run is over.

        Kinds that lab.js knows: progress (done, of, text), row (table, key, cells),
        value (name, text), say (text). A page's own script may know more. With came (value)
        a run says what came, for those who were asked what they expect.
        """
        self.check()
        self._lines.put({"kind": kind, **fields})

    def check(self):
        """Raise Stopped when the tab is closed, Stop was pressed, or LIMIT is over."""
        if self.is_over():
            raise Stopped

    def is_over(self):
        """Return whether to stop. For threads of an experiment's own."""
        return self._stopped.is_set() or time.monotonic() > self._deadline

    def wait(self, seconds):
        """Wait for `seconds`. Raises Stopped as soon as the run is over."""
        self._stopped.wait(min(seconds, max(0, self._deadline - time.monotonic())))
        self.check()

    # For the server -----------------------------------------------------------------

    def response(self):
        """Return the response that streams this run."""
        return StreamingHttpResponse(
            self,
            content_type="application/x-ndjson",
            # nginx would collect the lines before it passes them on.
            headers={"X-Accel-Buffering": "no", "Cache-Control": "no-store"},
        )

    def __iter__(self):
        self._thread.start()
        while not self._ended:
            try:
                line = self._lines.get(timeout=HEARTBEAT)
            except Empty:
                yield b"\n"
                continue
            self._ended = line["kind"] in ("end", "error")
            yield json.dumps(line).encode() + b"\n"

    def close(self):
        """End the run. Django calls it when the response is over, whatever the reason."""
        self._stopped.set()
        if self._thread.ident is None:  # The stream was never read.
            places.release()

    def _work(self):
        last = {"kind": "end"}
        try:
            self._function(self, **self._options)
        except Stopped:
            last = {"kind": "error", "text": f"Stopped after {LIMIT} s at most."}
        except (redis.ConnectionError, redis.TimeoutError, ConnectionInterrupted):
            last = {"kind": "error", "text": "Redis does not answer. Try again when it is back."}
        except Exception as error:
            logger.exception("An experiment failed")
            last = {"kind": "error", "text": f"{type(error).__name__}: {error}"}
        finally:
            connections.close_all()
            places.release()
            self._lines.put(last)  # Last, because its reader may start the next run.
