#include "core/launch.cuh"
#include "ops/integral.h"

namespace pydistill {
template decltype(integral<Cuda>) integral<Cuda>;
template decltype(integral_backward<Cuda>) integral_backward<Cuda>;
}  // namespace pydistill
