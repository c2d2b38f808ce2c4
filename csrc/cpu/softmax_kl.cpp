#include "ops/softmax_kl.h"

namespace pydistill {
template decltype(softmax_kl<Cpu>) softmax_kl<Cpu>;
template decltype(softmax_kl_backward<Cpu>) softmax_kl_backward<Cpu>;
}  // namespace pydistill
