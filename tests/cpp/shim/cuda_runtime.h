// CUDA's language and runtime for a C++ compiler, as far as csrc uses them: device code compiles unchanged and runs on
// the CPU, a fibre per thread, so that AddressSanitizer, UBSan and ThreadSanitizer see it. nvcc includes its file of
// this name by itself; here the command line does (-include).
//
// A block's fibres run in an order drawn from PYDISTILL_SHIM_SEED (where unset, a number that is printed), each until
// its next barrier or shuffle. launch() throws where no thread can run on, where a warp's threads meet with different
// masks or in different verbs and where a shuffle reads a thread that does not take part. Dynamic shared memory starts as
// NaN and ends at its last byte. The barrier that PYDISTILL_SHIM_DROP names, <file>:<line>, does nothing.
#pragma once
#include <math.h>
#include <string.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <source_location>
#include <string>
#include <type_traits>
#include <vector>

#define __CUDACC__
#define __CUDA_ARCH__ 900
#define __host__
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ thread_local  // one block at a time runs on a thread

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
inline thread_local constinit dim3 threadIdx, blockIdx, blockDim, gridDim;

enum cudaError_t { cudaSuccess, cudaErrorInvalidValue, cudaErrorInsufficientDriver, cudaErrorNoKernelImageForDevice };
using cudaStream_t = void*;
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

namespace shim {

using Site = std::source_location;

void seed(uint64_t seed);             // of the next launches of this thread
std::vector<std::string> barriers();  // every one met so far

cudaError_t launch(const cudaLaunchConfig_t& config, void (*thread)(const void*), const void* argument);
void meet_block(Site site);
void meet_warp(unsigned mask, Site site);
uint64_t exchange(unsigned mask, uint64_t value, unsigned from, Site site);  // `from`: a lane
unsigned lane();

template <class T> T exchange(unsigned mask, T value, unsigned from, Site site) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  uint64_t word = 0;
  memcpy(&word, &value, sizeof(T));
  word = exchange(mask, word, from, site);
  memcpy(&value, &word, sizeof(T));
  return value;
}

}  // namespace shim

inline void __syncthreads(shim::Site at = shim::Site::current()) { shim::meet_block(at); }
inline void __syncwarp(unsigned mask = ~0u, shim::Site at = shim::Site::current()) { shim::meet_warp(mask, at); }
template <class T> T __shfl_xor_sync(unsigned mask, T value, int lane_mask, shim::Site at = shim::Site::current()) {
  return shim::exchange(mask, value, shim::lane() ^ unsigned(lane_mask), at);
}
template <class T> T __shfl_sync(unsigned mask, T value, int from, shim::Site at = shim::Site::current()) {
  return shim::exchange(mask, value, unsigned(from), at);
}

inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidValue; }
inline const char* cudaGetErrorString(cudaError_t e) { return e == cudaSuccess ? "no error" : "invalid argument"; }

enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };
inline cudaError_t cudaMalloc(void** p, size_t bytes) {  // as aligned as a GPU's; AddressSanitizer guards its end
  return posix_memalign(p, 256, bytes) ? cudaErrorInvalidValue : cudaSuccess;
}
inline cudaError_t cudaFree(void* p) { return free(p), cudaSuccess; }
inline cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  return memcpy(to, from, bytes), cudaSuccess;
}
inline cudaError_t cudaMemset(void* p, int value, size_t bytes) { return memset(p, value, bytes), cudaSuccess; }
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const auto thread = [&] { kernel(Parameters(arguments)...); };
  return shim::launch(*config, [](const void* f) { (*static_cast<decltype(thread)*>(f))(); }, &thread);
}
