"""
The limit: a Django project and a WSGI application that only return bytes they hold.

BENCH_PAGES names a JSON file: {path with query: [headers, body]}. This module is the bare
project's settings, URLs and view in one. There is no middleware.
"""

import json
import os
from pathlib import Path

from django.http import HttpResponse
from django.urls import re_path

ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = __name__
SECRET_KEY = os.environ["SECRET_KEY"]
USE_TZ = True

PAGES = {
    path: (headers, body.encode())
    for path, (headers, body) in json.loads(Path(os.environ["BENCH_PAGES"]).read_text()).items()
}


def page(request):
    headers, body = PAGES[request.get_full_path()]
    return HttpResponse(body, headers=headers)


urlpatterns = [re_path("", page)]


def wsgi(environ, start_response):
    """Serve the same without Django."""
    query = environ["QUERY_STRING"]
    headers, body = PAGES[environ["PATH_INFO"] + (f"?{query}" if query else "")]
    start_response("200 OK", list(headers.items()))
    return [body]
