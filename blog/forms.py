"""The comment form, and the limit on how fast one visitor may comment."""

from urllib.parse import quote, unquote

from django import forms
from django.conf import settings
from django.utils.crypto import salted_hmac

from blog import caching
from blog.models import Comment
from blog.search import count_up
from mysite.http import visitor_address

NAME_COOKIE, NAME_COOKIE_AGE = "visitor", 30 * 24 * 60 * 60


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
        self.status = 200

    def clean(self):
        """Refuse what comes too fast. A Redis that is away refuses nobody."""
        cleaned = super().clean()
        self.status = 400 if self.errors else 200
        if not self.errors and self.too_fast():
            self.status = 429
            self.add_error(
                None,
                f"More than {caching.COMMENT_LIMIT} comments a minute came from your address. "
                "Wait a minute, then send this one again.",
            )
        return cleaned

    def too_fast(self):
        address = salted_hmac("comments:by", visitor_address(self.request)).hexdigest()[:32]
        key = f"comments:by:{address}"
        return count_up(key, caching.COMMENT_LIMIT_TIMEOUT) > caching.COMMENT_LIMIT

    def remember(self, response):
        """Let the visitor's browser keep the name, for the next form and the archive's greeting."""
        response.set_signed_cookie(
            NAME_COOKIE,
            quote(self.cleaned_data["author"]),  # A header has no place for 王小明.
            max_age=NAME_COOKIE_AGE,
            secure=settings.SESSION_COOKIE_SECURE,
            httponly=True,
            samesite="Lax",
        )


def visitor_name(request):
    """Return the name that the visitor last commented under, or an empty string."""
    return unquote(request.get_signed_cookie(NAME_COOKIE, "", max_age=NAME_COOKIE_AGE))
