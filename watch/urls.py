"""path("watch/", include("watch.urls"))"""

from django.urls import path

from watch import wall
from watch.code import code

app_name = "watch"
urlpatterns = [
    # The page x-ray
    path("code", code, name="code"),
    # The live wall
    path("", wall.wall, name="wall"),
    path("stream", wall.stream, name="stream"),
    path("events", wall.events, name="events"),
    path("state", wall.state, name="state"),
    path("keys/show", wall.show, name="show"),
    path("keys/expire", wall.expire, name="expire"),
]
