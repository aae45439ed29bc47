# The image of Credenza: the service and what it needs, on python:3.11-slim. The embedded PostgreSQL
# is not in it: it needs DATABASE_URL.
#
# A pinned base: --build-arg PYTHON_IMAGE=python:3.11-slim@sha256:… (CI looks the digest up and does).
ARG PYTHON_IMAGE=python:3.11-slim

# --- What uv.lock says: a stage and a layer of its own, which only a change of uv.lock makes anew.
FROM ${PYTHON_IMAGE} AS dependencies
ARG UV_VERSION=0.13.9
ENV UV_PROJECT_ENVIRONMENT=/opt/credenza \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PYTHON_DOWNLOADS=never
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends binutils \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/uv \
    && /opt/uv/bin/pip install --no-cache-dir --disable-pip-version-check "uv==${UV_VERSION}"
WORKDIR /src
COPY pyproject.toml uv.lock ./
# Half of what wheels bring as compiled code is symbols for debuggers. Bytecode is made here because
# the file system will be read-only; not of what never runs.
RUN /opt/uv/bin/uv sync --frozen --no-dev --no-install-project --extra tracing \
    && find /opt/credenza -name '*.so*' -type f -exec strip --strip-unneeded {} + \
    && /opt/credenza/bin/python -m compileall -q -j 0 \
       -x '/(pygments|rich_rst|testing|tests|dialects/(mssql|mysql|oracle|sqlite)|commands/(bf|json|search|timeseries|vectorset))/' /opt/credenza/lib

FROM dependencies AS service
COPY README.md LICENSE ./
COPY src ./src
RUN UV_COMPILE_BYTECODE=1 /opt/uv/bin/uv pip install --quiet --no-deps \
    --python /opt/credenza/bin/python --target /opt/service .

# --- What runs.
FROM ${PYTHON_IMAGE}
COPY --from=dependencies /opt/credenza /opt/credenza
COPY --from=service /opt/service /opt/service
ENV PATH=/opt/credenza/bin:/opt/service/bin:$PATH \
    PYTHONPATH=/opt/service \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    PORT=8000
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Credenza" \
      org.opencontainers.image.description="The JSON data API you can run in production on day one." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Numeric: the kubelet cannot tell that a name is not root.
USER 10001:10001
EXPOSE 8000
# SIGTERM begins the drain (DRAIN_SECONDS); give it 45 s before SIGKILL.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python3", "-c", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=4); c.request('GET', '/health/ready'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["credenza"]
CMD ["serve"]
