// The embedding, its table split by vocabulary: each tp rank looks up the tokens it has, and the
// sum over tp is the row.
#pragma once

#include "models/parameters.h"
#include "models/row_shards.h"

namespace convoy {

class Embedding {
 public:
  Embedding(ParameterStore& store, const ModelConfig& model, const Sharding& sharding);

  void forward(const Context& context, const BatchView& batch, Tensor y) const;  // [own_rows, D]
  void backward(const Context& context, const BatchView& batch, Tensor dy) const;
  Parameter& weight() const { return *weight_; }

 private:
  TableRange range() const;

  RowShards shards_;
  int rank_;  // of tp
  Parameter* weight_;
};

// [V, D] split by rows; the last ranks' shards are padded where V is no multiple of tp.
Placement vocabulary_placement(const ModelConfig& model);

}  // namespace convoy
