#include "ops/keypoint_feature_loss.h"

namespace pydistill {
template decltype(keypoint_feature_loss<Cpu>) keypoint_feature_loss<Cpu>;
template decltype(keypoint_feature_loss_backward<Cpu>) keypoint_feature_loss_backward<Cpu>;
}  // namespace pydistill
