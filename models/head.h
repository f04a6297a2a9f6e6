// The output head and its loss. Logits exist a chunk of rows at a time: in a training pass the
// chunk's loss, the gradient with respect to the hidden rows and the weight gradient are all formed
// before the next chunk overwrites it, so no product is done twice.
//
// Where a batch names its labelled rows (LabelledRows), only these have logits; everything else
// sees all rows, so that neither sharding nor pipelines know.
//
// The table is split by vocabulary over tp. Logits are never gathered: each rank has three numbers
// a row of its classes (maximum, sum of exponentials, the target's logit), and those travel.
#pragma once

#include "core/ops.h"
#include "models/parameters.h"
#include "models/row_shards.h"

namespace convoy {

class Head {
 public:
  // weight [V, D]; its gradients are added to `gradient`, a second accumulator where it is tied.
  Head(const Parameter& weight, const Tensor& gradient, const Sharding& sharding)
      : weight_(&weight), gradient_(&gradient), sharding_(sharding), shards_(sharding) {}

  // losses f64 [rows] in nats (0 where a target is -1) and, where given, the softmax statistics
  // [rows, 3], alike on all tp ranks; hidden [own_rows, D].
  void losses(const Context& context, const BatchView& batch, Tensor losses, Tensor statistics,
              Tensor hidden) const;
  // The same, and dhidden and the weight gradient of `scale` times the summed loss.
  void losses_and_gradients(const Context& context, const BatchView& batch, Tensor losses,
                            Tensor dhidden, Tensor hidden, const Scalar& scale) const;
  Tensor logits(const Context& context, Tensor hidden) const;  // [rows, classes of this rank]

 private:
  void logits(const Context& context, const Tensor& result, const Tensor& hidden) const;
  std::int64_t chunk_rows(const Context& context) const;
  std::int64_t first_class() const { return weight_->shape[0] * sharding_.tp.rank(); }
  // The logits and softmax statistics of a chunk; losses are set.
  struct Chunk {
    Tensor logits, statistics;
  };
  Chunk forward(const Context& context, Tensor losses, Tensor rows, Tensor targets) const;
  Tensor losses_and_dlogits(const Context& context, Tensor losses, Tensor rows, Tensor targets,
                            const Scalar& scale) const;

  const Parameter* weight_;
  const Tensor* gradient_;
  Sharding sharding_;
  RowShards shards_;
};

}  // namespace convoy
