# syntax=docker/dockerfile:1
# Debian's and PyPI's newest fixes are wanted here, so versions are ranges (pyproject.toml).
# hadolint global ignore=DL3008,DL3013
#
# docker build --target cpu  -t gdkvm-live:cpu .      serves on a CPU, without torch
# docker build --target cuda -t gdkvm-live:cuda .     needs the NVIDIA container toolkit to run
ARG DEBIAN=debian:bookworm-slim

FROM ${DEBIAN} AS python
ENV LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    PATH=/opt/gdkvm/bin:$PATH
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/*

FROM python AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/gdkvm
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY model model
COPY server server
COPY weights weights
COPY clients clients

FROM build AS build-cpu
RUN pip install --no-cache-dir '.[redis,tracing]' ./clients/python \
    && pip uninstall --yes setuptools pip

FROM build AS build-cuda
RUN pip install --no-cache-dir '.[gpu,redis,tracing]' ./clients/python

FROM python AS runtime
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/gdkvm gdkvm
WORKDIR /var/lib/gdkvm
USER 10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python3", "-c", "import os, ssl, urllib.request as web; tls = os.environ.get('GDKVM_TLS_CERT_FILE'); web.urlopen(('https' if tls else 'http') + '://127.0.0.1:' + os.environ.get('GDKVM_PORT', '8000') + '/livez', timeout=2, context=ssl._create_unverified_context() if tls else None)"]
# The server binds to loopback unless GDKVM_HOST says otherwise: run with --network host to reach it.
ENTRYPOINT ["gdkvm"]
CMD ["serve"]

FROM runtime AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-cuda /opt/gdkvm /opt/gdkvm

FROM runtime AS cpu
COPY --from=build-cpu /opt/gdkvm /opt/gdkvm
