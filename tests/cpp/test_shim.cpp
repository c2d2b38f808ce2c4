// What the shim must notice in a kernel, each with a kernel that does it. With an argument: run that one, which aborts.
#include <string>

#include "harness.h"

using namespace pydistill;
using namespace pydistill::test;

template <class... Parameters, class... Arguments>
void run(void (*kernel)(Parameters...), int64_t bytes, Arguments... arguments) {
  launch(Context{}, kernel, 2, bytes, arguments...);
}

__global__ void barrier_in_a_branch(int threads) {
  if (int(threadIdx.x) < threads) __syncthreads();
}
__global__ void two_barriers(int threads) {
  if (int(threadIdx.x) < threads)
    __syncthreads();
  else
    __syncthreads();
}
__global__ void two_masks() {
  if (threadIdx.x < 2) __syncwarp(threadIdx.x ? 3 : 7);
}
__global__ void not_in_mask() { __syncwarp(~1u); }
__global__ void reads_outside_mask(unsigned* out) {
  if (threadIdx.x % 2 == 0) *out = __shfl_xor_sync(0x55555555, threadIdx.x, 1);
}
__global__ void ordered_by_rank(unsigned* out) {  // neighbours exchange, each with its own
  const unsigned other = __shfl_xor_sync(~0u, threadIdx.x, 1);
  if (blockIdx.x == 0) out[threadIdx.x] = other;
}
__global__ void reads_fresh_shared(double* out) {
  if (threadIdx.x == 0) out[blockIdx.x] = reinterpret_cast<double*>(dynamic_shared)[1];
}
__global__ void past_the_end(int64_t bytes) { dynamic_shared[bytes] = std::byte(1); }
__global__ void no_barrier(int* out) {
  if (threadIdx.x == 0) out[blockIdx.x] = 1;
  if (threadIdx.x == 1) out[blockIdx.x] += 1;
}
__global__ void with_barrier(int* out) {
  if (threadIdx.x == 0) out[blockIdx.x] = 1;
  __syncthreads();
  if (threadIdx.x == 1) out[blockIdx.x] += 1;
}

template <class Run> bool refused(const std::string& why, const Run& run) {
  try {
    run();
  } catch (const std::exception& e) {
    return std::string(e.what()).find(why) != std::string::npos;
  }
  return false;
}

int main(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "";
  unsigned out[256];
  double shared[2];
  int count[2];
  if (name == "past_the_end") return run(past_the_end, 32, int64_t(32)), 0;
  if (name == "no_barrier") return run(no_barrier, 0, count), 0;
#ifndef __SANITIZE_THREAD__  // to which threads that never end are a race
  CHECK(refused("no thread can run on: block", [] { run(barrier_in_a_branch, 0, 10); }));
  CHECK(refused("10 threads at test_shim.cpp", [] { run(barrier_in_a_branch, 0, 10); }));
  CHECK(refused("two barriers", [] { run(two_barriers, 0, 10); }));
  CHECK(refused("two masks", [] { run(two_masks, 0); }));
  CHECK(refused("not in the mask", [] { run(not_in_mask, 0); }));
  CHECK(refused("outside its mask", [&] { run(reads_outside_mask, 0, out); }));
  CHECK(refused("invalid argument", [&] { run(ordered_by_rank, Cuda::kSharedBytes + 1, out); }));
#endif
  run(barrier_in_a_branch, 0, 256);
  run(ordered_by_rank, 0, out);
  for (unsigned i = 0; i < 256; ++i) CHECK(out[i] == (i ^ 1));
  run(reads_fresh_shared, 16, shared);
  CHECK(std::isnan(shared[0]) && std::isnan(shared[1]));
  run(with_barrier, 0, count);
  CHECK(count[0] == 2 && count[1] == 2);
}
