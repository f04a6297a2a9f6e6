// A projection's passes: the matmul, the convolutions with their halos, and the same backward.
#include <algorithm>

#include "core/flat_range.h"
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

void Projection::forward(const Context& context, const BatchView& batch, Tensor x, Saved& saved,
                         Convolutions convolutions) const {
  if (split_ == SplitBy::outputs) {
    return forward_by_outputs(context, batch, x, saved, convolutions);
  }
  CHECK(convolutions == Convolutions::here, "outputs summed over ranks are convolved here");
  saved.input = x;
  saved.joined = context.take({batch.own_rows(), columns_});
  {
    const ArenaScope scope(context.arena);
    const Tensor share = shards_.share_for(context, batch, saved.joined);
    ops::matmul(context, share, x, Transpose::no, joined_weight(), Transpose::yes);
    shards_.sum_into(context, batch, saved.joined, share);
  }
  HaloExchange exchange = halo_exchange(context, batch);
  provide_outputs(context, exchange, saved, convolutions);
  convolve(context, batch, exchange, saved);
}

bool Projection::convolves_whole_rows() const {
  bool all = split_ == SplitBy::outputs && sharding_.cp.size() == 1 && !sharding_.splits_rows();
  for (const Output& output : outputs_) all = all && output.convolves();
  return all;
}

bool Projection::convolves_back_at_once(const Context& context) const {
  return convolves_whole_rows() && context.parts == BackwardParts::together &&
         sharding_.tp.size() == 1;
}

bool Projection::keeps_gate_and_up(const Context& context) const {
  bool keeps = false;
  for (const Output& output : outputs_) {
    keeps = keeps || context.backend.keeps_gate_and_up(output.conv, output.channels, context.dtype);
  }
  return keeps;
}

ConvolvedInput Projection::convolution(std::size_t i, const Saved& saved) const {
  const Output& output = outputs_[i];
  return {saved.outputs[i], convolved(output, saved.joined), filters(output, saved.joined),
          output.conv};
}

ConvGradients Projection::gradients(std::size_t i, const Saved& saved) const {
  const Output& output = outputs_[i];
  ConvGradients gradients = tap_gradients(output);
  gradients.dx = convolved(output, saved.djoined);
  if (output.generated_columns > 0) {
    gradients.dgenerated =
        saved.djoined.column_range(output.generated_column, output.generated_columns);
  }
  return gradients;
}

ConvRows Projection::whole_rows(const BatchView& batch) const {
  return {batch.sequences, batch.length, batch.reach, {}};
}

bool Projection::adds_residual() const {
  return split_ == SplitBy::inputs && sharding_.tp.size() == 1 && outputs_.size() == 1 &&
         (sharding_.cp.size() == 1 || !outputs_.front().convolves());
}

// By the matmul or, where there is one, by the convolution.
void Projection::forward_add(const Context& context, const BatchView& batch, Tensor sum, Tensor x,
                             Tensor residual, Saved& saved) const {
  CHECK(adds_residual(), "a residual is added to a projection that is shared or cut");
  const Output& output = outputs_.front();
  saved.input = x;
  saved.joined = output.convolves() ? context.take({batch.own_rows(), columns_}) : sum;
  if (!output.convolves()) {
    return ops::matmul_add(context, sum, x, Transpose::no, joined_weight(), Transpose::yes,
                           residual);
  }
  ops::matmul(context, saved.joined, x, Transpose::no, joined_weight(), Transpose::yes);
  ops::conv_forward_add(context, sum, convolved(output, saved.joined), residual,
                        filters(output, saved.joined), output.conv, whole_rows(batch));
}

// Rows are projected, and convolved where no halo comes from elsewhere, as they arrive.
void Projection::forward_by_outputs(const Context& context, const BatchView& batch, Tensor x,
                                    Saved& saved, Convolutions convolutions) const {
  CHECK(convolutions == Convolutions::here || convolves_whole_rows(),
        "rows of convolutions are cut, or there are none");
  saved.input = shards_.whole_for(context, batch, x);
  saved.joined = context.take({batch.rows(), columns_});
  HaloExchange exchange = halo_exchange(context, batch);
  provide_outputs(context, exchange, saved, convolutions);
  const bool fused = sharding_.splits_rows() && exchange.empty() && halo_columns_ > 0;
  const ArenaScope scope(context.arena);
  RowGather gather = shards_.gather(context, batch, saved.input, x);
  RowGather::Runs all;
  for (auto runs = gather.next(); !runs.empty(); runs = gather.next()) {
    for (const auto& run : runs) {
      ops::matmul(context, run.of(saved.joined), run.of(saved.input), Transpose::no,
                  joined_weight(), Transpose::yes);
      if (fused) convolve_run(context, batch, run, ConvPart::interior, saved);
    }
    all.insert(all.end(), runs.begin(), runs.end());
  }
  if (convolutions != Convolutions::here) return;
  if (!fused) return convolve(context, batch, exchange, saved);
  for (const auto& run : all) convolve_run(context, batch, run, ConvPart::boundary, saved);
}

void Projection::provide_outputs(const Context& context, const HaloExchange& exchange, Saved& saved,
                                 Convolutions convolutions) const {
  if (convolutions == Convolutions::by_caller_unkept) return;
  if (!exchange.empty()) saved.halo = context.take({exchange.halo_rows(), halo_columns_});
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    saved.outputs[i] = outputs_[i].convolves()
                           ? context.take({saved.joined.rows(), outputs_[i].channels})
                           : convolved(outputs_[i], saved.joined);
  }
}

void Projection::convolve(const Context& context, const BatchView& batch, HaloExchange& exchange,
                          Saved& saved) const {
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

// The interior of a run reads rows of the run alone: the first W - 1 of them are the halo of the
// rest. Its boundary, those W - 1 rows, also reads rows before the run, which have come by then: as
// a halo, or, near the segment's start, as a few rows more to compute.
void Projection::convolve_run(const Context& context, const BatchView& batch,
                              const RowGather::Run& run, ConvPart part, Saved& saved) const {
  const std::int64_t taps_before = width_ - 1, head = std::min(taps_before, run.count);
  const std::int64_t before = std::min(taps_before, run.begin - run.segment_begin);
  RowGather::Run rows = run;
  if (part == ConvPart::boundary) {
    if (before == 0) return;  // at the start of a segment all rows are interior
    rows.count = head;
    if (before < taps_before) rows.begin -= before, rows.count += before;
  } else if (before > 0) {
    rows.begin += head, rows.count -= head;
    if (rows.count == 0) return;
  }
  const bool has_halo = taps_before > 0 && rows.begin - taps_before >= run.segment_begin;
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    const Output& output = outputs_[i];
    if (!output.convolves()) continue;
    const Tensor x = convolved(output, saved.joined);
    ConvRows view{1, rows.count, flat_range(batch.reach, rows.begin, rows.count), {}};
    if (has_halo) view.halo = x.row_range(rows.begin - taps_before, taps_before);
    ops::conv_forward(context, rows.of(saved.outputs[i]), rows.of(x),
                      filters(output, rows.of(saved.joined)), output.conv, view);
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

// Where both parts run together and nothing travels, so do those of the convolutions; otherwise the
// taps' gradients are work to do meanwhile.
void Projection::backward_convolve(const Context& context, const BatchView& batch,
                                   Saved& saved) const {
  const ArenaScope scope(context.arena);
  HaloExchange exchange = halo_exchange(context, batch);
  Tensor dhalo;
  if (!exchange.empty()) dhalo = context.take({exchange.halo_rows(), halo_columns_});
  saved.taps_done =
      context.parts == BackwardParts::together && exchange.empty() && sharding_.tp.size() == 1;
  for (const ConvPart part : backward_parts(exchange, sharding_.overlap)) {
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      const Output& output = outputs_[i];
      if (!output.convolves()) continue;
      ConvGradients g = gradients(i, saved);
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
  if (split_ == SplitBy::outputs) {
    const ArenaScope scope(context.arena);
    return start_backward_input(context, batch, dx, saved).wait();
  }
  backward_convolve(context, batch, saved);
  saved.djoined_rows = shards_.whole_for(context, batch, saved.djoined);
  const ArenaScope scope(context.arena);
  RowGather gather = shards_.gather(context, batch, saved.djoined_rows, saved.djoined);
  for (auto runs = gather.next(); !runs.empty(); runs = gather.next()) {
    for (const auto& run : runs) {
      ops::matmul(context, run.of(dx), run.of(saved.djoined_rows), Transpose::no, joined_weight(),
                  Transpose::no);
    }
  }
}

Work Projection::start_backward_input(const Context& context, const BatchView& batch, Tensor dx,
                                      Saved& saved, Convolutions convolutions) const {
  CHECK(split_ == SplitBy::outputs, "by inputs nothing is summed");
  saved.taps_done = convolutions != Convolutions::here;
  if (!saved.taps_done) backward_convolve(context, batch, saved);
  saved.djoined_rows = saved.djoined;
  const Tensor share = shards_.share_for(context, batch, dx);
  ops::matmul(context, share, saved.djoined, Transpose::no, joined_weight(), Transpose::no);
  return shards_.start_sum(context, batch, dx, share);
}

ConvGradients Projection::tap_gradients(const Output& output) const {
  ConvGradients gradients;
  gradients.ds = output.s->gradient;
  if (output.u != nullptr) gradients.du = output.u->gradient;
  return gradients;
}

void Projection::backward_weight(const Context& context, const BatchView& batch,
                                 Saved& saved) const {
  sharding_.tp.progress();  // this runs while dx travels
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
