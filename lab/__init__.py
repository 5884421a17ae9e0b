"""
The experiments under /lab/: one per module, each a page with a button and a live result.

Not part of the blog. They make the cache go wrong on purpose, so copy from blog/ and
resilient_cache/ instead. They are there while LAB=1. Only mysite/settings.py and mysite/urls.py
name this app.
"""
