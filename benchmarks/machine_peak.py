#!/usr/bin/env python3
# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Prints this machine's rates of matrix products and 3x3 convolutions in GFLOP/s, as one JSON object.

python benchmarks/machine_peak.py --threads 2
"""

from __future__ import annotations

import argparse
import json

import torch

from ggdr.torch_utils.timing.machine_peak import conv_rate, matmul_rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, help="of a CPU; default: all")
    args = parser.parse_args()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    rates = {"device": str(device), "threads": torch.get_num_threads()}
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        rates[f"matmul_{name}"] = round(matmul_rate(device, dtype) / 1e9, 1)
        rates[f"conv3x3_{name}"] = round(conv_rate(device, dtype) / 1e9, 1)
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
