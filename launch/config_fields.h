// The one list of configuration keys: reading, writing and checking for unknown keys all walk it.
#pragma once

#include "launch/config.h"

namespace convoy {

// Calls visitor.section(name), then visitor(key, field) or visitor(key, field, choices).
template <class Config, class Visitor>
void visit_fields(Config&& c, Visitor& visitor) {
  using Names = std::vector<std::string>;
  visitor.section("model");
  visitor("d_model", c.model.d_model);
  visitor("n_layers", c.model.n_layers);
  visitor("n_heads", c.model.n_heads);
  visitor("n_kv_heads", c.model.n_kv_heads);
  visitor("d_ff", c.model.d_ff);
  visitor("vocab", c.model.vocab);
  visitor("seq_len", c.model.seq_len);
  visitor("qk_norm", c.model.qk_norm);
  visitor("tie_embeddings", c.model.tie_embeddings);
  visitor("rope_theta", c.model.rope_theta);
  visitor("norm_eps", c.model.norm_eps);
  visitor("init_std", c.model.init_std);
  visitor("depth_scaled_init", c.model.depth_scaled_init);

  visitor.section("model.conv");
  visitor("kind", c.model.conv.kind, Names{"none", "static", "headwise", "lowrank"});
  visitor("on", c.model.conv.on, Names(kConvSiteNames.begin(), kConvSiteNames.end()));
  visitor("width", c.model.conv.width);
  visitor("rank", c.model.conv.rank);
  visitor("head_size", c.model.conv.head_size);
  visitor("residual", c.model.conv.residual);
  visitor("init", c.model.conv.init, Names{"uniform", "identity", "normal"});

  visitor.section("parallel");
  visitor("dp", c.parallel.dp);
  visitor("tp", c.parallel.tp);
  visitor("pp", c.parallel.pp);
  visitor("ep", c.parallel.ep);
  visitor("cp", c.parallel.cp);
  visitor("sequence_parallel", c.parallel.sequence_parallel);
  visitor("overlap", c.parallel.overlap);
  visitor("schedule", c.parallel.schedule, Names{"gpipe", "1f1b", "interleaved", "zb-h1", "zb-v"});
  visitor("virtual_stages", c.parallel.virtual_stages);
  visitor("zero", c.parallel.zero);
  visitor("recompute", c.parallel.recompute, Names{"none", "block"});
  visitor("recompute_blocks", c.parallel.recompute_blocks);
  visitor("communication_deadline_s", c.parallel.communication_deadline_s);

  visitor.section("train");
  visitor("steps", c.train.steps);
  visitor("tokens", c.train.tokens);
  visitor("flops", c.train.flops);
  visitor("batch_tokens", c.train.batch_tokens);
  visitor("micro_batch", c.train.micro_batch);
  visitor("seed", c.train.seed);
  visitor("precision", c.train.precision, Names{"f64", "f32", "bf16"});
  visitor("device", c.train.device, Names{"auto", "cpu", "cuda"});
  visitor("cuda_graph", c.train.cuda_graph);

  visitor.section("numerics");
  visitor("mode", c.numerics, Names{"fast", "invariant"});
  visitor("deterministic", c.deterministic);
  visitor("matmul_table", c.matmul_table);

  visitor.section("optimizer");
  visitor("name", c.optimizer.name, Names{"adamw"});
  visitor("lr", c.optimizer.lr);
  visitor("betas", c.optimizer.betas);
  visitor("eps", c.optimizer.eps);
  visitor("weight_decay", c.optimizer.weight_decay);
  visitor("clip", c.optimizer.clip);
  visitor("spike_factor", c.optimizer.spike_factor);
  visitor("max_skipped", c.optimizer.max_skipped);

  visitor.section("lr_schedule");
  visitor("kind", c.lr_schedule.kind, Names{"cosine", "wsd"});
  visitor("warmup_steps", c.lr_schedule.warmup_steps);
  visitor("warmup_tokens", c.lr_schedule.warmup_tokens);
  visitor("warmup_fraction", c.lr_schedule.warmup_fraction);
  visitor("min_lr", c.lr_schedule.min_lr);
  visitor("cooldown", c.lr_schedule.cooldown);
  visitor("shape", c.lr_schedule.shape, Names{"1-sqrt", "linear"});

  visitor.section("data");
  visitor("train", c.data.train);
  visitor("val", c.data.val);
  visitor("mix", c.data.mix);
  visitor("pack", c.data.pack, Names{"documents", "stream"});
  visitor("seed", c.data.seed);

  visitor.section("eval");
  visitor("every", c.eval.every);
  visitor("batches", c.eval.batches);

  visitor.section("checkpoint");
  visitor("dir", c.checkpoint.dir);
  visitor("every", c.checkpoint.every);
  visitor("at", c.checkpoint.at);
  visitor("keep", c.checkpoint.keep);
  visitor("async", c.checkpoint.async);

  visitor.section("log");
  visitor("every", c.log.every);
  visitor("console", c.log.console, Names{"auto", "progress", "lines", "quiet"});
  visitor("trace", c.log.trace);
  visitor("trace_steps", c.log.trace_steps);
}

}  // namespace convoy
