from django.conf import settings
from django.contrib import admin
from django.urls import include, path

from mysite.health import healthz

urlpatterns = [
    path("", include("blog.urls")),
    path("admin/", admin.site.urls),
    path("watch/", include("watch.urls")),
    path("healthz", healthz, name="healthz"),
]
if settings.LAB:
    urlpatterns.append(path("lab/", include("lab.urls")))
