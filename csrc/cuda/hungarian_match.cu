#include "core/launch.cuh"
#include "ops/hungarian_match.h"

namespace pydistill {
template decltype(hungarian_match<Cuda>) hungarian_match<Cuda>;
}  // namespace pydistill
