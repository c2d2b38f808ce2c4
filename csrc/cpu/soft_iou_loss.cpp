#include "ops/soft_iou_loss.h"

namespace pydistill {
template decltype(soft_iou_loss<Cpu>) soft_iou_loss<Cpu>;
template decltype(soft_iou_loss_backward<Cpu>) soft_iou_loss_backward<Cpu>;
}  // namespace pydistill
