# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""docs/plugin.md: its code runs from top to bottom, its output is what comes out, and its messages are raised."""

from __future__ import annotations

import re

import pytest
import torch
from torch import distributed, nn

from ggdr import FeatureDecoder, suggest
from tests.conftest import ROOT
from tests.toy_gan import ToyD, ToyG, attach

PAGE = (ROOT / "docs" / "plugin.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, flags=re.M | re.S)


@pytest.fixture
def process_group(tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_python_of_the_page_runs_and_prints_what_it_shows(process_group, capsys):
    torch.manual_seed(0)
    names: dict = {}
    shown = [""]
    for i, (language, code) in enumerate(BLOCKS):
        if language != "python":
            continue
        exec(compile(code, f"docs/plugin.md, block {i}", "exec"), names)
        if printed := capsys.readouterr().out:
            shown = BLOCKS[i + 1]
            assert shown == ("text", printed)
        if "d_step" in code and "def" in code:
            before = [p.clone() for p in (*names["D"].parameters(), *names["ggdr"].parameters())]
            names["d_step"](torch.rand(4, 3, 64, 64))
            after = (*names["D"].parameters(), *names["ggdr"].parameters())
            assert not any(torch.equal(p, q) for p, q in zip(before, after, strict=True))
        if "penalty = " in code:
            assert names["penalty"].shape in [(8,), (16,)] and names["penalty"].dtype == torch.float32
    assert shown[0] == "text"
    assert len(names["two"].guides) == 2


def test_views_of_the_page_agree_on_images_and_on_maps_of_half_the_size():
    torch.manual_seed(0)
    names: dict = {"torch": torch}
    for _, code in BLOCKS:
        if "def draw_view" in code or "def crop" in code:
            exec(code.split("\nview = ")[0], names)
    ramp = torch.linspace(-1, 1, 64)
    img = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64)]).expand(3, 2, 64, 64)
    # Shifts bring zeros in, at most four pixels of the small map.
    for warp, inside in ((names["draw_view"](3), slice(5, -5)), (names["crop"], slice(None))):
        small_then_warped = warp(nn.functional.avg_pool2d(img, 2))
        warped_then_small = nn.functional.avg_pool2d(warp(img), 2)
        assert not torch.allclose(warped_then_small[..., :16, :16], nn.functional.avg_pool2d(img, 2)[..., :16, :16])
        torch.testing.assert_close(
            small_then_warped[..., inside, inside], warped_then_small[..., inside, inside], atol=0.001, rtol=0
        )


def mistakes():
    """What a user may do wrong, each as a function that raises."""
    G, D = ToyG(), ToyD()
    ggdr, other = attach(G, D), attach(G, D)
    z = torch.zeros(2, 4)

    def watched(run, *, calls=1, of=ggdr, **kwargs):
        with of.watch(calls=calls) as feats:
            run()
        ggdr.penalty(feats, **kwargs)

    def older_images():
        img = G(z)
        with ggdr.watch() as feats:
            D(img)
            G(z)
        ggdr.penalty(feats)

    def frozen():
        net = ToyD()
        net.e8.requires_grad_(False)
        net.e4.requires_grad_(False)
        attach(G, net)

    def compiled():
        @torch.compile(backend="eager")
        def step():
            with ggdr.watch():
                D(G(z))

        step()

    def without_gradients():
        with torch.no_grad():
            D(G(z))

    class Script(torch.jit.ScriptModule):
        pass

    fakes = G(z)
    yield lambda: attach(G, D, guide="synthesis.b8")
    yield lambda: watched(lambda: G(z))
    yield lambda: watched(lambda: (D(G(z)), D(fakes)))
    yield lambda: watched(lambda: D(G(z)), calls=2)
    yield lambda: watched(lambda: (D(G(z)), D(fakes)), calls=2, warp=[abs])
    yield lambda: attach(G, D, encoder=["e4", "out"])
    yield lambda: watched(lambda: D(G(z)[:1]))
    yield lambda: watched(without_gradients)
    yield older_images
    yield lambda: attach(D, G, guide="e8", encoder=["mid"], probe=lambda: D(G(z)))
    yield lambda: watched(lambda: D(G(z)), of=other)
    yield lambda: attach(G, D, encoder=["e8"])
    yield lambda: FeatureDecoder({"b2": (3, 2, 2)}, {"b16": (3, 16, 16)})
    yield lambda: attach(G, D, encoder=["e4", "e8.0", "e8.1"], guide="top")
    yield frozen
    yield lambda: suggest(G, D, lambda: None)
    yield lambda: suggest(G, nn.Linear(2, 2), lambda: G(z))
    yield lambda: suggest(G, Script(), lambda: None)
    yield compiled


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_message_of_the_page_is_raised():
    table = PAGE.split("## What the messages mean")[1]
    patterns = [re.escape(row).replace("…", ".*") for row in re.findall(r"^\| `(.*?)` \|", table, flags=re.M)]
    assert len(patterns) == 19
    for pattern, mistake in zip(patterns, mistakes(), strict=True):
        with pytest.raises((ValueError, RuntimeError), match=pattern):
            mistake()
