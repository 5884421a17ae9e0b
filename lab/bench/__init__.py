"""
What `manage.py bench` measures, one module per part, and what it measures with.

    levels        the four levels against no cache, a plain project and a bare view
    parsers       hiredis against the Python parser
    backends      Django's cache backends side by side
    serializers   serializers and compressors
    growth        more keys in Redis

Figures of one run can be compared with each other, and not with those of another machine. What
is compared takes turns in short rounds, so that whatever else the machine does hits all alike.
The least of the rounds counts.
"""

PARTS = ("levels", "parsers", "backends", "serializers", "growth")
