"""
The instrument: sees every command that the caches send to Redis, and says who answered.

It is a package of its own: it imports nothing of this project. See README.md.
"""
