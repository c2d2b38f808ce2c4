#include "core/launch.cuh"
#include "ops/query_quality.h"

namespace pydistill {
template decltype(query_quality<Cuda>) query_quality<Cuda>;
}  // namespace pydistill
