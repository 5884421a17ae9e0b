"""URLs of the package's tests. Tests with views of their own set ROOT_URLCONF."""

urlpatterns = []
