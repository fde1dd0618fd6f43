# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""GGDR under wrappers, in mixed precision, on crops, and in the other circumstances of foreign training loops."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm

from ggdr import GGDR, Features, FeatureTap
from tests.conftest import torchrun
from tests.toy_gan import ToyD, ToyG, attach, d_step


class PlainD(nn.Module):
    """img [N, 3, H, W] -> logits [N]; 2x and 4x smaller maps, nothing that mixes images."""

    def __init__(self):
        super().__init__()
        self.e8, self.e4 = nn.Conv2d(3, 7, 3, 2, 1), nn.Conv2d(7, 9, 3, 2, 1)

    def forward(self, img):
        return self.e4(self.e8(img).relu()).relu().mean(dim=[1, 2, 3])


@pytest.fixture
def gan():
    torch.manual_seed(0)
    return ToyG(), PlainD()


def distance_of(ggdr, G, D, z):
    with ggdr.watch() as feats:
        D(G(z).detach())
    return ggdr.distance(feats)


def gradients(*modules):
    return [p.grad.clone() for module in modules for p in module.parameters() if p.grad is not None]


@pytest.mark.parametrize("output", [lambda x: {"a": None, "b": x}, lambda x: [(torch.zeros(2), x)], lambda x: (x, "y")])
def test_layers_may_return_tuples_lists_and_dicts(output):
    class Layer(nn.Conv2d):
        def forward(self, x):
            return output(super().forward(x))

    layer = Layer(3, 4, 1)
    x = torch.randn(2, 3, 5, 5)
    with FeatureTap(nn.ModuleDict({"layer": layer}), ["layer"]) as feats:
        layer(x)
    torch.testing.assert_close(feats["layer"], nn.functional.conv2d(x, layer.weight, layer.bias))


def test_images_need_be_neither_square_nor_a_power_of_two():
    class WideG(nn.Module):
        def __init__(self):
            super().__init__()
            self.mid, self.top = nn.ConvTranspose2d(4, 6, (5, 9)), nn.ConvTranspose2d(6, 3, 4, 4)

        def forward(self, z):
            return self.top(self.mid(z[:, :, None, None]).relu())

    G, D = WideG(), PlainD()
    z = torch.randn(2, 4)
    D.e2 = nn.Conv2d(9, 4, 3, 2, 1)
    D.forward = lambda img: D.e2(D.e4(D.e8(img)))  # 20x36 -> 10x18 -> 5x9 -> 3x5
    ggdr = GGDR(G, D, guide="mid", encoder=["e8", "e4", "e2"], probe=lambda: D(G(z)))
    assert ggdr.encoder == ["e2"] and list(ggdr.decoder._modules) == ["b5x9_dec"]
    assert distance_of(ggdr, G, D, z).shape == (2,)


def test_memory_layout_does_not_matter(gan):
    G, D = gan
    ggdr = attach(G, D)
    z = torch.randn(3, 4)
    expected = distance_of(ggdr, G, D, z)
    G, D = (net.to(memory_format=torch.channels_last) for net in (G, D))
    torch.testing.assert_close(distance_of(ggdr, G, D, z), expected)


def test_autocast_networks_are_compared_in_float32(gan):
    G, D = gan
    ggdr = attach(G, D)
    z = torch.randn(3, 4)
    expected = distance_of(ggdr, G, D, z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with ggdr.watch() as feats:
            D(G(z).detach())
        assert feats.encoder["e4"].dtype == torch.bfloat16
        pred, penalty = ggdr.predict(feats)["mid"], ggdr.penalty(feats)
    assert pred.dtype == penalty.dtype == torch.float32
    torch.testing.assert_close(penalty, 10 * expected, rtol=0.02, atol=0.02)
    # The decoder itself does not round, whoever calls it: it gives the same for the same features.
    assert torch.equal(pred, ggdr.predict(feats)["mid"])
    maps = {name: feats.encoder[name] for name in ggdr.encoder}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(pred, ggdr.decoder(maps)["mid"])


@pytest.mark.parametrize(
    ("wrap", "prefix"), [(nn.DataParallel, "module"), (partial(torch.compile, backend="eager"), "_orig_mod")]
)
def test_layers_keep_their_names_inside_wrappers(gan, wrap, prefix):
    G, D = gan
    wrapped_g, wrapped_d = wrap(G), wrap(D)
    z = torch.zeros(2, 4)
    wrapped_d(wrapped_g(z))  # compiled, where it is, before there are hooks
    ggdr = attach(wrapped_g, wrapped_d)
    z = torch.randn(3, 4)
    expected = distance_of(ggdr, G, D, z)
    torch.testing.assert_close(distance_of(ggdr, wrapped_g, wrapped_d, z), expected)
    attach(wrapped_g, wrapped_d, guide=f"{prefix}.mid", encoder=[f"{prefix}.e4"])  # and by their long names
    chosen = attach(wrapped_g, wrapped_d, guide=None, encoder=None)
    assert chosen.guides == ["mid"] and chosen.encoder == ["e4"]


def test_data_parallel_replicas_are_joined_in_the_order_of_the_batch():
    feats = Features(["e"])
    batch = torch.randn(5, 2, 4, 4)
    for device, part in ((10, batch[4:]), (0, batch[:2]), (2, batch[2:4])):  # in any order, as threads finish
        feats.put("e", part, torch.device("cuda", device))
    assert torch.equal(feats["e"], batch)
    with pytest.raises(RuntimeError, match="ran twice"):
        feats.put("e", batch[:2], torch.device("cuda", 0))


def test_replicas_of_data_parallel_are_told_from_a_second_call(gan):
    _, D = gan
    tap = FeatureTap(D, ["e8"])
    img = torch.randn(2, 3, 16, 16)
    with tap as feats:
        replica = D.e8._replicate_for_data_parallel()
        replica.weight, replica.bias = D.e8.weight, D.e8.bias
        replica(img)
    assert list(feats._outputs["e8"].by_replica) == [torch.device("cpu")]
    assert torch.equal(feats["e8"], D.e8(img))


def test_compiled_networks_run_eagerly_inside_watch_and_compiled_outside(gan):
    G, D = gan
    graphs = []

    def backend(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    D.compile(backend=backend)
    ggdr = attach(G, D)
    z = torch.randn(3, 4)
    assert distance_of(ggdr, G, D, z).shape == (3,) and not graphs
    D(G(z))
    assert len(graphs) == 1
    assert distance_of(ggdr, G, D, z).shape == (3,)


def test_a_compiled_step_is_refused_in_plain_words(gan):
    G, D = gan
    ggdr = attach(G, D)
    torch._dynamo.reset()
    step = torch.compile(lambda z: distance_of(ggdr, G, D, z), backend="eager")
    with pytest.raises(RuntimeError, match="cannot be part of a compiled function.* compile G and D themselves"):
        step(torch.randn(3, 4))
    assert not any(m._forward_hooks for net in (G, D) for m in net.modules())


def test_gradients_accumulate_over_parts_of_a_batch(gan):
    G, D = gan
    ggdr = attach(G, D)
    z = torch.randn(6, 4)
    (distance_of(ggdr, G, D, z).sum()).backward()
    whole = gradients(D, ggdr.decoder)
    for net in (D, ggdr.decoder):
        net.zero_grad()
    for part in z.split(2):
        distance_of(ggdr, G, D, part).sum().backward()
    torch.testing.assert_close(gradients(D, ggdr.decoder), whole)


def test_watch_blocks_may_be_open_until_one_backward(gan):
    G, D = gan
    ggdr = attach(G, D)
    z = torch.randn(4, 4)
    blocks = []
    for part in z.split(2):
        with ggdr.watch() as feats:
            D(G(part).detach())
        blocks.append(feats)
    torch.testing.assert_close(torch.cat([ggdr.distance(feats) for feats in blocks]), distance_of(ggdr, G, D, z))


def test_a_frozen_discriminator_still_trains_the_decoder(gan):
    G, D = gan
    D.requires_grad_(False)
    ggdr = attach(G, D)
    distance_of(ggdr, G, D, torch.randn(3, 4)).mean().backward()
    assert all(p.grad is None for p in D.parameters())
    assert all(p.grad.abs().sum() > 0 for p in ggdr.parameters())


def test_a_shared_discriminator_serves_two_generators(gan):
    G, D = gan
    other = copy.deepcopy(G)
    with torch.no_grad():
        other.mid.conv.weight.neg_()
    one, two = attach(G, D), attach(other, D)
    z = torch.randn(3, 4)
    with one.watch() as feats_one:
        D(G(z).detach())
    with two.watch() as feats_two:
        D(other(z).detach())
    (one.penalty(feats_one).mean() + two.penalty(feats_two).mean()).backward()
    assert all(p.grad.abs().sum() > 0 for ggdr in (one, two) for p in ggdr.parameters())


@pytest.mark.parametrize("norm", [spectral_norm, parametrizations.spectral_norm])
def test_spectral_norm_is_left_as_it_was_and_gets_gradients(gan, norm):
    G, D = gan
    D.e8, D.e4 = norm(D.e8), norm(D.e4)
    before = {k: v.clone() for k, v in D.state_dict().items()}
    ggdr = attach(G, D)
    assert all(torch.equal(v, before[k]) for k, v in D.state_dict().items())
    distance_of(ggdr, G, D, torch.randn(3, 4)).mean().backward()
    assert all(p.grad.abs().sum() > 0 for p in D.e8.parameters() if p.ndim > 1)


def test_an_in_place_activation_can_be_tapped_itself():
    G = ToyG()
    plain, inplace = ToyD().eval(), ToyD(inplace=True).eval()
    inplace.load_state_dict(plain.state_dict())
    distances = []
    for D in (plain, inplace):
        torch.manual_seed(0)
        ggdr = attach(G, D, guide="top", encoder=["act", "e4"])
        distances.append(distance_of(ggdr, G, D, torch.ones(2, 4)))
    assert torch.equal(*distances)


def test_fakes_are_found_in_a_batch_of_fakes_and_reals(gan):
    G, D = gan
    ggdr = attach(G, D)
    z, real = torch.randn(3, 4), torch.randn(4, 3, 16, 16)
    expected = distance_of(ggdr, G, D, z)
    for parts, fakes in (([0, 1], slice(0, 3)), ([1, 0], slice(4, None))):
        with ggdr.watch() as feats:
            both = [G(z).detach(), real]
            D(torch.cat([both[i] for i in parts]))
        torch.testing.assert_close(ggdr.distance(feats, fakes=fakes), expected)
        with pytest.raises(ValueError, match=r"G ran on 3 images and D on 7 .* penalty\(feats, fakes=slice"):
            ggdr.penalty(feats)


def test_several_crops_each_with_its_warp(gan):
    G, D = gan
    ggdr = attach(G, D)
    z = torch.randn(3, 4)
    boxes = [(0, 0, 16, 16), (4, 8, 8, 8)]  # top, left, height, width in pixels of the image

    def crop(x, box):
        scale = x.shape[2] // 8 / 2  # maps of 16 and 8 pixels
        top, left, height, width = (int(v * scale) for v in box)
        return x[:, :, top : top + height, left : left + width]

    with ggdr.watch(calls=2) as feats:
        img = G(z).detach()
        for box in boxes:
            D(crop(img, box))
    warps = [lambda x, box=box: crop(x, box) for box in boxes]
    got = ggdr.distance(feats, warps)
    each = []
    for box, warp in zip(boxes, warps, strict=True):
        with ggdr.watch() as one:
            D(crop(G(z).detach(), box))
        each.append(ggdr.distance(one, warp))
    torch.testing.assert_close(got, (each[0] + each[1]) / 2)
    assert not torch.allclose(each[0], each[1])
    with pytest.raises(ValueError, match="D runs 2 times in the watch block, got 1 warps"):
        ggdr.penalty(feats, warps[:1])
    with pytest.raises(RuntimeError, match="layer 'e4' ran 3 times"), ggdr.watch(calls=2):
        for _ in range(3):
            D(img)
    with ggdr.watch(calls=2) as feats:
        D(G(z).detach())
    with pytest.raises(RuntimeError, match="'e4' ran 1 times, not 2, inside the watch block"):
        ggdr.penalty(feats)


def test_a_warp_may_make_several_crops_of_each_image(gan):
    G, D = gan
    ggdr = attach(G, D)
    z = torch.randn(3, 4)

    def halves(x):
        return torch.cat(x.split(x.shape[3] // 2, dim=3))

    with ggdr.watch() as feats:
        D(halves(G(z).detach()))
    assert ggdr.penalty(feats, halves).shape == (6,)


def test_guides_of_another_size_than_the_prediction_are_resized(gan):
    G, D = gan
    ggdr = attach(G, D)
    with ggdr.watch() as feats:
        D(nn.functional.interpolate(G(torch.randn(2, 4)).detach(), size=(12, 12)))
    target = feats.guides["mid"]
    small = nn.functional.interpolate(target, (6, 6), mode="bilinear", antialias=True)
    assert ggdr.predict(feats)["mid"].shape == small.shape
    torch.testing.assert_close(ggdr.distance(feats), ggdr.distance(feats, lambda x: small))


def test_the_generator_may_run_in_inference_mode(gan):
    G, D = gan
    ggdr = attach(G, D)
    z = torch.randn(3, 4)
    expected = distance_of(ggdr, G, D, z)
    with ggdr.watch() as feats:
        with torch.inference_mode():
            img = G(z)
        D(img.clone())
    distance = ggdr.distance(feats)
    torch.testing.assert_close(distance, expected)
    distance.mean().backward()


def test_ggdr_as_an_attribute_registers_nothing(gan):
    G, D = gan

    class Host(nn.Module):
        def __init__(self):
            super().__init__()
            self.ggdr = attach(G, D)

    assert not list(Host().parameters())


def test_moving_takes_the_decoder_along(gan):
    ggdr = attach(*gan)
    assert ggdr.to("meta") is ggdr
    assert {p.device.type for p in ggdr.parameters()} == {"meta"}


def test_without_watch_networks_run_as_if_nothing_were_attached():
    torch.manual_seed(0)
    G, D = ToyG(), ToyD()
    plain = d_step(None, G, D)
    ggdr = attach(G, D)
    calls = [len(m._forward_hooks) + len(m._forward_pre_hooks) for net in (G, D) for m in net.modules()]
    assert not any(calls) and not any(p._backward_hooks for net in (G, D) for p in net.parameters())
    assert all(torch.equal(a, b) for a, b in zip(d_step(None, G, D), plain, strict=True))
    d_step(ggdr, G, D)
    assert all(torch.equal(a, b) for a, b in zip(d_step(None, G, D), plain, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_gives_the_same_also_in_half_precision_and_compiled(gan):
    G, D = gan
    z = torch.randn(6, 4)
    ggdr = attach(G, D)
    expected = distance_of(ggdr, G, D, z)
    G, D, ggdr, z = G.cuda(), D.cuda(), ggdr.to("cuda"), z.cuda()
    torch.testing.assert_close(distance_of(ggdr, G, D, z).cpu(), expected, rtol=1e-3, atol=1e-3)
    with torch.autocast("cuda", dtype=torch.float16), ggdr.watch() as feats:
        logits = D(G(z).detach())
    half = ggdr.distance(feats)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.cpu(), expected, rtol=0.02, atol=0.02)
    scaler = torch.amp.GradScaler()
    scaler.scale(half.mean() + logits.float().mean()).backward()
    assert all(p.grad.isfinite().all() for p in [*D.parameters(), *ggdr.parameters()])
    torch._dynamo.reset()
    compiled = torch.compile(D)
    torch.testing.assert_close(distance_of(ggdr, G, compiled, z).cpu(), expected, rtol=1e-3, atol=1e-3)
    compiled(G(z))


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs")
def test_data_parallel_on_two_gpus_gives_what_one_gives(gan):
    G, D = (net.cuda() for net in gan)
    ggdr = attach(G, D, probe=lambda: D(G(torch.zeros(2, 4, device="cuda"))))
    z = torch.randn(6, 4, device="cuda")
    expected = distance_of(ggdr, G, D, z)
    torch.testing.assert_close(distance_of(ggdr, nn.DataParallel(G), nn.DataParallel(D), z), expected)


def test_ddp_and_fsdp_give_what_one_process_gives_on_the_joined_batch(tmp_path):
    script = tmp_path / "ddp.py"
    script.write_text(
        "import torch\n"
        "from torch.nn.parallel import DistributedDataParallel as DDP\n"
        "from tests.plugin.test_plugin_hosts import PlainD, ToyG, attach, distance_of\n"
        "from ggdr.torch_utils.distributed import init_process_group\n"
        "group = init_process_group('cpu')\n"
        "rank = group.rank\n"
        "torch.manual_seed(0)\n"
        "G, D = ToyG(), PlainD()\n"
        "z = torch.randn(4, 4)\n"
        "alone = attach(G, D)\n"
        "(distance_of(alone, G, D, z).mean() + D(G(z).detach()).mean()).backward()\n"
        "expected = [p.grad.clone() for p in [*D.parameters(), *alone.parameters()]]\n"
        "state = {k: v.clone() for k, v in alone.state_dict().items()}\n"
        "wraps = [DDP]\n"
        "if torch.__version__ >= (2, 8):  # gloo reduces to shards\n"
        "    from torch.distributed.device_mesh import init_device_mesh\n"
        "    from torch.distributed.fsdp import fully_shard\n"
        "    mesh = init_device_mesh('cpu', (2,))\n"
        "    wraps.append(lambda module: fully_shard(module, mesh=mesh))\n"
        "for wrap in wraps:\n"
        "    D.zero_grad()\n"
        "    wrapped = wrap(D)\n"
        "    ggdr = attach(G, wrapped)\n"
        "    ggdr.load_state_dict(state)\n"
        "    ggdr.decoder = wrap(ggdr.decoder)\n"
        "    part = z[rank * 2 : rank * 2 + 2]\n"
        "    with ggdr.watch() as feats:\n"
        "        logits = wrapped(G(part).detach())\n"
        "    (ggdr.distance(feats).mean() + logits.mean()).backward()\n"
        "    got = [p.grad for p in [*D.parameters(), *ggdr.parameters()]]\n"
        "    got = [p.full_tensor() if hasattr(p, 'full_tensor') else p for p in got]\n"
        "    errors = [(a - b).abs().max().item() for a, b in zip(got, expected, strict=True)]\n"
        "    assert max(errors) < 1e-5 and ggdr.state_dict().keys() == state.keys()\n"
        f"open(r'{tmp_path}/' + str(rank), 'w').write(str(len(wraps)))\n"
        "group.leave()\n"
    )
    code, output = torchrun(script)
    assert code == 0, output
    assert all(int((tmp_path / str(rank)).read_text()) >= 1 for rank in range(2))
