// What a pipeline knows of the piece of a model that it runs: four functions for each micro-batch.
// Between two stages travel an activation [rows, columns] and, back, the gradient with respect to
// it.
#pragma once

#include "core/tensor.h"

namespace convoy {

class Stage {
 public:
  // A micro-batch of the step and where the stage keeps what its backward pass needs: `slot` counts
  // from 0 and is this micro-batch's own from its forward pass to its backward_weight.
  struct Visit {
    int micro_batch;
    int slot;
  };

  virtual ~Stage() = default;

  // The first stage gets no input, it looks its tokens up; the last one gives no output, it forms
  // the loss. `input` stays as it is until the visit's backward_weight has returned; `output` is
  // *set*.
  virtual void forward(Visit visit, Tensor input, Tensor output) = 0;
  // `d_output` is empty at the last stage and stays like `input`; `d_input`, empty at the first
  // stage, is *set*.
  virtual void backward_input(Visit visit, Tensor d_output, Tensor d_input) = 0;
  virtual void backward_weight(Visit visit) = 0;  // *adds* to the weight gradients

  // Only where the schedule has these actions. They may start something and return; the next
  // function that needs the result waits for it.
  virtual void gather_weights();
  virtual void release_weights();
  virtual void reduce_gradients();
};

}  // namespace convoy
