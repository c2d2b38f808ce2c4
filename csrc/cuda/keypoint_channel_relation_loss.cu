#include "core/launch.cuh"
#include "ops/keypoint_channel_relation_loss.h"

namespace pydistill {
template decltype(keypoint_channel_relation_loss<Cuda>) keypoint_channel_relation_loss<Cuda>;
template decltype(keypoint_channel_relation_loss_backward<Cuda>) keypoint_channel_relation_loss_backward<Cuda>;
}  // namespace pydistill
