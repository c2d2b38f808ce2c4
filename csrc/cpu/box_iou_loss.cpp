#include "ops/box_iou_loss.h"

namespace pydistill {
template decltype(box_iou_loss<Cpu>) box_iou_loss<Cpu>;
template decltype(box_iou_loss_backward<Cpu>) box_iou_loss_backward<Cpu>;
}  // namespace pydistill
