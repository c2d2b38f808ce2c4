#include "core/launch.cuh"
#include "ops/valuable_localization_region.h"

namespace pydistill {
template decltype(valuable_localization_region<Cuda>) valuable_localization_region<Cuda>;
}  // namespace pydistill
