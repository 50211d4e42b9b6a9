// Python lists of tensors, read without an operator call: a boxed Tensor[] costs 0.2 µs a tensor, DLPack's table of C
// functions a quarter of it.
#pragma once

#include <Python.h>

#include <stdexcept>
#include <string>

#include "dlpack.h"
#include "tensor_list.h"

namespace wgan {

inline PyObject* attribute(const char* module, const char* name) {
  PyObject* imported = PyImport_ImportModule(module);
  PyObject* found = imported ? PyObject_GetAttrString(imported, name) : nullptr;
  Py_XDECREF(imported);
  PyErr_Clear();
  return found;
}

// True for torch.Tensor and torch.nn.Parameter themselves: a subclass may override what an operator means.
inline bool is_plain_tensor(PyObject* object) {
  static PyObject *const parameter = attribute("torch.nn", "Parameter"), *const tensor = attribute("torch", "Tensor");
  PyObject* type = reinterpret_cast<PyObject*>(Py_TYPE(object));
  return type == parameter || type == tensor;
}

// What reads a tensor object; null where torch has no such thing.
inline auto tensor_reader() {
  static const auto reader = [] {
    PyObject* tensor = attribute("torch", "Tensor");
    PyObject* capsule = tensor ? PyObject_GetAttrString(tensor, "__dlpack_c_exchange_api__") : nullptr;
    const void* table = capsule ? PyCapsule_GetPointer(capsule, "dlpack_exchange_api") : nullptr;
    PyErr_Clear();
    Py_XDECREF(capsule);  // the type keeps it
    Py_XDECREF(tensor);
    const auto* api = static_cast<const dlpack::ExchangeApi*>(table);
    return api && api->header.major == dlpack::kMajorVersion ? api->read : nullptr;
  }();
  return reader;
}

inline bool is_on(int32_t actual, int32_t device) {
  return device == detail::kCpu ? actual == dlpack::kCpu : actual == dlpack::kCuda || actual == dlpack::kRocm;
}

// As of an operator's argument; false where the object is not a plain tensor of this kind of device, or has no memory
// of its own, like a functorch tensor.
inline bool read_tensor(PyObject* object, int32_t device, View& view) {
  dlpack::Tensor tensor;
  const auto read = tensor_reader();
  if (read == nullptr || !is_plain_tensor(object)) return false;
  if (read(object, &tensor) != 0) {
    PyErr_Clear();
    return false;
  }
  if (!is_on(tensor.device_type, device) || tensor.lanes != 1) return false;
  if (tensor.code == dlpack::kFloat && tensor.bits == 32) {
    view.type = ScalarType::Float;
  } else if (tensor.code == dlpack::kBfloat && tensor.bits == 16) {
    view.type = ScalarType::BFloat16;
  } else if (tensor.code == dlpack::kFloat && tensor.bits == 16) {
    view.type = ScalarType::Half;
  } else if (tensor.code == dlpack::kFloat && tensor.bits == 64) {
    view.type = ScalarType::Double;
  } else {
    return false;
  }
  view.device_index = device == detail::kCpu ? 0 : tensor.device_id;
  view.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
  view.dim = tensor.dim;
  view.sizes = tensor.shape;
  view.strides = tensor.strides;
  view.measure();
  return view.data != nullptr || view.count == 0;  // a stand-in for zeros, or for another tensor
}

// add(i, view) → bool for every tensor of a list; false as soon as one cannot be read or added.
template <class Add>
bool read_list(PyObject* list, int32_t device, const Add& add) {
  const Py_ssize_t count = PyList_Size(list);
  View view;
  for (Py_ssize_t i = 0; i < count; ++i) {
    if (!read_tensor(PyList_GetItem(list, i), device, view) || !add(i, view)) return false;
  }
  return true;
}

// f() without Python's lock; false with a Python error set where a launch failed.
template <class F>
bool unlocked(const F& f) {
  std::string error;
  Py_BEGIN_ALLOW_THREADS;
  try {
    f();
  } catch (const std::exception& e) {
    error = e.what();
    if (error.empty()) error = "a CUDA launch failed";
  }
  Py_END_ALLOW_THREADS;
  if (!error.empty()) PyErr_SetString(PyExc_RuntimeError, error.c_str());
  return error.empty();
}

}  // namespace wgan
