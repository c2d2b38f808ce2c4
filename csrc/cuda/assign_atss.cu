#include "core/launch.cuh"
#include "ops/assign_atss.h"

namespace pydistill {
template decltype(assign_atss<Cuda>) assign_atss<Cuda>;
}  // namespace pydistill
