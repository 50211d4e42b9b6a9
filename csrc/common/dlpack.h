// Of DLPack 1.x what reading a tensor takes: torch's own copy of its header may not be included beside the stable ABI.
// Source: the DLPack specification, https://dmlc.github.io/dlpack/latest/c_api.html
#pragma once

#include <cstdint>

namespace wgan::dlpack {

constexpr uint32_t kMajorVersion = 1;
constexpr int32_t kCpu = 1, kCuda = 2, kRocm = 10;
constexpr uint8_t kFloat = 2, kBfloat = 4;

struct Tensor {
  void* data;
  int32_t device_type, device_id;
  int32_t dim;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;  // strides in elements
  uint64_t byte_offset;
};

// The table of functions behind the attribute __dlpack_c_exchange_api__ of a tensor type.
struct ExchangeApi {
  struct {
    uint32_t major, minor;
    void* older;
  } header;
  void *allocate, *export_owned, *import_owned;
  int (*read)(void* object, Tensor* out);  // 0, or −1 with a Python error set; the object goes on owning its memory
  void* current_stream;
};

}  // namespace wgan::dlpack
