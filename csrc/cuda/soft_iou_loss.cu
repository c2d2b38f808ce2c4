#include "core/launch.cuh"
#include "ops/soft_iou_loss.h"

namespace pydistill {
template decltype(soft_iou_loss<Cuda>) soft_iou_loss<Cuda>;
template decltype(soft_iou_loss_backward<Cuda>) soft_iou_loss_backward<Cuda>;
}  // namespace pydistill
