"""
The two packages in a project that knows nothing of this one, as their READMEs say.

    python tools/adopt.py

Builds both wheels, makes a project with django-admin in an empty folder and an environment of its
own, and puts into it the code blocks of the sections "In your project", as they stand. Then it
asks a real gunicorn on a real Redis. Exits with status 1 if one of the promises is not held.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from resilient_cache.tests.server import RedisServer, free_port, wait_until

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("resilient_cache", "watch")
MOST_LINES = 25  # Of settings and code, for all of it.
BUILD = 0.3  # Seconds that the project's view takes.
BLOCK = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```", re.MULTILINE | re.DOTALL)

# The project before it has a cache: one model, one view.
MODELS = """
    from django.db import models

    class Post(models.Model):
        title = models.CharField(max_length=40)
"""
VIEWS = """
    import time

    from django.http import HttpResponse
    from django.shortcuts import get_object_or_404

    from posts.models import Post

    def post(request, pk):
        time.sleep({build})
        with open("builds.txt", "a") as log:
            log.write("built ")
        return HttpResponse(get_object_or_404(Post, pk=pk).title)

    def edit(request, pk):
        found = get_object_or_404(Post, pk=pk)
        found.title = request.GET["title"]
        found.save()
        return HttpResponse("edited")

    def about(request):
        return HttpResponse("about")
"""
URLS = """
    from django.urls import include, path

    from posts import views

    urlpatterns = [
        path("posts/<int:pk>/", views.post),
        path("posts/<int:pk>/edit/", views.edit),
        path("about/", views.about),
    ]
"""


class Project:
    """A project in a folder, with an environment that has the wheels."""

    def __init__(self, folder):
        self.folder = folder
        self.python = folder / "env/bin/python"
        self.lines = 0

    def run(self, *command, **options):
        """Run a command in the project. Raises CalledProcessError with its output."""
        return subprocess.run(
            [*map(str, command)],
            cwd=self.folder,
            check=True,
            capture_output=True,
            text=True,
            **options,
        )

    def make(self):
        wheels = self.folder / "wheels"
        for package in PACKAGES:
            # Of a copy: building leaves files in the folder.
            source = shutil.copytree(ROOT / package, self.folder / "source" / package)
            self.run(
                sys.executable,
                "-m",
                "pip",
                "wheel",
                "-q",
                "--no-deps",
                "-w",
                wheels,
                source,
            )
        self.run(sys.executable, "-m", "venv", self.folder / "env")
        self.run(self.python, "-m", "pip", "install", "-q", "gunicorn", *wheels.glob("*.whl"))
        self.run(self.python, "-m", "django", "startproject", "project", ".")
        self.run(self.python, "-m", "django", "startapp", "posts")
        self.write("posts/models.py", MODELS)
        self.write("posts/views.py", VIEWS.format(build=BUILD))
        self.write("project/urls.py", URLS)
        self.append("project/settings.py", 'import os\nINSTALLED_APPS += ["posts"]\n')

    def write(self, name, text):
        (self.folder / name).write_text(textwrap.dedent(text))

    def append(self, name, text):
        with (self.folder / name).open("a") as file:
            file.write(text)

    def adopt(self, package):
        """Put the code blocks of a README's section into the project's files."""
        readme = (ROOT / package / "README.md").read_text()
        section = readme.partition("\n## In your project\n")[2].partition("\n## ")[0]
        for name, code in BLOCK.findall(section):
            self.lines += len([line for line in code.splitlines() if line.strip(" .")])
            {"settings.py": self.settings, "urls.py": self.urls}.get(name, self.posts)(name, code)

    def settings(self, name, code):
        self.append("project/settings.py", f"\n{code}")

    def urls(self, name, code):
        self.append("project/urls.py", f"\n{code}")

    def posts(self, name, code):
        """Imports go to the top, decorators above the function, methods to the end."""
        path = self.folder / "posts" / name
        text = path.read_text()
        lines = code.splitlines()
        imports = [line for line in lines if line.startswith(("from ", "import "))]
        for decorator, function in zip(lines, lines[1:], strict=False):
            if decorator.startswith("@"):
                function = function.removesuffix(" ...")
                text = text.replace(function, f"{decorator}\n{function}")
        methods = [line for line in lines if line.startswith("    ") and line.strip() != "..."]
        path.write_text("\n".join([*imports, text, *methods, ""]))

    def check(self, **changes):
        """Return what `manage.py check` prints, with these lines added to the settings."""
        self.write("project/wrong.py", "from project.settings import *\n" + changes.pop("wrong"))
        done = subprocess.run(
            [str(self.python), "manage.py", "check", "--settings", "project.wrong"],
            cwd=self.folder,
            capture_output=True,
            text=True,
        )
        return done.stdout + done.stderr


class Answer:
    """A response to a GET, and the seconds that it took."""

    def __init__(self, port, path, **headers):
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        start = time.monotonic()
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        self.text = response.read().decode()
        self.seconds = time.monotonic() - start
        self.status, self.headers = response.status, response.headers
        connection.close()

    @property
    def is_hit(self):
        return "Age" in self.headers


def promises(project, server, port):
    """Yield (what, whether it is so) for each promise."""

    def get(path="/posts/1/", **headers):
        return Answer(port, path, **headers)

    first, second = get(), get()
    yield "the second GET is a hit", not first.is_hit and second.is_hit
    status, timing = second.headers["Cache-Status"], second.headers["Server-Timing"]
    yield f"Cache-Status says so: {status}", "hit" in (status or "")
    yield f"Server-Timing too: {timing}", "hit" in (timing or "")
    get("/about/")
    yield "the whole-site level answers a view without a decorator", get("/about/").is_hit

    get("/posts/1/edit/?title=second")
    again = get(**{"If-None-Match": second.headers.get("ETag", "")})
    yield "an edit is seen by the next GET of the same browser", again.text == "second"
    yield "browsers are told to ask", again.headers["Cache-Control"] == "no-cache"

    get("/posts/1/edit/?title=third")
    (project.folder / "builds.txt").write_text("")
    with ThreadPoolExecutor(50) as pool:
        texts = {answer.text for answer in pool.map(lambda _: get(), range(50))}
    builds = (project.folder / "builds.txt").read_text().count("built")
    yield f"50 at once build once: {builds}", builds == 1 and texts == {"third"}

    with server.client() as redis:
        for key in redis.scan_iter("*:page:*"):
            redis.set(key, b"\x80\x04 poison", keepttl=True)
    poisoned = get()
    yield "a poisoned value is a miss", poisoned.status == 200 and not poisoned.is_hit

    server.hang()
    hung, later = get(), get()
    yield (
        f"Redis hangs: 200 within 0.3 s over uncached: {hung.seconds:.2f} s",
        (hung.status == 200 and hung.seconds < BUILD + 0.3),
    )
    yield f"then without delay: {later.seconds:.2f} s", later.seconds < BUILD + 0.1
    server.wake()
    yield "hits again when Redis is back", wait_until(lambda: get().is_hit, 10)

    for wrong, named in (
        ('CACHES["other"] = dict(CACHES["default"])\n', "W001"),
        ("MIDDLEWARE.reverse()\n", "E004"),
        ('CACHES["default"]["LOCATION"] = "redis://localhost/?typo=1"\n', "E002"),
    ):
        yield (
            f"manage.py check names {named}",
            f"resilient_cache.{named}" in project.check(wrong=wrong),
        )


def main():
    with ExitStack() as stack:
        project = Project(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        project.make()
        for package in PACKAGES:
            project.adopt(package)
        server = RedisServer().start()
        stack.callback(server.close)
        environment = {**os.environ, "REDIS_URL": server.url, "PYTHONPATH": ""}
        environment.pop("DJANGO_SETTINGS_MODULE", None)
        manage = project.python, "manage.py"
        project.run(*manage, "makemigrations", "posts", env=environment)
        project.run(*manage, "migrate", "-v0", env=environment)
        code = "from posts.models import Post; Post(title='first').save()"
        project.run(*manage, "shell", "-v0", "-c", code, env=environment)
        port = free_port()
        gunicorn = subprocess.Popen(
            [
                *(str(project.python), "-m", "gunicorn", "--threads", "100"),
                *("--bind", f"127.0.0.1:{port}", "project.wsgi"),
            ],
            cwd=project.folder,
            env=environment,
            stderr=(project.folder / "gunicorn.log").open("w"),
        )
        stack.callback(gunicorn.wait)
        stack.callback(gunicorn.terminate)
        if not wait_until(lambda: answers(port), 20):
            sys.exit((project.folder / "gunicorn.log").read_text())
        results = [(f"{project.lines} lines of settings and code", project.lines <= MOST_LINES)]
        results += promises(project, server, port)
    for what, is_so in results:
        print("ok    " if is_so else "FAILED", what[:150])
    failed = [what for what, is_so in results if not is_so]
    print(f"{len(results) - len(failed)} passed, {len(failed)} failed")
    sys.exit(1 if failed else 0)


def answers(port):
    """Return whether gunicorn listens."""
    try:
        return Answer(port, "/posts/2/").status
    except OSError:
        return False


if __name__ == "__main__":
    main()
