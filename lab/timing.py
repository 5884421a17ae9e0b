"""Server-Timing for the race, where the instrument that would tell it is off."""

from time import perf_counter


class TimingMiddleware:
    """First in MIDDLEWARE while LAB=1 and CACHE_WATCH=0: says how long each lab page took."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        if not request.path.startswith("/lab/"):
            return self.get_response(request)
        start = perf_counter()
        response = self.get_response(request)
        response["Server-Timing"] = f"app;dur={(perf_counter() - start) * 1000:.2f}"
        return response
