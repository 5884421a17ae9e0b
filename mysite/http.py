"""Two middleware classes: one sends a policy, one answers HEAD as GET would."""

from django.conf import settings
from django.middleware import http

CONDITIONS = (
    *("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"),
    *("HTTP_IF_MODIFIED_SINCE", "HTTP_IF_UNMODIFIED_SINCE"),
)


class ContentSecurityPolicyMiddleware:
    """Sends settings.CONTENT_SECURITY_POLICY. Django 6.0 has a middleware for it."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        response = self.get_response(request)
        # Django's own error pages, which only DEBUG shows, have inline styles.
        if not (settings.DEBUG and response.status_code in (404, 500)):
            response.headers.setdefault("Content-Security-Policy", settings.CONTENT_SECURITY_POLICY)
        return response


class ConditionalGetMiddleware(http.ConditionalGetMiddleware):
    """
    Django's, which also answers HEAD as GET would: ETag, Content-Length, 304, but no body.

    RFC 9110, section 9.3.2. Django's leaves HEAD alone.
    """

    def process_response(self, request, response):
        is_conditional = any(name in request.META for name in CONDITIONS)
        if request.method == "GET" and not is_conditional and response.has_header("ETag"):
            return response  # Most requests. It saves 5 % of the CPU of a hit.
        if request.method != "HEAD":
            return super().process_response(request, response)
        request.method = "GET"
        response = super().process_response(request, response)
        request.method = "HEAD"
        # Django gives a 304 no length, and a HEAD must not have another one than a GET.
        if not response.streaming and response.status_code != 304:
            response.headers.setdefault("Content-Length", str(len(response.content)))
            response.content = b""
        return response
