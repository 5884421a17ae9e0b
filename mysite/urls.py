from django.conf import settings
from django.contrib import admin
from django.urls import include, path

# /healthz and /readyz are answered by a middleware: see health.py.
urlpatterns = [
    path("", include("blog.urls")),
    path("admin/", admin.site.urls),
    path("watch/", include("watch.urls")),
]
if settings.LAB:
    urlpatterns.append(path("lab/", include("lab.urls")))
