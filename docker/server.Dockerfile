# The coordinating centre's side: SuperLink and executor under one supervisor.
#
#   docker build -f docker/server.Dockerfile -t semc-server .
#   docker run -v semc-home:/var/lib/semc -p 8000:8000 semc-server up --address 0.0.0.0:8000 --san NAME
#
# Sites reach /v1/fleet/* on port 8000 and nothing else; the health service on 8001 stays on the loopback.
# BASE may be any image with Python >= 3.11 and its venv module. A centre behind an inspecting proxy mounts its CA
# bundle while building; no certificate, key or index address is ever part of an image.
ARG BASE=python:3.11-slim

# --- shared: word for word the same in both Dockerfiles, so the dependency layer is built and stored once ---
FROM ${BASE} AS requirements
COPY pyproject.toml /
RUN python3 -c "import tomllib; project = tomllib.load(open('/pyproject.toml', 'rb'))['project']; \
    print(*project['dependencies'], 'hatchling', sep='\n')" > /runtime.txt

FROM ${BASE}
ENV PATH=/opt/semc/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    FLWR_TELEMETRY_ENABLED=0 \
    FLWR_DISABLE_UPDATE_CHECK=1 \
    FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    HF_HUB_OFFLINE=1 \
    MALLOC_ARENA_MAX=2 \
    NO_PROXY=127.0.0.1,localhost
COPY --from=requirements /runtime.txt /opt/
COPY requirements.lock /opt/
# The lock is a constraint here: pinned versions, without the developers' tools. One layer, which a change of the
# project's own code leaves alone.
RUN useradd --uid 10001 --user-group --create-home --home-dir /home/semc semc \
    && install -d -o semc -g semc -m 0700 /var/lib/semc /data \
    && python3 -m venv /opt/semc \
    && python -m pip install --no-cache-dir --disable-pip-version-check \
       --constraint /opt/requirements.lock --requirement /opt/runtime.txt
# .dockerignore lets in only what the wheel is made of.
COPY . /opt/source/
RUN python -m pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation /opt/source \
    && python -m pip check
# --- end of the shared part ---

# CA, certificate, enrolment record, database and runs; the root file system may be read-only, with a tmpfs on /tmp.
ENV HOME=/home/semc SEMC_SERVER_HOME=/var/lib/semc SEMC_HEALTH_PORT=8001
WORKDIR /var/lib/semc
VOLUME ["/var/lib/semc"]
USER 10001:10001
EXPOSE 8000

# The standard gRPC health service of Flower's SuperLink, on the loopback.
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s --retries=3 CMD ["python", "-P", "-c", "\
import os, sys, grpc; \
from grpc_health.v1 import health_pb2, health_pb2_grpc; \
address = '127.0.0.1:' + os.environ['SEMC_HEALTH_PORT']; \
channel = grpc.insecure_channel(address, options=[('grpc.enable_http_proxy', 0)]); \
answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5); \
sys.exit(answer.status != health_pb2.HealthCheckResponse.SERVING)"]

STOPSIGNAL SIGTERM
ENTRYPOINT ["semc-server"]
CMD ["up", "--address", "0.0.0.0:8000"]
