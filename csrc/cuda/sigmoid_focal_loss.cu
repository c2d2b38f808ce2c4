#include "core/launch.cuh"
#include "ops/sigmoid_focal_loss.h"

namespace pydistill {
template decltype(sigmoid_focal_loss<Cuda>) sigmoid_focal_loss<Cuda>;
template decltype(sigmoid_focal_loss_backward<Cuda>) sigmoid_focal_loss_backward<Cuda>;
}  // namespace pydistill
