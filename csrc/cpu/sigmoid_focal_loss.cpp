#include "ops/sigmoid_focal_loss.h"

namespace pydistill {
template decltype(sigmoid_focal_loss<Cpu>) sigmoid_focal_loss<Cpu>;
template decltype(sigmoid_focal_loss_backward<Cpu>) sigmoid_focal_loss_backward<Cpu>;
}  // namespace pydistill
