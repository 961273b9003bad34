"""Every message a hospital sends in a whole study, recorded: nothing but the listed tensors and metrics."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

from client.app import build_app
from semc import protocol
from semc.checkpoint import load_state
from semc.config import StudyConfig, parse_study
from semc.models import build_model
from semc.parameter_exchange import split_parameters
from semc.wire import pack, unpack
from server.registry import rehearsal_registry
from server.rounds import run_study
from server.run_folder import RunFolder
from simulation.make_sites import read_site_counts
from simulation.run import prepare
from tests.server.federation import FAST, ScriptedGrid, ScriptedSite


def record(study: StudyConfig, hospitals: Path, out: Path) -> list[Message]:
    """Run a whole study with the real server loop and the real client apps; return all that the sites sent."""
    run = prepare(study, hospitals, out)
    sent: list[Message] = []
    one_at_a_time = threading.Lock()  # replies are fetched in threads; a real site has a process of its own

    def scripted(name: str) -> ScriptedSite:
        app = build_app(lambda _: run.site_file(name))
        context = Context(run_id=7, node_id=2, node_config={}, state=RecordDict(), run_config={})

        def answer(_site: ScriptedSite, message: Message) -> Message:
            with one_at_a_time:
                reply = app(message, context)
                sent.append(reply)
            return reply

        return ScriptedSite(name, hello=answer, answer=answer)

    counts = read_site_counts(hospitals)
    registry = rehearsal_registry({name: counts[name].num_train_images for name in study.federation.sites})
    folder = RunFolder(out / "loop")
    folder.create(study, registry)
    result = run_study(
        ScriptedGrid([scripted(name) for name in study.federation.sites]), study, registry, folder, pace=FAST
    )
    assert result.outcome == "complete"
    return sent


def shared_tensor_names(study: StudyConfig, messages: Iterable[Message]) -> set[str]:
    """Return the names of all tensors in the messages' payloads."""
    shared = split_parameters(build_model(study), study.federation.bn).shared
    shapes = {name: tuple(tensor.shape) for name, tensor in shared.items()}
    names: set[str] = set()
    for message in messages:
        for records in message.content.array_records.values():
            assert list(records) == [protocol.SHARED_TENSORS]
            names |= set(unpack(records[protocol.SHARED_TENSORS].data, shapes, study.federation.wire_dtype))
    return names


def everything_in(message: Message) -> bytes:
    """Return all text, numbers and bytes of a message, to search for what must not be there."""
    parts = [repr(message.metadata).encode()]
    for name, records in message.content.items():
        parts.append(name.encode())
        assert isinstance(records, ArrayRecord | MetricRecord | ConfigRecord)
        for key, value in records.items():
            parts.append(key.encode())
            parts.append(value.data if isinstance(records, ArrayRecord) else repr(value).encode())
    return b"\n".join(parts)


def kept_rows(study: StudyConfig, folder: Path) -> Iterator[bytes]:
    """Yield, as they would stand in a payload, every site's queue rows and batch-norm statistics of its last rounds."""
    for state in folder.glob(f"sites/*/state/{study.digest()[:16]}/round-*"):
        for name, tensor in load_state(state)[0].items():
            if name.endswith(("queue.embeddings", "running_mean", "running_var")):
                yield from (
                    row.numpy().tobytes() for row in tensor.reshape(-1, tensor.shape[-1]) if row.any()
                )


def payloads(messages: Iterable[Message]) -> set[bytes]:
    """Return the tensors of all messages, as sent."""
    return {
        records[protocol.SHARED_TENSORS].data
        for message in messages
        for records in message.content.array_records.values()
    }


def with_seed(study: StudyConfig, seed: int) -> StudyConfig:
    return study.model_copy(update={"seed": seed})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recorded")


@pytest.fixture(scope="module")
def recorded(hospitals: Path, folder: Path) -> tuple[StudyConfig, list[Message]]:
    from tests.end_to_end.conftest import STUDY

    study = parse_study(STUDY)
    return study, record(study, hospitals, folder)


def test_a_study_sends_one_hello_one_reply_a_round_and_one_evaluation(
    recorded: tuple[StudyConfig, list[Message]],
) -> None:
    study, messages = recorded
    assert len(messages) == len(study.federation.sites) * (1 + study.federation.rounds + 1)
    assert not any(message.has_error() for message in messages)


def test_one_seed_gives_the_same_messages_and_another_does_not(
    recorded: tuple[StudyConfig, list[Message]], hospitals: Path, tmp_path: Path
) -> None:
    study, messages = recorded
    sent = {
        seed: payloads(record(with_seed(study, seed), hospitals, tmp_path / str(seed))) for seed in (3, 4)
    }
    assert study.seed == 3
    assert sent[3] == payloads(messages)
    assert sent[4] != sent[3]


def test_only_the_listed_records_metrics_and_tensors_leave(
    recorded: tuple[StudyConfig, list[Message]],
) -> None:
    study, messages = recorded
    for message in messages:
        assert set(message.content) <= {protocol.ARRAYS, protocol.METRICS, protocol.CONFIG}
        for metrics in message.content.metric_records.values():
            assert set(metrics) <= protocol.METRIC_NAMES
        for config in message.content.config_records.values():
            assert set(config) <= {
                protocol.SITE,
                protocol.SHARED_SCHEMA,
                protocol.SOFTWARE_VERSION,
                protocol.FLOWER_INSTALLED,
            }
    split = split_parameters(build_model(study), "silo")
    names = shared_tensor_names(study, messages)
    assert names == set(split.shared)
    assert not names & set(split.local)
    assert not any("running_" in name or "num_batches" in name or "queue" in name for name in names)


def test_no_file_name_patient_or_label_text_leaves(
    recorded: tuple[StudyConfig, list[Message]], hospitals: Path
) -> None:
    study, messages = recorded
    manifests = [pd.read_csv(path) for path in sorted(hospitals.glob("*/manifest.csv"))]
    assert len(manifests) == 3
    table = pd.concat(manifests)
    secrets = {
        *(Path(str(name)).name for name in table["file"]),
        *map(str, table["group"]),
        *study.data.classes,
        str(hospitals),
    }
    assert len(secrets) > 50
    sent = b"\n".join(everything_in(message) for message in messages)
    assert [secret for secret in secrets if secret.encode() in sent] == []


def test_no_bytes_of_queue_rows_or_batch_norm_statistics_leave(
    recorded: tuple[StudyConfig, list[Message]], folder: Path
) -> None:
    study, messages = recorded
    assert study.federation.wire_dtype == "fp32"
    rows = set(kept_rows(study, folder))
    assert len(rows) > 50
    sent = b"".join(everything_in(message) for message in messages)
    assert [row for row in rows if row in sent] == []
    leak = pack(
        {"a": torch.ones(3), "b": torch.frombuffer(bytearray(min(rows)), dtype=torch.float32)}, "fp32"
    )
    assert [row for row in rows if row in sent + leak] == [min(rows)], "control: the search finds one row"


def test_control_the_same_search_finds_statistics_that_bn_average_shares(
    study: StudyConfig, hospitals: Path, tmp_path: Path
) -> None:
    federation = study.federation.model_copy(update={"bn": "average", "rounds": 1})
    leaky = study.model_copy(update={"federation": federation})
    names = shared_tensor_names(leaky, record(leaky, hospitals, tmp_path))
    assert any("running_mean" in name for name in names)
