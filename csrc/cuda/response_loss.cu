#include "core/launch.cuh"
#include "ops/response_loss.h"

namespace pydistill {
template decltype(response_loss<Cuda>) response_loss<Cuda>;
template decltype(response_loss_backward<Cuda>) response_loss_backward<Cuda>;
}  // namespace pydistill
