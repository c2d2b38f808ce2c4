#include "core/launch.cuh"
#include "ops/softmax_kl.h"

namespace pydistill {
template decltype(softmax_kl<Cuda>) softmax_kl<Cuda>;
template decltype(softmax_kl_backward<Cuda>) softmax_kl_backward<Cuda>;
}  // namespace pydistill
