// The log likelihood of choices, kWidth of them at a time. Included by kernel.h.

template <typename T> struct ChoiceLikelihood {
  typedef typename Types<T>::Vector V;
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
    for (; at + kWidth <= end; at += kWidth) some<true>(at, kWidth, backward);
    if (at < end) some<false>(at, end - at, backward);
  }
};
