#include "ops/keypoint_relation_loss.h"

namespace pydistill {
template decltype(keypoint_relation_loss<Cpu>) keypoint_relation_loss<Cpu>;
template decltype(keypoint_relation_loss_backward<Cpu>) keypoint_relation_loss_backward<Cpu>;
}  // namespace pydistill
