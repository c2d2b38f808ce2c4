#include "core/launch.cuh"
#include "ops/inside_region.h"

namespace pydistill {
template decltype(inside_region<Cuda>) inside_region<Cuda>;
}  // namespace pydistill
