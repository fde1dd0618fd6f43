# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Two processes that train as one, over gloo."""

from __future__ import annotations

import json

import pytest
import torch

from ggdr.torch_utils.checkpoint import load_state
from ggdr.torch_utils.distributed import ProcessGroup, init_process_group
from ggdr.torch_utils.runlog import read_stats
from tests.conftest import TINY_RUN, python, torchrun


def train_args(dataset_zip, outdir, *args):
    # 8 images an iteration: 4 for each of two processes. Tick 0: every iteration is reported.
    options = ["--cfg", "auto", "--aug", "fixed", "--p", 0.6, "--cond", "--tick", 0.001, "--snap", 2, "--kimg", 0.032]
    return ["--data", dataset_zip, "--outdir", outdir, *TINY_RUN, *options, *args]


def test_two_processes_give_what_one_gives_on_the_joined_batch(dataset_zip, tmp_path):
    code, output = torchrun("-m", "ggdr", "train", *train_args(dataset_zip, tmp_path / "two"))
    assert code == 0, output
    process = python("-m", "ggdr", "train", *train_args(dataset_zip, tmp_path / "one"))
    assert (process.communicate()[0], process.returncode)[1] == 0
    one, two = read_stats(tmp_path / "one"), read_stats(tmp_path / "two")
    assert len(one) == len(two) == 4
    for a, b in zip(one, two, strict=True):
        keys = [k for k in a if k.startswith(("loss", "score", "ggdr", "grad_norm"))]
        assert {k: a[k] for k in keys} == pytest.approx({k: b[k] for k in keys}, rel=2e-3, abs=2e-4)
    # Only rank 0 writes: one log, one status line a tick, one event file.
    assert output.count("tick 8 ") == 1
    assert len(list((tmp_path / "two").glob("events*"))) == 1
    # A run of two processes goes on as one, and says so.
    process = python("-m", "ggdr", "train", "--outdir", tmp_path / "two", "--resume", "latest", "--kimg", 0.04)
    output = process.communicate()[0]
    assert "num_processes 2 -> 1" in output, output
    assert load_state(tmp_path / "two" / "training-state.pt")["counters"]["nimg"] == 40


def test_an_error_on_one_rank_ends_all(dataset_zip, tmp_path):
    script = tmp_path / "fail.py"
    script.write_text(
        "import os, ggdr.torch_utils.loop as loop\n"
        "run = loop.PhaseRunner.run\n"
        "def failing(self, phase, *args):\n"
        "    if os.environ['RANK'] == '1' and phase.name == 'D': raise OSError(5, 'broken', 'disk')\n"
        "    run(self, phase, *args)\n"
        "loop.PhaseRunner.run = failing\n"
        "from ggdr.scripts.train import main\n"
        "main()\n"
    )
    code, output = torchrun(script, *train_args(dataset_zip, tmp_path / "run"))
    assert code != 0 and "disk: broken" in output
    assert not (tmp_path / "run" / "training-state.pt").exists()


@pytest.mark.parametrize(
    ("ending", "message"),
    [("os._exit(0)", "another process ended"), ("time.sleep(60)", "did not answer in time (Timed out waiting 3000ms")],
)
def test_a_process_that_is_lost_is_an_error_that_says_so(tmp_path, ending, message):
    script = tmp_path / "lost.py"
    script.write_text(
        "import os, time\n"
        "from ggdr.torch_utils.distributed import LostPeer, init_process_group\n"
        "group = init_process_group('cpu', 0.05)\n"
        "group.barrier()\n"
        f"if group.rank == 1: {ending}\n"
        "try: group.barrier()\n"
        "except LostPeer as error: print('lost:', error, flush=True)\n"
        "os._exit(2)\n"
    )
    code, output = torchrun(script)
    assert code != 0 and "lost: " in output and message in output, output


def test_a_lost_process_ends_the_run_with_what_to_type(dataset_zip, tmp_path):
    script = tmp_path / "lost.py"
    script.write_text(
        "import os, ggdr.torch_utils.loop as loop\n"
        "iteration = loop.PhaseRunner.iteration\n"
        "def dying(self, batch, at):\n"
        "    if os.environ['RANK'] == '1' and at.nimg == 16: os._exit(0)\n"
        "    return iteration(self, batch, at)\n"
        "loop.PhaseRunner.iteration = dying\n"
        "from ggdr.scripts.train import main\n"
        "main()\n"
    )
    run = tmp_path / "a run"
    code, output = torchrun(script, *train_args(dataset_zip, run))
    output = " ".join(output.split())
    command = f"torchrun --nproc-per-node 2 --no-python ggdr train --outdir '{run}' --resume latest"
    assert code != 0 and "Traceback" not in output.split("Error: ")[0], output  # after it torchrun's own follows
    assert "Error: another process ended" in output and f"training-state.pt; go on from it with: {command}" in output


def test_a_metric_that_fails_on_one_process_fails_on_all_and_training_goes_on(dataset_zip, tmp_path):
    script = tmp_path / "fail.py"
    script.write_text(
        "import os\n"
        "from ggdr.scripts.measuring.judge import GeneratorJudge\n"
        "jobs = GeneratorJudge.jobs\n"
        "def failing(self, snapshot, specs):\n"
        "    if os.environ['RANK'] == '1': raise OSError(5, 'Input/output error', str(snapshot))\n"
        "    return jobs(self, snapshot, specs)\n"
        "GeneratorJudge.jobs = failing\n"
        "from ggdr.scripts.train import main\n"
        "main()\n"
    )
    run = tmp_path / "run"
    code, output = torchrun(script, *train_args(dataset_zip, run, "--metrics", "fd_offline0.1k_full"))
    assert code == 0 and "done: 0.032 kimg" in output, output
    assert output.count("process 1: metrics of network-snapshot") == output.count("Input/output error") == 4
    assert output.count("failed: another process failed; its own message says why; network-best.safetensors is") == 4
    assert load_state(run / "training-state.pt")["counters"]["nimg"] == 32


def test_collectives_and_the_check_of_gradients(tmp_path):
    script = tmp_path / "collectives.py"
    script.write_text(
        "import json, torch\n"
        "from ggdr.torch_utils.distributed import init_process_group\n"
        "g = init_process_group('cpu')\n"
        "p, q = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))\n"
        "p.grad = torch.full([2], float(g.rank + 1))\n"
        "g.average_gradients_([p, q], check=True)\n"
        "out = {'mean': p.grad.tolist(), 'other': q.grad, 'any': g.any(g.rank == 1), 'main': g.is_main}\n"
        "x = torch.full([1], float(g.rank)); g.broadcast_([x]); out['broadcast'] = x.item()\n"
        "if g.rank == 1: q.grad = torch.zeros(2)\n"
        "try: g.average_gradients_([p, q], check=True)\n"
        "except RuntimeError as error: out['error'] = str(error)\n"
        f"open(r'{tmp_path}/' + str(g.rank), 'w').write(json.dumps(out))\n"
        "g.leave()\n"
    )
    code, output = torchrun(script)
    assert code == 0, output
    results = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(2)]
    for rank, out in enumerate(results):
        assert out["mean"] == [1.5, 1.5] and out["other"] is None and out["any"] and out["broadcast"] == 0
        assert out["main"] == (rank == 0) and "different parameters" in out["error"]


def test_a_single_process_needs_no_collectives():
    group = ProcessGroup()
    assert group.any(True) and not group.any(False) and group.is_main
    assert group.sum_(torch.ones(1)).item() == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_named():
    with pytest.raises(ValueError, match="'cuda' asked for, but torch .* sees no CUDA GPU"):
        init_process_group("cuda")
