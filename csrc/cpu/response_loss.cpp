#include "ops/response_loss.h"

namespace pydistill {
template decltype(response_loss<Cpu>) response_loss<Cpu>;
template decltype(response_loss_backward<Cpu>) response_loss_backward<Cpu>;
}  // namespace pydistill
