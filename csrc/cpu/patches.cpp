// A convolution from a few channels, y = W·patch, and its weight gradient, Σ δ·patchᵀ. The patches that the pixels of
// the result see are read where they lie, in a copy of the image with zeros around it.
#include <torch/csrc/stable/library.h>

#include <optional>
#include <vector>

#include "../common/checks.h"
#include "elements.h"
#include "loops.h"

namespace wgan {
namespace {

constexpr int64_t kImages = 8;      // whose gradients are summed by one thread, so that their order depends on nothing
constexpr int64_t kWork = 1 << 17;  // multiply-adds from which on a second thread pays

// Of an axis of the image.
struct Axis {
  int64_t size, kernel, stride, padding, dilation;

  int64_t padded() const { return size + 2 * padding; }
  int64_t result() const {
    const int64_t left = padded() - dilation * (kernel - 1) - 1;
    return left < 0 ? 0 : left / stride + 1;
  }
};

// What an image's pixels see of it.
struct Patches {
  Axis rows, columns;
  int64_t in;
  std::vector<int64_t> taps;  // where each lies in the padded image, [kernel rows, kernel columns, channels]

  Patches(const Axis& rows, const Axis& columns, int64_t in) : rows(rows), columns(columns), in(in) {
    for (int64_t i = 0; i < rows.kernel; ++i) {
      for (int64_t j = 0; j < columns.kernel; ++j) {
        for (int64_t c = 0; c < in; ++c) {
          taps.push_back(((i * rows.dilation * columns.padded()) + j * columns.dilation) * in + c);
        }
      }
    }
  }
  int64_t count() const { return static_cast<int64_t>(taps.size()); }
  int64_t pixels() const { return rows.result() * columns.result(); }
  int64_t size() const { return rows.padded() * columns.padded() * in; }
  int64_t first(int64_t y, int64_t x) const { return (y * rows.stride * columns.padded() + x * columns.stride) * in; }
  int64_t step() const { return columns.stride * in; }  // from a pixel's patch to the next one's
};

// Images in any memory.
template <class T>
struct Images {
  const T* data;
  int64_t image, channel, row, column;  // strides

  explicit Images(const Tensor& x)
      : data(wgan::data<T>(x)), image(x.stride(0)), channel(x.stride(1)), row(x.stride(2)), column(x.stride(3)) {}
};

// Into the middle of `to`, whose border is zeros already.
template <class T>
WGAN_CLONES void pad(const Images<T>& images, int64_t index, const Patches& patches, float* to) {
  const int64_t width = patches.columns.size, in = patches.in;
  for (int64_t y = 0; y < patches.rows.size; ++y) {
    float* line = to + ((y + patches.rows.padding) * patches.columns.padded() + patches.columns.padding) * in;
    const T* from = images.data + index * images.image + y * images.row;
    if (in == 1 && images.column == 1) {
      for (int64_t x = 0; x < width; ++x) line[x] = static_cast<float>(from[x]);
    } else if (images.channel == 1 && images.column == in) {
      for (int64_t x = 0; x < width * in; ++x) line[x] = static_cast<float>(from[x]);
    } else {
      for (int64_t c = 0; c < in; ++c) {
        for (int64_t x = 0; x < width; ++x) {
          line[x * in + c] = static_cast<float>(from[c * images.channel + x * images.column]);
        }
      }
    }
  }
}

// y: [pixels, out] of an image; kernel: [out/kPanel, taps, kPanel]; bias: [out] or null
template <class T>
constexpr ByIsa forward_image([](auto isa, const float* image, const Patches& patches, const float* kernel,
                                 const T* bias, int64_t out, T* y) __attribute__((always_inline)) {
  using Isa = decltype(isa);
  const int64_t *taps = patches.taps.data(), count = patches.count(), step = patches.step();
  for (int64_t row = 0; row < patches.rows.result(); ++row) {
    for (int64_t n = 0; n < out; n += 2 * isa.kLanes) {
      typename Isa::Vector shift[2] = {};
      if (bias) {
        read(isa, bias + n, shift[0]);
        read(isa, bias + n + isa.kLanes, shift[1]);
      }
      in_parts<isa.kMost>(patches.columns.result(), [&](auto pixels, int64_t column) __attribute__((always_inline)) {
        constexpr int kPixels = pixels;
        const float *from = image + patches.first(row, column),
                    *factors = kernel + n / kPanel * kPanel * count + n % kPanel;
        typename Isa::Vector sum[kPixels][2];
        WGAN_UNROLL for (int p = 0; p < kPixels; ++p) {
          sum[p][0] = shift[0];
          sum[p][1] = shift[1];
        }
        for (int64_t k = 0; k < count; ++k) {
          const float* tap = from + taps[k];
          const typename Isa::Vector first = isa.at(factors + k * kPanel),
                                     second = isa.at(factors + k * kPanel + isa.kLanes);
          WGAN_UNROLL for (int p = 0; p < kPixels; ++p) {
            sum[p][0] += tap[p * step] * first;
            sum[p][1] += tap[p * step] * second;
          }
        }
        T* to = y + (row * patches.columns.result() + column) * out + n;
        WGAN_UNROLL for (int p = 0; p < kPixels; ++p) {
          write(isa, sum[p][0], to + p * out);
          write(isa, sum[p][1], to + p * out + isa.kLanes);
        }
      });
    }
  }
});

// sums[taps, out] += Σ over an image's pixels; delta: [pixels, out]
template <class T>
constexpr ByIsa add_image([](auto isa, const float* image, const Patches& patches, const T* delta, int64_t out,
                             float* sums) __attribute__((always_inline)) {
  using Isa = decltype(isa);
  const int64_t width = patches.columns.result(), step = patches.step();
  for (int64_t n = 0; n < out; n += 2 * isa.kLanes) {
    in_parts<isa.kMost>(patches.count(), [&](auto taps, int64_t first) __attribute__((always_inline)) {
      constexpr int kTaps = taps;
      int64_t offsets[kTaps];
      std::copy_n(patches.taps.data() + first, kTaps, offsets);
      typename Isa::Vector sum[kTaps][2] = {};
      for (int64_t row = 0; row < patches.rows.result(); ++row) {
        const float* from = image + patches.first(row, 0);
        const T* d = delta + row * width * out + n;
        for (int64_t x = 0; x < width; ++x, from += step, d += out) {
          typename Isa::Vector low, high;
          read(isa, d, low);
          read(isa, d + isa.kLanes, high);
          WGAN_UNROLL for (int k = 0; k < kTaps; ++k) {
            sum[k][0] += from[offsets[k]] * low;
            sum[k][1] += from[offsets[k]] * high;
          }
        }
      }
      WGAN_UNROLL for (int k = 0; k < kTaps; ++k) {
        float* to = sums + (first + k) * out + n;
        isa.at(to) += sum[k][0];
        isa.at(to + isa.kLanes) += sum[k][1];
      }
    });
  }
});

// Where an entry of a kernel [out, in, rows, columns] in any memory lies.
int64_t entry(const Tensor& w, int64_t out, int64_t tap) {
  const int64_t in = w.size(1), along = w.size(3);
  return out * w.stride(0) + tap % in * w.stride(1) + tap / in / along * w.stride(2) + tap / in % along * w.stride(3);
}

template <class T>
std::vector<float> panels_of(const Tensor& w, int64_t taps) {
  const T* from = data<T>(w);
  std::vector<float> panels(w.size(0) * taps);
  for (int64_t n = 0; n < w.size(0); ++n) {
    for (int64_t k = 0; k < taps; ++k) {
      panels[(n / kPanel * taps + k) * kPanel + n % kPanel] = static_cast<float>(from[entry(w, n, k)]);
    }
  }
  return panels;
}

Patches patches_of(const char* op, const Tensor& x, const Tensor& w, const std::vector<int64_t>& geometry) {
  const ScalarType type = x.scalar_type();
  STD_TORCH_CHECK(x.dim() == 4 && x.is_cpu() && (type == ScalarType::Float || type == ScalarType::BFloat16), op,
                  ": x must be [B, in, rows, columns] of float32 or bfloat16 on the CPU");
  STD_TORCH_CHECK(w.dim() == 4 && w.is_cpu() && w.scalar_type() == type && w.size(1) == x.size(1) &&
                      w.size(0) % kPanel == 0 && w.numel() > 0,
                  op, ": w must be [out, in, rows, columns] of the dtype of x on the CPU, out a multiple of ", kPanel);
  STD_TORCH_CHECK(geometry.size() == 6, op, ": the geometry is stride, padding and dilation, of rows and of columns");
  const int64_t *stride = geometry.data(), *padding = stride + 2, *dilation = padding + 2;
  for (int d = 0; d < 2; ++d) {
    STD_TORCH_CHECK(stride[d] > 0 && padding[d] >= 0 && dilation[d] > 0, op, ": no such geometry");
  }
  return {{x.size(2), w.size(2), stride[0], padding[0], dilation[0]},
          {x.size(3), w.size(3), stride[1], padding[1], dilation[1]},
          x.size(1)};
}

template <class T>
Tensor forward(const Tensor& x, const Tensor& w, const std::optional<Tensor>& bias, const Patches& patches) {
  const int64_t out = w.size(0), size = patches.pixels() * out, work = size * patches.count();
  Tensor y = torch::stable::new_empty(x, {x.size(0), patches.rows.result(), patches.columns.result(), out});
  const std::vector<float> kernel = panels_of<T>(w, patches.count());
  const Images<T> images(x);
  const T* shift = data_or_null<T>(bias);
  T* to = mutable_data<T>(y);
  const int64_t grain = std::max<int64_t>(1, kWork / std::max<int64_t>(1, work));
  torch::stable::parallel_for(0, x.size(0), grain, [&](int64_t begin, int64_t end) {
    std::vector<float> image(patches.size());
    for (int64_t b = begin; b < end; ++b) {
      pad(images, b, patches, image.data());
      forward_image<T>(image.data(), patches, kernel.data(), shift, out, to + b * size);
    }
  });
  return y;
}

template <class T>
Tensor weights(const Tensor& x, const Tensor& delta, const Tensor& w, const Patches& patches) {
  Tensor result = torch::stable::empty_like(w);
  const int64_t out = w.size(0), taps = patches.count(), size = patches.pixels() * out, batch = x.size(0);
  const int64_t parts = std::max<int64_t>(1, (batch + kImages - 1) / kImages);
  std::vector<float> sums(parts * taps * out);
  const Images<T> images(x);
  const T* from = data<T>(delta);
  const int64_t grain = std::max<int64_t>(1, kWork / std::max<int64_t>(1, size * taps * kImages));
  torch::stable::parallel_for(0, parts, grain, [&](int64_t begin, int64_t end) {
    std::vector<float> image(patches.size());
    for (int64_t part = begin; part < end; ++part) {
      for (int64_t b = part * kImages; b < std::min(batch, (part + 1) * kImages); ++b) {
        pad(images, b, patches, image.data());
        add_image<T>(image.data(), patches, from + b * size, out, sums.data() + part * taps * out);
      }
    }
  });
  T* to = mutable_data<T>(result);
  for (int64_t k = 0; k < taps; ++k) {
    for (int64_t n = 0; n < out; ++n) {
      float sum = 0;
      for (int64_t part = 0; part < parts; ++part) sum += sums[(part * taps + k) * out + n];
      to[entry(result, n, k)] = static_cast<T>(sum);
    }
  }
  return result;
}

// x: [B, in, H, W] in any memory; w: [out, in, rows, columns], likewise; geometry: stride, padding, dilation, of rows
// and of columns each → [B, h, w, out], the convolution
Tensor patches_forward(const Tensor& x, const Tensor& w, std::optional<Tensor> bias,
                       const std::vector<int64_t> geometry) {
  const Patches patches = patches_of("patches_forward", x, w, geometry);
  check_channels("patches_forward", "bias", bias, w.size(0), w.scalar_type());
  return of_element(w.scalar_type(), [&]<class T>() { return forward<T>(x, w, bias, patches); });
}

// delta: [B, h, w, out] → like w
Tensor patches_weights(const Tensor& x, const Tensor& delta, const Tensor& w, const std::vector<int64_t> geometry) {
  const char* op = "patches_weights";
  const Patches patches = patches_of(op, x, w, geometry);
  STD_TORCH_CHECK(delta.dim() == 4 && delta.is_contiguous() && delta.is_cpu() &&
                      delta.scalar_type() == x.scalar_type() && delta.size(0) == x.size(0) &&
                      delta.size(1) == patches.rows.result() && delta.size(2) == patches.columns.result() &&
                      delta.size(3) == w.size(0),
                  op, ": delta must be contiguous [B, rows, columns, out], like the convolution's result");
  return of_element(w.scalar_type(), [&]<class T>() { return weights<T>(x, delta, w, patches); });
}

}  // namespace
}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CPU, m) {
  m.impl("patches_forward", TORCH_BOX(&wgan::patches_forward));
  m.impl("patches_weights", TORCH_BOX(&wgan::patches_weights));
}
