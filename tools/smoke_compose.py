"""
Start docker-compose.yml as a visitor would, and check from outside what it promises.

    python tools/smoke_compose.py

Has its own project name, ports and volumes, and removes them, so it disturbs nothing that
runs. Needs a Docker engine with Compose v2 and nothing else.
"""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parents[1]
PROJECT = f"smoke-{os.getpid()}"
STOP_LIMIT = 10  # Seconds from Ctrl-C to the prompt.
REPLICAS = 3


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


PORT, PROXY_PORT, EDGE_PORT = free_port(), free_port(), free_port()
ENVIRONMENT = os.environ | {
    "PORT": str(PORT),
    "PROXY_PORT": str(PROXY_PORT),
    "EDGE_PORT": str(EDGE_PORT),
    "COMPOSE_PROFILES": "",
    # Whoever runs this may have set them: empty, they are what compose says.
    **dict.fromkeys(("ALLOWED_HOSTS", "LAB", "HTTPS", "HSTS_SECONDS", "TRUST_PROXY"), ""),
    "DOCKER_CLI_HINTS": "false",
}
COMPOSE = ["docker", "compose", "-p", PROJECT]
SCALE = [*COMPOSE, "--profile", "scale"]
EDGE = [*COMPOSE, "--profile", "edge"]

passed = failed = 0


def say(text):
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def check(what, ok, detail=""):
    """Count and print one result."""
    global passed, failed
    passed, failed = (passed + 1, failed) if ok else (passed, failed + 1)
    say(f"  {'ok  ' if ok else 'FAIL'} {what}{f': {detail}' if detail or not ok else ''}")


def run(*command, timeout=60, must=True):
    """Return what the command wrote, both streams. Raises when it fails, unless not `must`."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
    )
    if must and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-3000:]}")
    return done.stdout.strip()


def timed(*command, timeout=60):
    """Return the seconds that the command took."""
    start = time.monotonic()
    run(*command, timeout=timeout)
    return time.monotonic() - start


def stops(what, *command):
    """Check that the command, which stops containers, ends in time."""
    seconds = timed(*command)
    check(f"{what} in less than {STOP_LIMIT} s", seconds < STOP_LIMIT, f"{seconds:.1f} s")


def request(path, port=PORT, method="GET", body=None, headers=None):
    """Return (status, headers, body), or (0, {}, reason) when nothing answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, {}, str(error)
    finally:
        connection.close()


def wait_for(path, seconds, port=PORT):
    """Return the seconds until `path` answered 200, or None when it did not."""
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        if request(path, port)[0] == 200:
            return time.monotonic() - start
        time.sleep(0.2)
    return None


def containers():
    """Return {service: what `docker inspect` says of one of its containers}, the running ones."""
    ids = run(*SCALE, "ps", "--quiet").split()
    found = json.loads(run("docker", "inspect", *ids)) if ids else []
    return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in found}


def look(*arguments):
    """Return what redis-cli says to a person who only looks."""
    return run(*COMPOSE, "exec", "-T", "redis", "look", *arguments, must=False)


def built_and_started():
    seconds = timed(*COMPOSE, "build", timeout=600)
    image = json.loads(run("docker", "image", "inspect", f"{PROJECT}-web"))[0]
    base = (ROOT / "Dockerfile").read_text().split("FROM ", 1)[1].split()[0]
    below = json.loads(run("docker", "image", "inspect", base, must=False) or "[]")
    added = f", {(image['Size'] - below[0]['Size']) / 1e6:.0f} MB above {base}" if below else ""
    check("the image builds", True, f"{seconds:.0f} s, {image['Size'] / 1e6:.0f} MB{added}")
    seconds = timed(*COMPOSE, "up", "-d", "--wait", timeout=180)
    status, _, body = request("/")
    check("one `up` and the first page is 200", status == 200, f"{status} after {seconds:.0f} s")
    if status != 200:
        raise RuntimeError(f"{body[-500:]}\n{run(*COMPOSE, 'logs', '--tail', '30', must=False)}")


def pages():
    home = request("/")[2]
    slug = next(iter(re.findall(r'href="/posts/([-\w]+)/"', home)), "set-get-del")
    post = f"/posts/{slug}/"
    for path, is_page in (("/", True), (post, True), ("/archive/", False), ("/search/?q=redis", 0)):
        statuses = [request(path)[0], request(path)[0]]
        age = request(path)[1].get("Age")
        kept = age is not None if is_page else age is None
        check(
            f"{path} twice, and {'an' if is_page else 'no'} Age header",
            statuses == [200, 200] and kept,
            f"{statuses} Age: {age}",
        )
    status, _, body = request("/healthz")
    health = json.loads(body) if status == 200 else {}
    check("/healthz is 200 and says that Redis is up", health.get("redis") == "up", body[:200])
    for level, number in (("low-level", 0), ("site", 1), ("view", 2), ("fragment", 3)):
        keys = look("-n", str(number), "--scan").split()
        own = [key for key in keys if key.startswith(f"{level}:")]
        check(f"database {number} has keys of {level} alone", own and own == keys, f"{len(own)}")
    return post


def watched_and_tried():
    """Open the wall, and run what of the lab talks to Redis in its own way."""
    request("/about/")  # What the experiment "keys" looks for.
    wall, events = request("/watch/"), request("/watch/events?after=0")
    seen = len(json.loads(events[2])["events"]) if events[0] == 200 else 0
    check("the wall has seen the pages above", wall[0] == 200 and seen > 5, f"{seen} events")
    slugs = re.findall(r'href="/lab/(\w+)/"', request("/lab/")[2])
    statuses = {slug: request(f"/lab/{slug}/")[0] for slug in slugs}
    check("nine experiments", len(slugs) == 9 and set(statuses.values()) == {200}, statuses)
    for slug, fields, wanted in (
        ("wire", {"command": "SET smoke test EX 9", "scratch": "0123456789ab"}, "+OK"),
        ("leak", {"page": "greeting"}, "Hello, Alice"),
        ("keys", {"url": f"http://127.0.0.1:{PORT}/about/"}, "A hit, for"),
        ("stampede", {"requests": 5, "part": "bursts"}, '"kind": "end"'),
        ("outage", {"visitors_each": 1}, '"kind": "end"'),
    ):
        status, answer = send(f"/lab/{slug}/", fields)
        check(f"the lab's {slug} has a result", status == 200 and wanted in answer, status)
    denied = dict(re.findall(r"acl_access_denied_(\w+):(\d+)", look("info", "stats")))
    check("the ACL refused nothing that was asked for", set(denied.values()) == {"0"}, denied)


def send(path, fields):
    """Send the form at `path`, with its cookie and its token. Return (status, body)."""
    _, headers, form = request(path)
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', form)
    fields = fields | {"csrfmiddlewaretoken": token and token[1]}
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Cookie": headers.get("Set-Cookie", "").split(";")[0],
    }
    status, _, body = request(path, method="POST", body=urlencode(fields), headers=headers)
    return status, body


def comment_on(post, text):
    status, _ = send(f"{post}comment/", {"author": "Smoke test", "body": text})
    check("the comment form takes a comment", status == 302, status)
    check("the comment is on the cached page at once", text in request(post)[2])


def locked_down():
    found = containers()
    check("web and redis run", set(found) == {"web", "redis"}, sorted(found))
    are_locked(found)
    check("redis publishes no port", not any(found["redis"]["NetworkSettings"]["Ports"].values()))
    ports = found["web"]["NetworkSettings"]["Ports"]["8000/tcp"]
    check("web is on 127.0.0.1 only", {port["HostIp"] for port in ports} == {"127.0.0.1"})
    networks = list(found["redis"]["NetworkSettings"]["Networks"])
    internal = json.loads(run("docker", "network", "inspect", *networks))
    check("redis is on an internal network alone", all(net["Internal"] for net in internal))

    image = run("docker", "image", "inspect", f"{PROJECT}-web")
    history = run("docker", "history", "--no-trunc", "--format", "{{.CreatedBy}}", f"{PROJECT}-web")
    shown = image + history + run("docker", "inspect", *(each["Id"] for each in found.values()))
    key = run(*COMPOSE, "exec", "-T", "web", "cat", "/secrets/secret_key")
    url = run(*COMPOSE, "exec", "-T", "web", "cat", "/secrets/redis_url")
    password = url.split(":")[2].split("@")[0]
    secret = len(key) >= 50 and len(password) >= 50 and key not in shown and password not in shown
    check("neither image, history nor `docker inspect` shows a secret", secret)
    environment = {line.split("=")[0] for line in json.loads(image)[0]["Config"]["Env"]}
    check("the image's environment has none", not environment & {"SECRET_KEY", "REDIS_URL"})


def are_locked(found):
    for service, each in sorted(found.items()):
        host = each["HostConfig"]
        user = run("docker", "exec", each["Id"], "id", "-u")
        written = run("docker", "exec", each["Id"], "touch", "/written", must=False)
        check(
            f"{service}: no root, read-only, no capability, no new privileges",
            user != "0"
            and host["ReadonlyRootfs"]
            and "Read-only" in written
            and host["CapDrop"] == ["ALL"]
            and any("no-new-privileges" in option for option in host["SecurityOpt"]),
            f"user {user}",
        )


def redis_refuses():
    url = run(*COMPOSE, "exec", "-T", "web", "cat", "/secrets/redis_url")
    password = url.split(":")[2].split("@")[0]
    as_blog = [*COMPOSE, "exec", "-T", "-e", f"REDISCLI_AUTH={password}", "redis"]
    as_blog += ["redis-cli", "--user", "blog"]
    answer = run(*as_blog, "ping", must=False)
    check("the blog's password opens Redis", answer == "PONG", answer)
    refused = {
        "FLUSHALL": ["FLUSHALL"],
        "CONFIG": ["CONFIG", "GET", "maxmemory"],
        "DEBUG": ["DEBUG", "JMAP"],
        "KEYS": ["KEYS", "*"],
        "ACL": ["ACL", "LIST"],
        "MODULE": ["MODULE", "LIST"],
        "MONITOR": ["MONITOR"],
        "REPLICAOF": ["REPLICAOF", "NO", "ONE"],
        "SHUTDOWN": ["SHUTDOWN"],
        "a foreign key": ["SET", "foreign", "1"],
        "a foreign channel": ["SUBSCRIBE", "foreign"],
    }
    allowed = [
        what
        for what, command in refused.items()
        if not re.match("NOPERM|ERR DEBUG command not allowed", run(*as_blog, *command, must=False))
    ]
    check("the blog's Redis user may not do harm", not allowed, f"{allowed or list(refused)}")
    refused = [look("DEL", "site:x"), look("FLUSHDB"), look("CONFIG", "GET", "*")]
    ok = all(answer.startswith("NOPERM") for answer in refused)
    check("who looks may not change anything", ok, refused)
    answer = run(*COMPOSE, "exec", "-T", "redis", "redis-cli", "ping", must=False)
    check("without the password Redis answers nothing", answer.startswith("NOAUTH"), answer)


def redis_away():
    run(*COMPOSE, "stop", "redis")
    slowest, statuses = 0, set()
    for path in ("/", "/archive/", "/search/?q=redis", "/about/"):
        start = time.monotonic()
        statuses.add(request(path)[0])
        slowest = max(slowest, time.monotonic() - start)
    check("without Redis, pages answer", statuses == {200}, f"{statuses}, {slowest:.1f} s at most")
    run(*COMPOSE, "start", "redis")


def tested_inside(tests):
    """Run these tests, or all, where files are read-only, hashed and another user's."""
    start = time.monotonic()
    output = run(
        *(*COMPOSE, "run", "--rm", "-T", "web", "python", "manage.py", "test", *tests),
        timeout=600,
        must=False,
    )
    ran = re.search(r"Ran (\d+) tests?", output)
    ok = ran and re.search(r"^OK\b", output, re.MULTILINE)
    seconds = time.monotonic() - start
    check("manage.py test inside compose", ok, f"{ran and ran[0]}, {seconds:.0f} s")
    if not ok:
        say("\n".join(re.findall(r"^(?:FAIL|ERROR): .{1,200}", output, re.MULTILINE)))
        say(output[-2000:])


def comes_back(post, text):
    stops("`stop` ends", *COMPOSE, "stop")
    run(*COMPOSE, "down")
    before = request("/")[0]
    with tempfile.TemporaryFile() as log:
        up = subprocess.Popen(
            [*COMPOSE, "up"],
            cwd=ROOT,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            seconds = wait_for("/", 120)
            check("a second `up` answers", before == 0 and seconds is not None, f"{seconds:.0f} s")
            check("the comment is still there", text in request(post)[2])
            start = time.monotonic()
            # To the command line alone, which passes it on to Compose. With no terminal, one to
            # both is two to Compose now and then, and the second one kills.
            up.send_signal(signal.SIGINT)
            code = up.wait(3 * STOP_LIMIT)
            seconds = time.monotonic() - start
        finally:
            if up.poll() is None:
                os.killpg(up.pid, signal.SIGKILL)
    ended = run(
        *("docker", "inspect", "--format", "{{.Name}}: {{.State.Status}} {{.State.ExitCode}}"),
        *run(*COMPOSE, "ps", "--all", "--quiet").split(),
    ).splitlines()
    clean = all(each.endswith("exited 0") for each in ended)
    detail = f"{seconds:.1f} s, exit {code}, {', '.join(ended)}"
    check(f"Ctrl-C ends it within {STOP_LIMIT} s, cleanly", seconds < STOP_LIMIT and clean, detail)


def scaled(post, text):
    run(*SCALE, "up", "-d", "--wait", timeout=180)
    seconds = wait_for("/healthz", 30, PROXY_PORT)
    check("the profile `scale` answers on one port", seconds is not None)
    ids = run(*SCALE, "ps", "--quiet", "replica").split()
    check(f"{REPLICAS} replicas run", len(ids) == REPLICAS, len(ids))
    answers = [request("/about/", PROXY_PORT) for _ in range(9)]
    by = {headers.get("X-Replica") for _, headers, _ in answers}
    check("more than one of them answers", len(by) == REPLICAS, f"{len(by)} of {REPLICAS}")
    rest = answers[1:]
    shared = {answer[0] for answer in answers} == {200} and all(h.get("Age") for _, h, _ in rest)
    check("each serves what one of them has cached", shared)
    check("they share the database", text in request(post, PROXY_PORT)[2])
    status = request("/", PROXY_PORT, headers={"X-Forwarded-Proto": "https"})[0]
    check("a visitor's X-Forwarded-Proto counts for nothing", status == 200, status)
    found = containers()
    are_locked({name: found[name] for name in ("replica", "nginx")})
    stops("all of it stops", *SCALE, "stop")


def cached_in_front():
    run(*EDGE, "up", "-d", "--wait", timeout=180)
    check("the profile `edge` answers", wait_for("/about/", 30, EDGE_PORT) is not None)
    states = [request("/feed/", EDGE_PORT)[1].get("X-Cache") for _ in range(2)]
    check("nginx stores a public page", states == ["MISS", "HIT"], states)
    states = [request("/archive/", EDGE_PORT)[1].get("X-Cache") for _ in range(2)]
    check("and no personal one", states == ["MISS", "MISS"], states)
    edge = run(*EDGE, "ps", "--quiet", "edge")
    are_locked({"edge": json.loads(run("docker", "inspect", edge))[0]})
    stops("all of it stops", *EDGE, "stop")


def main():
    text = f"This comment is number {time.time_ns()}."
    start = time.monotonic()
    # As Ctrl-C does: the `finally` below removes what was started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        say("Build and start")
        built_and_started()
        say("Pages")
        post = pages()
        comment_on(post, text)
        say("Wall and lab")
        watched_and_tried()
        say("Locked down")
        locked_down()
        redis_refuses()
        say("Redis away")
        redis_away()
        say("Tests")
        tested_inside(sys.argv[1:])
        say("Down and up")
        comes_back(post, text)
        say("Three replicas")
        scaled(post, text)
        say("A cache in front")
        cached_in_front()
    except Exception as error:
        check("the smoke test ran to its end", False, f"{type(error).__name__}: {error}")
    finally:
        every = [*SCALE, "--profile", "edge"]
        run(*every, "down", "-v", "--remove-orphans", timeout=120, must=False)
        run("docker", "rmi", f"{PROJECT}-web", must=False)
        left = run("docker", "ps", "-aq", "--filter", f"label=com.docker.compose.project={PROJECT}")
        left += run("docker", "volume", "ls", "-q", "--filter", f"name={PROJECT}")
        check("nothing is left behind", not left, left)
    say(f"{time.monotonic() - start:.0f} s\n{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
