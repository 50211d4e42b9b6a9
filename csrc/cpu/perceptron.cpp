// The first sweeps over a perceptron: a block of samples goes through all layers and back on one core.
#include <torch/csrc/stable/library.h>

#include <cmath>
#include <optional>

#include "../math/norm_penalty.h"
#include "../math/wasserstein.h"
#include "perceptron.h"
#include "sum.h"

namespace wgan {
namespace {

// block[width, kPanel] → the samples [begin, end) of it, [end − begin, width]
WGAN_CLONES void from_block(const float* block, int64_t begin, int64_t end, int64_t width, float* samples) {
  for (int64_t f = 0; f < width; f += kFeatures) {
    const int64_t some = std::min(kFeatures, width - f);
    for (int64_t c = begin; c < end; ++c) {
      for (int64_t i = 0; i < some; ++i) samples[(c - begin) * width + f + i] = block[(f + i) * kPanel + c];
    }
  }
}

// y: z without its bias, to be overwritten with φ(z); slopes, bends: φ′(z), and φ″(z) unless nullptr
template <class Activation>
[[gnu::always_inline]] inline void bend(const Layer& layer, float* y, float* slopes, float* bends) {
  for (int64_t r = 0; r < layer.out; ++r) {
    const float bias = layer.b == nullptr ? 0.f : layer.b[r];
    float second[kPanel], *of_bends = bends == nullptr ? second : bends + r * kPanel;
    float *of_y = y + r * kPanel, *of_slopes = slopes + r * kPanel;
    for (int64_t i = 0; i < kPanel; ++i) {
      const math::Bent at = Activation::of(of_y[i] + bias);
      of_y[i] = at.y;
      of_slopes[i] = at.slope;
      of_bends[i] = at.bend;
    }
  }
}

// A function of its own for each instruction set: inlined into a loop over layers they would all be compiled there.
WGAN_CLONES void bend_layer(const Layer& layer, float* y, float* slopes, float* bends) {
  switch (layer.curve) {
    case Curve::kTanh:
      return bend<math::Tanh>(layer, y, slopes, bends);
    case Curve::kSigmoid:
      return bend<math::Logistic>(layer, y, slopes, bends);
    case Curve::kSoftplus:
      return bend<math::Softplus>(layer, y, slopes, bends);
    case Curve::kSilu:
      return bend<math::Silu>(layer, y, slopes, bends);
    case Curve::kGelu:
      return bend<math::Gelu>(layer, y, slopes, bends);
    case Curve::kElu:
      return bend<math::Elu>(layer, y, slopes, bends);
    case Curve::kNone:
      return;
  }
}

[[gnu::always_inline]] inline void activate(const Layer& layer, const Block<float>& block) {
  float* y = block.values + layer.at * kPanel;
  if (layer.is_curved()) {
    const int64_t at = layer.at * kPanel;
    bend_layer(layer, y, block.slopes + at, block.bends == nullptr ? nullptr : block.bends + at);
    return;
  }
  for (int64_t r = 0; r < layer.out; ++r, y += kPanel) {
    const float bias = layer.b == nullptr ? 0.f : layer.b[r], slope = layer.slope;
    if (slope == 0.f) {  // 0·(−∞) would be no number
      for (int64_t i = 0; i < kPanel; ++i) y[i] = y[i] + bias <= 0.f ? 0.f : y[i] + bias;
    } else {
      for (int64_t i = 0; i < kPanel; ++i) y[i] = y[i] + bias > 0.f ? y[i] + bias : (y[i] + bias) * slope;
    }
  }
}

// samples: [count, in]; input: [in, kPanel], for what the first layer reads
constexpr ByIsa forward_block([](auto isa, const Network& network, const float* samples, int64_t count, float* input,
                                 const Block<float>& block) __attribute__((always_inline)) {
  to_block(samples, 0, count, network.in(), input);
  const float* below = input;
  for (const Layer& layer : network.layers) {
    float* y = block.values + layer.at * kPanel;
    product(isa, layer.out, layer.in, layer.w, layer.in, 1, below, y, count);
    activate(layer, block);
    below = y;
  }
});

// φ″ → φ″∘d
[[gnu::always_inline]] inline void weigh(const Layer& layer, const float* d, float* bends) {
  for (int64_t i = 0; i < layer.out * kPanel; ++i) bends[i] *= d[i];
}

// seed: [count, out]; the block's deltas: of each z; gradient: [in, kPanel], or nullptr where nobody wants it
constexpr ByIsa pullback_block([](auto isa, const Network& network, const Block<float>& block, const float* seed,
                                  int64_t count, float* gradient) __attribute__((always_inline)) {
  to_block(seed, 0, count, network.out(), block.deltas + network.layers.back().at * kPanel);
  for (size_t l = network.layers.size(); l-- > 0;) {
    const Layer& layer = network.layers[l];
    float* delta = block.deltas + layer.at * kPanel;
    if (layer.is_curved() && block.bends != nullptr) weigh(layer, delta, block.bends + layer.at * kPanel);
    mask(layer, block, delta);
    float* to = l == 0 ? gradient : block.deltas + network.layers[l - 1].at * kPanel;
    if (to != nullptr) product(isa, layer.in, layer.out, layer.w, 1, layer.in, delta, to, count);
  }
});

// Of a perceptron and its samples: what all sweeps need, and what the first ones leave to the others.
struct Run {
  Network network;
  const float* x;
  int64_t samples;
  Kept<float> kept;
  Tensor values, deltas;

  // split: where the interpolated samples begin
  Run(const char* op, const Tensor& x, const std::vector<Tensor>& weights,
      const std::vector<std::optional<Tensor>>& biases, const std::vector<double>& slopes,
      const std::vector<int64_t>& curves, int64_t split)
      : network(op, weights, slopes, curves), samples(x.dim() == 2 ? x.size(0) : 0), kept(network, samples, split) {
    STD_TORCH_CHECK(0 <= split && split <= samples, op, ": split must be one of the samples");
    STD_TORCH_CHECK(biases.size() == weights.size(), op, ": a bias belongs to each weight");
    for (size_t l = 0; l < biases.size(); ++l) {
      check_channels(op, "biases", biases[l], weights[l].size(0));
      network.layers[l].b = data_or_null<float>(biases[l]);
    }
    check_matrix(op, "x", x, samples, network.in());
    this->x = data<float>(x);
    values = torch::stable::new_empty(x, {kept.of_values(), network.height, kPanel});
    deltas = torch::stable::new_empty(x, {kept.of_deltas(), network.height, kPanel});
    kept.values = mutable_data<float>(values);
    kept.deltas = mutable_data<float>(deltas);
  }

  // f(its first sample, how many, what is kept of it, scratch: [in, kPanel]) for each block, whose values are there
  template <class F>
  void each_block(const F& f) {
    torch::stable::parallel_for(0, kept.blocks, network.block_grain(), [&](int64_t begin, int64_t end) {
      const auto scratch = scratch_of(network.in() * kPanel);
      for (int64_t b = begin; b < end; ++b) {
        const int64_t first = b * kPanel, count = std::min(kPanel, samples - first);
        const Block<float> block = kept.of(b);
        forward_block(network, x + first * network.in(), count, scratch.get(), block);
        f(first, count, block, scratch.get());
      }
    });
  }
};

// x: [N, in]; seed: [N, out]; weights: [out, in] each; biases: [out] or absent → scores: [N, out]; the gradient of
// Σ seed·score, [N − asked, in], at the samples from `asked` on, of which those from `split` on are interpolated;
// values and deltas
std::tuple<Tensor, Tensor, Tensor, Tensor> perceptron_begin(const Tensor& x, const Tensor& seed,
                                                            const std::vector<Tensor> weights,
                                                            const std::vector<std::optional<Tensor>> biases,
                                                            const std::vector<double> slopes,
                                                            const std::vector<int64_t> curves, int64_t split,
                                                            int64_t asked) {
  Run run("perceptron_begin", x, weights, biases, slopes, curves, split);
  const int64_t samples = run.samples, in = run.network.in(), out = run.network.out();
  check_matrix("perceptron_begin", "seed", seed, samples, out);
  STD_TORCH_CHECK(0 <= asked && asked <= split, "perceptron_begin: asked must be one of the samples up to split");
  Tensor scores = torch::stable::new_empty(x, {samples, out});
  Tensor gradient = torch::stable::new_empty(x, {samples - asked, in});
  const float* of_seed = data<float>(seed);
  float *of_scores = mutable_data<float>(scores), *of_gradient = mutable_data<float>(gradient);
  const int64_t last = run.network.layers.back().at * kPanel;
  run.each_block([&](int64_t first, int64_t count, const Block<float>& block, float* scratch) {
    const int64_t wanted = std::min(count, std::max<int64_t>(0, asked - first));  // whose gradient is, from here on
    from_block(block.values + last, 0, count, out, of_scores + first * out);
    pullback_block(run.network, block, of_seed + first * out, count, wanted < count ? scratch : nullptr);
    from_block(scratch, wanted, count, in, of_gradient + (first + wanted - asked) * in);
  });
  return {scores, gradient, run.values, run.deltas};
}

// Of a row of gradients its norm; the row is overwritten with share·∂p/∂row.
WGAN_CLONES float penalise(float* row, int64_t width, float target, bool one_sided, float share) {
  double sum = 0;
  for (int64_t i = 0; i < width; i += kChunk) sum += sum_chunk<Square>(row + i, std::min(kChunk, width - i));
  const float norm = static_cast<float>(std::sqrt(sum));
  const float factor = math::norm_penalty_bwd_coefficient(norm, target, one_sided) * share;
  each(width, [=](int64_t i) { row[i] *= factor; });
  return norm;
}

// The same with the penalty of the gradient at each sample, a mean → [], its derivative with respect to the gradients,
// [N, in], before these leave the cache, and their norms, [N]; values and deltas. Of the gradients only the features
// from `first` on, `width` of them, count.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> perceptron_penalty(const Tensor& x,
                                                                      const std::vector<Tensor> weights,
                                                                      const std::vector<std::optional<Tensor>> biases,
                                                                      const std::vector<double> slopes,
                                                                      const std::vector<int64_t> curves, double target,
                                                                      bool one_sided, int64_t first, int64_t width) {
  Run run("perceptron_penalty", x, weights, biases, slopes, curves, 0);
  const int64_t in = run.network.in();
  STD_TORCH_CHECK(0 <= first && 0 <= width && first <= in - width, "perceptron_penalty: no such features");
  Tensor penalty = torch::stable::new_empty(x, {}), derivative = torch::stable::empty_like(x);
  Tensor norms = torch::stable::new_empty(x, {run.samples});
  float *of_derivative = mutable_data<float>(derivative), *of_norms = mutable_data<float>(norms);
  const float goal = static_cast<float>(target);
  const std::vector<float> ones(kPanel * run.network.out(), 1.f);
  run.each_block([&](int64_t sample, int64_t count, const Block<float>& block, float* scratch) {
    pullback_block(run.network, block, ones.data(), count, scratch);
    from_block(scratch, 0, count, in, of_derivative + sample * in);
    for (int64_t i = sample; i < sample + count; ++i) {
      float* row = of_derivative + i * in;
      std::fill(row, row + first, 0.f);
      of_norms[i] = penalise(row + first, width, goal, one_sided, 1.f / static_cast<float>(run.samples));
      std::fill(row + first + width, row + in, 0.f);
    }
  });
  double total = 0;
  for (int64_t i = 0; i < run.samples; ++i) total += math::norm_penalty(of_norms[i], goal, one_sided);
  *mutable_data<float>(penalty) = static_cast<float>(total / run.samples);
  return {penalty, derivative, norms, run.values, run.deltas};
}

// A critic step without its optimizer: x: [3·B, in], real, fake and interpolated samples → [the loss mean f(fake) −
// mean f(real) + weight·penalty, mean f(real) − mean f(fake), penalty = factor·mean p, the mean norm]; the gradients of
// weights and biases
std::tuple<Tensor, std::vector<Tensor>> perceptron_step(const Tensor& x, const std::vector<Tensor> weights,
                                                        const std::vector<std::optional<Tensor>> biases,
                                                        const std::vector<double> slopes,
                                                        const std::vector<int64_t> curves, double target,
                                                        bool one_sided, double weight, double factor) {
  STD_TORCH_CHECK(x.dim() == 2 && x.size(0) > 0 && x.size(0) % 3 == 0,
                  "perceptron_step: x must be as many real as fake as interpolated samples");
  const int64_t batch = x.size(0) / 3, split = 2 * batch;
  Run run("perceptron_step", x, weights, biases, slopes, curves, split);
  const int64_t in = run.network.in(), out = run.network.out(), some = batch * out;
  Tensor gradient = torch::stable::new_empty(x, {batch, in}), metrics = torch::stable::new_empty(x, {4});
  float* of_gradient = mutable_data<float>(gradient);
  std::vector<float> seed(3 * some, 1.f), scores(3 * some), norms(batch);
  std::fill_n(seed.begin(), some, -1.f / static_cast<float>(some));
  std::fill_n(seed.begin() + some, some, 1.f / static_cast<float>(some));
  const float goal = static_cast<float>(target),
              share = static_cast<float>(weight * factor) / static_cast<float>(batch);
  const int64_t last = run.network.layers.back().at * kPanel;
  run.each_block([&](int64_t first, int64_t count, const Block<float>& block, float* scratch) {
    const int64_t begin = std::min(count, std::max<int64_t>(0, split - first));  // of the interpolated ones
    from_block(block.values + last, 0, count, out, scores.data() + first * out);
    pullback_block(run.network, block, seed.data() + first * out, count, begin < count ? scratch : nullptr);
    from_block(scratch, begin, count, in, of_gradient + (first + begin - split) * in);
    for (int64_t i = first + begin - split; i < first + count - split; ++i) {
      norms[i] = penalise(of_gradient + i * in, in, goal, one_sided, share);
    }
  });
  double penalty = 0, norm = 0;
  for (const float each : norms) {
    penalty += math::norm_penalty(each, goal, one_sided);
    norm += each;
  }
  const auto mean = [&](int64_t from) {
    double total = 0;
    sum_rows<Identity>(scores.data() + from, 1, some, [&](int64_t, double sum) { total = sum; });
    return total / some;
  };
  const double real = mean(0), fake = mean(some);
  penalty *= factor / batch;
  float* of_metrics = mutable_data<float>(metrics);
  of_metrics[0] = static_cast<float>(math::wasserstein(real, fake, penalty, weight));
  of_metrics[1] = static_cast<float>(-math::wasserstein(real, fake, 0., 0.));
  of_metrics[2] = static_cast<float>(penalty);
  of_metrics[3] = static_cast<float>(norm / batch);
  Kept<const float> kept(run.network, x.size(0), split);
  kept.values = run.kept.values;
  kept.deltas = run.kept.deltas;
  return {metrics, gradients_of(run.network, weights, x, gradient, kept)};
}

}  // namespace
}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CPU, m) {
  m.impl("perceptron_begin", TORCH_BOX(&wgan::perceptron_begin));
  m.impl("perceptron_penalty", TORCH_BOX(&wgan::perceptron_penalty));
  m.impl("perceptron_step", TORCH_BOX(&wgan::perceptron_step));
}
