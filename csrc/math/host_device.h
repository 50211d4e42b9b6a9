// Formulas in math/ are written once for host and device, on scalars, with the compute type explicit.
#pragma once

#ifdef __CUDACC__
#define WGAN_HD __host__ __device__ __forceinline__
#else
#define WGAN_HD inline
#endif
