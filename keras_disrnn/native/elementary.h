// Registers of numbers: elementary functions, noise, activations. Included by kernel.h.

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
DISRNN_LANE_BY_LANE(log_of, ::log)
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

// Four draws for each of kFloats lanes, at out[0], out[stride], ... `rows` and `sessions` are those
// of the lanes, aligned. The counter is (row, session, group), so that a draw belongs to its element,
// row and session whatever the blocks and threads.
INLINE void draw(const uint32_t (&seed)[2], const uint32_t* rows, const uint32_t* sessions,
                 uint32_t group, float* out, int64_t stride) {
  U64 even[4] = {U64{}, U64{}, U64{} + group, U64{}};
  std::memcpy(&even[0], rows, sizeof(U64));
  std::memcpy(&even[1], sessions, sizeof(U64));
  U64 odd[4] = {even[0] >> 32, even[1] >> 32, even[2], even[3]};
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

// Four draws for each of kLanes lanes, number after number.
template <typename T, int kLanes>
INLINE void draw_lanes(const uint32_t (&seed)[2], const uint32_t* rows, const uint32_t* sessions,
                       uint32_t group, T* out) {
  alignas(64) float drawn[4 * kLanes];
  float* to = sizeof(T) == 4 ? reinterpret_cast<float*>(out) : drawn;
  for (int lane = 0; lane < kLanes; lane += kFloats)
    draw(seed, rows + lane, sessions + lane, group, to + lane, kLanes);
  if (sizeof(T) != 4)
    for (int i = 0; i < 4 * kLanes; i++) out[i] = T(drawn[i]);
}

// The sum of all lanes.
template <typename T> INLINE double sum_of(typename Types<T>::Vector x) {
  constexpr int lanes = DISRNN_BYTES / sizeof(T), parts = lanes < 4 ? lanes : 4;
  double sum[parts] = {};
  for (int lane = 0; lane < lanes; lane += parts)
    for (int i = 0; i < parts; i++) sum[i] += x[lane + i];
  for (int i = 1; i < parts; i++) sum[0] += sum[i];
  return sum[0];
}

// What a bottleneck costs with nothing passing, twice: sigma^2 - 1 - log sigma^2.
template <typename T> INLINE T closed_cost(T sigma) {
  return sigma * sigma - 1 - 2 * std::log(sigma);
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
    const V small = x * T(0.01);
    slope = x > 0 ? V{} + 1 : V{} + T(0.01);
    y = x > small ? x : small;
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
