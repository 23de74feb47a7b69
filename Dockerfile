# syntax=docker/dockerfile:1

FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY hs_stream hs_stream
COPY connectors connectors
COPY tools tools
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .
RUN python -m venv /opt/hs_stream \
    && /opt/hs_stream/bin/pip install --no-cache-dir --upgrade pip \
    && /opt/hs_stream/bin/pip install --no-cache-dir --constraint constraints.txt "$(echo /wheels/*.whl)[viewer]"

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
