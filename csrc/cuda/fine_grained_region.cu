#include "core/launch.cuh"
#include "ops/fine_grained_region.h"

namespace pydistill {
template decltype(fine_grained_region<Cuda>) fine_grained_region<Cuda>;
}  // namespace pydistill
