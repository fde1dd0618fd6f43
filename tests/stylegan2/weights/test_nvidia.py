# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Networks in the pickles of StyleGAN2-ADA and GGDR: the same images and logits, or a refusal that says why."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import torch

from ggdr.decoder import FeatureDecoder
from ggdr.scripts.importing.read_foreign import read_foreign
from ggdr.stylegan2 import Discriminator, Generator
from ggdr.stylegan2.weights.common import ForeignNetworkError, ImportedNetworks
from ggdr.stylegan2.weights.nvidia import read_published
from tests.published_files import (
    EasyDict,
    Pickled,
    augment_pipe,
    module_state,
    pickled,
    small_networks,
    with_decoder,
    write_pickle,
)
from tests.reference_vectors import assert_agrees, golden_files


def rebuilt(result: ImportedNetworks) -> tuple[Generator, Discriminator]:
    G, D = Generator(result.G).eval(), Discriminator(result.D).eval()
    G.load_state_dict(result.networks["G_ema"])
    D.load_state_dict(result.networks["D"])
    return G, D


@pytest.mark.parametrize("name", ["stylegan2ada", "ggdr"])
@torch.no_grad()
def test_published_files_give_the_images_and_logits_they_should(name):
    found = golden_files(f"official_format_{name}.pkl")
    if not found:
        pytest.skip(f"no official_format_{name}.pkl in $GGDR_GOLDEN; see tests/golden/README.md")
    path = found[0]
    result = read_foreign(path)
    expected = {key: torch.from_numpy(np.array(value)) for key, value in np.load(path.with_suffix(".npz")).items()}
    G, D = rebuilt(result)
    img = G(expected["z"], truncation_psi=expected["truncation_psi"].item(), noise_mode="const")
    assert_agrees(img, expected["img_noise_const"], "images")
    assert_agrees(D(expected["d_input"]), expected["logits"], "logits")
    assert set(result.networks) == {"G", "D", "G_ema"} | ({"ggdr"} if name == "ggdr" else set())
    assert result.guides == ((8,) if name == "ggdr" else ()) and result.facts == {"augment_p": 1.0}


@pytest.mark.parametrize("protocol", range(6))
@torch.no_grad()
def test_every_protocol_gives_the_same_networks(tmp_path, protocol):
    G, D = small_networks()
    content = {"G": pickled(G), "D": pickled(D), "G_ema": pickled(G), "augment_pipe": augment_pipe(0.3)}
    content["training_set_kwargs"] = EasyDict(resolution=16, path="x.zip", size=torch.Size([3, 4]))
    result = read_published(write_pickle(tmp_path / "x.pkl", content, protocol=protocol))
    assert (result.G, result.D) == (G.config, D.config)
    for name, net in (("G", G), ("G_ema", G), ("D", D)):
        state = net.state_dict()
        assert list(result.networks[name]) == list(state)
        assert all(torch.equal(result.networks[name][key], value) for key, value in state.items())
    assert result.facts == {"augment_p": pytest.approx(0.3)}


@pytest.mark.parametrize("G_architecture", ["skip", "resnet", "orig"])
@pytest.mark.parametrize("D_architecture", ["skip", "resnet", "orig"])
@torch.no_grad()
def test_architectures_and_classes_are_recognised(tmp_path, G_architecture, D_architecture):
    G, D = small_networks(c_dim=3, img_channels=1, res=8, G_architecture=G_architecture, D_architecture=D_architecture)
    path = write_pickle(tmp_path / "x.pkl", {"D": pickled(D), "G_ema": pickled(G)})
    result = read_published(path)
    assert result.G.architecture == G_architecture and result.D.architecture == D_architecture
    assert result.G.c_dim == result.D.c_dim == 3
    ours_G, ours_D = rebuilt(result)
    z, c = torch.randn(2, 6), torch.eye(3)[:2]
    img = G(z, c, truncation_psi=0.5, noise_mode="const")
    assert torch.equal(ours_G(z, c, truncation_psi=0.5, noise_mode="const"), img)
    assert torch.equal(ours_D(img, c), D(img, c))


@pytest.mark.parametrize(
    ("content", "networks", "note"),
    [
        ({"G_ema": 0}, {"G_ema"}, None),
        ({"G": 0, "D": 1}, {"G_ema", "D"}, "G is used in its place"),
        ({"D": 1}, {"D"}, None),
        (0, {"G_ema"}, None),
    ],
)
def test_files_may_hold_some_of_the_networks(tmp_path, content, networks, note):
    nets = [pickled(net) for net in small_networks()]
    content = {key: nets[i] for key, i in content.items()} if isinstance(content, dict) else nets[content]
    result = read_published(write_pickle(tmp_path / "x.pkl", content))
    assert set(result.networks) == networks
    assert note is None or any(note in text for text in result.notes)


@torch.no_grad()
def test_a_generator_without_mean_w_gets_one(tmp_path):
    G, _ = small_networks()

    def forget(name, state):
        state["_buffers"].pop("w_avg", None)

    result = read_published(write_pickle(tmp_path / "x.pkl", {"G_ema": pickled(G, forget)}))
    expected = G.mapping(torch.randn(20_000, 6), None)[:, 0].mean(dim=0)
    torch.testing.assert_close(result.networks["G_ema"]["mapping.w_avg"], expected, atol=0.05, rtol=0)
    assert expected.abs().max() > 0.2 and "10,000 latents" in result.notes[0]


# GGDR's decoders.


def decoder_of(D: Discriminator, guide: int, channels: int) -> FeatureDecoder:
    encoder = {f"b{2 * r}": (D.config.channels(r), r, r) for r in (4, 8, 16) if 2 * r <= D.config.img_resolution}
    decoder = FeatureDecoder(encoder, {"guide": (channels, guide, guide)})
    for value in decoder.parameters():
        torch.nn.init.normal_(value)
    return decoder


@pytest.mark.parametrize("guide", [8, 16])
def test_decoders_come_along_with_their_guide(tmp_path, guide):
    G, D = small_networks()
    decoder = decoder_of(D, guide, G.config.channels(guide))
    path = write_pickle(tmp_path / "x.pkl", {"G_ema": pickled(G), "D": with_decoder(D, decoder)})
    result = read_foreign(path)
    assert result.kind == "pickle of GGDR"
    assert result.config()["training"] == {"regularizers": {"ggdr": {"guide_res": [guide], "weight": 10.0}}}
    for name, value in decoder.state_dict().items():
        assert torch.equal(result.networks["ggdr"][name], value)


@pytest.mark.parametrize("change", ["channels", "size"])
def test_a_decoder_of_another_layout_is_left_out_and_said_so(tmp_path, change):
    G, D = small_networks()
    decoder = decoder_of(D, 8, G.config.channels(8) + (change == "channels"))
    if change == "size":
        decoder.b99999_dec = decoder.b8_dec
        del decoder.b8_dec
    path = write_pickle(tmp_path / "x.pkl", {"G_ema": pickled(G), "D": with_decoder(D, decoder)})
    result = read_foreign(path)
    assert "ggdr" not in result.networks and "training" not in result.config()
    assert "decoder is left out" in result.notes[0]


@pytest.mark.parametrize("with_G", [True, False])
@pytest.mark.parametrize(
    ("guide", "weight"),
    [(0, torch.ones(8, 8, 1, 1)), (12, torch.ones(8, 8, 1, 1)), (8, torch.ones([])), (8, torch.ones(2**40, 0, 1, 1))],
    ids=["no pixels", "no power of two", "no shape", "too many maps"],
)
def test_decoders_that_cannot_be_are_left_out(tmp_path, guide, weight, with_G):
    G, D = small_networks()
    layer = Pickled("Conv2dLayer", module_state({"weight": weight}, {}, {}, activation="linear", up=2))
    content = {"D": pickled(D, with_module(f"b{guide}_dec", layer))} | ({"G_ema": pickled(G)} if with_G else {})
    result = read_foreign(write_pickle(tmp_path / "x.pkl", content))
    assert "D" in result.networks and "ggdr" not in result.networks and "decoder is left out" in result.notes[0]


def with_module(key: str, module: Pickled):
    """A tweak that puts one more module into a network."""
    return lambda name, state: state["_modules"].update({key: module} if name == "" else {})


@pytest.mark.parametrize("p", [torch.tensor(1j), torch.tensor(float("nan")), torch.ones(2), torch.tensor(3)])
def test_an_augmentation_probability_of_another_kind_is_left_out(tmp_path, p):
    G, _ = small_networks()
    pipe = Pickled("AugmentPipe", module_state({}, {"p": p}, {}))
    assert read_published(write_pickle(tmp_path / "x.pkl", {"G_ema": pickled(G), "augment_pipe": pipe})).facts == {}


# Refusals.


def changed(name: str, **attributes):
    """A tweak of one module's attributes."""

    def tweak(where, state):
        if where == name:
            state.update(attributes)

    return tweak


def changed_tensor(name: str, key: str, value):
    def tweak(where, state):
        if where == name:
            group = "_parameters" if key in state["_parameters"] else "_buffers"
            state[group][key] = value

    return tweak


G_TWEAKS = [
    (changed("synthesis.b8.conv0", activation="relu"), "synthesis.b8.conv0 has activation relu; supported is lrelu"),
    (changed("synthesis.b8.conv0", use_noise=False), "use_noise False"),
    (changed("synthesis.b8.conv0", up=1), "has up 1; supported is 2"),
    (changed("synthesis.b8.conv0", up=[2]), "has up a list"),
    (changed("synthesis.b8.conv0", conv_clamp=128), "several bounds"),
    (changed("synthesis.b8.conv0", conv_clamp="256"), "conv_clamp 256"),
    (changed("mapping.fc1", bias_gain=0.5), "mapping.fc1 has bias_gain 0.5; supported is 0.01"),
    (changed("mapping.fc0", bias_gain=-1), "bias_gain -1"),
    (changed_tensor("synthesis.b8.conv0", "resample_filter", torch.ones(4, 4) / 16), "another filter"),
    (changed_tensor("synthesis.b8.conv0", "resample_filter", torch.ones(12)), r"\[12\] instead of \[4, 4\]"),
    (changed_tensor("synthesis.b16.conv0", "weight", torch.ones(4, 7, 3, 3)), r"\[4, 7, 3, 3\] instead of"),
    (changed_tensor("synthesis.b16.conv1", "weight", torch.ones(9, 9, 3, 3)), "9 at 16x16"),
    (changed_tensor("synthesis.b8.conv0", "extra", torch.ones(2)), "unexpected: synthesis.b8.conv0.extra"),
    (changed_tensor("synthesis.b8.conv0", "bias", None), "missing: synthesis.b8.conv0.bias"),
    (changed_tensor("synthesis.b8.conv0", "bias", torch.ones(8, dtype=torch.int64)), "int64"),
    (changed_tensor("synthesis.b8.conv0", "bias", 1.0), "parameters that are no tensors"),
    (changed("synthesis.b8", _modules=[1]), "modules by name"),
    (changed("synthesis.b8", _modules={"conv0": 7}), "synthesis.b8.conv0 is a int, not a network"),
]


@pytest.mark.parametrize(("tweak", "message"), G_TWEAKS)
def test_generators_that_ours_cannot_represent_are_refused(tmp_path, tweak, message):
    G, _ = small_networks()
    path = write_pickle(tmp_path / "x.pkl", {"G_ema": pickled(G, tweak)})
    with pytest.raises(ForeignNetworkError, match=message):
        read_published(path)


@pytest.mark.parametrize(
    ("tweak", "message"),
    [
        (changed("b8.conv1", down=1), "has down 1; supported is 2"),
        (changed("b4.out", activation="lrelu"), "supported is linear"),
        (changed("b4.mbstd", group_size=[4]), "b4.mbstd|group size"),
        (changed_tensor("b4.out", "weight", torch.ones(2, 8)), r"\[2, 8\] instead of \[1, 8\]"),
        (changed_tensor("b16.fromrgb", "weight", torch.ones(4, 1, 1, 1)), "img_channels: 3 and 1"),
    ],
)
def test_discriminators_that_ours_cannot_represent_are_refused(tmp_path, tweak, message):
    G, D = small_networks()
    D = pickled(D, tweak)
    if "group size" in message:
        D.meta["state"]["_modules"]["b4"].meta["state"]["_modules"]["mbstd"].meta["state"]["group_size"] = [4]
    path = write_pickle(tmp_path / "x.pkl", {"G_ema": pickled(G), "D": D})
    with pytest.raises(ForeignNetworkError, match=message):
        read_published(path)


def test_layers_that_share_one_memory_are_refused(tmp_path):
    G, _ = small_networks()
    storage = torch.randn(3 * 3 * 8 * 8)
    weight = storage.view(3, 3, 8, 8).permute(2, 3, 0, 1)
    networks = {}
    for names in (["synthesis.b8.conv1"], ["synthesis.b4.conv1", "synthesis.b8.conv1"]):

        def share(where, state, names=names):
            if where in names:
                state["_parameters"]["weight"] = weight

        networks[len(names)] = write_pickle(tmp_path / f"{len(names)}.pkl", {"G_ema": pickled(G, share)})
    with pytest.raises(ForeignNetworkError, match="G_ema has layers that share one memory"):
        read_published(networks[2])
    read = read_published(networks[1]).networks["G_ema"]["synthesis.b8.conv1.weight"]
    assert torch.equal(read, weight) and read.is_contiguous()


def test_a_module_that_holds_itself_is_refused(tmp_path):
    G = pickled(small_networks()[0])
    G.meta["state"]["_modules"]["again"] = G
    with pytest.raises(ForeignNetworkError, match="G_ema.again is not built as a network is"):
        read_published(write_pickle(tmp_path / "x.pkl", {"G_ema": G}))


def test_networks_that_double_at_each_level_are_refused_at_once(tmp_path):
    net = Pickled("Layer", module_state({}, {}, {}))
    for _ in range(60):
        net = Pickled("Layer", module_state({}, {}, {"a": net, "b": net}))
    with pytest.raises(ForeignNetworkError, match="not built as a network"):
        read_published(write_pickle(tmp_path / "x.pkl", {"G_ema": net}))


def test_values_that_take_forever_to_write_out_are_not(tmp_path):
    laughs = [1]
    for _ in range(200):
        laughs = [laughs, laughs]
    G, _ = small_networks()
    path = write_pickle(tmp_path / "x.pkl", {"G_ema": pickled(G, changed("synthesis.b8.conv0", activation=laughs))})
    with pytest.raises(ForeignNetworkError, match="activation a list"):
        read_published(path)


def test_stylegan3_generators_are_called_by_their_name(tmp_path):
    synthesis = Pickled("SynthesisNetwork", module_state({}, {}, {"input": Pickled("S", module_state({}, {}, {}))}))
    G = Pickled("Generator", module_state({}, {}, {"synthesis": synthesis}, sizes=np.array([3, 4])))
    with pytest.raises(ForeignNetworkError, match="StyleGAN3 generator; supported are StyleGAN2"):
        read_published(write_pickle(tmp_path / "x.pkl", {"G_ema": G}))


def test_pickles_of_tensorflow_are_called_by_their_name(tmp_path):
    (tmp_path / "x.pkl").write_bytes(b"\x80\x02cdnnlib.tflib.network\nNetwork\nq\x00.")
    with pytest.raises(ForeignNetworkError, match="StyleGAN for TensorFlow; supported are"):
        read_published(tmp_path / "x.pkl")


@pytest.mark.parametrize("content", [{}, {"G": None}, {"H": 1}, [1, 2], 7, {"G": {"a": torch.ones(2)}}, {(): 1}])
def test_pickles_without_networks_are_refused(tmp_path, content):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ForeignNetworkError):
        read_published(tmp_path / "x.pkl")


def test_source_text_in_the_file_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    G, _ = small_networks()
    G = pickled(G)
    G.meta["module_src"] = "import os; os.mkdir('ran')"
    read_published(write_pickle(tmp_path / "x.pkl", {"G_ema": G}))
    assert os.listdir(tmp_path) == ["x.pkl"]
