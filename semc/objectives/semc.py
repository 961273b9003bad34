"""The paper's total loss (eq. 15, 19) with its memory queue.

    L = mean_b[ alpha_b l_moe,b + (1 - alpha_b) l_mc,b ] + w_ce mean_n CE(z_n, y) + w_imp CV^2(importance)

``l_mc = l_sup + lambda l_self`` (or GPaCo) over the pool ``[p_1; ...; p_N; queue]``. Keys enter the queue
after the optimiser's step, so no row of a batch meets itself, and nothing but training ever writes to it.

Shape legend: B images, N experts, K classes, D embedding, M keys or expert outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from semc.config import StudyConfig
from semc.datasets import Batch
from semc.losses import importance_cv_squared
from semc.models import SEMCOutput
from semc.objectives.class_loss import ClassLoss
from semc.objectives.contrastive_term import contrastive_term
from semc.objectives.key_encoder import EmaKeyEncoder
from semc.objectives.local_tensors import check_tensors
from semc.objectives.loss_weight import LossWeight
from semc.objectives.memory_queue import MemoryQueue, queue_capacity
from semc.objectives.objective import ImagesOf, LossTerms, Objective
from semc.objectives.queue_refresh import key_drift, keys_of, refresh_keys
from semc.seed import derive_seed

_KEY_ENCODER = "key_encoder."
_UPDATE_TERM = "update_term."


@dataclass(frozen=True)
class _Keys:
    """What the last step offers to the queue."""

    embeddings_MD: Tensor
    labels_M: Tensor
    ids_M: Tensor


class SemcObjective(Objective):
    """SEMC's objective with every switch of the study's `objective:` section.

    Args:
        study: The study.
        class_counts: Training images of each study class at this site; they shape the loss and stay here.
        num_train: Training images of the site; bounds its queue.
    """

    def __init__(self, study: StudyConfig, class_counts: Sequence[int], num_train: int) -> None:
        config = study.objective
        self._config = config
        self._class_loss = ClassLoss(config, class_counts)
        self._loss_weight = LossWeight(config) if config.mc else None
        self._queue: MemoryQueue | None = None
        self._key_encoder: EmaKeyEncoder | None = None
        self._pending: _Keys | None = None
        self._keys_per_image = max(1, study.model.experts - 1)
        self._update_terms: dict[str, float] = {}
        """What the last global update was like; reported with every step of its round."""
        if config.mc and config.queue:
            num_classes = len(study.data.classes)
            self._queue = MemoryQueue(
                queue_capacity(config.queue_size, num_train),
                study.model.embedding_dim,
                num_rings=num_classes if config.queue_balanced else 1,
            )
            if config.queue_init == "reference":
                self._queue.fill_like_reference(num_classes, derive_seed(study.seed, "queue"))
            if config.key_encoder == "ema":
                self._key_encoder = EmaKeyEncoder()

    def step(self, network: nn.Module, batch: Batch, progress: float) -> LossTerms:
        """Compute the total loss of a batch; queue and running means change in :meth:`after_step` only.

        Reported terms: `moe`, `alpha` (mean effective share of moe); with the contrastive branch `mc` and its
        parts `sup`, `self` or `gpaco` (minus their floors), `queue_fill` (share of slots), `key_age` (steps);
        with several experts `expert_ce`, `importance` where their weight is not 0; with `queue_on_update` keep or
        refresh `queue_drift_cosine`, the cosine of old keys and what the round's incoming weights make of them.
        """
        output = network(batch.images_BCHW)
        assert isinstance(output, SEMCOutput)
        # SEMCOutput is at least float32; so are the losses, also where the trainer uses mixed precision.
        with torch.autocast(output.logits_BK.device.type, enabled=False):
            moe_B = self._class_loss(output.logits_BK, batch.labels_B)
            terms = {"moe": moe_B.detach().mean()}
            if self._loss_weight is None:
                total = moe_B.mean()
                terms["alpha"] = torch.ones_like(total)
            else:
                adjustment_K = self._class_loss.adjustment_K
                term = contrastive_term(self._config, output, batch, self._queue, progress, adjustment_K)
                weighed = self._loss_weight(moe_B, term.loss, output.alpha_raw_BA)
                total = weighed.total
                terms |= {"alpha": weighed.alpha_B.mean(), "mc": term.loss.mean_shifted(), **term.parts}
            for name, weight, value in self._balance(output, batch.labels_B):
                total = total + weight * value
                terms[name] = value.detach()
        if self._queue is not None:
            terms |= {"queue_fill": self._queue.fill_fraction(), "key_age": self._queue.mean_age()}
            self._pending = self._keys(network, output, batch)
        values = torch.stack(
            [value.to(total) for value in terms.values()]
        ).tolist()  # one wait for the device
        use_N = output.gate_weights_BN.detach().mean(0).tolist()
        reported = {**dict(zip(terms, values, strict=True)), **self._update_terms}
        return LossTerms(total, reported, tuple(use_N))

    def after_step(self, network: nn.Module) -> None:
        """Push the last step's keys and move the running means; each step's keys enter once."""
        if self._loss_weight is not None:
            self._loss_weight.after_step()
        if self._queue is not None and self._pending is not None:
            self._queue.push(self._pending.embeddings_MD, self._pending.labels_M, self._pending.ids_M)
            self._pending = None
        if self._key_encoder is not None:
            self._key_encoder.update(network)

    def new_global_weights(self, network: nn.Module, images_of: ImagesOf | None = None) -> None:
        """Keep, drop or re-encode old keys as the study says; restart the slow key encoder from the new weights.

        Args:
            network: With the new weights.
            images_of: The site's images; needed to refresh, and to measure the drift of keys that are kept.

        Raises:
            ValueError: The study refreshes its queue and there are no images to do it with.
        """
        self._pending = None
        self._update_terms = {}
        if self._queue is not None:
            drift = self._update_queue(self._queue, network, images_of)
            if drift is not None:
                self._update_terms = {"queue_drift_cosine": drift}
        if self._key_encoder is not None:
            self._key_encoder.reset(network)

    def state_dict(self) -> dict[str, Tensor]:
        """Return queue and running means by dotted names; the key encoder restarts every round."""
        return {
            f"{part}.{name}": tensor
            for part, owner in self._stateful().items()
            for name, tensor in owner.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore queue and running means.

        Raises:
            SemcError: CHECKPOINT_INVALID if the state is of another study or of another training split.
        """
        check_tensors(state, self.state_dict())
        for part, owner in self._stateful().items():
            owner.load_state_dict(_under(state, f"{part}."))

    def round_state_dict(self, network: nn.Module) -> dict[str, Tensor]:
        """Return also the slow key encoder, and what the round's global update was like."""
        state = self.state_dict()
        if self._key_encoder is not None:
            encoder = self._key_encoder.state_dict(network)
            state |= {_KEY_ENCODER + name: tensor for name, tensor in encoder.items()}
        for name, value in self._update_terms.items():
            state[_UPDATE_TERM + name] = torch.tensor(value, dtype=torch.float64)
        return state

    def load_round_state_dict(self, state: Mapping[str, Tensor], network: nn.Module) -> None:
        """Restore queue, running means, key encoder and the round's reported terms.

        Args:
            state: Of :meth:`round_state_dict`.
            network: What the key encoder is a copy of.

        Raises:
            SemcError: CHECKPOINT_INVALID if the state is of another study or of another training split.
        """
        encoder = _under(state, _KEY_ENCODER)
        terms = _under(state, _UPDATE_TERM)
        self.load_state_dict(
            {
                name: tensor
                for name, tensor in state.items()
                if not name.startswith((_KEY_ENCODER, _UPDATE_TERM))
            }
        )
        if self._key_encoder is not None:
            self._key_encoder.load_state_dict(encoder, network)
        self._update_terms = {name: float(value) for name, value in terms.items()}
        self._pending = None

    def _update_queue(
        self, queue: MemoryQueue, network: nn.Module, images_of: ImagesOf | None
    ) -> float | None:
        """Follow `queue_on_update`; returns the drift cosine where it was measured."""
        policy = self._config.queue_on_update
        if policy == "clear":
            queue.clear()
            return None
        if policy == "refresh":
            if images_of is None:
                raise ValueError("queue_on_update refresh needs the site's images")
            return refresh_keys(queue, network, images_of, self._keys_per_image)
        return None if images_of is None else key_drift(queue, network, images_of, self._keys_per_image)

    def _stateful(self) -> dict[str, MemoryQueue | LossWeight]:
        parts: dict[str, MemoryQueue | LossWeight] = {}
        if self._queue is not None:
            parts["queue"] = self._queue
        if self._loss_weight is not None:
            parts["loss_weight"] = self._loss_weight
        return parts

    def _balance(self, output: SEMCOutput, labels_B: Tensor) -> list[tuple[str, float, Tensor]]:
        """Return (name, weight, value) of the terms that keep every expert in use; none for one expert."""
        config = self._config
        experts = len(output.expert_logits_NBK)
        terms: list[tuple[str, float, Tensor]] = []
        if experts > 1 and config.expert_ce_weight > 0:
            loss_M = self._class_loss(output.expert_logits_NBK.flatten(0, 1), labels_B.repeat(experts))
            terms.append(("expert_ce", config.expert_ce_weight, loss_M.mean()))
        if experts > 1 and config.importance_weight > 0:
            value = importance_cv_squared(output.gate_weights_BN)
            terms.append(("importance", config.importance_weight, value))
        return terms

    def _keys(self, network: nn.Module, output: SEMCOutput, batch: Batch) -> _Keys:
        """Return the keys p_2..p_N of the batch (p_1 where there is one expert), expert-major, detached."""
        embeddings_NBD = output.embeddings_NBD
        if self._key_encoder is not None:
            embeddings_NBD = self._key_encoder.encode(network, batch.images_BCHW)
        assert embeddings_NBD is not None
        keys_NBD = keys_of(embeddings_NBD)
        return _Keys(
            embeddings_MD=keys_NBD.detach().flatten(0, 1),
            labels_M=batch.labels_B.repeat(len(keys_NBD)),
            ids_M=batch.ids_B.repeat(len(keys_NBD)),
        )


def _under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors of one owner, by its own names."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
