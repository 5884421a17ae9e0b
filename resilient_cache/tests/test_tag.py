"""{% load resilient_cache %}{% cache %}: Django's syntax, guarded."""

from django.conf import settings
from django.core.cache import caches
from django.core.cache.utils import make_template_fragment_key
from django.http import HttpResponse
from django.template import Context, Template, TemplateSyntaxError
from django.test import override_settings, tag
from django.utils.safestring import SafeString

from resilient_cache.serializer import SafeSerializer
from resilient_cache.tests.base import CacheTestCase, silent
from resilient_cache.tests.server import RedisServer, caches_at


class TagTests(CacheTestCase):
    """The tag caches a fragment as Django's does."""

    def render(self, source, **context):
        return Template("{% load resilient_cache %}" + source).render(Context(context))

    def counting(self):
        calls = []
        return lambda: calls.append(1) or f"build {len(calls)}"

    def test_a_fragment_is_rendered_once(self):
        build = self.counting()

        texts = [self.render("{% cache 60 box %}{{ b }}{% endcache %}", b=build) for _ in "12"]

        self.assertEqual(texts, ["build 1", "build 1"])

    def test_each_value_that_it_varies_on_has_a_fragment(self):
        build = self.counting()

        texts = [
            self.render("{% cache 60 box a b %}{{ c }}{% endcache %}", a=a, b=b, c=build)
            for a, b in ((1, 2), (1, 3), (1, 2))
        ]

        self.assertEqual(texts, ["build 1", "build 2", "build 1"])

    def test_the_key_is_the_one_that_django_documents(self):
        self.render("{% cache 60 box user %}text{% endcache %}", user="ann")

        key = make_template_fragment_key("box", ["ann"])
        self.assertEqual(caches["template_fragments"].get(key), "text")
        self.assertRegex(key, r"^template\.cache\.box\.[0-9a-f]+$")

    def test_deleting_the_key_deletes_the_fragment(self):
        build = self.counting()
        source = "{% cache 60 box %}{{ b }}{% endcache %}"
        self.render(source, b=build)

        caches["template_fragments"].delete(make_template_fragment_key("box"))

        self.assertEqual(self.render(source, b=build), "build 2")

    def test_a_fragment_that_django_s_tag_stored_is_read(self):
        django = Template("{% load cache %}{% cache 60 box %}django's{% endcache %}")
        django.render(Context())

        self.assertEqual(self.render("{% cache 60 box %}ours{% endcache %}"), "django's")

    def test_the_timeout_is_the_ttl(self):
        self.render("{% cache 77 box %}text{% endcache %}")

        (key,) = self.keys("template_fragments")
        self.assertIn(self.redis("template_fragments").ttl(key), range(70, 78))

    def test_the_timeout_may_be_a_variable_a_text_or_none(self):
        for timeout, ttls in ((77, range(70, 78)), ("77", range(70, 78)), (None, [-1])):
            self.empty()
            with self.subTest(timeout):
                self.render("{% cache t box %}text{% endcache %}", t=timeout)
                (key,) = self.keys("template_fragments")
                self.assertIn(self.redis("template_fragments").ttl(key), ttls)

    def test_a_timeout_of_zero_stores_nothing(self):
        build = self.counting()

        texts = [self.render("{% cache 0 box %}{{ b }}{% endcache %}", b=build) for _ in "12"]

        self.assertEqual(texts, ["build 1", "build 2"])

    def test_using_names_another_alias(self):
        self.render('{% cache 60 box using="view" %}text{% endcache %}')

        self.assertEqual(caches["view"].get(make_template_fragment_key("box")), "text")

    def test_without_an_alias_for_fragments_the_default_one_is_used(self):
        some = {
            alias: cache
            for alias, cache in settings.CACHES.items()
            if alias != "template_fragments"
        }
        with override_settings(CACHES=some):
            self.render("{% cache 60 box %}text{% endcache %}")

            self.assertEqual(caches["default"].get(make_template_fragment_key("box")), "text")

    def test_mistakes_are_template_syntax_errors_as_in_django(self):
        for source in (
            "{% cache %}{% endcache %}",
            "{% cache 60 %}{% endcache %}",
            "{% cache 60 box %}",
            "{% cache abc box %}{% endcache %}",
            "{% cache t box %}{% endcache %}",
            '{% cache "1.5" box %}{% endcache %}',
            '{% cache 60 box using="nothing" %}{% endcache %}',
            "{% cache 60 box using=nothing %}{% endcache %}",
        ):
            messages = []
            for library in ("resilient_cache", "cache"):
                with self.assertRaises(TemplateSyntaxError) as caught:
                    Template(f"{{% load {library} %}}{source}").render(Context({"t": []}))
                messages.append(str(caught.exception))
            with self.subTest(source):
                self.assertEqual(*messages)

    def test_an_empty_fragment_is_cached(self):
        build = self.counting()
        source = "{% cache 60 box %}{% if b %}{% endif %}{% endcache %}"

        texts = [self.render(source, b=build) for _ in "12"]

        self.assertEqual(texts, ["", ""])
        self.assertEqual(build(), "build 2")

    def test_a_fragment_is_not_escaped_a_second_time(self):
        source = "{% cache 60 box %}<b>{{ text }}</b>{% endcache %}"

        texts = [self.render(source, text="<i>") for _ in "12"]

        self.assertEqual(texts, ["<b>&lt;i&gt;</b>"] * 2)
        key = make_template_fragment_key("box")
        self.assertIs(type(caches["template_fragments"].get(key)), SafeString)

    def test_a_value_that_is_not_a_text_is_a_miss(self):
        key = make_template_fragment_key("box")
        for value in (7, None, [1], {"a": 1}, 1.5, b"bytes", HttpResponse("page")):
            caches["template_fragments"].set(key, value)
            with self.subTest(type(value)):
                self.assertEqual(self.render("{% cache 60 box %}text{% endcache %}"), "text")
                self.assertEqual(caches["template_fragments"].get(key), "text")

    def test_a_number_too_long_to_be_written_is_a_miss(self):
        self.render("{% cache 60 box %}text{% endcache %}")
        (key,) = self.keys("template_fragments")
        # Python writes no number of more than 4,300 digits.
        self.redis("template_fragments").set(key, SafeSerializer({}).dumps(10**5000))

        self.assertEqual(self.render("{% cache 60 box %}text{% endcache %}"), "text")

    def test_an_error_while_rendering_leaves_no_lock(self):
        def fail():
            raise RuntimeError("a template that fails")

        with self.assertRaises(RuntimeError):
            self.render("{% cache 60 failing %}{{ b }}{% endcache %}", b=fail)

        lock = f"lock:{make_template_fragment_key('failing')}"
        self.assertIn(caches["template_fragments"].get(lock), (None, "abandoned"))

    def test_a_fragment_within_a_fragment_is_cached(self):
        build = self.counting()
        source = (
            "{% cache 60 outer %}[{% cache 60 inner %}{{ b }}{% endcache %}]{% endcache %}"
            "{% cache 60 inner %}{{ b }}{% endcache %}"
        )

        self.assertEqual(self.render(source, b=build), "[build 1]build 1")

    @tag("outage")
    def test_a_fragment_is_rendered_while_redis_is_down(self):
        server = RedisServer().start()
        self.addCleanup(server.close)
        build = self.counting()
        with override_settings(CACHES=caches_at(server.url, 0.25)), silent():
            server.kill()
            texts = [self.render("{% cache 60 box %}{{ b }}{% endcache %}", b=build) for _ in "12"]

        self.assertEqual(texts, ["build 1", "build 2"])
