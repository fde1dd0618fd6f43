# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Control characters in files of strangers do not reach the terminal.

click takes the most common ones (CSI) out of what is printed to no terminal: those used here are others (OSC).
"""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from ggdr.scripts import cli
from ggdr.scripts.cli import main as ggdr
from ggdr.scripts.terminal import say
from ggdr.scripts.training.resume import load_resumed
from ggdr.torch_utils.checkpoint import SnapshotError, load_snapshot, save_state
from ggdr.torch_utils.process_lock import process_lock
from ggdr.torch_utils.runlog import RunLog
from ggdr.torch_utils.untrusted.text import visible
from tests.conftest import ROOT
from tests.hostile.test_runs import make_run

OSC = "\x1b]0;OWNED\x07"
SHOWN = "\\x1b]0;OWNED\\x07"


def test_control_characters_are_shown_and_text_of_all_languages_stays():
    assert visible(f"a{OSC}b\nc\r\x9b\u202e") == f"a{SHOWN}b\nc\\r\\x9b\\u202e"
    for text in ("ü, 画像　フォルダ", "a\u00a0b", "🙂", "two\nlines"):
        assert visible(text) == text
    visible("\udcff").encode()


def test_what_commands_say_is_shown(capsys):
    say(OSC)
    say(OSC, err=True)
    assert capsys.readouterr() == (f"{SHOWN}\n", f"{SHOWN}\n")


@pytest.mark.parametrize("error", [click.ClickException, click.UsageError, click.BadParameter])
def test_errors_of_commands_are_shown(monkeypatch, error):
    @click.command()
    def evil() -> None:
        raise error(OSC)

    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda self, ctx, name: evil)
    result = CliRunner().invoke(ggdr, ["evil"], color=True)
    assert "\x1b" not in result.output and "]0;OWNED" in result.output


def test_logs_are_shown(tmp_path):
    terminal = io.StringIO()
    with RunLog(tmp_path, total_nimg=1, console=Console(file=terminal)) as log:
        log.info(f"{OSC}\nsecond")
    log_text = (tmp_path / "log.txt").read_text()
    assert "\x1b" not in terminal.getvalue() + log_text and SHOWN in terminal.getvalue() and SHOWN in log_text
    assert log_text.count("\n") == 2


def test_no_command_prints_otherwise():
    found = {}
    for path in sorted((ROOT / "scripts").rglob("*.py")):
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if re.search(r"\b(click\.s?echo|(?<![.\w])print)\(", line):
                found[f"{path.name}:{number}"] = line
    assert [name.partition(":")[0] for name in found] == ["terminal.py"], found


# Where it got through.


def options_with(tmp_path: Path, **command: object) -> Path:
    run = make_run(tmp_path / "run", **{"training_options.json": json.dumps({"command": command})})
    (run / "training-state.pt").touch()
    return run


def invoke(*words: object) -> str:
    """In a line, what a command printed that ended with exit code 2."""
    result = CliRunner().invoke(ggdr, list(map(str, words)), color=True)
    assert result.exit_code == 2 and "\x1b" not in result.output, result.output
    return "".join(result.output.splitlines())


def test_the_dataset_of_a_resumed_run(tmp_path):
    run = options_with(tmp_path, data=f"/x/{OSC}\nfake line")
    output = invoke("train", "--outdir", run, "--resume", "latest", "--device", "cpu")
    assert f"/x/{SHOWN}\\nfake line, which the resumed run was trained on, is gone" in output


def test_the_host_of_a_resumed_run(tmp_path):
    run = options_with(tmp_path)
    (run / "training_options.json").write_text(json.dumps({"command": {}, "host": OSC}))
    assert SHOWN in invoke("train", "--outdir", run, "--resume", "latest", "--device", "cpu")


@pytest.mark.parametrize("is_fixed", [True, False])
def test_settings_in_a_training_state(tmp_path, is_fixed):
    @dataclass
    class Settings:
        def to_json(self) -> dict:
            return {"G": {"z_dim": 8}, "regularizers": {}}

    options = {"G": {"z_dim": OSC, OSC: [OSC, {OSC: 1}]}, "regularizers": {OSC: {OSC: 1}}}
    state = {"options": options, "counters": {"nimg": 1, "step": 1}, "device_type": "cpu"}
    state |= {"stats": {}, "task": {"networks": {}}}
    save_state(tmp_path / "training-state.pt", state)
    try:
        text = str(load_resumed(tmp_path / "training-state.pt", Settings(), "cpu", lambda name: is_fixed, str)[1])
    except click.ClickException as error:
        text = error.message
    assert "\x1b" not in text and "\x07" not in text and "]0;OWNED" in text


def test_the_name_of_a_metrics_file(tmp_path):
    run = make_run(tmp_path / "run", **{f"metric-{OSC}.jsonl": "{}\n"})
    for words in (["report", run], ["curves", run, "--out", tmp_path / "c.png"]):
        assert SHOWN in invoke(*words)


def test_the_text_of_a_lock(tmp_path):
    (tmp_path / "lock").write_text(OSC + "x" * 10_000)
    holders = []

    def refuse(holder: str) -> None:
        holders.append(holder)
        raise InterruptedError

    with open(tmp_path / "lock") as file:
        lock = pytest.importorskip("filelock").lock_descriptor
        assert lock(file.fileno(), blocking=False)
        with pytest.raises(InterruptedError), process_lock(tmp_path / "lock", refuse):
            pass
    assert holders[0].startswith(SHOWN) and len(holders[0]) < 300


def test_the_name_of_a_snapshot_that_a_run_started_from(tmp_path):
    options = {"command": {"data": "x"}, "init_snapshot": f"{tmp_path}/{OSC}"}
    run = make_run(tmp_path / "run", **{"training_options.json": json.dumps(options)})
    (tmp_path / "d").mkdir()
    words = ["--outdir", run, "--resume", "latest", "--data", tmp_path / "d", "--device", "cpu"]
    invoke("train", *words)
    with pytest.raises(SnapshotError, match="no such file"):
        load_snapshot(options["init_snapshot"])
