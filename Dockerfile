FROM python:3.14-slim

# No process writes bytecode, because the file system is read-only. pip compiles its packages,
# and a layer below compiles the rest.
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

RUN groupadd --system --gid 10001 blog \
    && useradd --system --uid 10001 --gid blog --no-create-home --home-dir /nonexistent blog \
    # An empty volume gets the owner of the folder that it is mounted on.
    && install --directory --owner blog --group blog --mode 700 /data /secrets \
    && install --directory --owner blog --group blog --mode 755 /redis-secrets

WORKDIR /app

# First, so that a change to the blog does not install everything again.
COPY requirements.txt ./
# The sources of Django's translations (9 MB) are never read.
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
        -r requirements.txt \
    && cd "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    && find django -name '*.po' -delete

COPY . .

# What a server needs. docker-compose.yml adds the secrets.
ENV BIND=0.0.0.0 \
    DEBUG=0 \
    DATABASE_PATH=/data/db.sqlite3

# The settings need a secret key, also for collectstatic: it gets a random one for this step.
# chmod, because in a clone made under umask 077 only root can read the files.
RUN SECRET_KEY_FILE=/proc/sys/kernel/random/uuid python manage.py collectstatic --no-input -v 0 \
    && python -m compileall -q . \
    && chmod -R u=rwX,go=rX .

USER blog

EXPOSE 8000

# Ready, not just alive: who waits for this container wants pages.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ.get(\"PORT\", 8000)}/readyz', timeout=2)"]

# Without a shell, so that gunicorn itself gets SIGTERM and lets requests end.
CMD ["gunicorn"]
