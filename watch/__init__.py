"""
The instrument: sees every command that the caches send to Redis, and says who answered.

It is no part of the tutorial. Only settings and URLs name it, and it names no other app of
this project, so it can be copied into another one: see README.md.
"""
