// The Transformer once more, straight from its formulas in plain loops, one row at a time, with a
// bound on the rounding of every number. It reads parameters by name and shares no code with
// models/ beyond the configuration; where a tap may look follows from document starts alone.
#pragma once

#include <map>

#include "models/batch_view.h"
#include "models/model_config.h"
#include "models/parameters.h"
#include "tests/models/bounded.h"

namespace convoy::test {

template <DType D>
class NaiveTransformer {
 public:
  using Number = Bounded<D>;
  using Row = std::vector<Number>;
  using Matrix = std::vector<Row>;

  NaiveTransformer(const ParameterStore& store, const ModelConfig& config) : m_(config) {
    for (const auto& p : store.all()) {
      dispatch_real(p.value.dtype(), [&]<class T>() {
        Row& flat = parameters_[p.name];
        for (std::int64_t i = 0; i < p.size(); ++i) {
          flat.push_back(Number::exact(static_cast<double>(p.value.data<T>()[i])));
        }
      });
    }
  }

  // Nats of each row; 0 where a target does not count.
  Row losses(const BatchView& batch) const {
    Row all;
    for (std::int64_t b = 0; b < batch.sequences; ++b) {
      const auto part = [&](const Tensor& t) {
        const std::int32_t* first = t.data<std::int32_t>() + b * batch.length;
        return std::vector<std::int32_t>(first, first + batch.length);
      };
      const Matrix x =
          hidden({part(batch.tokens), part(batch.positions), part(batch.document_start)});
      const auto targets = part(batch.targets);
      for (std::size_t t = 0; t < x.size(); ++t) {
        all.push_back(targets[t] < 0 ? Number{} : loss(x[t], targets[t]));
      }
    }
    return all;
  }

 private:
  struct Sequence {
    std::vector<std::int32_t> tokens, positions, start;
  };

  // Row i of a parameter seen as rows of `width`.
  Row row(const std::string& name, std::int64_t i, std::int64_t width) const {
    const Row& flat = parameters_.at(name);
    return {flat.begin() + i * width, flat.begin() + (i + 1) * width};
  }

  Matrix linear(const Matrix& x, const std::string& name) const {
    const auto inputs = static_cast<std::int64_t>(x[0].size());
    const auto outputs = static_cast<std::int64_t>(parameters_.at(name).size()) / inputs;
    Matrix y(x.size());
    for (std::size_t t = 0; t < x.size(); ++t) {
      for (std::int64_t o = 0; o < outputs; ++o) {
        y[t].push_back(dot_of(x[t], row(name, o, inputs)));
      }
    }
    return y;
  }

  Matrix norm(const Matrix& x, const std::string& name) const {
    const Row& weight = parameters_.at(name);
    const std::size_t width = weight.size();
    Matrix y(x.size());
    for (std::size_t t = 0; t < x.size(); ++t) {
      for (std::size_t first = 0; first < x[t].size(); first += width) {
        const Row group(x[t].begin() + std::ptrdiff_t(first),
                        x[t].begin() + std::ptrdiff_t(first + width));
        const Number mean = dot_of(group, group) / Number::exact(static_cast<double>(width));
        const Number root = root_of(mean + Number::exact(m_.norm_eps));
        for (std::size_t j = 0; j < width; ++j) y[t].push_back(group[j] / root * weight[j]);
      }
    }
    return y;
  }

  // The tap K[w, d] of a row whose generator reads h.
  Number tap(const Row& h, const std::string& conv, std::int64_t w, std::int64_t d,
             std::int64_t channels) const {
    const auto inputs = static_cast<std::int64_t>(h.size());
    Row terms = {row(conv + "s", w, channels)[std::size_t(d)]};
    if (m_.conv.kind == FilterKind::headwise) {
      terms.push_back(
          dot_of(h, row(conv + "G", d / m_.conv.head_size * m_.conv.width + w, inputs)));
    }
    for (std::int64_t r = 0; r < (m_.conv.kind == FilterKind::lowrank ? m_.conv.rank : 0); ++r) {
      const Number z = dot_of(h, row(conv + "A", r, inputs));
      terms.push_back(z * row(conv + "U", r * m_.conv.width + w, channels)[std::size_t(d)]);
    }
    return sum_of(terms);
  }

  // The linear of a site with its convolution, taps stopping where the row's document starts.
  Matrix project(const Matrix& h, const std::string& name, ConvSite site, const Sequence& s) const {
    const Matrix x = linear(h, name + ".weight");
    if (!m_.conv.applies_to(site)) return x;
    const auto channels = static_cast<std::int64_t>(x[0].size());
    Matrix y(x.size());
    for (std::int64_t t = 0; t < std::int64_t(x.size()); ++t) {
      for (std::int64_t d = 0; d < channels; ++d) {
        Row terms;
        if (m_.conv.residual) terms.push_back(x[std::size_t(t)][std::size_t(d)]);
        for (std::int64_t w = 0; w < m_.conv.width && t - w >= s.start[std::size_t(t)]; ++w) {
          terms.push_back(tap(h[std::size_t(t)], name + ".conv.", w, d, channels) *
                          x[std::size_t(t - w)][std::size_t(d)]);
        }
        y[std::size_t(t)].push_back(sum_of(terms));
      }
    }
    return y;
  }

  void rotate(Matrix& x, const Sequence& s) const {
    const auto width = static_cast<std::size_t>(m_.head_width()), half = width / 2;
    for (std::size_t t = 0; t < x.size(); ++t) {
      for (std::size_t head = 0; head < x[t].size(); head += width) {
        for (std::size_t j = 0; j < half; ++j) {
          const double angle =
              s.positions[t] * std::pow(m_.rope_theta, -2.0 * double(j) / double(width));
          const double slip = 4 * angle * unit_roundoff(DType::f64);
          const Number c = Number::rounded(std::cos(angle), slip);
          const Number sine = Number::rounded(std::sin(angle), slip);
          const Number a = x[t][head + j], b = x[t][head + j + half];
          x[t][head + j] = a * c - b * sine;
          x[t][head + j + half] = b * c + a * sine;
        }
      }
    }
  }

  // Softmax attention of one query head at row t.
  Row attend(const Matrix& q, const Matrix& k, const Matrix& v, std::size_t t, std::int64_t head,
             const Sequence& s) const {
    const std::int64_t width = m_.head_width(), group = m_.n_heads / m_.kv_heads();
    const auto part = [&](const Row& r, std::int64_t h) {
      return Row(r.begin() + h * width, r.begin() + (h + 1) * width);
    };
    const Number root = root_of(Number::exact(static_cast<double>(width)));
    Row scores;
    for (auto j = std::size_t(s.start[t]); j <= t; ++j) {
      scores.push_back(dot_of(part(q[t], head), part(k[j], head / group)) / root);
    }
    Number top = scores[0];
    for (const Number& score : scores) top = score.value > top.value ? score : top;
    Row weights;
    for (const Number& score : scores) weights.push_back(exp_of(score - top));
    const Number total = sum_of(weights);
    Row out;
    for (std::int64_t d = 0; d < width; ++d) {
      Row terms;
      for (std::size_t i = 0; i < weights.size(); ++i) {
        terms.push_back(weights[i] *
                        v[std::size_t(s.start[t]) + i][std::size_t(head / group * width + d)]);
      }
      out.push_back(sum_of(terms) / total);
    }
    return out;
  }

  Matrix attention(const Matrix& h, const std::string& name, const Sequence& s) const {
    Matrix q = project(h, name + "q", ConvSite::q, s), k = project(h, name + "k", ConvSite::k, s);
    const Matrix v = project(h, name + "v", ConvSite::v, s);
    if (m_.qk_norm) {
      q = norm(q, name + "q_norm.weight");
      k = norm(k, name + "k_norm.weight");
    }
    rotate(q, s);
    rotate(k, s);
    Matrix out(h.size());
    for (std::size_t t = 0; t < h.size(); ++t) {
      for (std::int64_t head = 0; head < m_.n_heads; ++head) {
        const Row part = attend(q, k, v, t, head, s);
        out[t].insert(out[t].end(), part.begin(), part.end());
      }
    }
    return project(out, name + "o", ConvSite::o, s);
  }

  Matrix mlp(const Matrix& h, const std::string& name, const Sequence& s) const {
    Matrix gate = project(h, name + "gate", ConvSite::gate, s);
    const Matrix up = project(h, name + "up", ConvSite::up, s);
    const Number one = Number::exact(1);
    for (std::size_t t = 0; t < h.size(); ++t) {
      for (std::size_t j = 0; j < gate[t].size(); ++j) {
        const Number g = gate[t][j];
        gate[t][j] = g * (one / (one + exp_of(Number::exact(0) - g))) * up[t][j];
      }
    }
    return project(gate, name + "down", ConvSite::down, s);
  }

  static void add(Matrix& x, const Matrix& y) {
    for (std::size_t t = 0; t < x.size(); ++t) {
      for (std::size_t j = 0; j < x[t].size(); ++j) x[t][j] = x[t][j] + y[t][j];
    }
  }

  Matrix hidden(const Sequence& s) const {
    Matrix x;
    for (const auto token : s.tokens) x.push_back(row("embedding.weight", token, m_.d_model));
    for (std::int64_t i = 0; i < m_.n_layers; ++i) {
      const std::string block = "blocks." + std::to_string(i) + ".";
      add(x, attention(norm(x, block + "attention_norm.weight"), block + "attention.", s));
      if (m_.d_ff > 0) add(x, mlp(norm(x, block + "mlp_norm.weight"), block + "mlp.", s));
    }
    return norm(x, "final_norm.weight");
  }

  Number loss(const Row& x, std::int32_t target) const {
    const std::string table = m_.tie_embeddings ? "embedding.weight" : "head.weight";
    const Row logits = linear({x}, table)[0];
    Number top = logits[0];
    for (const Number& logit : logits) top = logit.value > top.value ? logit : top;
    Row terms;
    for (const Number& logit : logits) terms.push_back(exp_of(logit - top));
    return log_of(sum_of(terms)) + top - logits[std::size_t(target)];
  }

  ModelConfig m_;
  std::map<std::string, Row> parameters_;
};

}  // namespace convoy::test
