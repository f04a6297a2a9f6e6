// A projection's passes: the matmul, the convolutions with their halos, and the same backward.
#include "models/projection.h"

namespace convoy {
namespace {

// In what parts to convolve so that a halo travels meanwhile.
std::vector<ConvPart> forward_parts(const HaloExchange& halo, Overlap overlap) {
  if (halo.empty() || overlap == Overlap::no) return {ConvPart::all};
  return {ConvPart::interior, ConvPart::boundary};
}

std::vector<ConvPart> backward_parts(const HaloExchange& halo, Overlap overlap) {
  if (halo.empty() || overlap == Overlap::no) return {ConvPart::all};
  return {ConvPart::boundary, ConvPart::interior};
}

}  // namespace

HaloExchange Projection::halo_exchange(const Context& context, const BatchView& batch) const {
  const std::int64_t length = batch.length * sharding_.cp.size();
  const std::int64_t before = halo_columns_ > 0 ? width_ - 1 : 0;
  if (split_ == SplitBy::outputs) {
    return {context, sharding_.cp, sharding_.all_rows(length), batch.sequences, before};
  }
  return {context, sharding_.row_owners(), sharding_.own_rows(length), batch.sequences, before};
}

void Projection::forward(const Context& context, const BatchView& batch, Tensor x,
                         Saved& saved) const {
  if (split_ == SplitBy::outputs) {
    saved.input = shards_.complete(context, batch, x);
    saved.joined = context.take({batch.rows(), columns_});
    ops::matmul(context, saved.joined, saved.input, Transpose::no, joined_weight(), Transpose::yes);
  } else {
    saved.input = x;
    saved.joined = context.take({batch.own_rows(), columns_});
    const ArenaScope scope(context.arena);
    const Tensor share = shards_.share_for(context, batch, saved.joined);
    ops::matmul(context, share, x, Transpose::no, joined_weight(), Transpose::yes);
    shards_.sum_into(context, batch, saved.joined, share);
  }
  convolve(context, batch, saved);
}

bool Projection::adds_residual() const {
  return split_ == SplitBy::inputs && sharding_.tp.size() == 1 && outputs_.size() == 1 &&
         !outputs_.front().convolves();
}

void Projection::forward_add(const Context& context, Tensor sum, Tensor x, Tensor residual,
                             Saved& saved) const {
  CHECK(adds_residual(), "a residual is added to a projection that is shared or convolved");
  saved.input = x;
  saved.joined = sum;
  ops::matmul_add(context, sum, x, Transpose::no, joined_weight(), Transpose::yes, residual);
}

void Projection::convolve(const Context& context, const BatchView& batch, Saved& saved) const {
  HaloExchange exchange = halo_exchange(context, batch);
  if (!exchange.empty()) saved.halo = context.take({exchange.halo_rows(), halo_columns_});
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    saved.outputs[i] = outputs_[i].convolves()
                           ? context.take({saved.joined.rows(), outputs_[i].channels})
                           : convolved(outputs_[i], saved.joined);
  }
  const ArenaScope scope(context.arena);
  exchange.start(saved.halo, convolved_parts(saved.joined));
  for (const ConvPart part : forward_parts(exchange, sharding_.overlap)) {
    if (part != ConvPart::interior) exchange.finish(saved.halo);
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      const Output& output = outputs_[i];
      if (!output.convolves()) continue;
      ops::conv_forward(context, saved.outputs[i], convolved(output, saved.joined),
                        filters(output, saved.joined), output.conv,
                        rows_of(output, batch, saved, part));
    }
  }
}

void Projection::prepare_backward(const Context& context, Saved& saved) const {
  saved.djoined = context.take({saved.joined.rows(), columns_});
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    const Output& output = outputs_[i];
    saved.doutputs[i] = output.convolves() ? context.take({saved.joined.rows(), output.channels})
                                           : convolved(output, saved.djoined);
  }
}

void Projection::prepare_backward(const Context& context, Saved& saved, Tensor dy) const {
  CHECK(outputs_.size() == 1, outputs_.size(), " outputs share one gradient");
  if (context.parts == BackwardParts::apart) {  // dy may be gone when the weight half runs
    prepare_backward(context, saved);
    return ops::copy(context, saved.doutputs[0], dy);
  }
  saved.doutputs[0] = dy;
  saved.djoined = outputs_[0].convolves() ? context.take({saved.joined.rows(), columns_}) : dy;
}

// Where both parts run together and no halo travels, so do those of the convolutions.
void Projection::backward_convolve(const Context& context, const BatchView& batch,
                                   Saved& saved) const {
  const ArenaScope scope(context.arena);
  HaloExchange exchange = halo_exchange(context, batch);
  Tensor dhalo;
  if (!exchange.empty()) dhalo = context.take({exchange.halo_rows(), halo_columns_});
  saved.taps_done = context.parts == BackwardParts::together && exchange.empty();
  for (const ConvPart part : backward_parts(exchange, sharding_.overlap)) {
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      const Output& output = outputs_[i];
      if (!output.convolves()) continue;
      ConvGradients g = tap_gradients(output);
      g.dx = convolved(output, saved.djoined);
      if (output.generated_columns > 0) {
        g.dgenerated =
            saved.djoined.column_range(output.generated_column, output.generated_columns);
      }
      if (!dhalo.empty()) g.dhalo = dhalo.column_range(output.halo_column, output.channels);
      const Tensor x = convolved(output, saved.joined);
      const ConvRows rows = rows_of(output, batch, saved, part);
      if (saved.taps_done) {
        ops::conv_backward(context, g, saved.doutputs[i], x, filters(output, saved.joined),
                           output.conv, rows);
      } else {
        ops::conv_backward_input(context, g.dx, g.dgenerated, g.dhalo, saved.doutputs[i], x,
                                 filters(output, saved.joined), output.conv, rows);
      }
    }
    if (part != ConvPart::interior) exchange.start_return(dhalo);
  }
  exchange.finish_return(dhalo, convolved_parts(saved.djoined));
}

void Projection::backward_input(const Context& context, const BatchView& batch, Tensor dx,
                                Saved& saved) const {
  backward_convolve(context, batch, saved);
  if (split_ == SplitBy::inputs) {
    saved.djoined_rows = shards_.complete(context, batch, saved.djoined);
    ops::matmul(context, dx, saved.djoined_rows, Transpose::no, joined_weight(), Transpose::no);
    return;
  }
  saved.djoined_rows = saved.djoined;
  const ArenaScope scope(context.arena);
  const Tensor share = shards_.share_for(context, batch, dx);
  ops::matmul(context, share, saved.djoined, Transpose::no, joined_weight(), Transpose::no);
  shards_.sum_into(context, batch, dx, share);
}

ConvGradients Projection::tap_gradients(const Output& output) const {
  ConvGradients gradients;
  gradients.ds = output.s->gradient;
  if (output.u != nullptr) gradients.du = output.u->gradient;
  return gradients;
}

void Projection::backward_weight(const Context& context, const BatchView& batch,
                                 Saved& saved) const {
  ops::matmul(context, joined_gradient(), saved.djoined_rows, Transpose::yes, saved.input,
              Transpose::no, Accumulate::yes);
  if (saved.taps_done) return;
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    const Output& output = outputs_[i];
    if (!output.convolves()) continue;
    const ConvGradients g = tap_gradients(output);
    ops::conv_backward_weight(context, g.ds, g.du, saved.doutputs[i],
                              convolved(output, saved.joined), filters(output, saved.joined),
                              output.conv, rows_of(output, batch, saved, ConvPart::all));
  }
}

}  // namespace convoy
