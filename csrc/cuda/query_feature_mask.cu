#include "core/launch.cuh"
#include "ops/query_feature_mask.h"

namespace pydistill {
template decltype(query_direction<Cuda>) query_direction<Cuda>;
template decltype(query_feature_mask<Cuda>) query_feature_mask<Cuda>;
}  // namespace pydistill
