"""The standard gRPC health protocol, asked of the SuperLink; container health checks use the same."""

from __future__ import annotations

from enum import StrEnum

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub


class Health(StrEnum):
    """What the health service says."""

    SERVING = "serving"
    NOT_SERVING = "not serving"
    UNREACHABLE = "unreachable"


def ask_health(address: str, timeout_seconds: float = 2.0) -> Health:
    """Ask a gRPC health service once.

    Args:
        address: host:port.
        timeout_seconds: Longest wait for its answer.
    """
    # Without this option gRPC would send the question for the loopback to a proxy of the environment.
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = HealthStub(channel).Check(HealthCheckRequest(), timeout=timeout_seconds)
        except grpc.RpcError:
            return Health.UNREACHABLE
    return Health.SERVING if answer.status == HealthCheckResponse.SERVING else Health.NOT_SERVING
