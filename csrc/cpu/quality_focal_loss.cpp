#include "ops/quality_focal_loss.h"

namespace pydistill {
template decltype(quality_focal_loss<Cpu>) quality_focal_loss<Cpu>;
template decltype(quality_focal_loss_backward<Cpu>) quality_focal_loss_backward<Cpu>;
}  // namespace pydistill
