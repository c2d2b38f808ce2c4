// Large outputs of a CPU in huge pages.
#pragma once
#ifdef __linux__
#include <sys/mman.h>
#endif

#include "core/tensor.h"

namespace pydistill {

// The system maps fresh memory where it is first written, 4 KiB at a time, which may take longer than the writing. This
// asks for 2 MiB at a time, and is without effect where the kernel does not grant them on request.
inline void huge_pages(const TensorView& out) {
#ifdef __linux__
  constexpr int64_t kPage = 4096, kWorth = 4 << 20;
  if (!out.present() || out.device.device_type != kDLCPU) return;
  const int64_t bytes = out.numel() * out.dtype.bits / 8, begin = reinterpret_cast<int64_t>(out.ptr<char>());
  const int64_t first = (begin + kPage - 1) / kPage * kPage, last = (begin + bytes) / kPage * kPage;
  if (bytes >= kWorth) madvise(reinterpret_cast<void*>(first), size_t(last - first), MADV_HUGEPAGE);
#endif
}

}  // namespace pydistill
