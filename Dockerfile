# Debian, never Alpine: Faust's compiled wheels are made for glibc alone, and without its compiled streams it
# acknowledges events it has not processed.
FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/payment-service
# Dependencies first, from pyproject.toml alone: they change less often than the code.
COPY pyproject.toml ./
RUN /opt/payment-service/bin/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
    print("\n".join([*p["dependencies"], *(n for e in ("redis", "oci", "tracing") for n in p["optional-dependencies"][e])]))' \
    > requirements.txt \
    && /opt/payment-service/bin/pip install --no-cache-dir --only-binary faust-streaming -r requirements.txt
COPY . ./
RUN /opt/payment-service/bin/pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && /opt/payment-service/bin/pip install --no-cache-dir --no-deps /wheels/*.whl

FROM python:3.11-slim
RUN groupadd --gid 10001 payment && useradd --uid 10001 --gid payment --home-dir /data --shell /usr/sbin/nologin payment \
    && install --directory --owner payment --group payment --mode 0700 /data
COPY --from=build /opt/payment-service /opt/payment-service
ENV PATH=/opt/payment-service/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ENVIRONMENT=production \
    DATA_DIR=/data
# By its number: Kubernetes cannot see that a name is not root.
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 3005
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ.get('PORT', '3005')}/health\", timeout=2)"]
# SIGTERM drains for up to 30 s; give the container longer than that before it is killed.
STOPSIGNAL SIGTERM
ENTRYPOINT ["payment-service"]
CMD ["worker"]
