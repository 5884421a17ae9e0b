#!/usr/bin/env python
"""Django's command-line utility. `python manage.py up` runs the blog."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db import DatabaseError


def main():
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
    try:
        if sys.argv[1:2] == ["up"]:
            # `up` serves as a server would. Settings must find that when they are read.
            from mysite.management.commands.up import set_environment

            set_environment()
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        # What the person at the keyboard has to correct, without 30 lines of traceback.
        sys.exit(f"manage.py: {error}")
    except DatabaseError as error:
        hint = "Does DATABASE_PATH name the right file, and did you run `manage.py migrate`?"
        sys.exit(f"manage.py: {error}. {hint}")
    except KeyboardInterrupt:
        sys.exit(130)  # 128 + SIGINT, as shells have it.


if __name__ == "__main__":
    main()
