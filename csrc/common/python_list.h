// Python lists of tensors, read without an operator call: a boxed Tensor[] costs 0.2 µs a tensor, this a quarter of it.
#pragma once

#include <Python.h>

#include <stdexcept>
#include <string>

#include "tensor_list.h"

// In LibTorch's stable shim since 2.14; null where an older torch runs this binary.
extern "C" __attribute__((weak)) AOTITorchError torch_tensor_from_pyobject(void* object, AtenTensorHandle* tensor);

namespace wgan {

// True for torch.Tensor and torch.nn.Parameter themselves: a subclass may override what an operator means.
inline bool is_plain_tensor(PyObject* object) {
  const auto kind = [](const char* module, const char* name) {
    PyObject* imported = PyImport_ImportModule(module);
    PyObject* found = PyObject_GetAttrString(imported, name);
    Py_XDECREF(imported);
    return found;
  };
  static PyObject *const parameter = kind("torch.nn", "Parameter"), *const tensor = kind("torch", "Tensor");
  PyObject* type = reinterpret_cast<PyObject*>(Py_TYPE(object));
  return type == parameter || type == tensor;
}

// read(tensor) → bool; false where the object is not a plain tensor or read throws: a functorch or fake tensor has no
// memory of its own.
template <class Read>
bool read_tensor_object(PyObject* object, const Read& read) {
  AtenTensorHandle tensor;
  if (torch_tensor_from_pyobject == nullptr || !is_plain_tensor(object) ||
      torch_tensor_from_pyobject(object, &tensor) != AOTI_TORCH_SUCCESS) {
    return false;
  }
  bool done = false;
  try {
    done = read(tensor);
  } catch (const std::exception&) {
  }
  aoti_torch_delete_tensor_object(tensor);
  return done;
}

// read(i, tensor) → bool for every tensor of a list; false as soon as one is.
template <class Read>
bool read_list(PyObject* list, const Read& read) {
  const Py_ssize_t count = PyList_Size(list);
  for (Py_ssize_t i = 0; i < count; ++i) {
    const auto read_i = [&](AtenTensorHandle tensor) { return read(i, tensor); };
    if (!read_tensor_object(PyList_GetItem(list, i), read_i)) return false;
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
