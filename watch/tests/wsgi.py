"""The small site as gunicorn serves it, with the settings that a test hands over."""

import json
import os

import django
from django.conf import settings
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.wsgi import get_wsgi_application

from watch.tests import settings as defaults


def only_self(get_response):
    """Middleware: the strictest policy that a project can have."""

    def middleware(request):
        response = get_response(request)
        response.headers["Content-Security-Policy"] = "default-src 'self'"
        return response

    return middleware


def application():
    given = {name: value for name, value in vars(defaults).items() if name.isupper()}
    settings.configure(**given | json.loads(os.environ["WATCH_TEST_SETTINGS"]))
    django.setup()
    return StaticFilesHandler(get_wsgi_application())
