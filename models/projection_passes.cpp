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

void Projection::backward_convolve(const Context& context, const BatchView& batch,
                                   Saved& saved) const {
  const ArenaScope scope(context.arena);
  HaloExchange exchange = halo_exchange(context, batch);
  Tensor dhalo;
  if (!exchange.empty()) dhalo = context.take({exchange.halo_rows(), halo_columns_});
  for (const ConvPart part : backward_parts(exchange, sharding_.overlap)) {
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      const Output& output = outputs_[i];
      if (!output.convolves()) continue;
      Tensor dgenerated, dhalo_columns;
      if (output.generated_columns > 0) {
        dgenerated = saved.djoined.column_range(output.generated_column, output.generated_columns);
      }
      if (!dhalo.empty()) dhalo_columns = dhalo.column_range(output.halo_column, output.channels);
      ops::conv_backward_input(context, convolved(output, saved.djoined), dgenerated, dhalo_columns,
                               saved.doutputs[i], convolved(output, saved.joined),
                               filters(output, saved.joined), output.conv,
                               rows_of(output, batch, saved, part));
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

void Projection::backward_weight(const Context& context, const BatchView& batch,
                                 Saved& saved) const {
  ops::matmul(context, joined_gradient(), saved.djoined_rows, Transpose::yes, saved.input,
              Transpose::no, Accumulate::yes);
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    const Output& output = outputs_[i];
    if (!output.convolves()) continue;
    ops::conv_backward_weight(
        context, output.s->gradient, output.u != nullptr ? output.u->gradient : Tensor{},
        saved.doutputs[i], convolved(output, saved.joined), filters(output, saved.joined),
        output.conv, rows_of(output, batch, saved, ConvPart::all));
  }
}

}  // namespace convoy
