# StiQueue in a container:
#
#     docker build -t stiqueue .
#     docker run -p 1234:1234 -v stiqueue:/data stiqueue
#
# You can set each option of the server as STIQUEUE_<NAME> in the environment.

FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY stiqueue stiqueue
RUN pip wheel --no-cache-dir --wheel-dir /wheels '.[cron,fast,metrics,nats,web]' && \
    python -m venv --without-pip /opt/stiqueue && \
    pip --python /opt/stiqueue/bin/python install --no-cache-dir --no-index /wheels/*.whl

FROM python:3.12-slim
# A server needs no pip, and whoever breaks into one shall find none.
RUN pip uninstall --yes pip
COPY --from=build /opt/stiqueue /opt/stiqueue
ENV PATH=/opt/stiqueue/bin:$PATH

# A number rather than a name, so that Kubernetes can tell that it is not root; the user need not exist.
RUN mkdir /data && chown 10001:10001 /data
USER 10001:10001
WORKDIR /data
VOLUME /data

ENV PYTHONUNBUFFERED=1
EXPOSE 1234
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["python", "-m", "stiqueue.health"]
CMD ["python", "-m", "stiqueue.sqserver", "--host", "0.0.0.0"]
