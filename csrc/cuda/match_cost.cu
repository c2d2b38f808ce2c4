#include "core/launch.cuh"
#include "ops/match_cost.h"

namespace pydistill {
template decltype(match_cost<Cuda>) match_cost<Cuda>;
}  // namespace pydistill
