# The service as one plain Uvicorn process, to try it and to develop it: docker build .
# Up to its last lines this is Dockerfile.production, the image for operators; the two share their
# layers, and scripts/build makes, labels and tags both.

FROM python:3.11-slim AS python


# What the service needs, in the order in which it changes: PyTorch, then the lock. PyTorch is
# pinned by version and build alone: each platform has another file. The lock is complete for the
# CPU build, so pip resolves nothing; for another build pip adds the CUDA libraries that it pins.
FROM python AS packages
ARG TORCH=2.13.0+cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_DEFAULT_TIMEOUT=180 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_COMPILE=1 \
    PIP_PYTHON=/opt/venv/bin/python
RUN python -m venv --without-pip /opt/venv
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-deps "torch===${TORCH}" \
    || pip install --no-deps "torch===${TORCH}" --index-url "${TORCH_INDEX}"
# LOCK=runtime leaves out the extras: compiled kernels (fast), /mcp, traces, /docs and /playground.
ARG LOCK=complete
COPY requirements/${LOCK}.txt /requirements/locked.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-deps --require-hashes --requirement /requirements/locked.txt \
    && case "${TORCH}" in *+cpu) ;; *) pip install "torch===${TORCH}" ;; esac \
    && pip check
# Tests and headers are a fifth of it. The rest is compiled here, because the service has no
# writable folder; by content, so that no timestamp of a layer makes it stale.
WORKDIR /opt/venv/lib/python3.11/site-packages
RUN rm -rf torch/include torch/test torch/share torch/bin/protoc* torch/bin/*test* \
    && find . -depth -type d \( -name tests -o -name __pycache__ \) -exec rm -rf {} + \
    && python -m compileall -q -j 0 --invalidation-mode unchecked-hash -x torch/testing/_internal .


# The package as a wheel, away from what it needs: a change of it leaves those layers alone.
FROM python AS application
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1 PIP_ROOT_USER_ACTION=ignore
COPY requirements/build.txt /requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-deps --require-hashes --requirement /requirements/build.txt
COPY pyproject.toml README.md LICENSE /source/
COPY kronos_api /source/kronos_api
RUN python -m venv --without-pip /opt/venv \
    && pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels /source \
    && pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --no-index \
        --no-warn-script-location --root /application /wheels/*.whl \
    && python -m compileall -q --invalidation-mode unchecked-hash /application


FROM python AS service
# pkill, pgrep and ps, for operators. Debian keeps one version of it, so there is none to pin.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends procps \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
# The standard library is not compiled in the base image; every worker would compile it again.
RUN groupadd --gid 10001 kronos \
    && useradd --uid 10001 --gid kronos --no-log-init --no-create-home --home-dir /app \
        --shell /usr/sbin/nologin kronos \
    && mkdir /app /models \
    && pip uninstall --yes --root-user-action ignore wheel setuptools pip \
    && python -m compileall -q --invalidation-mode unchecked-hash -x /tests?/ /usr/local/lib
COPY --from=packages /opt/venv /opt/venv
COPY --from=application /application/opt/venv /opt/venv
# Weights that are fetched by name go to HF_HOME; a volume there keeps them. Compiled kernels go to
# NUMBA_CACHE_DIR, for the next worker. Huge pages make a decode step faster by up to a fifth, because
# it reads all weights. NumPy computes nothing
# large here, but would start a thread for each core of the host.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/tmp/huggingface \
    NUMBA_CACHE_DIR=/tmp/numba \
    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 \
    OPENBLAS_NUM_THREADS=1
WORKDIR /app
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=180s --start-interval=2s --retries=3 \
    CMD ["python", "-I", "-S", "-c", "import os, sys; from http.client import HTTPConnection; service = HTTPConnection('127.0.0.1', int(os.environ.get('KRONOS_PORT') or 8000), timeout=4); service.request('GET', '/v1/readyz'); sys.exit(service.getresponse().status != 200)"]

# Here the two files part.
ENV KRONOS_LIMIT_CONCURRENCY=100 \
    KRONOS_LIMIT_MAX_REQUESTS=50000 \
    KRONOS_LIMIT_MAX_REQUESTS_JITTER=5000
CMD ["kronos-api", "serve", "--plain"]

# VERSION is that of pyproject.toml; scripts/build and compose give the others.
ARG VERSION=0.1.0
ARG GIT_COMMIT=unknown
ARG BUILD_DATE=unknown
ENV KRONOS_BUILD_COMMIT=${GIT_COMMIT}
LABEL org.opencontainers.image.title="Kronos API" \
      org.opencontainers.image.description="A forecast service for candlestick series" \
      org.opencontainers.image.vendor="The Kronos API authors" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${GIT_COMMIT}" \
      org.opencontainers.image.created="${BUILD_DATE}"
