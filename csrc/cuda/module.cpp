// wgan_kernels._cuda: importing it registers the CUDA kernels. Its own functions do what the operators of their names
// do, for lists of plain tensors, at a fraction of the cost per tensor.

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
  const int32_t cuda = aoti_torch_device_type_cuda();
  int32_t device = -1;
  const auto add = [&](int64_t i, AtenTensorHandle tensor) {
    if (wgan::add_tensor(tensor, cuda, spans) != wgan::Added::yes) return false;
    int32_t own;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(tensor, &own));
    if (i == 0) device = own;
    return own == device;
  };
  if (!wgan::read_list(list, add)) Py_RETURN_FALSE;
  if (!wgan::unlocked([&] { wgan::clip_spans(spans, device, low, high); })) return nullptr;
  Py_RETURN_TRUE;
}

PyMethodDef methods[] = {{"clip_list", clip_list, METH_VARARGS, nullptr},
                         {"rmsprop_list", wgan::rmsprop_list<aoti_torch_device_type_cuda>, METH_VARARGS, nullptr},
                         {"adam_list", wgan::adam_list<aoti_torch_device_type_cuda>, METH_VARARGS, nullptr},
                         {nullptr, nullptr, 0, nullptr}};
PyModuleDef module = {PyModuleDef_HEAD_INIT, "_cuda", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__cuda() { return PyModule_Create(&module); }
