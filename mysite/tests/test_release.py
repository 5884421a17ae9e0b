"""A new release with other static files, on the Redis of the old one."""

import re
import shutil
from contextlib import closing

from django.test import SimpleTestCase, tag

from mysite.private_redis import PrivateRedis
from mysite.tests.served import Gunicorn, Home

HOST = "127.0.0.1:8000"  # Of both releases: visitors see one blog.
PATHS = ("/", "/about/", "/posts/stampede/", "/archive/", "/search/?q=redis", "/tags/redis/")


class NewRelease:
    """A Home's blog with other static files."""

    def __init__(self, home, static):
        self.home, self.path, self.static = home, home.path, static

    def environment(self, **variables):
        return self.home.environment(**variables) | {"STATIC_ROOT": str(self.static)}


@tag("slow")
class NewReleaseTests(SimpleTestCase):
    """Pages name static files by the hash in their names, so each release needs its own pages."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        home = cls.enterClassContext(Home())
        redis = cls.enterClassContext(PrivateRedis())
        new = home.path / "new-static"
        shutil.copytree(home.path / "static", new)
        # What collectstatic does when the stylesheet has changed.
        manifest = new / "staticfiles.json"
        old_name = re.search(r'"css/site\.css": "(css/site\.\w+\.css)"', manifest.read_text())[1]
        new_name = "css/site.0123456789ab.css"
        manifest.write_text(manifest.read_text().replace(old_name, new_name))
        (new / old_name).rename(new / new_name)
        servers = [Gunicorn(home, redis.url), Gunicorn(NewRelease(home, new), redis.url)]
        cls.old, cls.new = map(cls.enterClassContext, servers)

    def missing(self, server):
        """Return the static files that the server's pages name and the server does not have."""
        with closing(server.browser(Host=HOST)) as browser:
            pages = [browser.get(path) for path in PATHS]
            self.assertEqual([page.status for page in pages], [200] * len(PATHS))
            names = {name for page in pages for name in re.findall(r'"(/static/[^"]+)"', page.text)}
            self.assertTrue(names)
            return [name for name in sorted(names) if browser.get(name).status != 200]

    def test_each_release_has_the_files_that_its_pages_name(self):
        for server in (self.old, self.new, self.old):
            with self.subTest(server.port):
                self.assertEqual(self.missing(server), [])

    def test_each_release_has_hits(self):
        for server in (self.old, self.new):
            with self.subTest(server.port), closing(server.browser(Host=HOST)) as browser:
                browser.get("/about/")

                self.assertTrue(browser.get("/about/").is_hit)

    def test_an_edit_in_one_release_is_seen_in_the_other(self):
        with (
            closing(self.old.browser(Host=HOST)) as old,
            closing(self.new.browser(Host=HOST)) as new,
        ):
            old.get("/posts/stampede/")
            new.comment("stampede", "Ada", "Seen in both releases.")

            self.assertIn("Seen in both releases.", old.get("/posts/stampede/").text)
