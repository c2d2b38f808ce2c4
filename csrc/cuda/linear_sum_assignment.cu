#include "core/launch.cuh"
#include "ops/linear_sum_assignment.h"

namespace pydistill {
template decltype(linear_sum_assignment<Cuda>) linear_sum_assignment<Cuda>;
}  // namespace pydistill
