# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What README and docs show works as it stands there."""

from __future__ import annotations

import re
import shlex

import click
import pytest
import torch

from ggdr.scripts.cli import COMMANDS, main
from ggdr.torch_utils.checkpoint import save_snapshot
from tests.conftest import ROOT
from tests.stylegan2.test_networks import TINY, Generator, GeneratorConfig

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page, *languages):
    """Code blocks of a page in one of these languages; "" is a block without one."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), flags=re.M | re.S)
    return [code for language, code in found if language in languages]


def commands(page):
    """Every `ggdr NAME ...` and `torchrun ... ggdr NAME ...` line of a page's shell blocks, as (NAME, arguments)."""
    for code in blocks(page, "bash", "sh", "console", ""):
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True) if re.match(r"(\$ )?\w", line) else []
            if words[:1] == ["ggdr"]:
                yield words[1], words[2:]
            elif words[:1] == ["torchrun"]:
                i = words.index("--no-python")
                assert words[i + 1] == "ggdr"
                yield words[i + 2], words[i + 3 :]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_shown_has_only_options_that_exist(page):
    for name, args in commands(page):
        assert name in COMMANDS, f"{page.name}: ggdr {name}"
        if "[OPTIONS]" in args:
            continue
        command = main.get_command(click.Context(main), name)
        command.make_parser(click.Context(command)).parse_args(args=list(args))


def test_the_readme_shows_commands():
    assert {"dataset", "train", "generate", "curves"} <= {name for name, _ in commands(PAGES[0])}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text()
    for target in [*re.findall(r"\]\(([^)#:]+)\)", text), *re.findall(r'src="([^":]+)"', text)]:
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    G = Generator(GeneratorConfig(32, z_dim=8, w_dim=8, mapping_num_layers=2, **TINY))
    path = tmp_path / "runs" / "cifar" / "network-snapshot-000200.safetensors"
    path.parent.mkdir(parents=True)
    save_snapshot(path, {"G_ema": G.state_dict()}, {"G": G.config.__dict__})
    namespace: dict = {}
    for code in blocks(PAGES[0], "python"):
        exec(compile(code, "README.md", "exec"), namespace)
    assert namespace["img"].shape == (4, 3, 32, 32)
    real_img, z = torch.rand(8, 3, 16, 16) * 2 - 1, torch.randn(8, 64, 1, 1)
    losses = [namespace["d_step"](real_img, z) for _ in range(16)]
    assert losses[-1] < losses[0]


def test_the_readme_is_short():
    assert len(PAGES[0].read_text().split()) < 900
