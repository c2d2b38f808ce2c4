#include "core/launch.cuh"
#include "ops/box_iou_loss.h"

namespace pydistill {
template decltype(box_iou_loss<Cuda>) box_iou_loss<Cuda>;
template decltype(box_iou_loss_backward<Cuda>) box_iou_loss_backward<Cuda>;
}  // namespace pydistill
