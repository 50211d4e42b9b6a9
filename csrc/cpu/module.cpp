// wgan_kernels._cpu: importing it registers the CPU kernels. Its own functions do what the operators of their names do,
// for lists of plain tensors, at a fraction of the cost per tensor.

#include "../common/python_optimizer.h"
#include "clip.h"

namespace {

// clip_list(list, low, high) → whether it was done. Where not, nothing was written, and the operator knows why.
PyObject* clip_list(PyObject*, PyObject* args) {
  PyObject* list;
  double low, high;
  if (!PyArg_ParseTuple(args, "O!dd", &PyList_Type, &list, &low, &high)) return nullptr;
  std::vector<wgan::Span> spans;
  spans.reserve(PyList_Size(list));
  const int32_t cpu = aoti_torch_device_type_cpu();
  const auto add = [&](int64_t, AtenTensorHandle tensor) {
    return wgan::add_tensor(tensor, cpu, spans) == wgan::Added::yes;
  };
  if (!wgan::read_list(list, add)) Py_RETURN_FALSE;
  if (!wgan::unlocked([&] { wgan::clip_spans(spans, low, high); })) return nullptr;
  Py_RETURN_TRUE;
}

PyMethodDef methods[] = {{"clip_list", clip_list, METH_VARARGS, nullptr},
                         {"rmsprop_list", wgan::rmsprop_list<aoti_torch_device_type_cpu>, METH_VARARGS, nullptr},
                         {"adam_list", wgan::adam_list<aoti_torch_device_type_cpu>, METH_VARARGS, nullptr},
                         {nullptr, nullptr, 0, nullptr}};
PyModuleDef module = {PyModuleDef_HEAD_INIT, "_cpu", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__cpu() { return PyModule_Create(&module); }
