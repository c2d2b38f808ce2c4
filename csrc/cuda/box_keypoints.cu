#include "core/launch.cuh"
#include "ops/box_keypoints.h"

namespace pydistill {
template decltype(box_keypoints<Cuda>) box_keypoints<Cuda>;
}  // namespace pydistill
