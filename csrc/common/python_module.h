// clip_list, rmsprop_list and adam_list of a device's Python module: what the operators do, for lists of plain tensors,
// at a fraction of the cost per tensor. Each returns whether it was done; where not, nothing was written, and the
// operator knows why.
#pragma once

#include "adam.h"
#include "clip.h"
#include "python_list.h"
#include "rmsprop.h"

namespace wgan {

// Whether a tensor stands for the negative of what is in its memory, as the imaginary part of a conjugate does. Such
// views have their elements two apart, so that most tensors need not be asked; the stable ABI could not answer.
inline bool is_negated(PyObject* object, const View& view) {
  if (view.contiguous && view.count > 1) return false;
  PyObject* answer = PyObject_CallMethod(object, "is_neg", nullptr);
  const bool negated = answer != Py_False;
  Py_XDECREF(answer);
  PyErr_Clear();
  return negated;
}

// clip_list(list, low, high)
template <int32_t (*kDevice)()>
PyObject* clip_list(PyObject*, PyObject* args) {
  PyObject* tensors;
  double low, high;
  if (!PyArg_ParseTuple(args, "O!dd", &PyList_Type, &tensors, &low, &high)) return nullptr;
  SpanList list(PyList_Size(tensors));
  const auto add = [&](int64_t i, const View& view) {
    return !is_negated(PyList_GetItem(tensors, i), view) && list.add(view) == Added::yes;
  };
  if (!read_list(tensors, kDevice(), add)) Py_RETURN_FALSE;
  if (!unlocked([&] { list.clip(low, high); })) return nullptr;
  Py_RETURN_TRUE;
}

// The arguments that all steps have; those of an optimizer's own lie between lr and clip.
struct StepArguments {
  PyObject *lists, *steps, *lr_tensor, *grad_scale, *found_inf;
  StepScalars scalars;

  // lists: a tuple of lists, params first; false where an operator has to look into it.
  bool read(int32_t device, ParameterList& parameters) {
    const Py_ssize_t count = PyList_Size(steps);
    for (Py_ssize_t l = 0; l < PyTuple_Size(lists); ++l) {
      PyObject* list = PyTuple_GetItem(lists, l);
      const Py_ssize_t size = PyList_Size(list);
      if (size != count && (l <= 2 || size != 0)) return false;
      const auto add = [&](int64_t i, const View& view) {
        return !is_negated(PyList_GetItem(list, i), view) && parameters.add(static_cast<int>(l), i, view);
      };
      if (!read_list(list, device, add)) return false;
    }
    const auto add_step = [&](int64_t i, const View& view) { return parameters.add_step(i, view); };
    const auto scalar = [&](PyObject* object, DeviceScalar& scalar) {
      View view;
      return object == Py_None || (read_tensor(object, device, view) && parameters.add_scalar(view, scalar));
    };
    return read_list(steps, device, add_step) && scalar(lr_tensor, scalars.lr_tensor) &&
           scalar(grad_scale, scalars.grad_scale) && scalar(found_inf, scalars.found_inf);
  }
};

// f(list) → whether it was done. Where not, nothing was written.
template <class F>
PyObject* step_lists(int32_t device, StepArguments& arguments, const F& f) {
  ParameterList list;
  if (!arguments.read(device, list)) Py_RETURN_FALSE;
  if (!unlocked([&] { f(list); })) return nullptr;
  Py_RETURN_TRUE;
}

template <int32_t (*kDevice)()>
PyObject* rmsprop_list(PyObject*, PyObject* args) {
  StepArguments a;
  RmspropSettings s;
  int maximize;
  if (!PyArg_ParseTuple(args, "O!O!OOOddddddp", &PyTuple_Type, &a.lists, &PyList_Type, &a.steps, &a.lr_tensor,
                        &a.grad_scale, &a.found_inf, &a.scalars.lr, &s.alpha, &s.eps, &s.weight_decay, &s.momentum,
                        &a.scalars.clip, &maximize)) {
    return nullptr;
  }
  a.scalars.maximize = maximize;
  s.centered = PyTuple_Size(a.lists) > 3 && PyList_Size(PyTuple_GetItem(a.lists, 3)) > 0;
  return step_lists(kDevice(), a, [&](const ParameterList& list) {
    s.step = a.scalars;
    rmsprop_step(list, s);
  });
}

template <int32_t (*kDevice)()>
PyObject* adam_list(PyObject*, PyObject* args) {
  StepArguments a;
  AdamSettings s;
  int maximize;
  if (!PyArg_ParseTuple(args, "O!O!OOOddddddp", &PyTuple_Type, &a.lists, &PyList_Type, &a.steps, &a.lr_tensor,
                        &a.grad_scale, &a.found_inf, &a.scalars.lr, &s.beta1, &s.beta2, &s.eps, &s.weight_decay,
                        &a.scalars.clip, &maximize)) {
    return nullptr;
  }
  a.scalars.maximize = maximize;
  return step_lists(kDevice(), a, [&](const ParameterList& list) {
    s.step = a.scalars;
    adam_step(list, s);
  });
}

// The module of a device; it has to live as long as the process.
template <int32_t (*kDevice)()>
PyObject* create_module(const char* name) {
  static PyMethodDef methods[] = {{"clip_list", clip_list<kDevice>, METH_VARARGS, nullptr},
                                  {"rmsprop_list", rmsprop_list<kDevice>, METH_VARARGS, nullptr},
                                  {"adam_list", adam_list<kDevice>, METH_VARARGS, nullptr},
                                  {nullptr, nullptr, 0, nullptr}};
  static PyModuleDef module = {PyModuleDef_HEAD_INIT, name, nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}

}  // namespace wgan
