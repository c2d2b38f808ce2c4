#include "ops/query_feature_mask.h"

namespace pydistill {
template decltype(query_direction<Cpu>) query_direction<Cpu>;
template decltype(query_feature_mask<Cpu>) query_feature_mask<Cpu>;
}  // namespace pydistill
