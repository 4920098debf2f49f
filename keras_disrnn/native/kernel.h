// The recurrence for one instruction set. recurrence.cpp includes this file once for each, after
// defining DISRNN_NAMESPACE, DISRNN_BYTES (width of a vector register) and, on x86,
// DISRNN_INTRINSIC(name) (the intrinsics of that width). No include guard, hence.
//
// Sessions are the vector axis: a block of kLanes sessions goes through all its rows together.

namespace DISRNN_NAMESPACE {

// Two registers side by side give the processor enough independent sums to hide their latency.
constexpr int kRegisters = 2;
constexpr int kTile = 4;

typedef float F __attribute__((vector_size(DISRNN_BYTES)));
typedef double D __attribute__((vector_size(DISRNN_BYTES)));
typedef int32_t I32 __attribute__((vector_size(DISRNN_BYTES)));
typedef uint32_t U32 __attribute__((vector_size(DISRNN_BYTES)));
typedef int64_t I64 __attribute__((vector_size(DISRNN_BYTES)));
typedef uint64_t U64 __attribute__((vector_size(DISRNN_BYTES)));

template <typename T> struct Types;
template <> struct Types<float> { typedef F Vector; typedef I32 Mask; typedef int32_t Integer; };
template <> struct Types<double> { typedef D Vector; typedef I64 Mask; typedef int64_t Integer; };

constexpr int kFloats = DISRNN_BYTES / 4;

// ---- Elementary functions: polynomials for float, the C library lane by lane for double ----

INLINE F exp_of(F x) {
  const float lowest = -87.0f, highest = 88.0f;
  x = x < lowest ? F{} + lowest : x;
  x = x > highest ? F{} + highest : x;
  // Adding this number rounds to an integer and leaves it in the low bits of the mantissa.
  const float round = 12582912.0f;
  const F shifted = x * 1.44269504f + round;
  const F whole = shifted - round;
  F f = x - whole * 0.693145752f;
  f = f - whole * 1.42860677e-6f;
  F p = f * (1.0f / 5040) + 1.0f / 720;
  p = p * f + 1.0f / 120;
  p = p * f + 1.0f / 24;
  p = p * f + 1.0f / 6;
  p = p * f + 0.5f;
  p = p * f + 1.0f;
  p = p * f + 1.0f;
  return p * (F)(((U32)shifted << 23) + 0x3f800000u);
}

// Of positive, normal numbers.
INLINE F log_of(F x) {
  const U32 offset = (U32)x - 0x3f3504f3u;  // from sqrt(1/2), so that the rest is in [0.7, 1.42)
  const I32 exponent = (I32)offset >> 23;
  const F f = (F)((U32)x - ((U32)exponent << 23)) - 1.0f;
  const F e = __builtin_convertvector(exponent, F);
  F p = f * -0.0785961151f + 0.128816475f;
  p = p * f - 0.131287548f;
  p = p * f + 0.141811919f;
  p = p * f - 0.16624554f;
  p = p * f + 0.200022863f;
  p = p * f - 0.250008104f;
  p = p * f + 0.333333167f;
  const F square = f * f;
  return e * 0.693145752f + (f + (square * (f * p - 0.5f) + e * 1.42860677e-6f));
}

// log(1 + x) for x in [0, 1].
INLINE F log1p_of(F x) {
  const F sum = x + 1.0f;
  return log_of(sum) + (x - (sum - 1.0f)) / sum;
}

INLINE F tanh_of(F x) {
  const F size = (F)((U32)x & 0x7fffffffu);
  const F s = x * x;
  F p = s * -0.0056599886f + 0.0205909879f;
  p = p * s - 0.0537210679f;
  p = p * s + 0.133311275f;
  p = p * s - 0.333332605f;
  p = p * s + 0.999999996f;
  const F e = exp_of(size * -2.0f);
  const F far = (F)((U32)((1.0f - e) / (1.0f + e)) | ((U32)x & 0x80000000u));
  return size < 0.625f ? x * p : far;
}

// P(N(0, 1) > x) and its density at x, for x >= 0.
INLINE void normal_tail(F x, F& tail, F& density) {
  const F e = exp_of(x * x * -0.5f);
  const F t = 1.0f / (x * 0.3f + 1.0f);
  F p = t * -0.0206128353f + 0.11237581f;
  p = p * t - 0.228067584f;
  p = p * t + 0.191581784f;
  p = p * t - 0.0792474107f;
  p = p * t + 0.0960578654f;
  p = p * t + 0.0784255679f;
  p = p * t + 0.110227326f;
  p = p * t + 0.119572841f;
  p = p * t + 0.119686634f;
  tail = e * t * p;
  density = e * 0.398942280f;
}

#define DISRNN_LANE_BY_LANE(name, function)                                       \
  INLINE D name(D x) {                                                            \
    for (int i = 0; i < DISRNN_BYTES / 8; i++) x[i] = function(x[i]);             \
    return x;                                                                     \
  }
DISRNN_LANE_BY_LANE(exp_of, ::exp)
DISRNN_LANE_BY_LANE(log1p_of, ::log1p)
DISRNN_LANE_BY_LANE(tanh_of, ::tanh)
#undef DISRNN_LANE_BY_LANE

INLINE void normal_tail(D x, D& tail, D& density) {
  for (int i = 0; i < DISRNN_BYTES / 8; i++) tail[i] = 0.5 * ::erfc(x[i] * M_SQRT1_2);
  density = exp_of(x * x * -0.5) * 0.39894228040143267794;
}

INLINE F sqrt_of(F x) {
#ifdef DISRNN_INTRINSIC
  return (F)DISRNN_INTRINSIC(sqrt_ps)((decltype(DISRNN_INTRINSIC(setzero_ps)()))x);
#else
  for (int i = 0; i < kFloats; i++) x[i] = __builtin_sqrtf(x[i]);
  return x;
#endif
}

template <typename V> INLINE V sigmoid_of(V x) { return 1 / (1 + exp_of(-x)); }

// exp(x) - 1 for x <= 0, without the cancellation near 0.
template <typename V> INLINE V expm1_of(V x) {
  const V t = tanh_of(x / 2);
  return 2 * t / (1 - t);
}

// ---- Noise: Philox4x32-10 (Salmon et al. 2011) and the Box-Muller transform ----

// The products of the low halves of the lanes with a 32-bit constant.
INLINE U64 multiply_low(U64 a, uint32_t b) {
#ifdef DISRNN_INTRINSIC
  typedef decltype(DISRNN_INTRINSIC(set1_epi32)(0)) Integers;
  return (U64)DISRNN_INTRINSIC(mul_epu32)((Integers)a, DISRNN_INTRINSIC(set1_epi32)((int)b));
#else
  return (a & 0xffffffffu) * b;
#endif
}

// Of the four words of a counter only the low halves of the lanes count; the others are rubbish.
INLINE void philox_round(U64 (&x)[4], uint32_t key0, uint32_t key1) {
  const U64 a = multiply_low(x[0], 0xD2511F53u);
  const U64 b = multiply_low(x[2], 0xCD9E8D57u);
  x[0] = (b >> 32) ^ x[1] ^ key0;
  x[1] = b;
  x[2] = (a >> 32) ^ x[3] ^ key1;
  x[3] = a;
}

// Two standard normal draws from two random words.
INLINE void box_muller(U32 w0, U32 w1, F& first, F& second) {
  const F u = (__builtin_convertvector((I32)(w0 >> 1), F) + 0.5f) * (1.0f / 2147483648.0f);
  const F radius = sqrt_of(log_of(u) * -2.0f);
  // An angle within an eighth of the circle; the word's first three bits choose the eighth.
  const F y = __builtin_convertvector((I32)(w1 & 0x1fffffffu), F) *
              (0.785398163f / 536870912.0f);
  const F s = y * y;
  F sine = s * (1.0f / 362880) - 1.0f / 5040;
  sine = sine * s + 1.0f / 120;
  sine = sine * s - 1.0f / 6;
  sine = sine * s * y + y;
  F cosine = s * (-1.0f / 3628800) + 1.0f / 40320;
  cosine = cosine * s - 1.0f / 720;
  cosine = cosine * s + 1.0f / 24;
  cosine = cosine * s - 0.5f;
  cosine = cosine * s + 1.0f;
  const I32 swap = (I32)(w1 << 2) < 0;
  first = radius * (swap ? sine : cosine);
  second = radius * (swap ? cosine : sine);
  first = (F)((U32)first ^ (w1 & 0x80000000u));
  second = (F)((U32)second ^ ((w1 << 1) & 0x80000000u));
}

// Four draws for each of the sessions `session`.. `session + kFloats - 1`, at out[0], out[stride],
// ... The counter is (row, session, group), so that a draw belongs to its element, row and session
// whatever the blocks and threads.
INLINE void draw(const uint32_t (&seed)[2], uint32_t row, uint32_t session, uint32_t group,
                 float* out, int64_t stride) {
  U64 even[4] = {U64{} + row, U64{}, U64{} + group, U64{}}, odd[4];
  for (int i = 0; i < kFloats / 2; i++) even[1][i] = session + 2 * i;
  for (int i = 0; i < 4; i++) odd[i] = even[i];
  odd[1] += 1;
  uint32_t key0 = seed[0], key1 = seed[1];
#pragma GCC unroll 10
  for (int round = 0; round < 10; round++) {
    philox_round(even, key0, key1);
    philox_round(odd, key0, key1);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  U32 words[4];
  for (int i = 0; i < 4; i++) words[i] = (U32)((even[i] & 0xffffffffu) | (odd[i] << 32));
  F normal[4];
  box_muller(words[0], words[1], normal[0], normal[1]);
  box_muller(words[2], words[3], normal[2], normal[3]);
  for (int i = 0; i < 4; i++) *(F*)(out + i * stride) = normal[i];
}

// ---- Activations: value and slope from the pre-activation ----

struct Linear {
  template <typename V> static INLINE void at(V x, V& y, V& slope) { y = x; slope = V{} + 1; }
};
struct Relu {
  template <typename V> static INLINE void at(V x, V& y, V& slope) {
    y = x < 0 ? V{} : x;
    slope = x > 0 ? V{} + 1 : V{};
  }
};
struct LeakyRelu {
  template <typename V> static INLINE void at(V x, V& y, V& slope) {
    typedef typename std::remove_reference<decltype(x[0])>::type T;
    slope = x > 0 ? V{} + 1 : V{} + T(0.01);
    y = x * slope;
  }
};
struct Tanh {
  template <typename V> static INLINE void at(V x, V& y, V& slope) {
    y = tanh_of(x);
    slope = 1 - y * y;
  }
};
struct Sigmoid {
  template <typename V> static INLINE void at(V x, V& y, V& slope) {
    y = sigmoid_of(x);
    slope = y * (1 - y);
  }
};
struct Silu {
  template <typename V> static INLINE void at(V x, V& y, V& slope) {
    const V s = sigmoid_of(x);
    y = x * s;
    slope = s + y * (1 - s);
  }
};
struct Elu {
  template <typename V> static INLINE void at(V x, V& y, V& slope) {
    const V e = expm1_of(x < 0 ? x : V{});
    y = x < 0 ? e : x;
    slope = e + 1;
  }
};
struct Selu {
  template <typename V> static INLINE void at(V x, V& y, V& slope) {
    typedef typename std::remove_reference<decltype(x[0])>::type T;
    const T scale = T(1.0507009873554804934193349852946);
    const T alpha = T(1.6732632423543772848170429916717);
    const V e = scale * alpha * expm1_of(x < 0 ? x : V{});
    y = x < 0 ? e : scale * x;
    slope = x < 0 ? e + scale * alpha : V{} + scale;
  }
};
struct Softplus {
  template <typename V> static INLINE void at(V x, V& y, V& slope) {
    const V e = exp_of(x < 0 ? x : -x);
    y = (x < 0 ? V{} : x) + log1p_of(e);
    slope = (x < 0 ? e : V{} + 1) / (1 + e);
  }
};
struct Gelu {
  template <typename V> static INLINE void at(V x, V& y, V& slope) {
    V tail{}, density{};
    normal_tail(x < 0 ? -x : x, tail, density);
    const V below = x < 0 ? tail : 1 - tail;
    y = x * below;
    slope = below + x * density;
  }
};

// out = in + f(pre), and with kSlope also f'(pre), over `count` registers.
template <typename A, bool kSlope, typename V>
void activate_as(const V* pre, const V* in, V* out, V* slope, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    V y, d;
    A::at(pre[i], y, d);
    out[i] = in[i] + y;
    if (kSlope) slope[i] = d;
  }
}

template <bool kSlope, typename V>
INLINE void activate(int64_t activation, const V* pre, const V* in, V* out, V* slope,
                     int64_t count) {
  switch (activation) {
    case kLinear: return activate_as<Linear, kSlope>(pre, in, out, slope, count);
    case kRelu: return activate_as<Relu, kSlope>(pre, in, out, slope, count);
    case kLeakyRelu: return activate_as<LeakyRelu, kSlope>(pre, in, out, slope, count);
    case kTanh: return activate_as<Tanh, kSlope>(pre, in, out, slope, count);
    case kSigmoid: return activate_as<Sigmoid, kSlope>(pre, in, out, slope, count);
    case kSilu: return activate_as<Silu, kSlope>(pre, in, out, slope, count);
    case kElu: return activate_as<Elu, kSlope>(pre, in, out, slope, count);
    case kSelu: return activate_as<Selu, kSlope>(pre, in, out, slope, count);
    case kSoftplus: return activate_as<Softplus, kSlope>(pre, in, out, slope, count);
    case kGelu: return activate_as<Gelu, kSlope>(pre, in, out, slope, count);
  }
}

// ---- Products of a small matrix with a block of sessions ----

// out[k] = bias[k] + sum_j in[j] kernel[j][k]; `outputs` is a multiple of kTile.
template <typename T, typename V>
INLINE void affine(const T* kernel, const T* bias, const V* in, V* out, int64_t inputs,
                   int64_t outputs) {
  for (int64_t k = 0; k < outputs; k += kTile) {
    V sum[kTile][kRegisters];
#pragma GCC unroll 4
    for (int i = 0; i < kTile; i++)
#pragma GCC unroll 2
      for (int r = 0; r < kRegisters; r++) sum[i][r] = V{} + bias[k + i];
    for (int64_t j = 0; j < inputs; j++) {
      const T* w = kernel + j * outputs + k;
#pragma GCC unroll 4
      for (int i = 0; i < kTile; i++)
#pragma GCC unroll 2
        for (int r = 0; r < kRegisters; r++) sum[i][r] += w[i] * in[j * kRegisters + r];
    }
#pragma GCC unroll 4
    for (int i = 0; i < kTile; i++)
#pragma GCC unroll 2
      for (int r = 0; r < kRegisters; r++) out[(k + i) * kRegisters + r] = sum[i][r];
  }
}

// back[j] += sum_k kernel[j][k] grad[k] for kRows values of j from the pointers on.
template <int kRows, typename T, typename V>
INLINE void transposed_tile(const T* kernel, const V* grad, V* back, int64_t outputs) {
  V sum[kRows][kRegisters];
#pragma GCC unroll 4
  for (int i = 0; i < kRows; i++)
#pragma GCC unroll 2
    for (int r = 0; r < kRegisters; r++) sum[i][r] = back[i * kRegisters + r];
  for (int64_t k = 0; k < outputs; k++)
#pragma GCC unroll 4
    for (int i = 0; i < kRows; i++)
#pragma GCC unroll 2
      for (int r = 0; r < kRegisters; r++)
        sum[i][r] += kernel[i * outputs + k] * grad[k * kRegisters + r];
#pragma GCC unroll 4
  for (int i = 0; i < kRows; i++)
#pragma GCC unroll 2
    for (int r = 0; r < kRegisters; r++) back[i * kRegisters + r] = sum[i][r];
}

template <typename T, typename V>
INLINE void transposed(const T* kernel, const V* grad, V* back, int64_t inputs,
                       int64_t outputs) {
  int64_t j = 0;
  for (; j + kTile <= inputs; j += kTile)
    transposed_tile<kTile>(kernel + j * outputs, grad, back + j * kRegisters, outputs);
  for (; j < inputs; j++)
    transposed_tile<1>(kernel + j * outputs, grad, back + j * kRegisters, outputs);
}

template <typename V> INLINE V over_registers(const V* a) {
  V sum = a[0];
  for (int r = 1; r < kRegisters; r++) sum += a[r];
  return sum;
}

template <typename V> INLINE V over_registers(const V* a, const V* b) {
  V sum = a[0] * b[0];
  for (int r = 1; r < kRegisters; r++) sum += a[r] * b[r];
  return sum;
}

// The gradients of `affine`: kernel[j][k] += in[j] grad[k], bias[k] += grad[k], a sum a lane.
template <typename V>
INLINE void accumulate(const V* in, const V* grad, V* kernel, V* bias, int64_t inputs,
                       int64_t outputs) {
  for (int64_t j = 0; j < inputs; j++) {
    V x[kRegisters];
    for (int r = 0; r < kRegisters; r++) x[r] = in[j * kRegisters + r];
    V* row = kernel + j * outputs;
#pragma GCC unroll 4
    for (int64_t k = 0; k < outputs; k++) row[k] += over_registers(x, grad + k * kRegisters);
  }
  for (int64_t k = 0; k < outputs; k++) bias[k] += over_registers(grad + k * kRegisters);
}

// ---- The recurrence ----

template <typename T> struct Recurrence final : Worker {
  typedef typename Types<T>::Vector V;
  typedef typename Types<T>::Mask M;
  static constexpr int kWidth = DISRNN_BYTES / sizeof(T);
  static constexpr int kLanes = kWidth * kRegisters;
  static_assert(kLanes % kFloats == 0, "draws come in registers of floats");

  const Problem& problem;
  const Layout layout;
  const T* const packed;
  const int64_t latents, observations, inputs, units, layers;
  const T bound;
  uint32_t seed[2];

  // Registers of a thread's own; all hold kLanes sessions, kRegisters to a number.
  Buffer buffer;
  V *feature, *dfeature;                           // [observations]
  V *z, *mu, *next_z, *dz, *dmu, *next_dz;         // [latents]
  V *draws;                                        // [inputs + 1, rounded up to 4]
  V *in, *din;                                     // [inputs]
  V *stream, *pre, *slope;                         // [layers + 1][units], [units], [layers][units]
  V *grad, *dpre;                                  // [units]
  V *sums;                                         // one register for each packed parameter
  M real[kRegisters];
  int64_t first, present;  // the block's first session, and how many sessions it has
  bool any_real;

  Recurrence(const Problem& p, const Layout& where, const T* parameters, bool backward)
      : problem(p), layout(where), packed(parameters), latents(p.latents),
        observations(p.observations), inputs(p.latents + p.observations), units(where.units),
        layers(p.layers), bound(T(p.max_latent_value)),
        seed{uint32_t(p.seed[0]), uint32_t(p.seed[1])} {
    const int64_t back = backward ? 1 : 0, forth = 1 - back;
    struct { V** where; int64_t numbers; } const parts[] = {
        {&feature, observations}, {&z, latents}, {&draws, (inputs + 1 + 3) / 4 * 4}, {&in, inputs},
        {&stream, (layers + 1) * units}, {&pre, units}, {&mu, forth * latents},
        {&next_z, forth * latents}, {&dz, back * latents}, {&dmu, back * latents},
        {&next_dz, back * latents}, {&dfeature, back * observations}, {&din, back * inputs},
        {&slope, back * layers * units}, {&grad, back * units}, {&dpre, back * units}};
    int64_t total = back * layout.size * latents;
    for (const auto& part : parts) total += part.numbers * kRegisters;
    V* at = static_cast<V*>(buffer.allocate(total * sizeof(V)));
    for (const auto& part : parts) {
      *part.where = at;
      at += part.numbers * kRegisters;
    }
    sums = at;
  }

  // ---- Between [sessions, rows, n] arrays and registers ----

  void load(const void* array, int64_t n, int64_t row, V* out) const {
    const T* from = static_cast<const T*>(array) + (first * problem.rows + row) * n;
    T* to = reinterpret_cast<T*>(out);
    for (int64_t lane = 0; lane < present; lane++, from += problem.rows * n)
      for (int64_t i = 0; i < n; i++) to[i * kLanes + lane] = from[i];
  }

  void store(const V* in, int64_t n, int64_t row, void* array) const {
    T* to = static_cast<T*>(array) + (first * problem.rows + row) * n;
    const T* from = reinterpret_cast<const T*>(in);
    for (int64_t lane = 0; lane < present; lane++, to += problem.rows * n)
      for (int64_t i = 0; i < n; i++) to[i] = from[i * kLanes + lane];
  }

  void load_initial(V* out) const {
    const T* from = static_cast<const T*>(problem.initial) + first * latents;
    T* to = reinterpret_cast<T*>(out);
    for (int64_t lane = 0; lane < present; lane++, from += latents)
      for (int64_t i = 0; i < latents; i++) to[i * kLanes + lane] = from[i];
  }

  void begin(int64_t block) {
    first = block * kLanes;
    present = problem.sessions - first < kLanes ? problem.sessions - first : kLanes;
    // Lanes without a session stay at 0, and are never real.
    std::memset(feature, 0, observations * kRegisters * sizeof(V));
    std::memset(z, 0, latents * kRegisters * sizeof(V));
  }

  // The row's features, with zeros for a row to pass over, and which lanes have a real row.
  void load_features(int64_t row) {
    load(problem.features, observations, row, feature);
    T* x = reinterpret_cast<T*>(feature);
    alignas(64) typename Types<T>::Integer lanes[kLanes] = {};
    const uint8_t* mask = problem.mask ? problem.mask + first * problem.rows + row : nullptr;
    int64_t count = 0;
    for (int64_t lane = 0; lane < present; lane++) {
      bool padding = true;
      for (int64_t o = 0; o < observations; o++) {
        const T value = x[o * kLanes + lane];
        padding = padding && value != value;
      }
      if (padding || (mask && !mask[lane * problem.rows])) {
        for (int64_t o = 0; o < observations; o++) x[o * kLanes + lane] = 0;
      } else {
        lanes[lane] = -1;
        count++;
      }
    }
    std::memcpy(real, lanes, sizeof real);
    any_real = count > 0;
  }

  // The draws of one latent for a row: its inputs' in their order, then its own.
  void make_noise(int64_t row, int64_t latent) {
    if (problem.noise == kDrawn) {
      const int64_t groups = (inputs + 1 + 3) / 4;
      alignas(64) float drawn[4 * kLanes];
      for (int64_t group = 0; group < groups; group++) {
        float* to = sizeof(T) == 4 ? reinterpret_cast<float*>(draws) + group * 4 * kLanes : drawn;
        for (int lane = 0; lane < kLanes; lane += kFloats)
          draw(seed, uint32_t(row), uint32_t(first + lane), uint32_t(latent * groups + group),
               to + lane, kLanes);
        if (sizeof(T) != 4)
          for (int i = 0; i < 4 * kLanes; i++)
            reinterpret_cast<T*>(draws)[group * 4 * kLanes + i] = T(drawn[i]);
      }
    } else {
      const int64_t at = row * latents + latent;
      take_noise(problem.obs_noise, at * observations, observations, 0);
      take_noise(problem.update_noise, at * latents, latents, observations);
      take_noise(problem.latent_noise, at, 1, inputs);
    }
  }

  void take_noise(const void* array, int64_t at, int64_t count, int64_t to) {
    const T* from = static_cast<const T*>(array) + at * problem.sessions + first;
    for (int64_t i = 0; i < count; i++) {
      T* lanes = reinterpret_cast<T*>(draws + (to + i) * kRegisters);
      for (int64_t lane = 0; lane < kLanes; lane++)
        lanes[lane] = lane < present ? from[i * problem.sessions + lane] : T(0);
    }
  }

  // The opposite of take_noise, over all rows: what the passes draw.
  void noise(int64_t block, void* obs, void* update, void* latent) override {
    begin(block);
    for (int64_t row = 0; row < problem.rows; row++)
      for (int64_t l = 0; l < latents; l++) {
        make_noise(row, l);
        const int64_t at = row * latents + l;
        give_noise(obs, at * observations, observations, 0);
        give_noise(update, at * latents, latents, observations);
        give_noise(latent, at, 1, inputs);
      }
  }

  void give_noise(void* array, int64_t at, int64_t count, int64_t from) const {
    T* to = static_cast<T*>(array) + at * problem.sessions + first;
    for (int64_t i = 0; i < count; i++)
      std::memcpy(to + i * problem.sessions, draws + (from + i) * kRegisters,
                  present * sizeof(T));
  }

  // ---- One latent's update network; leaves its stream (and slopes) behind for the gradient ----

  template <bool kBackward> void network(const T* w, V (&outputs)[2][kRegisters]) {
    for (int64_t i = 0; i < inputs; i++) {
      const V* x = i < observations ? feature + i * kRegisters
                                    : z + (i - observations) * kRegisters;
      const T m = w[layout.multiplier + i], sigma = w[layout.sigma + i];
      for (int r = 0; r < kRegisters; r++) {
        V value = m * x[r];
        if (problem.noise != kNone) value += sigma * draws[i * kRegisters + r];
        in[i * kRegisters + r] = value;
      }
    }
    affine(w + layout.input_kernel, w + layout.input_bias, in, stream, inputs, units);
    const int64_t registers = units * kRegisters;
    V* h = stream;
    for (int64_t q = 0; q < layers; q++, h += registers) {
      affine(w + layout.hidden_kernel(q), w + layout.hidden_bias(q), h, pre, units, units);
      activate<kBackward>(problem.activation, pre, h, h + registers,
                          kBackward ? slope + q * registers : nullptr, registers);
    }
    const T* kernel = w + layout.output_kernel;
    for (int c = 0; c < 2; c++)
      for (int r = 0; r < kRegisters; r++) outputs[c][r] = V{} + w[layout.output_bias + c];
    for (int64_t k = 0; k < units; k++)
      for (int c = 0; c < 2; c++)
        for (int r = 0; r < kRegisters; r++)
          outputs[c][r] += kernel[c * units + k] * h[k * kRegisters + r];
  }

  // ---- Forward ----

  void forward(int64_t block) override {
    begin(block);
    load_initial(z);
    for (int64_t row = 0; row < problem.rows; row++) {
      load_features(row);
      if (any_real) {
        for (int64_t l = 0; l < latents; l++) {
          const T* w = packed + l * layout.size;
          if (problem.noise != kNone) make_noise(row, l);
          V outputs[2][kRegisters];
          network<false>(w, outputs);
          const T sigma = w[layout.latent_sigma];
          for (int r = 0; r < kRegisters; r++) {
            const int64_t i = l * kRegisters + r;
            const V weight = sigmoid_of(outputs[0][r]);
            const V target = bound * tanh_of(outputs[1][r] / bound);
            const V mean = z[i] + weight * (target - z[i]);
            V value = mean;
            if (problem.noise != kNone) value += sigma * draws[inputs * kRegisters + r];
            mu[i] = real[r] ? mean : z[i];
            next_z[i] = real[r] ? value : z[i];
          }
        }
        std::memcpy(z, next_z, latents * kRegisters * sizeof(V));
      } else {
        std::memcpy(mu, z, latents * kRegisters * sizeof(V));
      }
      store(z, latents, row, problem.z);
      if (problem.mu) store(mu, latents, row, problem.mu);
    }
  }

  // ---- Backward ----

  void clear_sums() override { std::memset(sums, 0, layout.size * latents * sizeof(V)); }

  void sum_lanes(double* out) const override {
    for (int64_t i = 0; i < layout.size * latents; i++) {
      double sum = 0;
      for (int lane = 0; lane < kWidth; lane++) sum += sums[i][lane];
      out[i] = sum;
    }
  }

  void backward(int64_t block) override {
    begin(block);
    // The gradient of the latents after the last row, from the rows below it.
    std::memset(next_dz, 0, latents * kRegisters * sizeof(V));
    for (int64_t row = problem.rows - 1; row >= 0; row--) {
      std::memset(dz, 0, latents * kRegisters * sizeof(V));
      std::memset(dmu, 0, latents * kRegisters * sizeof(V));
      load(problem.dz, latents, row, dz);
      if (problem.dmu) load(problem.dmu, latents, row, dmu);
      load_features(row);
      if (row) load(problem.z, latents, row - 1, z);
      else load_initial(z);
      std::memset(dfeature, 0, observations * kRegisters * sizeof(V));
      for (int64_t l = 0; l < latents; l++)
        for (int r = 0; r < kRegisters; r++) {
          const int64_t i = l * kRegisters + r;
          const V held = next_dz[i] + dz[i];
          dz[i] = real[r] ? held : V{};
          const V all = held + dmu[i];
          dmu[i] = real[r] ? all : V{};
          next_dz[i] = real[r] ? V{} : all;
        }
      if (any_real)
        for (int64_t l = 0; l < latents; l++) backward_latent(row, l);
      store(dfeature, observations, row, problem.dfeatures);
    }
    T* to = static_cast<T*>(problem.dinitial) + first * latents;
    const T* from = reinterpret_cast<const T*>(next_dz);
    for (int64_t lane = 0; lane < present; lane++, to += latents)
      for (int64_t i = 0; i < latents; i++) to[i] = from[i * kLanes + lane];
  }

  void backward_latent(int64_t row, int64_t l) {
    const T* w = packed + l * layout.size;
    V* sum = sums + l * layout.size;
    const bool noisy = problem.noise != kNone;
    if (noisy) {
      make_noise(row, l);
      sum[layout.latent_sigma] +=
          over_registers(dz + l * kRegisters, draws + inputs * kRegisters);
    }
    V outputs[2][kRegisters];
    network<true>(w, outputs);
    for (int r = 0; r < kRegisters; r++) {
      const int64_t i = l * kRegisters + r;
      const V weight = sigmoid_of(outputs[0][r]);
      const V tanh = tanh_of(outputs[1][r] / bound);
      next_dz[i] += dmu[i] * (1 - weight);
      outputs[0][r] = dmu[i] * (bound * tanh - z[i]) * weight * (1 - weight);
      outputs[1][r] = dmu[i] * weight * (1 - tanh * tanh);
    }

    const int64_t registers = units * kRegisters;
    const V* h = stream + layers * registers;
    for (int c = 0; c < 2; c++) {
      const V* doutput = outputs[c];
      sum[layout.output_bias + c] += over_registers(doutput);
      for (int64_t k = 0; k < units; k++)
        sum[layout.output_kernel + c * units + k] += over_registers(doutput, h + k * kRegisters);
    }
    const T* kernel = w + layout.output_kernel;
    for (int64_t k = 0; k < units; k++)
      for (int r = 0; r < kRegisters; r++)
        grad[k * kRegisters + r] = kernel[k] * outputs[0][r] + kernel[units + k] * outputs[1][r];

    for (int64_t q = layers - 1; q >= 0; q--) {
      h -= registers;
      const V* d = slope + q * registers;
      for (int64_t i = 0; i < registers; i++) dpre[i] = grad[i] * d[i];
      accumulate(h, dpre, sum + layout.hidden_kernel(q), sum + layout.hidden_bias(q), units,
                 units);
      transposed(w + layout.hidden_kernel(q), dpre, grad, units, units);
    }
    accumulate(in, grad, sum + layout.input_kernel, sum + layout.input_bias, inputs, units);
    std::memset(din, 0, inputs * kRegisters * sizeof(V));
    transposed(w + layout.input_kernel, grad, din, inputs, units);
    for (int64_t i = 0; i < inputs; i++) {
      const bool observed = i < observations;
      const int64_t at = (observed ? i : i - observations) * kRegisters;
      const V* x = (observed ? feature : z) + at;
      V* back = (observed ? dfeature : next_dz) + at;
      const V* d = din + i * kRegisters;
      const T m = w[layout.multiplier + i];
      for (int r = 0; r < kRegisters; r++) back[r] += m * d[r];
      sum[layout.multiplier + i] += over_registers(x, d);
      if (noisy) sum[layout.sigma + i] += over_registers(draws + i * kRegisters, d);
    }
  }
};

template <typename T>
Worker* make(const Problem& problem, const Layout& layout, const void* packed, bool backward) {
  return new Recurrence<T>(problem, layout, static_cast<const T*>(packed), backward);
}

constexpr Kernel kKernel = {Recurrence<float>::kLanes, Recurrence<double>::kLanes, make<float>,
                            make<double>};

}  // namespace DISRNN_NAMESPACE

#undef DISRNN_BYTES
#undef DISRNN_NAMESPACE
#undef DISRNN_INTRINSIC
