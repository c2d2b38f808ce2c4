#include "ops/masked_feature_loss.h"

namespace pydistill {
template decltype(masked_feature_loss<Cpu>) masked_feature_loss<Cpu>;
template decltype(masked_feature_loss_backward<Cpu>) masked_feature_loss_backward<Cpu>;
}  // namespace pydistill
