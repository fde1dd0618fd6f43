# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Whole optimiser steps of the training loop against those of the published GGDR training code."""

from __future__ import annotations

import pytest

from tests.golden_steps import step_cases, step_errors
from tests.reference_vectors import Golden, assert_all_agree, golden_params

STEPS = [
    pytest.param(file.values[0], step, name, id=f"{file.id}-{step}-{name}")
    for file in golden_params("trajectory_")
    for step, name in step_cases(Golden(file.values[0]))
]


@pytest.mark.parametrize(("path", "step", "name"), STEPS)
def test_one_step_gives_the_published_gradients_weights_and_moments(path, step, name):
    assert_all_agree(step_errors(Golden(path), step, name))
