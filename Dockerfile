# The sample shop. Targets: `service` (the default: workers, the HTTP edge, the command line) and
# `ministack` (the light emulator). Neither needs to write anywhere but /tmp.
ARG PYTHON=3.13-slim-bookworm

FROM python:${PYTHON} AS base
ENV PYTHONUNBUFFERED=1 \
    PATH=/venv/bin:$PATH
WORKDIR /app
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin headrace

FROM base AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_NO_INPUT=1 \
    PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /venv

FROM build AS build-service
COPY infra/requirements/worker.txt infra/requirements/build.txt ./
RUN pip --python /venv/bin/python install --require-hashes -r worker.txt \
    && pip install --require-hashes -r build.txt
COPY pyproject.toml README.md LICENSE ./
COPY framework framework
RUN pip wheel --no-deps --no-build-isolation --no-index --wheel-dir dist . \
    && pip --python /venv/bin/python install --no-deps --no-index dist/*.whl

FROM build AS build-ministack
COPY infra/requirements/demo.txt infra/requirements/build.txt ./
RUN pip --python /venv/bin/python install --require-hashes -r build.txt \
    && pip --python /venv/bin/python install --require-hashes --no-build-isolation -r demo.txt

FROM base AS ministack
COPY --from=build-ministack /venv /venv
ENV BIND_HOST=0.0.0.0 \
    GATEWAY_PORT=4566 \
    LOG_LEVEL=WARNING \
    MINISTACK_ACCOUNT_ID=000000000000
USER 10001:10001
EXPOSE 4566
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=5 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:4566/_localstack/health', timeout=2)"]
ENTRYPOINT ["python", "-m", "ministack"]

FROM base AS service
COPY --from=build-service /venv /venv
COPY schemas schemas
COPY services services
ENV PYTHONPATH=/app
USER 10001:10001
EXPOSE 8000
# A worker that polls its queues holds an open connection; one that holds none has lost AWS.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["grep", "-qs", " 01 ", "/proc/net/tcp", "/proc/net/tcp6"]
ENTRYPOINT ["headrace"]
CMD ["--help"]
