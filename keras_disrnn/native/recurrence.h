// The core: sessions are the lanes, and a block of them goes through all its rows together.
// Included by kernel.h.

template <typename T> struct Recurrence final : Worker {
  typedef typename Types<T>::Vector V;
  typedef typename Types<T>::Mask M;
  static constexpr int kWidth = DISRNN_BYTES / sizeof(T);
  static constexpr int kLanes = kWidth * kRegisters;
  static_assert(kLanes % kFloats == 0, "draws come in registers of floats");

  const Problem& problem;
  const Layout& layout;
  const T* const packed;
  const int64_t latents, observations, inputs, groups;
  const T bound;
  uint32_t seed[2];
  T constants[3];  // what the costs have whatever passes: sum(sigma^2 - 1 - log sigma^2)

  Arena arena;
  Network<T> network;
  V *feature, *dfeature;               // [observations]
  V *z, *mean, *next_z, *dz, *next_dz; // [latents]
  V *draws;                            // [groups * 4]: the inputs', then the latent's own
  V *outputs;                          // [2]
  V *weights;                          // [observations + latents]: sums of squared multipliers
  V *cost;                             // [3]
  V *sums;                             // one register for each packed parameter and each extra
  M real[kRegisters];
  alignas(64) uint32_t lane_rows[kLanes], lane_sessions[kLanes];
  int64_t block, first, present;  // the block, its first session, and how many sessions it has
  bool any_real;

  Recurrence(const Problem& p, const Layout& where, const T* parameters, bool backward)
      : problem(p), layout(where), packed(parameters), latents(p.latents),
        observations(p.observations), inputs(where.inputs), groups(where.groups),
        bound(T(p.max_latent_value)), seed{uint32_t(p.seed[0]), uint32_t(p.seed[1])},
        network(where, p.activation, backward, arena), dfeature(), next_z(), dz(), next_dz(),
        sums() {
    arena.take(feature, observations * kRegisters);
    arena.take(z, latents * kRegisters);
    arena.take(mean, latents * kRegisters);
    arena.take(draws, groups * 4 * kRegisters);
    arena.take(outputs, 2 * kRegisters);
    arena.take(weights, inputs);
    arena.take(cost, 3 * kRegisters);
    if (backward) {
      arena.take(dfeature, observations * kRegisters);
      arena.take(dz, latents * kRegisters);
      arena.take(next_dz, latents * kRegisters);
      arena.take(sums, layout.total());
    } else {
      arena.take(next_z, latents * kRegisters);
    }
    constants[0] = constants[1] = constants[2] = 0;
    for (int64_t l = 0; l < latents; l++) {
      const T* w = packed + l * layout.size;
      constants[0] += closed_cost(w[layout.latent_sigma]);
      for (int64_t i = 0; i < inputs; i++) {
        constants[i < observations ? 1 : 2] += closed_cost(w[layout.sigma + i]);
        weights[i] += w[layout.multiplier + i] * w[layout.multiplier + i];
      }
    }
  }

  // ---- Between [sessions, rows, n] arrays and registers ----

  template <bool kBackward>
  void load(const void* array, int64_t n, int64_t row, V* out) const {
    const T* from = static_cast<const T*>(array) + (first * problem.rows + row) * n;
    T* to = reinterpret_cast<T*>(out);
    for (int64_t lane = 0; lane < present; lane++, from += problem.rows * n) {
      // Each session is a stream of its own, and the processor does not follow as many.
      if (kBackward) __builtin_prefetch(reinterpret_cast<const char*>(from) - 64);
      for (int64_t i = 0; i < n; i++) to[i * kLanes + lane] = from[i];
    }
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

  void begin(int64_t which) {
    block = which;
    first = block * kLanes;
    present = problem.sessions - first < kLanes ? problem.sessions - first : kLanes;
    for (int64_t lane = 0; lane < kLanes; lane++)
      lane_sessions[lane] = uint32_t(problem.first_session + first + lane);
    // Lanes without a session stay at 0, and are never real.
    std::memset(feature, 0, observations * kRegisters * sizeof(V));
    std::memset(z, 0, latents * kRegisters * sizeof(V));
  }

  // The row's features, with zeros for a row to pass over, and which lanes have a real row.
  template <bool kBackward> void load_features(int64_t row) {
    load<kBackward>(problem.features, observations, row, feature);
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

  // ---- Noise ----

  V* kept(int64_t row, int64_t latent) const {
    const int64_t slot = (block * problem.rows + row) * latents + latent;
    return static_cast<V*>(problem.kept) + slot * groups * 4 * kRegisters;
  }

  // Fetches ahead what `noise_of` will read.
  void fetch_kept(int64_t row, int64_t latent) const {
    if (row < 0) return;
    const char* from = reinterpret_cast<const char*>(kept(row, latent));
    for (int64_t at = 0; at < groups * 4 * kRegisters * int64_t(sizeof(V)); at += 64)
      __builtin_prefetch(from + at);
  }

  // The draws of one latent for a row; null without noise.
  const V* noise_of(int64_t row, int64_t latent, bool drawn_before) {
    if (problem.noise == kNone) return nullptr;
    if (problem.noise == kGiven) {
      const int64_t at = row * latents + latent;
      take_noise(problem.obs_noise, at * observations, observations, 0);
      take_noise(problem.update_noise, at * latents, latents, observations);
      take_noise(problem.latent_noise, at, 1, inputs);
      return draws;
    }
    V* to = problem.kept ? kept(row, latent) : draws;
    if (problem.kept && drawn_before) return to;
    for (int64_t lane = 0; lane < kLanes; lane++) lane_rows[lane] = uint32_t(row);
    for (int64_t group = 0; group < groups; group++)
      draw_lanes<T, kLanes>(seed, lane_rows, lane_sessions, uint32_t(latent * groups + group),
                            reinterpret_cast<T*>(to) + group * 4 * kLanes);
    return to;
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
  void noise(int64_t which, void* obs, void* update, void* latent) override {
    begin(which);
    for (int64_t row = 0; row < problem.rows; row++)
      for (int64_t l = 0; l < latents; l++) {
        const V* drawn = noise_of(row, l, false);
        const int64_t at = row * latents + l;
        give_noise(drawn, obs, at * observations, observations);
        give_noise(drawn + observations * kRegisters, update, at * latents, latents);
        give_noise(drawn + inputs * kRegisters, latent, at, 1);
      }
  }

  void give_noise(const V* from, void* array, int64_t at, int64_t count) const {
    T* to = static_cast<T*>(array) + at * problem.sessions + first;
    for (int64_t i = 0; i < count; i++)
      std::memcpy(to + i * problem.sessions, from + i * kRegisters, present * sizeof(T));
  }

  // ---- One latent's update network ----

  template <bool kBackward> INLINE void update(const T* w, const V* drawn) {
    for (int64_t o = 0; o < observations; o++) network.enter(w, o, feature + o * kRegisters, drawn);
    for (int64_t i = 0; i < latents; i++)
      network.enter(w, observations + i, z + i * kRegisters, drawn);
    network.template forward<kBackward>(w, outputs);
  }

  // ---- Forward ----

  void forward(int64_t which) override {
    begin(which);
    load_initial(z);
    for (int64_t row = 0; row < problem.rows; row++) {
      load_features<false>(row);
      if (any_real) {
        for (int64_t l = 0; l < latents; l++) {
          const T* w = packed + l * layout.size;
          const V* drawn = noise_of(row, l, false);
          update<false>(w, drawn);
          const T sigma = w[layout.latent_sigma];
          for (int r = 0; r < kRegisters; r++) {
            const int64_t i = l * kRegisters + r;
            const V weight = sigmoid_of(outputs[r]);
            const V target = bound * tanh_of(outputs[kRegisters + r] / bound);
            const V mu = z[i] + weight * (target - z[i]);
            V value = mu;
            if (drawn) value += sigma * drawn[inputs * kRegisters + r];
            mean[i] = real[r] ? mu : z[i];
            next_z[i] = real[r] ? value : z[i];
          }
        }
      }
      if (problem.costs[0]) {
        for (int r = 0; r < kRegisters; r++) {
          V totals[3] = {V{} + constants[0], V{} + constants[1], V{} + constants[2]};
          for (int64_t l = 0; l < latents; l++) {
            const int64_t i = l * kRegisters + r;
            totals[0] += mean[i] * mean[i];
            totals[2] += weights[observations + l] * z[i] * z[i];
          }
          for (int64_t o = 0; o < observations; o++) {
            const V x = feature[o * kRegisters + r];
            totals[1] += weights[o] * x * x;
          }
          for (int c = 0; c < 3; c++)
            cost[c * kRegisters + r] = real[r] ? totals[c] * T(0.5) : V{};
        }
        for (int c = 0; c < 3; c++) store(cost + c * kRegisters, 1, row, problem.costs[c]);
      }
      if (any_real) std::memcpy(z, next_z, latents * kRegisters * sizeof(V));
      store(z, latents, row, problem.z);
    }
  }

  // ---- Backward ----

  void clear_sums() override { std::memset(sums, 0, layout.total() * sizeof(V)); }

  void sum_lanes(double* out) override {
    for (int64_t i = 0; i < layout.total(); i++) out[i] = sum_of<T>(sums[i]);
  }

  void backward(int64_t which) override {
    begin(which);
    // The gradient of the latents after the last row, from the rows below it.
    std::memset(next_dz, 0, latents * kRegisters * sizeof(V));
    int64_t slot = 0;
    for (int64_t row = problem.rows - 1; row >= 0; row--) {
      std::memset(dz, 0, latents * kRegisters * sizeof(V));
      load<true>(problem.dz, latents, row, dz);
      load_features<true>(row);
      if (row) load<true>(problem.z, latents, row - 1, z);
      else load_initial(z);
      std::memset(dfeature, 0, observations * kRegisters * sizeof(V));
      for (int64_t l = 0; l < latents; l++)
        for (int r = 0; r < kRegisters; r++) {
          const int64_t i = l * kRegisters + r;
          const V all = next_dz[i] + dz[i];
          dz[i] = real[r] ? all : V{};
          next_dz[i] = real[r] ? V{} : all;
        }
      if (any_real) {
        if (problem.dcosts[0]) backward_costs(row);
        for (int64_t l = 0; l < latents; l++) backward_latent(row, l, slot);
        if (++slot == network.depth) {
          collect_from(slot);
          slot = 0;
        }
      }
      store(dfeature, observations, row, problem.dfeatures);
    }
    if (slot) collect_from(slot);
    T* to = static_cast<T*>(problem.dinitial) + first * latents;
    const T* from = reinterpret_cast<const T*>(next_dz);
    for (int64_t lane = 0; lane < present; lane++, to += latents)
      for (int64_t i = 0; i < latents; i++) to[i] = from[i * kLanes + lane];
  }

  void collect_from(int64_t slots) {
    for (int64_t l = 0; l < latents; l++)
      network.collect_from(l, slots, sums + l * layout.size);
  }

  // What the costs of observations and previous latents have for their inputs, and the sums that
  // finish the gradients of their bottlenecks.
  void backward_costs(int64_t row) {
    std::memset(cost, 0, 3 * kRegisters * sizeof(V));
    for (int c = 0; c < 3; c++) load<true>(problem.dcosts[c], 1, row, cost + c * kRegisters);
    V* squares = sums + layout.squares;
    for (int r = 0; r < kRegisters; r++) {
      V price[3];
      for (int c = 0; c < 3; c++) {
        price[c] = real[r] ? cost[c * kRegisters + r] : V{};
        cost[c * kRegisters + r] = price[c];
        sums[layout.prices + c] += price[c];
      }
      for (int64_t o = 0; o < observations; o++) {
        const V x = feature[o * kRegisters + r];
        dfeature[o * kRegisters + r] += price[1] * weights[o] * x;
        squares[o] += price[1] * x * x;
      }
      for (int64_t l = 0; l < latents; l++) {
        const V x = z[l * kRegisters + r];
        next_dz[l * kRegisters + r] += price[2] * weights[observations + l] * x;
        squares[observations + l] += price[2] * x * x;
      }
    }
  }

  void backward_latent(int64_t row, int64_t l, int64_t slot) {
    network.use(l, slot);
    const T* w = packed + l * layout.size;
    V* sum = sums + l * layout.size;
    const V* drawn = noise_of(row, l, true);
    if (problem.kept) fetch_kept(l + 1 < latents ? row : row - 1, l + 1 < latents ? l + 1 : 0);
    if (drawn)
      sum[layout.latent_sigma] = plus(sum[layout.latent_sigma], dz + l * kRegisters,
                                      drawn + inputs * kRegisters);
    update<true>(w, drawn);
    for (int r = 0; r < kRegisters; r++) {
      const int64_t i = l * kRegisters + r;
      const V weight = sigmoid_of(outputs[r]);
      const V tanh = tanh_of(outputs[kRegisters + r] / bound);
      const V towards = bound * tanh - z[i];
      V dmean = dz[i];
      if (problem.dcosts[0]) dmean += cost[r] * (z[i] + weight * towards);
      next_dz[i] += dmean * (1 - weight);
      outputs[r] = dmean * towards * weight * (1 - weight);
      outputs[kRegisters + r] = dmean * weight * (1 - tanh * tanh);
    }
    network.backward(w, outputs);
    for (int64_t o = 0; o < observations; o++)
      network.leave(w, o, feature + o * kRegisters, drawn, sum, dfeature + o * kRegisters);
    for (int64_t i = 0; i < latents; i++)
      network.leave(w, observations + i, z + i * kRegisters, drawn, sum,
                    next_dz + i * kRegisters);
  }
};
