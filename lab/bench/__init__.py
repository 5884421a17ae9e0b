"""
What `manage.py bench` measures, a module a part, and what it measures with.

    levels        the four levels against no cache, plain cache_page and a bare view
    parsers       hiredis against the Python parser
    backends      Django's cache backends side by side
    serializers   serializers and compressors
    growth        more keys, more clients, more workers

Figures of one run are comparable with each other and with nothing else: what is compared
takes turns in short rounds, so that whatever else the machine does hits all alike, and the
median of the rounds counts.
"""

PARTS = ("levels", "parsers", "backends", "serializers", "growth")
