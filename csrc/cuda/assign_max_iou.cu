#include "core/launch.cuh"
#include "ops/assign_max_iou.h"

namespace pydistill {
template decltype(assign_max_iou<Cuda>) assign_max_iou<Cuda>;
}  // namespace pydistill
