# StiQueue in a container:
#
#     docker build -t stiqueue .
#     docker run -p 1234:1234 -v stiqueue:/data stiqueue
#
# Each option of the server can be given as STIQUEUE_<NAME> in the environment.

FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY stiqueue stiqueue
RUN pip wheel --no-cache-dir --wheel-dir /wheels '.[fast,metrics,nats]'

FROM python:3.12-slim
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index /wheels/*.whl

# A number rather than a name: Kubernetes can tell that it is not root, and no such user need exist.
RUN mkdir /data && chown 10001:10001 /data
USER 10001:10001
WORKDIR /data
VOLUME /data

ENV PYTHONUNBUFFERED=1
EXPOSE 1234
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["python", "-m", "stiqueue.health"]
CMD ["python", "-m", "stiqueue.sqserver", "--host", "0.0.0.0"]
