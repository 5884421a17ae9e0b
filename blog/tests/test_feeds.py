"""The Atom feed and the sitemap."""

from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

from blog.tests import CacheTestCase

ATOM = "{http://www.w3.org/2005/Atom}"
PAGES = {"/", "/start/", "/posts/", "/cheatsheet/", "/archive/", "/about/"}
SITEMAP = "{http://www.sitemaps.org/schemas/sitemap/0.9}"


class FeedTests(CacheTestCase):
    """/feed/, for readers who subscribe."""

    def feed(self):
        response = self.client.get("/feed/")
        self.assertEqual(response.status_code, 200)
        return ElementTree.fromstring(response.content)  # noqa: S314 - it is our own.

    def titles(self):
        return [entry.findtext(f"{ATOM}title") for entry in self.feed().iter(f"{ATOM}entry")]

    def test_it_is_atom(self):
        self.assertEqual(self.feed().tag, f"{ATOM}feed")
        self.assertTrue(
            self.client.get("/feed/")["Content-Type"].startswith("application/atom+xml")
        )

    def test_pages_tell_browsers_where_it_is(self):
        self.assertContains(self.client.get("/"), "/feed/")

    def test_the_newest_post_comes_first(self):
        self.make_post("older", published_at=datetime(2026, 1, 1, tzinfo=UTC))
        self.make_post("newer", published_at=datetime(2026, 2, 1, tzinfo=UTC))

        self.assertEqual(self.titles(), ["About newer", "About older"])

    def test_it_has_the_10_latest_posts(self):
        start = datetime(2026, 1, 1, tzinfo=UTC)
        for number in range(12):
            self.make_post(f"n-{number}", published_at=start + timedelta(days=number))

        self.assertEqual(self.titles(), [f"About n-{number}" for number in range(11, 1, -1)])

    def test_drafts_are_not_in_it(self):
        self.make_post("draft", published_at=None)

        self.assertEqual(self.titles(), [])

    def test_an_entry_is_the_whole_post_with_link_dates_and_tags(self):
        post = self.make_post("keys", tags=["redis", "django"])

        (entry,) = self.feed().iter(f"{ATOM}entry")

        self.assertEqual(entry.find(f"{ATOM}link").get("href"), "http://testserver/posts/keys/")
        self.assertIn("<h2>Why</h2>", entry.findtext(f"{ATOM}summary"))
        self.assertEqual(entry.findtext(f"{ATOM}published"), "2026-03-01T00:00:00+00:00")
        updated = datetime.fromisoformat(entry.findtext(f"{ATOM}updated"))
        self.assertEqual(updated, post.updated_at.replace(microsecond=updated.microsecond))
        tags = {category.get("term") for category in entry.iter(f"{ATOM}category")}
        self.assertEqual(tags, {"redis", "django"})

    def test_its_links_work(self):
        self.make_post("keys")

        for link in self.feed().iter(f"{ATOM}link"):
            with self.subTest(link.get("href")):
                self.assertEqual(self.client.get(link.get("href")).status_code, 200)

    def test_an_empty_blog_has_an_empty_feed(self):
        self.assertEqual(self.titles(), [])

    def test_markup_in_a_title_is_escaped(self):
        self.make_post("keys", title="<b>Keys</b> & values")

        self.assertEqual(self.titles(), ["<b>Keys</b> & values"])

    def test_a_control_character_in_a_post_does_not_break_it(self):
        # A form feed, as it comes along when text is copied out of a PDF. XML can't have it.
        self.make_post("keys", title="Keys\x0c", summary="S\x0b", body="A page.\x0cThe next.\x01")

        self.assertEqual(self.client.get("/feed/").status_code, 200)
        self.assertEqual(len(self.titles()), 1)

    def test_a_character_that_xml_cannot_express_does_not_break_it(self):
        for character in "\ufffe\uffff":
            with self.subTest(character):
                self.empty_caches()
                self.make_post(f"n-{ord(character)}", title=f"A{character}B", body=f"x{character}")

                self.assertIn("AB", self.titles())

    def test_it_has_an_author(self):
        # RFC 4287, section 4.1.1: a feed or each of its entries must have one.
        self.assertTrue(self.feed().findtext(f"{ATOM}author/{ATOM}name"))

    def test_it_runs_the_same_number_of_queries_for_any_number_of_posts(self):
        self.make_post("keys", tags=["redis", "django"])
        with self.assertNumQueries(2):
            self.client.get("/feed/")
        for number in range(5):
            self.make_post(f"n-{number}")
        self.empty_caches()

        with self.assertNumQueries(2):
            self.client.get("/feed/")


class SitemapTests(CacheTestCase):
    """/sitemap.xml, for search engines."""

    def locations(self):
        response = self.client.get("/sitemap.xml")
        self.assertEqual(response.status_code, 200)
        root = ElementTree.fromstring(response.content)  # noqa: S314 - it is our own.
        return {
            url.findtext(f"{SITEMAP}loc").removeprefix("http://testserver"): url
            for url in root.iter(f"{SITEMAP}url")
        }

    def test_it_has_posts_tags_and_pages(self):
        self.make_post("keys", tags=["redis"])

        self.assertEqual(set(self.locations()), {*PAGES, "/posts/keys/", "/tags/redis/"})

    def test_drafts_and_their_tags_are_not_in_it(self):
        self.make_post("draft", tags=["secret"], published_at=None)

        self.assertEqual(set(self.locations()), PAGES)

    def test_a_post_says_when_it_changed(self):
        post = self.make_post("keys")

        lastmod = self.locations()["/posts/keys/"].findtext(f"{SITEMAP}lastmod")

        self.assertEqual(lastmod, post.updated_at.date().isoformat())

    def test_its_links_work(self):
        self.make_post("keys")

        for location in self.locations():
            with self.subTest(location):
                self.assertEqual(self.client.get(location).status_code, 200)

    def test_a_part_or_page_that_is_not_there_is_404_or_the_whole(self):
        for query in ("p=2", "p=0", "p=abc", "section=x"):
            with self.subTest(query):
                self.assertIn(self.client.get(f"/sitemap.xml?{query}").status_code, (200, 404))
