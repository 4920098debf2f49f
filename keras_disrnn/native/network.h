// A residual MLP behind information bottlenecks, for a block of lanes. Included by kernel.h.
//
// A lane is one session (in the recurrence) or one row of one (in a readout). Numbers of a block
// lie side by side: number i of all lanes is in the registers i * kRegisters and following.

constexpr int kRegisters = DISRNN_REGISTERS;

// Units come in multiples of this.
constexpr int kTile = 4;

// The processor needs that many independent sums to hide their latency.
constexpr int tile_of(int64_t units) {
  return kRegisters == 1 && units > 0 && units % (2 * kTile) == 0 ? 2 * kTile : kTile;
}

// Sums of gradients come in tiles of kTile x kColumns, as many as there are registers for.
constexpr int kColumns = DISRNN_BYTES == 64 ? 4 : 2;

// ---- Products of a small matrix with a block ----

// sum[i] = bias[i] + sum_j in[j] kernel[j * stride + i].
template <int kOutputs, typename T, typename V>
INLINE void affine_tile(const T* kernel, const T* bias, const V* in, int64_t inputs,
                        int64_t stride, V (&sum)[kOutputs][kRegisters]) {
#pragma GCC unroll 8
  for (int i = 0; i < kOutputs; i++)
#pragma GCC unroll 2
    for (int r = 0; r < kRegisters; r++) sum[i][r] = V{} + bias[i];
  for (int64_t j = 0; j < inputs; j++) {
    const T* w = kernel + j * stride;
#pragma GCC unroll 8
    for (int i = 0; i < kOutputs; i++)
#pragma GCC unroll 2
      for (int r = 0; r < kRegisters; r++) sum[i][r] += w[i] * in[j * kRegisters + r];
  }
}

template <int kOutputs, typename T, typename V>
INLINE void affine_part(const T* kernel, const T* bias, const V* in, V* out, int64_t inputs,
                        int64_t stride) {
  V sum[kOutputs][kRegisters];
  affine_tile<kOutputs>(kernel, bias, in, inputs, stride, sum);
#pragma GCC unroll 8
  for (int i = 0; i < kOutputs; i++)
#pragma GCC unroll 2
    for (int r = 0; r < kRegisters; r++) out[i * kRegisters + r] = sum[i][r];
}

// out[k] = bias[k] + sum_j in[j] kernel[j][k].
template <typename T, typename V>
INLINE void affine(const T* kernel, const T* bias, const V* in, V* out, int64_t inputs,
                   int64_t outputs) {
  int64_t k = 0;
  for (; k + kTile <= outputs; k += kTile)
    affine_part<kTile>(kernel + k, bias + k, in, out + k * kRegisters, inputs, outputs);
  for (; k + 2 <= outputs; k += 2)
    affine_part<2>(kernel + k, bias + k, in, out + k * kRegisters, inputs, outputs);
  for (; k < outputs; k++)
    affine_part<1>(kernel + k, bias + k, in, out + k * kRegisters, inputs, outputs);
}

// A hidden layer: out = in + f(in W + b), and with kSlope also f'. `width` is a multiple of kTile,
// and kUnits the same where it is known when this is compiled, else 0.
template <typename A, bool kSlope, int kUnits, typename T, typename V>
void residual_as(const T* kernel, const T* bias, const V* in, V* out, V* slope, int64_t width) {
  constexpr int tile = tile_of(kUnits);
  const int64_t units = kUnits ? kUnits : width;
  for (int64_t k = 0; k < units; k += tile) {
    V sum[tile][kRegisters];
    affine_tile<tile>(kernel + k, bias + k, in, units, units, sum);
    for (int i = 0; i < tile; i++)
      for (int r = 0; r < kRegisters; r++) {
        const int64_t at = (k + i) * kRegisters + r;
        V y, d;
        A::at(sum[i][r], y, d);
        out[at] = in[at] + y;
        if (kSlope) slope[at] = d;
      }
  }
}

template <bool kSlope, int kUnits, typename T, typename V>
INLINE void residual(int64_t activation, const T* kernel, const T* bias, const V* in, V* out,
                     V* slope, int64_t width) {
  switch (activation) {
    case kLinear:
      return residual_as<Linear, kSlope, kUnits>(kernel, bias, in, out, slope, width);
    case kRelu:
      return residual_as<Relu, kSlope, kUnits>(kernel, bias, in, out, slope, width);
    case kLeakyRelu:
      return residual_as<LeakyRelu, kSlope, kUnits>(kernel, bias, in, out, slope, width);
    case kTanh:
      return residual_as<Tanh, kSlope, kUnits>(kernel, bias, in, out, slope, width);
    case kSigmoid:
      return residual_as<Sigmoid, kSlope, kUnits>(kernel, bias, in, out, slope, width);
    case kSilu:
      return residual_as<Silu, kSlope, kUnits>(kernel, bias, in, out, slope, width);
    case kElu:
      return residual_as<Elu, kSlope, kUnits>(kernel, bias, in, out, slope, width);
    case kSelu:
      return residual_as<Selu, kSlope, kUnits>(kernel, bias, in, out, slope, width);
    case kSoftplus:
      return residual_as<Softplus, kSlope, kUnits>(kernel, bias, in, out, slope, width);
    case kGelu:
      return residual_as<Gelu, kSlope, kUnits>(kernel, bias, in, out, slope, width);
  }
}

// back[j] (+)= sum_k kernel[j][k] grad[k] for kRows values of j from the pointers on.
template <int kRows, bool kAdd, typename T, typename V>
INLINE void transposed_tile(const T* kernel, const V* grad, V* back, int64_t outputs) {
  V sum[kRows][kRegisters];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; i++)
#pragma GCC unroll 2
    for (int r = 0; r < kRegisters; r++) sum[i][r] = kAdd ? back[i * kRegisters + r] : V{};
  for (int64_t k = 0; k < outputs; k++)
#pragma GCC unroll 8
    for (int i = 0; i < kRows; i++)
#pragma GCC unroll 2
      for (int r = 0; r < kRegisters; r++)
        sum[i][r] += kernel[i * outputs + k] * grad[k * kRegisters + r];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; i++)
#pragma GCC unroll 2
    for (int r = 0; r < kRegisters; r++) back[i * kRegisters + r] = sum[i][r];
}

template <bool kAdd, int kRows, typename T, typename V>
INLINE void transposed(const T* kernel, const V* grad, V* back, int64_t inputs,
                       int64_t outputs) {
  int64_t j = 0;
  for (; j + kRows <= inputs; j += kRows)
    transposed_tile<kRows, kAdd>(kernel + j * outputs, grad, back + j * kRegisters, outputs);
  for (; j < inputs; j++)
    transposed_tile<1, kAdd>(kernel + j * outputs, grad, back + j * kRegisters, outputs);
}

// sum + a over the registers of a number, or sum + a b.
template <typename V> INLINE V plus(V sum, const V* a) {
  for (int r = 0; r < kRegisters; r++) sum += a[r];
  return sum;
}

template <typename V> INLINE V plus(V sum, const V* a, const V* b) {
  for (int r = 0; r < kRegisters; r++) sum += a[r] * b[r];
  return sum;
}

// ---- Sums of the gradients of parameters ----

// What a network leaves behind for its gradients: `count` slots, `stride` registers apart.
struct Slots { int64_t count, stride; };

// kernel[i][k] += in[i] grad[k], over all slots and registers: a sum a lane.
template <int kRows, int kWide, typename V>
INLINE void collect_tile(const V* in, const V* grad, V* kernel, int64_t outputs, Slots slots) {
  V sum[kRows][kWide];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; i++)
#pragma GCC unroll 8
    for (int k = 0; k < kWide; k++) sum[i][k] = kernel[i * outputs + k];
  for (int64_t n = 0; n < slots.count; n++, in += slots.stride, grad += slots.stride)
#pragma GCC unroll 2
    for (int r = 0; r < kRegisters; r++) {
      V x[kRows];
#pragma GCC unroll 8
      for (int i = 0; i < kRows; i++) x[i] = in[i * kRegisters + r];
#pragma GCC unroll 8
      for (int k = 0; k < kWide; k++)
#pragma GCC unroll 8
        for (int i = 0; i < kRows; i++) sum[i][k] += x[i] * grad[k * kRegisters + r];
    }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; i++)
#pragma GCC unroll 8
    for (int k = 0; k < kWide; k++) kernel[i * outputs + k] = sum[i][k];
}

template <int kRows, typename V>
INLINE void collect_rows(const V* in, const V* grad, V* kernel, int64_t outputs, Slots slots) {
  int64_t k = 0;
  for (; k + kColumns <= outputs; k += kColumns)
    collect_tile<kRows, kColumns>(in, grad + k * kRegisters, kernel + k, outputs, slots);
  for (; k < outputs; k++)
    collect_tile<kRows, 1>(in, grad + k * kRegisters, kernel + k, outputs, slots);
}

template <int kWide, typename V> INLINE void collect_bias(const V* grad, V* bias, Slots slots) {
  V sum[kWide];
#pragma GCC unroll 8
  for (int k = 0; k < kWide; k++) sum[k] = bias[k];
  for (int64_t n = 0; n < slots.count; n++, grad += slots.stride)
#pragma GCC unroll 8
    for (int k = 0; k < kWide; k++)
#pragma GCC unroll 2
      for (int r = 0; r < kRegisters; r++) sum[k] += grad[k * kRegisters + r];
#pragma GCC unroll 8
  for (int k = 0; k < kWide; k++) bias[k] = sum[k];
}

// The gradients of `affine`: kernel[j][k] += in[j] grad[k], bias[k] += grad[k].
template <typename V>
INLINE void collect(const V* in, const V* grad, V* kernel, V* bias, int64_t inputs,
                    int64_t outputs, Slots slots) {
  int64_t j = 0, k = 0;
  for (; j + kTile <= inputs; j += kTile)
    collect_rows<kTile>(in + j * kRegisters, grad, kernel + j * outputs, outputs, slots);
  for (; j < inputs; j++)
    collect_rows<1>(in + j * kRegisters, grad, kernel + j * outputs, outputs, slots);
  for (; k + kTile <= outputs; k += kTile)
    collect_bias<kTile>(grad + k * kRegisters, bias + k, slots);
  for (; k < outputs; k++) collect_bias<1>(grad + k * kRegisters, bias + k, slots);
}

// Zeroed memory of a thread's own.
class Arena {
 public:
  template <typename V> void take(V*& where, int64_t registers) {
    buffers_.emplace_back();
    where = static_cast<V*>(buffers_.back().allocate(registers * sizeof(V)));
  }

 private:
  std::deque<Buffer> buffers_;
};

// ---- The network: keeps its stream and slopes for the gradient ----

// A pass backward leaves what it needs for the gradients of the parameters in slots: `depth` of
// them for each network of a bank. Sums of a whole bank do not fit in the first cache. So they are
// touched once for all slots of a network, and not once for each.
constexpr int64_t kSlotBytes = 1 << 19, kMostSlots = 16;

template <typename T> struct Network {
  typedef typename Types<T>::Vector V;

  const Layout& layout;
  const int64_t activation, stride;  // registers of a slot
  int64_t depth;
  V *memory;
  // Of the slot in use:
  V *in;             // [inputs], behind the bottlenecks
  V *stream;         // [layers + 1][units]
  V *slope;          // [layers][units]; a pass backward puts the gradients of the sums there
  V *grad;           // [units]
  V *dout;           // [outputs]
  V *din;            // [inputs], of no slot

  Network(const Layout& where, int64_t f, bool backward, Arena& arena)
      : layout(where), activation(f),
        stride((where.inputs + (2 * where.layers + 2) * where.units + where.outputs) * kRegisters),
        depth(1), din() {
    if (backward) {
      depth = kSlotBytes / (where.networks * stride * int64_t(sizeof(V)));
      depth = depth < 1 ? 1 : depth > kMostSlots ? kMostSlots : depth;
      arena.take(din, layout.inputs * kRegisters);
    }
    arena.take(memory, (backward ? where.networks * depth : 1) * stride);
    use(0, 0);
  }

  void use(int64_t network, int64_t slot) {
    in = memory + (network * depth + slot) * stride;
    stream = in + layout.inputs * kRegisters;
    slope = stream + (layout.layers + 1) * layout.units * kRegisters;
    grad = slope + layout.layers * layout.units * kRegisters;
    dout = grad + layout.units * kRegisters;
  }

  // Input i through its bottleneck; `draws` is null where there is no noise.
  INLINE void enter(const T* w, int64_t i, const V* x, const V* draws) {
    const T m = w[layout.multiplier + i], sigma = w[layout.sigma + i];
    for (int r = 0; r < kRegisters; r++) {
      V value = m * x[r];
      if (draws) value += sigma * draws[i * kRegisters + r];
      in[i * kRegisters + r] = value;
    }
  }

  // From `in` to out[outputs]. The common widths are compiled by themselves.
  template <bool kBackward> INLINE void forward(const T* w, V* out) {
    switch (layout.units) {
      case 8: return forward_of<kBackward, 8>(w, out);
      case 16: return forward_of<kBackward, 16>(w, out);
      default: return forward_of<kBackward, 0>(w, out);
    }
  }

  template <bool kBackward, int kUnits> void forward_of(const T* w, V* out) {
    const int64_t units = kUnits ? kUnits : layout.units;
    affine(w + layout.input_kernel, w + layout.input_bias, in, stream, layout.inputs, units);
    V* h = stream;
    for (int64_t q = 0; q < layout.layers; q++, h += units * kRegisters)
      residual<kBackward, kUnits>(activation, w + layout.hidden_kernel(q),
                                  w + layout.hidden_bias(q), h, h + units * kRegisters,
                                  kBackward ? slope + q * units * kRegisters : nullptr, units);
    affine(w + layout.output_kernel, w + layout.output_bias, h, out, units, layout.outputs);
  }

  // From the gradients of the outputs to `din`, after forward<true>.
  INLINE void backward(const T* w, const V* gradients) {
    std::memcpy(dout, gradients, layout.outputs * kRegisters * sizeof(V));
    switch (layout.units) {
      case 8: return backward_of<8>(w);
      case 16: return backward_of<16>(w);
      default: return backward_of<0>(w);
    }
  }

  template <int kUnits> void backward_of(const T* w) {
    const int64_t units = kUnits ? kUnits : layout.units, registers = units * kRegisters;
    constexpr int tile = tile_of(kUnits);
    transposed<false, tile>(w + layout.output_kernel, dout, grad, units, layout.outputs);
    for (int64_t q = layout.layers - 1; q >= 0; q--) {
      V* dpre = slope + q * registers;
      for (int64_t i = 0; i < registers; i++) dpre[i] *= grad[i];
      transposed<true, tile>(w + layout.hidden_kernel(q), dpre, grad, units, units);
    }
    transposed<false, kTile>(w + layout.input_kernel, grad, din, layout.inputs, units);
  }

  // Adds the gradients of a network's parameters, from its first `count` slots, to their sums.
  INLINE void collect_from(int64_t network, int64_t count, V* sum) {
    use(network, 0);
    switch (layout.units) {
      case 8: return collect_of<8>({count, stride}, sum);
      case 16: return collect_of<16>({count, stride}, sum);
      default: return collect_of<0>({count, stride}, sum);
    }
  }

  template <int kUnits> void collect_of(Slots slots, V* sum) {
    const int64_t units = kUnits ? kUnits : layout.units, registers = units * kRegisters;
    collect(in, grad, sum + layout.input_kernel, sum + layout.input_bias, layout.inputs, units,
            slots);
    const V* h = stream;
    for (int64_t q = 0; q < layout.layers; q++, h += registers)
      collect(h, slope + q * registers, sum + layout.hidden_kernel(q), sum + layout.hidden_bias(q),
              units, units, slots);
    collect(h, dout, sum + layout.output_kernel, sum + layout.output_bias, units, layout.outputs,
            slots);
  }

  // The gradients behind bottleneck i: of its parameters, and what flows back to its input.
  INLINE void leave(const T* w, int64_t i, const V* x, const V* draws, V* sum, V* dx) {
    const V* d = din + i * kRegisters;
    const T m = w[layout.multiplier + i];
    if (dx)
      for (int r = 0; r < kRegisters; r++) dx[r] += m * d[r];
    sum[layout.multiplier + i] = plus(sum[layout.multiplier + i], x, d);
    if (draws)
      sum[layout.sigma + i] = plus(sum[layout.sigma + i], draws + i * kRegisters, d);
  }
};
