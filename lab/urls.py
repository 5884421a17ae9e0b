"""path("lab/", include("lab.urls")), while LAB=1."""

from django.urls import path

from lab import keys, leak, outage, peel, predict, race, stale, stampede, views, wire

app_name = "lab"
EXPERIMENTS = (
    peel.experiment,
    race.experiment,
    stampede.experiment,
    leak.experiment,
    stale.experiment,
    outage.experiment,
    keys.experiment,
    wire.experiment,
    predict.experiment,
)
urlpatterns = [
    path("", views.index, name="index"),
    *(url for experiment in EXPERIMENTS for url in experiment.urls),
]
