// wgan_kernels._cuda: importing it registers the CUDA kernels.

#include "../common/python_module.h"

PyMODINIT_FUNC PyInit__cuda() { return wgan::create_module<aoti_torch_device_type_cuda>("_cuda"); }
