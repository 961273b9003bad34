"""SEMCNet against its equations, and what must hold for every ablation."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from semc.models import SEMCNet, SEMCOutput, build_model
from tests.semc.models.plain_semc import PlainSEMC
from tests.semc.models.studies import make_study

ABLATIONS = [
    {"preset": "robust"},
    {"preset": "paper"},
    {"preset": "reference"},
    {"model__experts": 1},
    {"model__experts": 2},
    {"model__experts": 4},
    {"model__ace": False},
    {"model__samc": False},
    {"model__samc_shared": False},
    {"model__samc_shared": False, "model__samc_bn": "shared"},
    {"model__samc_fuse": "concat"},
    {"model__samc_residual": False},
    {"model__samc_expansion": 1},
    {"model__ace_activation": "leaky_relu", "model__ace_stage_activation": True},
    {"model__ace_out_activation": False, "model__ace_init": "normal"},
    {"model__gate": "softmax"},
    {"model__gate": "mean"},
    {"model__gate_input": "fused_mean"},
    {"model__gate_eval": "sampled_mean"},
    {"model__gate_eval": "hard"},
    {"model__embedding_dim": 32},
    {"objective__mc": False},
    {"objective__alpha": "learned"},
    {"objective__alpha": "fixed"},
    {"objective__alpha": "prior"},
    {"model__ace": False, "model__samc": False, "objective__mc": False},
]


def name_of(ablation: dict[str, object]) -> str:
    return "-".join(f"{key.split('__')[-1]}={value}" for key, value in ablation.items())


def build(**overrides: object) -> SEMCNet:
    network = build_model(make_study(**overrides))
    assert isinstance(network, SEMCNet)
    return network


def loss_of(output: SEMCOutput) -> Tensor:
    """A loss to which every output tensor contributes, embeddings by more than their length."""
    loss = output.logits_BK.square().sum() + output.expert_logits_NBK.square().sum()
    if output.embeddings_NBD is not None:
        direction = torch.linspace(-1, 1, output.embeddings_NBD.shape[-1], device=loss.device)
        loss = loss + ((output.embeddings_NBD * direction).sum(-1) - 1).square().sum()
    if output.alpha_raw_BA is not None:
        loss = loss + (output.alpha_raw_BA - 1).square().sum()
    return loss


def test_initial_weights_depend_on_the_seed_alone_and_leave_the_global_generator():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = build().state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    second = build().state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    other = build(seed=4).state_dict()
    assert not torch.equal(first["backbone.conv1.weight"], other["backbone.conv1.weight"])


def test_experts_start_different():
    network = build()
    first, second, third = (expert[0].conv1.weight for expert in network.experts)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("ablation", ABLATIONS, ids=name_of)
def test_forward_equals_the_equations(ablation, training):
    study = make_study(**ablation)
    network = build_model(study).double().train(training)
    randomise_statistics(network)
    images = torch.rand(3, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = PlainSEMC(network, study, training)(images)
        output = network(images)
    torch.testing.assert_close(output.expert_logits_NBK, expected.expert_logits, rtol=1e-9, atol=1e-10)
    weighted = torch.einsum("bn,nbk->bk", output.gate_weights_BN, expected.expert_logits)
    torch.testing.assert_close(output.logits_BK, weighted, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(output.gate_weights_BN.sum(1), torch.ones(3, dtype=torch.float64))
    if expected.embeddings is None:
        assert output.embeddings_NBD is None
    else:
        torch.testing.assert_close(output.embeddings_NBD, expected.embeddings, rtol=1e-8, atol=1e-9)
    if (
        study.model.gate_eval == "softmax"
        and study.model.gate != "mean"
        and study.model.experts > 1
        and not training
    ):
        maps = expected.deep if study.model.gate_input == "deep_mean" else expected.refined
        scores = network.gate.router(torch.stack(maps).mean(0).mean((2, 3)))
        expected_weights = (scores / study.model.gate_temperature_end).softmax(1)
        torch.testing.assert_close(output.gate_weights_BN, expected_weights, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("backbone", "num_experts"), [("resnet18", 3), ("resnet50", 1)])
def test_resnet_gradients_equal_the_equations(backbone, num_experts):
    study = make_study(model__backbone=backbone, model__experts=num_experts, model__samc_expansion=1)
    network = build_model(study).double()
    images = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    output = network(images)
    (output.expert_logits_NBK.square().sum() + output.embeddings_NBD.tril().sum()).backward()
    gradients = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    expected = PlainSEMC(network, study, training=True)(images)
    (expected.expert_logits.square().sum() + expected.embeddings.tril().sum()).backward()
    assert len(gradients) > 100
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-6, atol=1e-8, msg=name)


@pytest.mark.parametrize("ablation", ABLATIONS, ids=name_of)
def test_every_trainable_tensor_receives_a_gradient(ablation):
    network = build(**ablation)
    loss_of(network(torch.rand(4, 3, 64, 64))).backward()
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            assert name.startswith(("gate.", "alpha_network.")), name
            assert parameter.grad is None
            continue
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        # The bias before a batch norm is the one tensor whose gradient is zero in exact arithmetic.
        if name != "projection.embed.bias":
            assert float(parameter.grad.abs().max()) > 0, name


@pytest.mark.parametrize("ablation", ABLATIONS, ids=name_of)
def test_save_and_load_are_bit_equal(ablation):
    network = build(**ablation)
    loss_of(network(torch.rand(4, 3, 64, 64))).backward()
    content = save(network.state_dict())
    copy = build(**ablation, seed=99)
    copy.load_state_dict(load(content))
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, dict(copy.named_parameters())[name])
    network.eval(), copy.eval()
    images = torch.rand(2, 3, 64, 64)
    assert_bit_equal(network(images), copy(images))


@pytest.mark.parametrize("ablation", [{}, {"preset": "reference"}, {"model__gate_eval": "hard"}], ids=name_of)
def test_evaluation_is_pure(ablation):
    network = build(**ablation).eval()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    images = torch.rand(5, 3, 64, 64)
    before = torch.get_rng_state()
    first = network(images)
    assert_bit_equal(first, network(images))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    network.set_progress(0.7)
    assert_bit_equal(first, network(images))


def test_evaluation_of_an_image_does_not_depend_on_its_batch():
    for eval_mode in ("softmax", "sampled_mean"):
        network = build(model__gate_eval=eval_mode).eval()
        images = torch.rand(5, 3, 64, 64)
        together, alone = network(images).logits_BK[:1], network(images[:1]).logits_BK
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_only_training_draws_noise():
    network = build().train()
    images = torch.rand(4, 3, 64, 64)
    first, second = network(images).gate_weights_BN, network(images).gate_weights_BN
    assert not torch.equal(first, second)
    softmax = build(model__gate="softmax").train()
    state = torch.get_rng_state()
    softmax(images)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("size", [32, 33, 64, 65, 97, 128])
@pytest.mark.parametrize("num_experts", [1, 2, 3, 4])
def test_shapes_for_odd_sizes_and_any_number_of_experts(size, num_experts):
    network = build(model__experts=num_experts)
    output = network(torch.rand(2, 3, size, size))
    assert output.logits_BK.shape == (2, 7)
    assert output.expert_logits_NBK.shape == (num_experts, 2, 7)
    assert output.gate_weights_BN.shape == (2, num_experts)
    assert output.embeddings_NBD.shape == (num_experts, 2, 128)
    torch.testing.assert_close(output.embeddings_NBD.norm(dim=2), torch.ones(num_experts, 2))
    assert output.alpha_raw_BA.shape == (2, 2)


def test_images_need_not_be_square():
    assert build()(torch.rand(2, 3, 48, 80)).logits_BK.shape == (2, 7)


def test_a_grey_image_equals_its_three_channel_copy():
    network = build().double().eval()
    grey = torch.rand(2, 1, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(network(grey).logits_BK, network(grey.expand(-1, 3, -1, -1)).logits_BK)


def test_one_training_image_is_refused_and_one_evaluated_image_is_not():
    network = build()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        network(torch.rand(1, 3, 32, 32))
    assert network.eval()(torch.rand(1, 3, 32, 32)).logits_BK.shape == (1, 7)


def test_ace_initialisation():
    drawn = build(model__ace_init="normal").aces[0].layers[-3]
    assert float(drawn.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    framework = build(model__ace_init="framework").aces[0].layers[-3]
    assert float(framework.weight.detach().abs().max()) <= 64**-0.5  # uniform within 1 / sqrt(fan in)


def test_pairing_of_experts_and_shallow_features():
    assert build(model__experts=4).ace_sources == (1, 2, 3, None)
    assert build(model__experts=2).ace_sources == (1, 2)
    assert build(model__ace=False).ace_sources == (None, None, None)


def test_disabled_parts_leave_no_parameters():
    def prefixes(**overrides: object) -> set[str]:
        return {name.split(".")[0] for name in build(**overrides).state_dict()}

    everything = {"backbone", "experts", "aces", "samc", "classifiers", "gate", "projection", "alpha_network"}
    assert prefixes() == everything
    assert prefixes(model__ace=False) == everything - {"aces"}
    assert prefixes(model__samc=False) == everything - {"samc"}
    assert prefixes(objective__mc=False) == everything - {"projection", "alpha_network"}
    assert prefixes(objective__alpha="fixed") == everything - {"alpha_network"}
    assert prefixes(model__gate="mean") == everything - {"gate"}
    assert prefixes(model__experts=1) == everything - {"gate"}


def test_mixed_precision_keeps_the_heads_in_float32():
    network = build()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(torch.rand(4, 3, 64, 64))
    for tensor in (output.logits_BK, output.embeddings_NBD, output.gate_weights_BN, output.alpha_raw_BA):
        assert tensor.dtype == torch.float32
    torch.testing.assert_close(output.embeddings_NBD.norm(dim=2), torch.ones(3, 4))


def test_training_after_inference_mode():
    """A cached constant made under inference mode must not poison later training."""
    network = build()
    with torch.inference_mode():
        network.eval()(torch.rand(2, 3, 64, 64))
    loss_of(network.train()(torch.rand(2, 3, 64, 64))).backward()


def randomise_statistics(network: SEMCNet) -> None:
    """Give every batch norm a history, so that evaluation tests more than the identity."""
    generator = torch.Generator().manual_seed(1)
    for name, buffer in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand(buffer.shape, generator=generator, dtype=buffer.dtype) + 0.5)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def assert_bit_equal(first: SEMCOutput, second: SEMCOutput) -> None:
    for field in ("logits_BK", "expert_logits_NBK", "gate_weights_BN", "embeddings_NBD", "alpha_raw_BA"):
        ours, theirs = getattr(first, field), getattr(second, field)
        assert (ours is None) == (theirs is None), field
        assert ours is None or torch.equal(ours, theirs), field
