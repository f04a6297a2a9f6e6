// The dynamic convolution on a CPU, by kind of filter.
#pragma once

#include "core/backend.h"
#include "core/cpu/scratch.h"

namespace convoy::cpu {

// Everything a convolution is given; the gradients are empty in a forward pass.
struct ConvCall {
  Scratch& scratch;
  const ConvFilters& filters;
  const ConvShape& shape;
  const ConvRows& rows;
};

// Filters that need no product to make: static and head-wise.
void direct_conv_forward(const ConvCall& call, Tensor y, Tensor x);
void direct_conv_backward_input(const ConvCall& call, Tensor dx, Tensor dgenerated, Tensor dhalo,
                                Tensor dy, Tensor x);

void lowrank_conv_forward(const ConvCall& call, Tensor y, Tensor x);
void lowrank_conv_backward_input(const ConvCall& call, Tensor dx, Tensor dgenerated, Tensor dhalo,
                                 Tensor dy, Tensor x);
void lowrank_conv_backward_u(const ConvCall& call, Tensor du, Tensor dy, Tensor x);

// ds[w, d] += sum_t dy[t, d] x[t - w, d], for every kind.
void conv_backward_s(const ConvCall& call, Tensor ds, Tensor dy, Tensor x);

}  // namespace convoy::cpu
