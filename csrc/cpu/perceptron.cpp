// The first sweeps over a perceptron: a block of samples goes through all layers and back on one core.
#include <torch/csrc/stable/library.h>

#include <optional>

#include "perceptron.h"

namespace wgan {
namespace {

// block[width, kPanel] → the samples [begin, end) of it, [end − begin, width]
WGAN_CLONES void from_block(const float* block, int64_t begin, int64_t end, int64_t width, float* samples) {
  for (int64_t f = 0; f < width; f += kLanes) {
    const int64_t some = std::min(kLanes, width - f);
    for (int64_t c = begin; c < end; ++c) {
      for (int64_t i = 0; i < some; ++i) samples[(c - begin) * width + f + i] = block[(f + i) * kPanel + c];
    }
  }
}

[[gnu::always_inline]] inline void activate(const Layer& layer, float* y) {
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
WGAN_CLONES void forward_block(const Network& network, const float* samples, int64_t count, float* input,
                               float* values) {
  to_block(samples, 0, count, network.in(), input);
  const float* below = input;
  for (const Layer& layer : network.layers) {
    float* y = values + layer.at * kPanel;
    product(layer.out, layer.in, layer.w, layer.in, 1, below, y);
    activate(layer, y);
    below = y;
  }
}

// seed: [count, out]; deltas: of each layer's result before the activation; gradient: [in, kPanel], or nullptr where
// nobody wants it
WGAN_CLONES void pullback_block(const Network& network, const float* values, const float* seed, int64_t count,
                                float* deltas, float* gradient) {
  to_block(seed, 0, count, network.out(), deltas + network.layers.back().at * kPanel);
  for (size_t l = network.layers.size(); l-- > 0;) {
    const Layer& layer = network.layers[l];
    float* delta = deltas + layer.at * kPanel;
    mask(layer, values + layer.at * kPanel, delta);
    float* to = l == 0 ? gradient : deltas + network.layers[l - 1].at * kPanel;
    if (to != nullptr) product(layer.in, layer.out, layer.w, 1, layer.in, delta, to);
  }
}

// x: [N, in]; seed: [N, out]; weights: [out, in] each; biases: [out] or absent → scores: [N, out]; the gradient of
// Σ seed·score, [N − split, in], at the samples from `split` on; values and deltas of each layer: [blocks, height,
// kPanel]
std::tuple<Tensor, Tensor, Tensor, Tensor> perceptron_begin(const Tensor& x, const Tensor& seed,
                                                            const std::vector<Tensor> weights,
                                                            const std::vector<std::optional<Tensor>> biases,
                                                            const std::vector<double> slopes, int64_t split) {
  Network network("perceptron_begin", weights, slopes);
  STD_TORCH_CHECK(biases.size() == weights.size(), "perceptron_begin: a bias belongs to each weight");
  for (size_t l = 0; l < biases.size(); ++l) {
    check_channels("perceptron_begin", "biases", biases[l], weights[l].size(0));
    network.layers[l].b = data_or_null<float>(biases[l]);
  }
  const int64_t samples = x.size(0), in = network.in(), out = network.out(), size = network.height * kPanel;
  check_matrix("perceptron_begin", "x", x, samples, in);
  check_matrix("perceptron_begin", "seed", seed, samples, out);
  STD_TORCH_CHECK(0 <= split && split <= samples, "perceptron_begin: split must be one of the samples");
  Tensor scores = torch::stable::new_empty(x, {samples, out});
  Tensor gradient = torch::stable::new_empty(x, {samples - split, in});
  Tensor values = torch::stable::new_empty(x, {blocks_of(samples), network.height, kPanel});
  Tensor deltas = torch::stable::empty_like(values);
  const float *of_x = data<float>(x), *of_seed = data<float>(seed);
  float *of_scores = mutable_data<float>(scores), *of_gradient = mutable_data<float>(gradient);
  float *of_values = mutable_data<float>(values), *of_deltas = mutable_data<float>(deltas);
  const int64_t last = network.layers.back().at * kPanel;
  torch::stable::parallel_for(0, blocks_of(samples), network.block_grain(), [&](int64_t begin, int64_t end) {
    const auto inner = scratch_of(in * kPanel);  // of a block: what is read, then its gradient
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kPanel, count = std::min(kPanel, samples - first);
      const int64_t wanted = std::min(count, std::max<int64_t>(0, split - first));  // whose gradient is, from here on
      float *y = of_values + block * size, *d = of_deltas + block * size;
      forward_block(network, of_x + first * in, count, inner.get(), y);
      from_block(y + last, 0, count, out, of_scores + first * out);
      pullback_block(network, y, of_seed + first * out, count, d, wanted < count ? inner.get() : nullptr);
      from_block(inner.get(), wanted, count, in, of_gradient + (first + wanted - split) * in);
    }
  });
  return {scores, gradient, values, deltas};
}

}  // namespace
}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CPU, m) { m.impl("perceptron_begin", TORCH_BOX(&wgan::perceptron_begin)); }
