#!/usr/bin/env python
"""Django's command-line utility. `python manage.py up` runs the blog."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, execute_from_command_line
from django.db import DatabaseError


def main():
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
    try:
        if sys.argv[1:2] == ["up"]:
            # `up` serves as in production. The settings have to find these variables.
            from mysite.management.commands.up import set_environment

            set_environment()
        if sys.argv[1:2] == ["test"]:
            # Tests have the defaults, whatever this shell or container has set.
            from mysite.processes import forget_variables

            forget_variables()
        if sys.argv[1:2] == ["runserver"] and not any("--settings" in each for each in sys.argv):
            # Its reloader would print a traceback, and wait.
            from django.conf import settings

            from resilient_cache.location import database_url

            database_url(settings.REDIS_URL)
        execute_from_command_line(sys.argv)
    except (CommandError, ImproperlyConfigured) as error:
        # One line says what to correct. A traceback would be 30.
        sys.exit(f"manage.py: {error}")
    except DatabaseError as error:
        hint = "Does DATABASE_PATH name the right file, and did you run `manage.py migrate`?"
        sys.exit(f"manage.py: {error}. {hint}")
    except KeyboardInterrupt:
        sys.exit(130)  # 128 + SIGINT, as in shells.


if __name__ == "__main__":
    main()
