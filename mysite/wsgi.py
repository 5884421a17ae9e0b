"""What gunicorn serves: `gunicorn mysite.wsgi`."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")

django_application = get_wsgi_application()


def application(environ, start_response):
    """
    Pass a request on to Django, without the Content-Type of a GET or HEAD.

    It has no body. Django decodes the query in the charset that this header names, and fails
    on some, such as punycode, before any middleware runs.
    """
    if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
        environ.pop("CONTENT_TYPE", None)
    return django_application(environ, start_response)
