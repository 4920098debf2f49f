// A readout: rows are the lanes, those of all sessions one after another. Included by kernel.h.

template <typename T> struct Readout final : Worker {
  typedef typename Types<T>::Vector V;
  static constexpr int kWidth = DISRNN_BYTES / sizeof(T);
  static constexpr int kLanes = kWidth * kRegisters;

  const Problem& problem;
  const Layout& layout;
  const T* const packed;
  const int64_t latents, observed, inputs, outputs, groups, total;
  uint32_t seed[2];
  T constant;

  Arena arena;
  Network<T> network;
  V *x, *dx;   // [inputs]
  V *draws;    // [groups * 4]
  V *y;        // [outputs]
  V *cost;     // [1]
  V *sums;     // one register for each packed parameter and each extra
  alignas(64) uint32_t lane_rows[kLanes], lane_sessions[kLanes];
  T real[kLanes];        // 1 or 0
  const T* read[kLanes]; // the lanes' latents
  int64_t block, first, present;  // the block, its first row of all, and how many rows it has
  int64_t slot = 0;               // how many slots of the network are filled

  Readout(const Problem& p, const Layout& where, const T* parameters, bool backward)
      : problem(p), layout(where), packed(parameters), latents(p.latents), observed(p.observed),
        inputs(where.inputs), outputs(where.outputs), groups(where.groups),
        total(p.sessions * p.rows), seed{uint32_t(p.seed[0]), uint32_t(p.seed[1])}, constant(0),
        network(where, p.activation, backward, arena), dx(), sums() {
    arena.take(x, inputs * kRegisters);
    arena.take(draws, groups * 4 * kRegisters);
    arena.take(y, outputs * kRegisters);
    arena.take(cost, kRegisters);
    if (backward) {
      arena.take(dx, inputs * kRegisters);
      arena.take(sums, layout.total());
    }
    for (int64_t i = 0; i < inputs; i++) constant += closed_cost(packed[layout.sigma + i]);
  }

  void begin(int64_t which) {
    block = which;
    first = block * kLanes;
    present = total - first < kLanes ? total - first : kLanes;
    const T* z = static_cast<const T*>(problem.z);
    const T* initial = static_cast<const T*>(problem.initial);
    int64_t session = first / problem.rows, row = first % problem.rows;
    for (int64_t lane = 0; lane < kLanes; lane++) {
      lane_rows[lane] = uint32_t(row);
      lane_sessions[lane] = uint32_t(problem.first_session + session);
      // A lane without a row reads what another does, and what it makes of it goes nowhere.
      read[lane] = lane >= present                  ? read[0]
                   : problem.previous && row == 0 ? initial
                                                  : z + (first + lane - problem.previous) * latents;
      if (++row == problem.rows) row = 0, session++;
    }
    T* to = reinterpret_cast<T*>(x);
    for (int64_t l = 0; l < latents; l++, to += kLanes)
      for (int lane = 0; lane < kLanes; lane++) to[lane] = read[lane][l];
    const int64_t n = problem.observations;
    const T* features = static_cast<const T*>(problem.features) + first * n;
    for (int64_t lane = 0; lane < kLanes; lane++) {
      bool padding = true;
      for (int64_t o = 0; lane < present && o < n; o++) {
        const T value = features[lane * n + o];
        padding = padding && value != value;
      }
      real[lane] = padding ? T(0) : T(1);
      for (int64_t o = 0; o < observed; o++)
        to[o * kLanes + lane] = padding ? T(0) : features[lane * n + o];
    }
  }

  const V* noise_of(bool drawn_before) {
    if (problem.noise == kNone) return nullptr;
    if (problem.noise == kGiven) {
      const T* from = static_cast<const T*>(problem.latent_noise) + first * inputs;
      T* to = reinterpret_cast<T*>(draws);
      for (int64_t lane = 0; lane < present; lane++)
        for (int64_t i = 0; i < inputs; i++) to[i * kLanes + lane] = from[lane * inputs + i];
      return draws;
    }
    V* to = draws;
    if (problem.kept) {
      to = static_cast<V*>(problem.kept) + block * groups * 4 * kRegisters;
      if (drawn_before) return to;
    }
    for (int64_t group = 0; group < groups; group++)
      draw_lanes<T, kLanes>(seed, lane_rows, lane_sessions, uint32_t(group),
                            reinterpret_cast<T*>(to) + group * 4 * kLanes);
    return to;
  }

  void noise(int64_t which, void* out, void*, void*) override {
    begin(which);
    const T* from = reinterpret_cast<const T*>(noise_of(false));
    T* to = static_cast<T*>(out) + first * inputs;
    for (int64_t lane = 0; lane < present; lane++)
      for (int64_t i = 0; i < inputs; i++) to[lane * inputs + i] = from[i * kLanes + lane];
  }

  void forward(int64_t which) override {
    begin(which);
    const V* drawn = noise_of(false);
    for (int64_t i = 0; i < inputs; i++) network.enter(packed, i, x + i * kRegisters, drawn);
    network.template forward<false>(packed, y);
    const T* from = reinterpret_cast<const T*>(y);
    T* to = static_cast<T*>(problem.y) + first * outputs;
    for (int64_t lane = 0; lane < present; lane++)
      for (int64_t k = 0; k < outputs; k++) to[lane * outputs + k] = from[k * kLanes + lane];
    if (!problem.costs[0]) return;
    for (int r = 0; r < kRegisters; r++) {
      V sum = V{} + constant;
      for (int64_t i = 0; i < inputs; i++) {
        const V mean = packed[layout.multiplier + i] * x[i * kRegisters + r];
        sum += mean * mean;
      }
      cost[r] = sum * T(0.5);
    }
    const T* costs = reinterpret_cast<const T*>(cost);
    T* out = static_cast<T*>(problem.costs[0]) + first;
    for (int64_t lane = 0; lane < present; lane++) out[lane] = real[lane] * costs[lane];
  }

  void clear_sums() override { std::memset(sums, 0, layout.total() * sizeof(V)); }

  void sum_lanes(double* out) override {
    collect_slots();
    for (int64_t i = 0; i < layout.total(); i++) out[i] = sum_of<T>(sums[i]);
  }

  void collect_slots() {
    if (slot) network.collect_from(0, slot, sums);
    slot = 0;
  }

  void backward(int64_t which) override {
    begin(which);
    if (slot == network.depth) collect_slots();
    network.use(0, slot++);
    const V* drawn = noise_of(true);
    for (int64_t i = 0; i < inputs; i++) network.enter(packed, i, x + i * kRegisters, drawn);
    network.template forward<true>(packed, y);
    T* dy = reinterpret_cast<T*>(y);
    const T* from = static_cast<const T*>(problem.dy) + first * outputs;
    for (int64_t lane = 0; lane < kLanes; lane++)
      for (int64_t k = 0; k < outputs; k++)
        dy[k * kLanes + lane] = lane < present ? from[lane * outputs + k] : T(0);
    network.backward(packed, y);
    std::memset(dx, 0, inputs * kRegisters * sizeof(V));
    for (int64_t i = 0; i < inputs; i++)
      network.leave(packed, i, x + i * kRegisters, drawn, sums, dx + i * kRegisters);
    if (problem.dcosts[0]) {
      T* prices = reinterpret_cast<T*>(cost);
      const T* dcost = static_cast<const T*>(problem.dcosts[0]) + first;
      for (int64_t lane = 0; lane < kLanes; lane++)
        prices[lane] = lane < present ? real[lane] * dcost[lane] : T(0);
      for (int r = 0; r < kRegisters; r++) {
        sums[layout.prices] += cost[r];
        for (int64_t i = 0; i < inputs; i++) {
          const V value = x[i * kRegisters + r];
          const T m = packed[layout.multiplier + i];
          dx[i * kRegisters + r] += cost[r] * (m * m) * value;
          sums[layout.squares + i] += cost[r] * value * value;
        }
      }
    }
    give_back();
  }

  // Each element of the gradients with respect to latents and features belongs to one lane, but for
  // the initial latents, which the first rows of all sessions share.
  void give_back() {
    const T* d = reinterpret_cast<const T*>(dx);
    T* all = static_cast<T*>(problem.dlatents);
    for (int64_t lane = 0; lane < present; lane++) {
      const int64_t at = (first + lane) * latents;
      // Nothing reads the latents after the last row where it is the row before that counts.
      if (problem.previous && lane_rows[lane] == problem.rows - 1)
        std::memset(all + at, 0, latents * sizeof(T));
      if (problem.previous && lane_rows[lane] == 0) {
        for (int64_t l = 0; l < latents; l++)
          sums[layout.extra + l][lane % kWidth] += d[l * kLanes + lane];
      } else {
        T* dlatents = all + at - problem.previous * latents;
        for (int64_t l = 0; l < latents; l++) dlatents[l] = d[l * kLanes + lane];
      }
    }
    const int64_t n = problem.observations;
    T* dfeatures = static_cast<T*>(problem.dfeatures) + first * n;
    if (!observed) {
      std::memset(dfeatures, 0, present * n * sizeof(T));
      return;
    }
    for (int64_t lane = 0; lane < present; lane++, dfeatures += n)
      for (int64_t o = 0; o < n; o++)
        dfeatures[o] = o < observed ? real[lane] * d[(latents + o) * kLanes + lane] : T(0);
  }
};
