// wgan_kernels._cpu: importing it registers the CPU kernels. It has one function of its own, clip_list, because handing
// a list of 1,000 tensors to an operator costs ten times what clipping them does.

#include <Python.h>

#include "clip.h"

// In LibTorch's stable shim since 2.14; null where an older torch runs this binary.
extern "C" __attribute__((weak)) AOTITorchError torch_tensor_from_pyobject(void* object, AtenTensorHandle* tensor);

namespace {

// True for torch.Tensor and torch.nn.Parameter themselves: a subclass may override what clamping means.
bool is_plain_tensor(PyObject* object) {
  static PyObject* const kinds = [] {
    PyObject* torch = PyImport_ImportModule("torch");
    PyObject* nn = PyImport_ImportModule("torch.nn");
    PyObject* pair =
        Py_BuildValue("(NN)", PyObject_GetAttrString(torch, "Tensor"), PyObject_GetAttrString(nn, "Parameter"));
    Py_XDECREF(torch);
    Py_XDECREF(nn);
    return pair;
  }();
  PyObject* type = reinterpret_cast<PyObject*>(Py_TYPE(object));
  return type == PyTuple_GetItem(kinds, 1) || type == PyTuple_GetItem(kinds, 0);
}

bool collect(PyObject* list, std::vector<wgan::Span>& spans) {
  const Py_ssize_t count = PyList_Size(list);
  spans.reserve(count);
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* object = PyList_GetItem(list, i);
    AtenTensorHandle tensor;
    if (!is_plain_tensor(object) || torch_tensor_from_pyobject(object, &tensor) != AOTI_TORCH_SUCCESS) return false;
    bool added = false;
    try {
      added = wgan::add_tensor(tensor, spans) == wgan::Added::yes;
    } catch (const std::exception&) {  // a functorch or fake tensor has no memory of its own
    }
    aoti_torch_delete_tensor_object(tensor);
    if (!added) return false;
  }
  return true;
}

// clip_list(list, low, high) → whether it was done. Where not, nothing was written, and the operator knows why.
PyObject* clip_list(PyObject*, PyObject* args) {
  PyObject* list;
  double low, high;
  if (!PyArg_ParseTuple(args, "O!dd", &PyList_Type, &list, &low, &high)) return nullptr;
  std::vector<wgan::Span> spans;
  if (torch_tensor_from_pyobject == nullptr || !collect(list, spans)) Py_RETURN_FALSE;
  Py_BEGIN_ALLOW_THREADS;
  wgan::clip_spans(spans, low, high);
  Py_END_ALLOW_THREADS;
  Py_RETURN_TRUE;
}

PyMethodDef methods[] = {{"clip_list", clip_list, METH_VARARGS, nullptr}, {nullptr, nullptr, 0, nullptr}};
PyModuleDef module = {PyModuleDef_HEAD_INIT, "_cpu", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__cpu() { return PyModule_Create(&module); }
