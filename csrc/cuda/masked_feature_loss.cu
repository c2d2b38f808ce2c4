#include "core/launch.cuh"
#include "ops/masked_feature_loss.h"

namespace pydistill {
template decltype(masked_feature_loss<Cuda>) masked_feature_loss<Cuda>;
template decltype(masked_feature_loss_backward<Cuda>) masked_feature_loss_backward<Cuda>;
}  // namespace pydistill
