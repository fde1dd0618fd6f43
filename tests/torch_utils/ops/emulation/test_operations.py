# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The CUDA kernels, emulated, against the reference: the tests of the compiled operations, and random calls."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from ggdr.torch_utils.ops import build
from ggdr.torch_utils.ops.modulation import demodulated_act, modulate
from tests.torch_utils.ops import test_modulation as modulation
from tests.torch_utils.ops import test_native_ops as native
from tests.torch_utils.ops.emulation.library import ORDERS
from tests.torch_utils.ops.emulation.random_cases import CHECKS, check_random_cases
from tests.torch_utils.ops.emulation.rewrite import kernels
from tests.torch_utils.ops.test_demodulation import (  # noqa: F401
    test_derivatives_up_to_the_third_agree_with_the_reference as test_derivatives_of_demodulation,
)
from tests.torch_utils.ops.test_demodulation import (  # noqa: F401
    test_gradients_of_styles_ask_for_none_of_weights,
    test_registration_is_complete,
    test_results_of_a_demodulated_convolution_have_unit_variance,
    test_scaled_weights_and_their_gradients_are_rounded_once,
)
from tests.torch_utils.ops.test_demodulation import (  # noqa: F401
    test_wrong_arguments_are_named as test_wrong_arguments_of_demodulation_are_named,
)
from tests.torch_utils.ops.test_modulation import (  # noqa: F401
    test_demodulated_act_agrees_with_the_reference,
    test_derivatives_up_to_the_third_agree_with_the_reference,
    test_gradient_is_zero_exactly_where_the_result_was_clamped,
    test_modulate_agrees_with_the_reference,
    test_nan_and_infinity_reach_the_result,
)
from tests.torch_utils.ops.test_native_ops import (  # noqa: F401
    test_bias_act_agrees_with_the_reference,
    test_bias_act_finds_the_slope_for_gains_of_either_sign,
    test_bias_act_passes_nan_and_infinity_as_the_reference_does,
    test_second_derivatives_of_a_small_discriminator_agree_with_the_reference,
    test_smooth_activations_have_a_third_derivative,
    test_upfirdn2d_agrees_with_the_reference,
    test_upfirdn2d_joins_the_tiles_of_wide_images,
    test_wrong_arguments_of_the_operations_are_named,
)

pytestmark = pytest.mark.usefixtures("native_ops")
SOURCES = build.device_sources("cuda")


@pytest.fixture(autouse=True)
def _loops_and_sums(emulation, native_ops, monkeypatch):
    """Few blocks, so that each does several pieces of the work; no long sums, which torch does, less well on a CPU."""
    emulation.set(max_blocks=3, order="shuffled")
    shapes = [(shape, dim) for shape, dim in native.BIAS_ACT_SHAPES if math.prod(shape) < 10_000]
    monkeypatch.setattr(native, "BIAS_ACT_SHAPES", shapes)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_random_calls_agree_with_the_reference(emulation, source):
    assert source.stem in CHECKS, f"{source.name} has no random calls; CHECKS of random_cases.py lists them"
    before = {kernel: emulation.launches(kernel) for kernel in kernels([source])}
    check_random_cases(emulation, source.stem, num=150)
    idle = [kernel for kernel, num in before.items() if emulation.launches(kernel) == num]
    assert not idle, f"no random call launches {', '.join(idle)} of {source.name}"


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_sums_do_not_depend_on_the_order_of_threads_and_the_size_of_the_grid(emulation, memory_format):
    x, d, noise, strength, b, gy = modulation.inputs((2, 24, 40, 33), memory_format=memory_format)

    def func(x, d, b, strength):
        return demodulated_act(modulate(x, d), d, noise, strength, b)

    results = []
    for order, max_blocks in itertools.product(ORDERS, [1 << 20, 1]):
        emulation.set(order=order, max_blocks=max_blocks)
        results.append(modulation.gradients(func, [x, d, b, strength], gy))
    assert all(torch.equal(t, first) for each in results for t, first in zip(each, results[0], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
@pytest.mark.parametrize("operation", CHECKS)
def test_many_random_calls_agree_with_the_reference(emulation, operation, seed):
    check_random_cases(emulation, operation, seed=seed, num=150)
