// The computations for one instruction set. library.cpp includes this file once for each, after
// defining DISRNN_NAMESPACE, DISRNN_BYTES (width of a vector register), DISRNN_REGISTERS (how many
// of them hold a number of all lanes) and, on x86, DISRNN_INTRINSIC(name) (the intrinsics of that
// width). No include guards, hence.

namespace DISRNN_NAMESPACE {

#include "elementary.h"
#include "likelihood.h"

#include "network.h"
#include "readout.h"
#include "recurrence.h"

template <typename W, typename T>
Worker* make(const Problem& problem, const Layout& layout, const T* packed, bool backward) {
  return new W(problem, layout, packed, backward);
}

template <typename T>
void likelihood(const Likelihood& problem, int64_t begin, int64_t end, bool backward) {
  ChoiceLikelihood<T>(problem).run(begin, end, backward);
}

template <typename T> constexpr Versions<T> versions() {
  return {Recurrence<T>::kLanes, make<Recurrence<T>, T>, make<Readout<T>, T>, likelihood<T>};
}

}  // namespace DISRNN_NAMESPACE

#undef DISRNN_BYTES
#undef DISRNN_NAMESPACE
#undef DISRNN_REGISTERS
#undef DISRNN_INTRINSIC
