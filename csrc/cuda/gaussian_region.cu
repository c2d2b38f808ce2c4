#include "core/launch.cuh"
#include "ops/gaussian_region.h"

namespace pydistill {
template decltype(gaussian_region<Cuda>) gaussian_region<Cuda>;
}  // namespace pydistill
