#include "core/launch.cuh"
#include "ops/general_instance_region.h"

namespace pydistill {
template decltype(general_instance_region<Cuda>) general_instance_region<Cuda>;
}  // namespace pydistill
