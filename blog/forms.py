"""The comment form, and the limit on how fast one visitor may comment."""

from urllib.parse import quote, unquote

from django import forms
from django.conf import settings
from django.utils.crypto import salted_hmac

from blog import caching
from blog.limits import count_up, visitor_address
from blog.models import Comment

NAME_COOKIE = "visitor"
NAME_COOKIE_AGE = 30 * 24 * 60 * 60  # seconds


class CommentForm(forms.ModelForm):
    """A comment: plain text, escaped when it is shown. Django refuses NUL characters itself."""

    class Meta:
        model = Comment
        fields = ["author", "body"]
        widgets = {
            "author": forms.TextInput(attrs={"autocomplete": "nickname"}),
            "body": forms.Textarea(attrs={"rows": 6}),
        }

    def __init__(self, data, *, request, post):
        name = visitor_name(request)
        super().__init__(data, instance=Comment(post=post), initial={"author": name})
        self.request = request
        self.status = 200  # The HTTP status of the page that shows this form.

    def clean(self):
        """Refuse a comment that comes too fast. While Redis is down there is no limit."""
        cleaned = super().clean()
        if self.errors:
            self.status = 400
        elif self.too_fast():
            self.status = 429
            self.add_error(
                None,
                f"More than {caching.COMMENT_LIMIT} comments a minute came from your address. "
                "Wait a minute, then send this one again.",
            )
        return cleaned

    def too_fast(self):
        """Count this comment, and return whether it is one too many."""
        # Redis gets a hash of the address: it is no place for personal data.
        address = visitor_address(self.request)
        digest = salted_hmac("comments:by", address, algorithm="sha256").hexdigest()[:32]
        count = count_up(f"comments:by:{digest}", caching.COMMENT_LIMIT_TIMEOUT)
        return count > caching.COMMENT_LIMIT

    def remember(self, response):
        """Store the name in the visitor's browser, for the next form and the archive's greeting."""
        response.set_signed_cookie(
            NAME_COOKIE,
            quote(self.cleaned_data["author"]),  # A header can't hold 王小明.
            max_age=NAME_COOKIE_AGE,
            secure=settings.SESSION_COOKIE_SECURE,
            httponly=True,
            samesite="Lax",
        )


def visitor_name(request):
    """Return the name that the visitor last commented under, or an empty string."""
    return unquote(request.get_signed_cookie(NAME_COOKIE, "", max_age=NAME_COOKIE_AGE))
