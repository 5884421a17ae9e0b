"""The small site in a real browser, under a policy that allows nothing inline."""

import importlib.util
import shutil
from http.client import HTTPConnection
from unittest import skipUnless

from watch.tests.settings import MIDDLEWARE
from watch.tests.walls import ONLY_SELF, Threads, WallTestCase

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]


@skipUnless(importlib.util.find_spec("playwright"), "playwright is not installed")
@skipUnless(BROWSER, "there is no Chromium")
class BrowserCase(WallTestCase):
    size = (1280, 900)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        from playwright.sync_api import sync_playwright

        playwright = sync_playwright().start()
        cls.addClassCleanup(playwright.stop)
        cls.browser = playwright.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        cls.addClassCleanup(cls.browser.close)

    def setUp(self):
        super().setUp()
        watch, *others = MIDDLEWARE
        conditional = "django.middleware.http.ConditionalGetMiddleware"
        self.change(MIDDLEWARE=[ONLY_SELF, watch, conditional, *others])
        self.server = self.start()
        width, height = self.size
        self.complaints = []
        self.page = self.visitor(viewport={"width": width, "height": height})

    def visitor(self, **options):
        """Return a page in a browser of its own, with an eye on what the policy forbids."""
        context = self.browser.new_context(base_url=self.server.url, **options)
        context.set_default_timeout(10_000)
        self.addCleanup(context.close)
        page = context.new_page()
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self.note)
        return page

    def start(self):
        """Return what serves the wall until the end of the test."""
        server = Threads()
        self.addCleanup(server.stop)
        return server

    def get(self, path, **headers):
        """Ask for a page, as another visitor does."""
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        connection.request("GET", path, headers=headers)
        connection.getresponse().read()
        connection.close()

    def note(self, message):
        if "Content Security Policy" in message.text or "Content-Security-Policy" in message.text:
            self.complaints.append(message.text)

    def tearDown(self):
        self.assertEqual(self.complaints, [])
        super().tearDown()
