"""A row for the experiments to change."""

from django.db import models


class Price(models.Model):
    """The price that lab/stale.py caches. Each run makes one of its own, and deletes it."""

    amount = models.PositiveIntegerField()

    def __str__(self):
        return str(self.amount)
