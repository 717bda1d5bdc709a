# Every Python image of mlstack: BASE (Debian with Python) -> python -> [shared] -> service -> [postgresql] -> app.
# "shared" holds the scientific stack once for all images that stand on it (PARENT=shared);
# "postgresql" adds a PostgreSQL server and its programs (RUNTIME=postgresql).
ARG BASE
ARG PARENT=shared
ARG RUNTIME=service

FROM ${BASE} AS python
RUN useradd --uid 10001 --no-create-home --home-dir /tmp mlstack
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1

# uv is mounted from its own stage, so it is in no image.
FROM python AS uv
RUN apt-get update && apt-get install --yes --no-install-recommends python3-venv
RUN --mount=type=bind,source=requirements/uv.txt,target=/requirements.txt \
    --mount=type=secret,id=ca,target=/ca.pem \
    if [ -s /ca.pem ]; then export PIP_CERT=/ca.pem; fi \
 && python3 -m venv /uv \
 && /uv/bin/pip install --no-cache-dir --require-hashes --requirement /requirements.txt \
 && ln -s /uv/bin/uv /uv/uv

FROM python AS shared
RUN --mount=from=uv,source=/uv,target=/uv \
    --mount=type=bind,source=requirements/shared.txt,target=/requirements.txt \
    --mount=type=cache,target=/var/cache/uv \
    --mount=type=secret,id=ca,target=/ca.pem \
    if [ -s /ca.pem ]; then export SSL_CERT_FILE=/ca.pem; fi \
 && export UV_CACHE_DIR=/var/cache/uv UV_LINK_MODE=copy \
 && /uv/bin/uv venv --quiet --python /usr/bin/python3 /opt/venv \
 && /uv/bin/uv pip install --python /opt/venv --compile-bytecode --require-hashes --requirement /requirements.txt

FROM ${PARENT} AS service
ARG REQUIREMENTS
COPY requirements/${REQUIREMENTS}.txt /opt/requirements.txt
RUN --mount=from=uv,source=/uv,target=/uv \
    --mount=type=cache,target=/var/cache/uv \
    --mount=type=secret,id=ca,target=/ca.pem \
    if [ -s /ca.pem ]; then export SSL_CERT_FILE=/ca.pem; fi \
 && export UV_CACHE_DIR=/var/cache/uv UV_LINK_MODE=copy \
 && { [ -d /opt/venv ] || /uv/bin/uv venv --quiet --python /usr/bin/python3 /opt/venv; } \
 && /uv/bin/uv pip install --python /opt/venv --compile-bytecode --require-hashes --requirement /opt/requirements.txt
USER 10001

FROM service AS postgresql
USER 0
# Debian would make a database at once.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends postgresql-common \
 && echo 'create_main_cluster = false' >>/etc/postgresql-common/createcluster.conf \
 && apt-get install --yes --no-install-recommends postgresql \
 && rm -rf /var/lib/apt/lists/*
# Debian keeps the server's programs off PATH, and puts a wrapper before the others.
RUN ln -s /usr/lib/postgresql/*/bin/* /usr/local/bin/
USER 10001

FROM ${RUNTIME} AS app
ARG SOURCES
WORKDIR /opt/mlstack
USER 0
# COPY would pour several folders into one.
RUN --mount=type=bind,target=/context \
    for source in ${SOURCES}; do cp --recursive "/context/$source" . || exit 1; done \
 && python3 -m compileall -q ${SOURCES}
USER 10001
