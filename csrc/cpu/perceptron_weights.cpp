// The last sweeps over a perceptron: tangents forward, where a layer is curved what comes of that back, and the
// gradients of its weights over all samples.
#include <torch/csrc/stable/library.h>

#include "perceptron.h"

namespace wgan {
namespace {

// What a layer reads of all samples, as the second factor of its weight gradient: [in/kPanel, places, kPanel]. A block
// has kPanel places, those that bend have as many once more, behind all others.
struct Panels {
  float* data;
  int64_t width, places;

  // Entry (sample, feature) of samples from `first` on, at from[(sample − first)·sample_step + feature·feature_step],
  // with zeros behind the last feature.
  [[gnu::always_inline]] void fill(const float* from, int64_t sample_step, int64_t feature_step, int64_t first,
                                   int64_t count) const {
    for (int64_t f = 0; f < width; f += kPanel) {
      const int64_t some = std::min(kPanel, width - f);
      for (int64_t c = 0; c < count; ++c) {
        float* to = data + f * places + (first + c) * kPanel;
        for (int64_t i = 0; i < some; ++i) to[i] = from[c * sample_step + (f + i) * feature_step];
        std::fill(to + some, to + kPanel, 0.f);
      }
    }
  }
};

// The samples [begin, end) of a block whose first is `first`.
WGAN_CLONES void block_to_panels(const float* block, int64_t first, int64_t begin, int64_t end, const Panels& panels) {
  panels.fill(block + begin, 1, kPanel, first + begin, end - begin);
}

// The tangents [begin, end) of a block, [end − begin, in] → block[in, kPanel] and the panels of the first layer.
WGAN_CLONES void read_tangents(const float* t, int64_t first, int64_t begin, int64_t end, const Panels& panels,
                               float* block) {
  panels.fill(t, panels.width, 1, first + begin, end - begin);
  to_block(t, begin, end, panels.width, block);
}

WGAN_CLONES void read_samples(const float* samples, int64_t first, int64_t count, const Panels& panels) {
  panels.fill(samples, panels.width, 1, first, count);
}

// to = φ′∘(W t); bent = φ″∘∂/∂y∘(W t), the first part of ∂/∂z, unless nullptr
constexpr ByIsa push([](auto isa, const Layer& layer, const Block<const float>& block, int64_t samples, const float* t,
                        float* to, float* bent) __attribute__((always_inline)) {
  product(isa, layer.out, layer.in, layer.w, layer.in, 1, t, to, samples);
  if (layer.is_curved() && bent != nullptr) {
    const float* bends = block.bends + layer.at * kPanel;
    for (int64_t i = 0; i < layer.out * kPanel; ++i) bent[layer.at * kPanel + i] = bends[i] * to[i];
  }
  mask(layer, block, to);
});

// bent: of curved layers the first part of ∂/∂z, to which what comes from above is added; scratch: [widest, kPanel]
constexpr ByIsa pull_bent([](auto isa, const Network& network, const Block<const float>& block, int64_t samples,
                             float* bent, float* scratch) __attribute__((always_inline)) {
  for (size_t l = network.bent - 1; l-- > 0;) {
    const Layer &layer = network.layers[l], &above = network.layers[l + 1];
    float *of_layer = bent + layer.at * kPanel, *pulled = layer.is_curved() ? scratch : of_layer;
    product(isa, above.in, above.out, above.w, 1, above.in, bent + above.at * kPanel, pulled, samples);
    mask(layer, block, pulled);
    if (!layer.is_curved()) continue;
    for (int64_t i = 0; i < layer.out * kPanel; ++i) of_layer[i] += scratch[i];
  }
});

// Of so many samples the derivatives of each z, [blocks, height, kPanel].
struct Deltas {
  const float* data;
  int64_t height, samples;
};

constexpr int64_t kRun = 8 * kPanel;  // samples whose sum is added as one, for the rounding of many

// Of a weight gradient, Σ δ·input over all samples, `count` rows from the layer's `row` on and the columns of a panel:
// [count, kPanel] at `to`, whose rows are `apart`.
template <int count, bool kAdd, class Isa>
[[gnu::always_inline]] inline void add_samples(Isa isa, const Layer& layer, int64_t row, const Deltas& deltas,
                                               const float* panel, float* to, int64_t apart) {
  const float* a = deltas.data + (layer.at + row) * kPanel;
  for (int64_t begin = 0; begin == 0 || begin < deltas.samples; begin += kRun) {
    in_panel<2>(isa, kPanel, [=](int64_t column) __attribute__((always_inline)) {
      typename Isa::Vector sum[count][2] = {};
      for (int64_t s = begin; s < std::min(deltas.samples, begin + kRun); s += kPanel) {
        add_product(isa, sum, std::min(kPanel, deltas.samples - s), a + s * deltas.height, kPanel, 1,
                    panel + s * kPanel + column);
      }
      begin == 0 ? store<kAdd>(isa, sum, to + column, apart) : store<true>(isa, sum, to + column, apart);
    });
  }
}

// The same for the rows from `first` on, kRows of them; bent: the deltas of the samples that bend, unless nullptr,
// whose places are behind.
constexpr ByIsa weight_panel([](auto isa, const Layer& layer, int64_t first, const Deltas& deltas, const Deltas* bent,
                                const float* panel, const float* bent_panel, int64_t column,
                                float* grad) __attribute__((always_inline)) {
  const int64_t columns = std::min(kPanel, layer.in - column);
  in_groups(isa, std::min(kRows, layer.out - first), [&](auto count, int64_t r) __attribute__((always_inline)) {
    constexpr int kCount = count;
    float scratch[kCount * kPanel];
    float* of_rows = grad + (first + r) * layer.in + column;
    float* to = columns == kPanel ? of_rows : scratch;
    const int64_t apart = columns == kPanel ? layer.in : kPanel;
    add_samples<kCount, false>(isa, layer, first + r, deltas, panel, to, apart);
    if (bent != nullptr) add_samples<kCount, true>(isa, layer, first + r, *bent, bent_panel, to, apart);
    if (columns < kPanel) {
      for (int i = 0; i < kCount; ++i) std::copy_n(scratch + i * kPanel, columns, of_rows + i * layer.in);
    }
  });
});

// To a bias's gradient, so many rows of it, Σ δ over the first samples.
WGAN_CLONES void add_bias_rows(const Layer& layer, int64_t first, int64_t rows, const Deltas& deltas, int64_t samples,
                               float* grad) {
  for (int64_t r = first; r < first + rows; ++r) {
    float sum = 0;
    for (int64_t s = 0; s < samples; s += kPanel) {
      const float* delta = deltas.data + s * deltas.height + (layer.at + r) * kPanel;
      float of_block = 0;  // two levels, for the rounding of many samples
      for (int64_t i = 0; i < std::min(kPanel, samples - s); ++i) of_block += delta[i];
      sum += of_block;
    }
    grad[r] += sum;
  }
}

// The gradients of weights and biases in Σ ⟨δ, y⟩ over the first samples and Σ ⟨t, Jᵀδ⟩ over those that have a tangent.
class Gradients {
 public:
  Gradients(const Network& network, const std::vector<Tensor>& weights, const Tensor& x, const Tensor& t,
            const Kept<const float>& kept)
      : network_(network),
        kept_(kept),
        x_(data<float>(x)),
        t_(data<float>(t)),
        split_(x.size(0) - t.size(0)),
        samples_(x.size(0)),
        bent_(torch::stable::new_empty(t, {kept.bent_blocks(), network.height, kPanel})),
        of_bent_(mutable_data<float>(bent_)),
        deltas_{kept.deltas, network.height, samples_},
        bent_deltas_{of_bent_, network.height, samples_ - kept.first * kPanel} {
    const int64_t places = (kept.blocks + kept.bent_blocks()) * kPanel;
    int64_t read = 0;
    for (const Layer& layer : network.layers) read += blocks_of(layer.in) * kPanel * places;
    inputs_ = torch::stable::new_empty(t, {read});
    float* next = mutable_data<float>(inputs_);
    for (size_t l = 0; l < weights.size(); ++l) {
      const Layer& layer = network.layers[l];
      panels_.push_back({next, layer.in, places});
      next += blocks_of(layer.in) * kPanel * places;
      jobs_.push_back((l == 0 ? 0 : jobs_.back()) + (layer.out + kRows - 1) / kRows * blocks_of(layer.in));
      of_weights.push_back(torch::stable::empty_like(weights[l]));
      if (has_biases()) of_biases.push_back(torch::stable::new_zeros(t, {layer.out}));
    }
  }

  // What layers read of a block: values of the first samples, tangents of the others, which are pushed forward here.
  // Of a block that bends the values of all of its samples, once more, and the derivatives of each z.
  void push_block(int64_t b, float* scratch) const {
    const int64_t first = b * kPanel, count = std::min(kPanel, samples_ - first), in = network_.in();
    const int64_t begin = std::min(count, std::max<int64_t>(0, split_ - first));  // of tangents
    const Block<const float> block = kept_.of(b);
    const bool is_bent = block.bends != nullptr, pushes = begin < count || is_bent;
    float* bent = is_bent ? of_bent_ + (b - kept_.first) * kept_.size : nullptr;
    float *from = scratch, *to = scratch + network_.widest() * kPanel;
    read_samples(x_ + first * in, first, begin, panels_[0]);
    if (pushes) read_tangents(t_ + (first + begin - split_) * in, first, begin, count, panels_[0], from);
    for (size_t l = 1; l < network_.layers.size(); ++l) {
      const Layer& layer = network_.layers[l - 1];
      block_to_panels(block.values + layer.at * kPanel, first, 0, begin, panels_[l]);
      if (!pushes) continue;
      push(layer, block, count, from, to, bent);
      block_to_panels(to, first, begin, count, panels_[l]);
      std::swap(from, to);
    }
    if (!is_bent) return;
    if (network_.bent == network_.layers.size()) push(network_.layers.back(), block, count, from, to, bent);
    pull_bent(network_, block, count, bent, scratch);
    const int64_t behind = (kept_.blocks + b - kept_.first) * kPanel;
    read_samples(x_ + first * in, behind, count, panels_[0]);
    for (size_t l = 1; l < network_.bent; ++l) {
      block_to_panels(block.values + network_.layers[l - 1].at * kPanel, behind, 0, count, panels_[l]);
    }
  }

  int64_t jobs() const { return jobs_.back(); }
  int64_t job_grain() const { return std::max<int64_t>(1, kWork / (kRows * kPanel * std::max<int64_t>(1, samples_))); }

  void run_job(int64_t job) {
    const size_t l = std::upper_bound(jobs_.begin(), jobs_.end(), job) - jobs_.begin();
    const Layer& layer = network_.layers[l];
    const int64_t within = job - (l == 0 ? 0 : jobs_[l - 1]), panels = blocks_of(layer.in);
    const int64_t first = within / panels * kRows, column = within % panels * kPanel;
    const float* panel = panels_[l].data + column * panels_[l].places;
    const Deltas* bent = l < network_.bent ? &bent_deltas_ : nullptr;
    weight_panel(layer, first, deltas_, bent, panel, panel + kept_.blocks * kPanel * kPanel, column,
                 mutable_data<float>(of_weights[l]));
    if (column > 0 || !has_biases()) return;
    const int64_t rows = std::min(kRows, layer.out - first);
    add_bias_rows(layer, first, rows, deltas_, split_, mutable_data<float>(of_biases[l]));
    if (bent == nullptr) return;
    add_bias_rows(layer, first, rows, *bent, bent->samples, mutable_data<float>(of_biases[l]));
  }

  std::vector<Tensor> of_weights, of_biases;

 private:
  bool has_biases() const { return split_ > 0 || network_.bent > 0; }

  const Network& network_;
  const Kept<const float>& kept_;
  const float *x_, *t_;
  int64_t split_, samples_;
  Tensor bent_;
  float* of_bent_;
  Deltas deltas_, bent_deltas_;
  Tensor inputs_;
  std::vector<Panels> panels_;
  std::vector<int64_t> jobs_;  // those of the layers up to here
};

// x, t: see ``gradients_of``; values, deltas: of the sweeps before
std::vector<Tensor> perceptron_finish(const Tensor& x, const Tensor& t, const Tensor& values, const Tensor& deltas,
                                      const std::vector<Tensor> weights, const std::vector<double> slopes,
                                      const std::vector<int64_t> curves) {
  const Network network("perceptron_finish", weights, slopes, curves);
  const int64_t samples = x.size(0);
  check_matrix("perceptron_finish", "x", x, samples, network.in());
  check_matrix("perceptron_finish", "t", t, t.size(0), network.in());
  STD_TORCH_CHECK(t.size(0) <= samples, "perceptron_finish: more tangents than samples");
  Kept<const float> kept(network, samples, samples - t.size(0));
  const auto check = [&](const char* name, const Tensor& given, int64_t blocks) {
    STD_TORCH_CHECK(given.numel() == blocks * kept.size && given.is_contiguous() && given.is_cpu() &&
                        given.scalar_type() == ScalarType::Float,
                    "perceptron_finish: ", name, " must be those of the sweeps before");
  };
  check("values", values, kept.of_values());
  check("deltas", deltas, kept.of_deltas());
  kept.values = data<float>(values);
  kept.deltas = data<float>(deltas);
  return gradients_of(network, weights, x, t, kept);
}

}  // namespace

std::vector<Tensor> gradients_of(const Network& network, const std::vector<Tensor>& weights, const Tensor& x,
                                 const Tensor& t, const Kept<const float>& kept) {
  Gradients gradients(network, weights, x, t, kept);
  torch::stable::parallel_for(0, kept.blocks, network.block_grain(), [&](int64_t begin, int64_t end) {
    const auto scratch = scratch_of(2 * network.widest() * kPanel);
    for (int64_t block = begin; block < end; ++block) gradients.push_block(block, scratch.get());
  });
  torch::stable::parallel_for(0, gradients.jobs(), gradients.job_grain(), [&](int64_t begin, int64_t end) {
    for (int64_t job = begin; job < end; ++job) gradients.run_job(job);
  });
  std::vector<Tensor> all = std::move(gradients.of_weights);
  all.insert(all.end(), gradients.of_biases.begin(), gradients.of_biases.end());
  return all;
}

}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CPU, m) { m.impl("perceptron_finish", TORCH_BOX(&wgan::perceptron_finish)); }
