# The sample shop. Targets: `service` (the default: workers, the HTTP edge, the command line) and
# `ministack` (the light emulator). Neither needs to write anywhere but /tmp.
#
#   docker build --build-arg SERVICE=services/inventory .    one service, and nothing of others
#   docker build .                                           all of them
ARG PYTHON=3.13

FROM python:${PYTHON}-slim-bookworm AS base
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
ARG SERVICE=services
COPY --from=build-service /venv /venv
COPY schemas schemas
COPY services/__init__.py services/
COPY ${SERVICE} ${SERVICE}
# Where nothing can be written, bytecode that is not there is made anew at each start.
RUN python -m compileall -q schemas services
ENV PYTHONPATH=/app \
    HEADRACE_HEALTH=8080
# Fargate gives a volume here the owner and the mode that this folder has: everybody may write.
VOLUME ["/tmp"]
USER 10001:10001
EXPOSE 8000
# Of a worker, which HEADRACE_HEALTH has serve it. Whoever runs something else asks something else.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/healthz', timeout=3)"]
ENTRYPOINT ["headrace"]
CMD ["--help"]
