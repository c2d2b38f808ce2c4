#include "ops/matched_class_loss.h"

namespace pydistill {
template decltype(matched_class_loss<Cpu>) matched_class_loss<Cpu>;
template decltype(matched_class_loss_backward<Cpu>) matched_class_loss_backward<Cpu>;
}  // namespace pydistill
