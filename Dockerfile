# syntax=docker/dockerfile:1
# The tag of the base image moves; compose.yaml says how to pin it by its digest.

FROM python:3.11-slim AS build
WORKDIR /src
# Every file that pip takes here must have one of the hashes in these two lists.
COPY requirements.lock requirements-build.lock ./
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements-build.lock
RUN python -m venv /opt/hs_stream \
    && /opt/hs_stream/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY hs_stream hs_stream
COPY connectors connectors
COPY tools tools
RUN /opt/build/bin/pip wheel --no-cache-dir --no-index --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/hs_stream/bin/pip install --no-cache-dir --no-index --no-deps /wheels/*.whl \
    && /opt/hs_stream/bin/pip check

FROM python:3.11-slim
RUN useradd --uid 10001 --no-create-home --home-dir /app --shell /usr/sbin/nologin hs_stream \
    && install --directory --owner hs_stream --group hs_stream /app /app/var
COPY --from=build /opt/hs_stream /opt/hs_stream
COPY config /app/config
ENV PATH=/opt/hs_stream/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /app
USER hs_stream
VOLUME ["/app/var"]
EXPOSE 8080
# SIGTERM: the service finishes its step, commits, acknowledges, and ends within 10 seconds.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
ENTRYPOINT ["hs-stream"]
CMD ["serve", "--config", "config/hs-stream.toml"]
