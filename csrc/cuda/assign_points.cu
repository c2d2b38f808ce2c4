#include "core/launch.cuh"
#include "ops/assign_points.h"

namespace pydistill {
template decltype(assign_points<Cuda>) assign_points<Cuda>;
}  // namespace pydistill
