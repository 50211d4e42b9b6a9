// From a runtime dtype to a storage type and its compute type.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Exception.h>
#include <torch/headeronly/util/Half.h>

#include <optional>

namespace wgan {

using torch::headeronly::ScalarType;

// torch's half, not the compiler's _Float16: its conversions are integer arithmetic, which GCC 12 vectorises (twice as
// fast on AVX-512).
using torch::headeronly::BFloat16;
using torch::headeronly::Half;

// Arithmetic is done in float for the half types and in the type itself otherwise.
template <class T>
struct Compute {
  using type = float;
};
template <>
struct Compute<double> {
  using type = double;
};
template <class T>
using compute_t = typename Compute<T>::type;

inline ScalarType compute_type(ScalarType type) {
  return type == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

template <class T>
struct Type {
  using type = T;
};

inline bool is_supported(ScalarType type) {
  return type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::Half ||
         type == ScalarType::BFloat16;
}

// Calls f(Type<T>{}) for the T that the tensor holds.
template <class F>
void dispatch(ScalarType type, F&& f) {
  switch (type) {
    case ScalarType::Float:
      return f(Type<float>{});
    case ScalarType::Double:
      return f(Type<double>{});
    case ScalarType::Half:
      return f(Type<Half>{});
    case ScalarType::BFloat16:
      return f(Type<BFloat16>{});
    default:
      STD_TORCH_CHECK(false, "wgan_kernels: expected float64, float32, float16 or bfloat16");
  }
}

// Stable accessors are typed by torch's own types: ours share their bits.
template <class T>
const T* data(const torch::stable::Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}
template <class T>
T* mutable_data(const torch::stable::Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

template <class T>
const T* data_or_null(const std::optional<torch::stable::Tensor>& tensor) {
  return tensor ? data<T>(*tensor) : nullptr;
}

}  // namespace wgan
