// The log likelihood of choices, kWidth of them at a time. Included by kernel.h.

template <typename T> struct ChoiceLikelihood {
  typedef typename Types<T>::Vector V;
  typedef typename Types<T>::Mask M;
  static constexpr int kWidth = DISRNN_BYTES / sizeof(T);

  const Likelihood& problem;
  const int64_t arms;

  explicit ChoiceLikelihood(const Likelihood& p) : problem(p), arms(p.arms) {}

  // kFull: all lanes are there, so that the number of them is known when this is compiled.
  template <bool kFull> static INLINE V load(const T* from, int64_t stride, int64_t present) {
    V lanes{};
    for (int lane = 0; lane < kWidth; lane++)
      if (kFull || lane < present) lanes[lane] = from[lane * stride];
    return lanes;
  }

  template <bool kFull>
  static INLINE void store(V value, T* to, int64_t stride, int64_t present) {
    for (int lane = 0; lane < kWidth; lane++)
      if (kFull || lane < present) to[lane * stride] = value[lane];
  }

  // The lanes of two registers, picked by their number.
  static INLINE V pick(V low, V high, M lanes) {
#if defined(__clang__)
    V picked{};
    for (int i = 0; i < kWidth; i++)
      picked[i] = lanes[i] < kWidth ? low[lanes[i]] : high[lanes[i] - kWidth];
    return picked;
#else
    return __builtin_shuffle(low, high, lanes);
#endif
  }

  // Two arms alternate in memory. Shuffles are faster than one number at a time.
  static INLINE void load_pairs(const T* from, V& first, V& second) {
    V low, high;
    M even{}, odd{};
    for (int i = 0; i < kWidth; i++) even[i] = 2 * i, odd[i] = 2 * i + 1;
    std::memcpy(&low, from, sizeof(V));
    std::memcpy(&high, from + kWidth, sizeof(V));
    first = pick(low, high, even);
    second = pick(low, high, odd);
  }

  static INLINE void store_pairs(V first, V second, T* to) {
    M low{}, high{};
    for (int i = 0; i < kWidth; i++) {
      low[i] = i / 2 + i % 2 * kWidth;
      high[i] = kWidth / 2 + low[i];
    }
    const V pairs[2] = {pick(first, second, low), pick(first, second, high)};
    std::memcpy(to, pairs, sizeof pairs);
  }

  static INLINE V load_row(const T* from) {
    V lanes;
    std::memcpy(&lanes, from, sizeof(V));
    return lanes;
  }

  // As `some` below, for kWidth choices between two arms.
  INLINE void pairs(int64_t at, bool backward) const {
    const V chosen = load_row(static_cast<const T*>(problem.choice) + at);
    V first, second;
    load_pairs(static_cast<const T*>(problem.logits) + at * 2, first, second);
    const V top = second > first ? second : first;
    const V e0 = exp_of(first - top), e1 = exp_of(second - top), total = e0 + e1;
    if (!backward) {
      const V own = chosen == T(1) ? second : first;
      const V log_p = own - top - log_of(total), whole = total == total ? log_p : total;
      std::memcpy(static_cast<T*>(problem.log_p) + at, &whole, sizeof(V));
      return;
    }
    const V upstream = load_row(static_cast<const T*>(problem.dlog_p) + at);
    const V scale = upstream / total, none{};
    store_pairs((chosen == T(1) ? none : upstream) - scale * e0,
                (chosen == T(1) ? upstream : none) - scale * e1,
                static_cast<T*>(problem.dlogits) + at * 2);
  }

  template <bool kFull> INLINE void some(int64_t at, int64_t present, bool backward) const {
    const T* logits = static_cast<const T*>(problem.logits) + at * arms;
    const V chosen = load<kFull>(static_cast<const T*>(problem.choice) + at, 1, present);
    V top = load<kFull>(logits, arms, present), own = top, total{};
    for (int64_t a = 1; a < arms; a++) {
      const V logit = load<kFull>(logits + a, arms, present);
      top = logit > top ? logit : top;
      own = chosen == T(a) ? logit : own;
    }
    for (int64_t a = 0; a < arms; a++)
      total += exp_of(load<kFull>(logits + a, arms, present) - top);
    if (!backward) {
      // The logarithm of NaN is a number here, so NaN has to be put back.
      const V log_p = own - top - log_of(total);
      store<kFull>(total == total ? log_p : total, static_cast<T*>(problem.log_p) + at, 1,
                   present);
      return;
    }
    const V upstream = load<kFull>(static_cast<const T*>(problem.dlog_p) + at, 1, present);
    const V scale = upstream / total;
    // A choice that is none of the arms counts as the first one, as it does above.
    V arm{};
    for (int64_t a = 1; a < arms; a++) arm = chosen == T(a) ? V{} + T(a) : arm;
    for (int64_t a = 0; a < arms; a++) {
      const V p = scale * exp_of(load<kFull>(logits + a, arms, present) - top);
      store<kFull>((arm == T(a) ? upstream : V{}) - p,
                   static_cast<T*>(problem.dlogits) + at * arms + a, arms, present);
    }
  }

  // For the choices from `begin` to `end`.
  void run(int64_t begin, int64_t end, bool backward) const {
    int64_t at = begin;
    if (arms == 2)
      for (; at + kWidth <= end; at += kWidth) pairs(at, backward);
    for (; at + kWidth <= end; at += kWidth) some<true>(at, kWidth, backward);
    if (at < end) some<false>(at, end - at, backward);
  }
};
