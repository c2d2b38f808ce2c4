#include "core/launch.cuh"
#include "ops/keypoint_feature_loss.h"

namespace pydistill {
template decltype(keypoint_feature_loss<Cuda>) keypoint_feature_loss<Cuda>;
template decltype(keypoint_feature_loss_backward<Cuda>) keypoint_feature_loss_backward<Cuda>;
}  // namespace pydistill
