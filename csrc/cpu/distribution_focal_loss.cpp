#include "ops/distribution_focal_loss.h"

namespace pydistill {
template decltype(distribution_focal_loss<Cpu>) distribution_focal_loss<Cpu>;
template decltype(distribution_focal_loss_backward<Cpu>) distribution_focal_loss_backward<Cpu>;
}  // namespace pydistill
