// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
//
// How the operations are differentiated, for all devices: the dispatcher finds the kernels of the tensors' device. The
// formulas are in headers, as what they include of torch takes longer to compile than they do.

#include "bias_act_autograd.h"
#include "convolution_autograd.h"
#include "demodulation_autograd.h"
#include "linear_layers_autograd.h"
#include "modulated_product_autograd.h"
#include "modulation_autograd.h"
#include "upfirdn2d_autograd.h"

#include <torch/library.h>

namespace ggdr {

TORCH_LIBRARY_IMPL(ggdr, Autograd, m) {
  m.impl("bias_act", &bias_act);
  m.impl("bias_act_grad", &bias_act_grad);
  m.impl("upfirdn2d", &upfirdn2d);
  m.impl("convolution", &convolution);
  m.impl("conv3x3", &conv3x3);
  m.impl("conv3x3_weight_grad", &conv3x3_weight_grad);
  m.impl("demodulation", &demodulation);
  m.impl("demodulation_styles_grad", &demodulation_styles_grad);
  m.impl("demodulation_weight_grad", &demodulation_weight_grad);
  m.impl("scaled_weight", &scaled_weight);
  m.impl("linear_layers", &linear_layers);
  m.impl("linear_layers_inputs_grad", &linear_layers_inputs_grad);
  m.impl("linear_layers_weight_grad", &linear_layers_weight_grad);
  m.impl("modulated_product", &modulated_product);
  m.impl("modulated_product_grad", &modulated_product_grad);
  m.impl("modulate", &modulate);
  m.impl("modulate_backward", &modulate_backward);
  m.impl("modulate_tangent", &modulate_tangent);
  m.impl("demodulated_act", &demodulated_act);
  m.impl("demodulated_act_backward", &demodulated_act_backward);
  m.impl("demodulated_act_tangent", &demodulated_act_tangent);
}

TORCH_LIBRARY_IMPL(ggdr, CompositeExplicitAutograd, m) {
  m.impl("convolution", &convolution_kernel);
  m.impl("linear_layers", &linear_layers_kernel);
  m.impl("linear_layers_inputs_grad", &inputs_grad_kernel);
  m.impl("linear_layers_weight_grad", &layers_weight_grad_kernel);
  m.impl("modulated_product", &product_kernel);
  m.impl("modulated_product_grad", &product_grad_kernel);
}

}  // namespace ggdr
