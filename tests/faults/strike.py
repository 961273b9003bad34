"""Whom a fault hits: a target is killed with SIGKILL and started again as the hospital's or centre's systemd would."""

from __future__ import annotations

from enum import StrEnum

from tests.faults.federation import Federation, wait_for
from tests.faults.plan import Role, Stop
from tests.faults.study_run import StudyRun


class Target(StrEnum):
    """A process of a deployment."""

    CLIENT = "client"
    """`semc-client` of one hospital, started again at once."""
    WORKER = "worker"
    """Its training process."""
    SUPERLINK = "superlink"
    """The coordinator's SuperLink."""
    SERVERAPP = "serverapp"
    """The coordinator's round loop."""
    ALL = "all"
    """Every process of every machine at once; then everything is started again, and `semc-server resume`."""


class Stage(StrEnum):
    """What is going on at that moment."""

    IDLE = "idle"
    DOWNLOAD = "download"
    TRAIN = "train"
    UPLOAD = "upload"
    SPOOL = "spool"
    """The coordinator holds a reply that Flower has forgotten and the disk does not know yet."""
    AGGREGATE = "aggregate"
    CHECKPOINT = "checkpoint"
    """Tensors written, the description that makes them a checkpoint not yet."""


COORDINATORS_STAGES = (Stage.SPOOL, Stage.AGGREGATE, Stage.CHECKPOINT)
_STEP_IN_MID_ROUND = 5


def stop_at(stage: Stage, target: Target, site: str, *, private: bool = False) -> Stop:
    """Return where a process must stand still for a target to be killed in a stage.

    A hospital's own processes are killed while the worker exchanges with its SuperNode, the coordinator's while the
    SuperNode exchanges with the SuperLink.
    """
    if stage in COORDINATORS_STAGES:
        return Stop("executor", stage.value, call=2 if stage is Stage.AGGREGATE else 1)
    if stage is Stage.TRAIN:
        name = "private train" if private else "train"
        return Stop("worker", name, site, call=2 if private else _STEP_IN_MID_ROUND)
    within_hospital = target in (Target.CLIENT, Target.WORKER)
    role: Role = "worker" if within_hospital else "supernode"
    return Stop(role, stage.value, site)


def kill(federation: Federation, target: Target, site: str) -> None:
    """Kill a target that runs; waits for one that is just being started."""
    words = {
        Target.WORKER: ("client.worker",),
        Target.SUPERLINK: ("server.superlink", "superlink"),
        Target.SERVERAPP: ("server.superlink", "executor"),
    }
    if target is Target.ALL:
        federation.kill_everything()
    elif target is Target.CLIENT:
        federation.rehearsal.kill(site)
    else:
        place = site if target is Target.WORKER else ""
        wait_for(lambda: federation.find(words[target], place) is not None, f"a {target} to kill")
        process = federation.find(words[target], place)
        assert process is not None
        process.kill()


def bring_back(federation: Federation, target: Target, run: StudyRun | None) -> None:
    """Do what a service manager does, and after a power cut what the coordinator's operator does."""
    if target in (Target.CLIENT, Target.ALL):
        federation.start_what_ended()
    if target is Target.ALL and run is not None:
        run.resume()
