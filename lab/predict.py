"""
Predict: a few lines of code, two or three requests. Hit or miss, at which level, and why?

The reader answers, and then it runs for real. What is right is what the run shows. Which situations
a reader has answered stays in the browser (static/lab/predict.js).
"""

from django import forms
from django.urls import path
from django_redis.exceptions import ConnectionInterrupted
from redis.exceptions import RedisError

from lab import predict_blog
from lab.caches import LEVELS
from lab.experiment import Experiment, with_code
from lab.predict_run import RecordedRedis, own_caches, play, play_step, project
from lab.predict_situations import BY_SLUG, SITUATIONS

OUTCOMES = {"hit": "a hit", "miss": "a miss"}


class PredictForm(forms.Form):
    situation = forms.ChoiceField(
        choices=[(slug, slug) for slug in BY_SLUG],
        widget=forms.HiddenInput,
        error_messages={
            "required": "Choose a situation.",
            "invalid_choice": "There is no such situation.",
        },
    )
    outcome = forms.ChoiceField(
        label="The last request is",
        choices=OUTCOMES.items(),
        widget=forms.RadioSelect,
        error_messages={
            "required": "Choose a hit or a miss.",
            "invalid_choice": "That is neither a hit nor a miss.",
        },
    )
    level = forms.ChoiceField(
        label="The level that it asks",
        choices=LEVELS.items(),
        widget=forms.RadioSelect,
        error_messages={
            "required": "Choose a level.",
            "invalid_choice": "There is no such level.",
        },
    )
    reason = forms.ChoiceField(
        label="Because",
        choices=[(number, number) for number in "123"],
        widget=forms.RadioSelect,
        error_messages={
            "required": "Choose a reason.",
            "invalid_choice": "That is not one of the reasons.",
        },
    )


def answer(request, situation, outcome, level, reason):
    """Play the situation, and compare the reader's answers with what the run shows."""
    chosen = BY_SLUG[situation]
    try:
        played = play(request, chosen)
    except (ConnectionInterrupted, RedisError):
        return {"problem": "Redis does not answer, so no cache can be asked."}
    evidence = chosen.evidence(played)
    right = next((number for number, line in enumerate(evidence) if line), None)
    if right is None or not played.level:
        return {"problem": "Redis answered only in part. Try again."}
    marks = [
        ("Hit or miss", OUTCOMES[outcome], outcome == played.outcome),
        ("Level", LEVELS[level], level == played.level),
        ("Why", chosen.reasons[int(reason) - 1].html, int(reason) - 1 == right),
    ]
    return {
        "played": played,
        "marks": marks,
        "right": sum(is_right for _, _, is_right in marks),
        "outcome": OUTCOMES[played.outcome],
        "level": LEVELS[played.level],
        "reason": chosen.reasons[right].html,
        "evidence": evidence[right].splitlines(),
    }


class Predict(Experiment):
    """An Experiment of many situations: ?situation= names one, and without it there is a list."""

    def render(self, request, form, status=200, **context):
        """Show the list, or one situation with its question. Words and 400 for an unknown one."""
        slug = form["situation"].value()
        situation = BY_SLUG.get(slug)
        if situation is None:
            unknown = form.is_bound or bool(slug)
            return super().render(request, form, 400 if unknown else status, unknown=unknown)
        form.fields["reason"].choices = situation.choices
        slugs = list(BY_SLUG)
        at = slugs.index(slug)
        return super().render(
            request,
            form,
            status,
            situation=situation,
            title=with_code(situation.title),
            number=at + 1,
            asked=[(step.label, step.sent(request)) for step in situation.steps],
            previous=slugs[at - 1] if at else "",
            next=slugs[at + 1] if at + 1 < len(slugs) else "",
            **context,
        )


experiment = Predict(
    slug="predict",
    title="Predict",
    post="choosing-a-level",
    idea="Read a few lines of code and two or three requests. Say whether the last request is a "
    "hit, at which level, and why. Then it runs here, and you see.",
    lesson=(
        "Two questions decide: was the page stored, and is the key the same?",
        "A page is stored only with status 200, and only if no header forbids it. `Set-Cookie` "
        "alone forbids nothing.",
        "The key of a page is its absolute URL, and the values of the headers in `Vary`. The key "
        "of a fragment is its name and what follows it.",
        "In plain Django, the outer of two levels answers, whatever you delete at the inner one.",
    ),
    code=(answer, play, play_step, own_caches, project, RecordedRedis),
    form=PredictForm,
    answer=answer,
    initial=lambda request: {"situation": request.GET.get("situation", "")},
    context=lambda request: {
        "situations": [
            (number, situation, with_code(situation.title))
            for number, situation in enumerate(SITUATIONS, 1)
        ],
        "unknown": False,
    },
    pages=tuple(
        path(f"pages/{view.__name__}/", view, name=f"predict-{view.__name__}")
        for view in predict_blog.VIEWS
    ),
)
