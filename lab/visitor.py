"""Visitors who ask for pages in this very process: the whole of Django, without a socket."""

from django.test import Client


class Visitor(Client):
    """
    A browser with cookies of its own, at the same host and port as who sent `request`.

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
