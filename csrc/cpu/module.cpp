// wgan_kernels._cpu: importing it registers the CPU kernels.

#include "../common/python_module.h"

PyMODINIT_FUNC PyInit__cpu() { return wgan::create_module<aoti_torch_device_type_cpu>("_cpu"); }
