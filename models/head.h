// The output head and its loss. Logits exist a chunk of rows at a time: in a training pass the
// chunk's loss, the gradient with respect to the hidden rows and the weight gradient are all formed
// before the next chunk overwrites it, so no product is done twice.
#pragma once

#include "core/ops.h"
#include "models/parameters.h"

namespace convoy {

class Head {
 public:
  // weight [V, D]; its gradients are added to `gradient`, a second accumulator where it is tied.
  Head(const Parameter& weight, const Tensor& gradient) : weight_(&weight), gradient_(&gradient) {}

  // losses f64 [rows] in nats (0 where a target is -1).
  void losses(const Context& context, Tensor losses, Tensor hidden, Tensor targets) const;
  // The same, and dhidden and the weight gradient of `scale` times the summed loss.
  void losses_and_gradients(const Context& context, Tensor losses, Tensor dhidden, Tensor hidden,
                            Tensor targets, double scale) const;
  Tensor logits(const Context& context, Tensor hidden) const;  // [rows, V]

 private:
  std::int64_t chunk_rows(const Context& context) const;

  const Parameter* weight_;
  const Tensor* gradient_;
};

}  // namespace convoy
