#include "core/launch.cuh"
#include "ops/keypoint_cells.h"

namespace pydistill {
template decltype(keypoint_cells<Cuda>) keypoint_cells<Cuda>;
}  // namespace pydistill
