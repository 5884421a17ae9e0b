"""path("lab/", include("lab.urls")), while LAB=1."""

from django.urls import path

from lab import keys, leak, views

app_name = "lab"
EXPERIMENTS = (leak.experiment, keys.experiment)
urlpatterns = [
    path("", views.index, name="index"),
    *(url for experiment in EXPERIMENTS for url in experiment.urls),
]
