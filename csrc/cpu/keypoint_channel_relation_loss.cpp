#include "ops/keypoint_channel_relation_loss.h"

namespace pydistill {
template decltype(keypoint_channel_relation_loss<Cpu>) keypoint_channel_relation_loss<Cpu>;
template decltype(keypoint_channel_relation_loss_backward<Cpu>) keypoint_channel_relation_loss_backward<Cpu>;
}  // namespace pydistill
