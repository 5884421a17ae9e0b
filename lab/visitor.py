"""Visitors in this very process: they ask for pages through the whole of Django, no socket."""

from django.test import Client


class Visitor(Client):
    """
    A browser with cookies of its own, at the host and port that `request` was sent to.

    An error is a 500 page for it, as for any other browser.
    """

    def __init__(self, request, **options):
        host = request.get_host()
        headers = {"host": host, "referer": f"{request.scheme}://{host}/"}
        super().__init__(headers=headers, raise_request_exception=False, **options)
        self.port, self.is_secure = request.META["SERVER_PORT"], request.is_secure()

    def generic(self, *args, **options):
        """Send a request, as django.test.Client does."""
        return super().generic(
            *args, **options | {"secure": self.is_secure, "SERVER_PORT": self.port}
        )
