#include "ops/matched_box_loss.h"

namespace pydistill {
template decltype(matched_box_loss<Cpu>) matched_box_loss<Cpu>;
template decltype(matched_box_loss_backward<Cpu>) matched_box_loss_backward<Cpu>;
}  // namespace pydistill
