"""The same network on a GPU: equal outputs, and a mixed-precision step that reaches every parameter."""

from __future__ import annotations

import pytest
import torch

from semc.models import build_model
from tests.semc.models.studies import make_study
from tests.semc.models.test_semc_net import loss_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("preset", ["robust", "paper", "reference"])
@pytest.mark.parametrize("size", [64, 160])
def test_gpu_equals_cpu(preset, size):
    network = build_model(make_study(preset)).double().eval()
    images = torch.rand(4, 3, size, size, dtype=torch.float64)
    on_cpu = network(images)
    on_gpu = network.cuda()(images.cuda())
    torch.testing.assert_close(on_gpu.logits_BK.cpu(), on_cpu.logits_BK, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(on_gpu.embeddings_NBD.cpu(), on_cpu.embeddings_NBD, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_step(dtype):
    network = build_model(make_study(model__backbone="resnet18")).cuda()
    with torch.autocast("cuda", dtype=dtype):
        output = network(torch.rand(8, 3, 64, 64, device="cuda"))
    assert output.logits_BK.dtype == torch.float32
    torch.testing.assert_close(output.embeddings_NBD.norm(dim=2), torch.ones(3, 8, device="cuda"))
    loss_of(output).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
