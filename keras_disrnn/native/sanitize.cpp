// A driver for sanitize.sh: many shapes, ragged sessions and threads, and calls from several threads
// side by side, on arrays of exact size.

#include <cmath>
#include <cstdio>
#include <random>

#include "library.cpp"

namespace {

struct Shape { int64_t sessions, rows, observations, latents, units, layers; };

// Each thread has its own.
thread_local std::mt19937 generator(1);

template <typename T> std::vector<T> random_array(int64_t size) {
  std::normal_distribution<double> normal(0.0, 0.5);
  std::vector<T> array(size);
  for (T& value : array) value = T(normal(generator));
  return array;
}

// Noise levels are positive.
template <typename T> std::vector<T> random_levels(int64_t size) {
  auto array = random_array<T>(size);
  for (T& value : array) value = T(0.01) + std::fabs(value);
  return array;
}

template <typename T> struct Arrays {
  std::vector<std::vector<T>> list;

  Arrays(const Shape& s, bool random) {
    const int64_t inputs = s.observations + s.latents;
    for (int64_t size : {s.latents * inputs * s.units, s.latents * s.units,
                         s.layers * s.latents * s.units * s.units, s.layers * s.latents * s.units,
                         s.latents * s.units * 2, s.latents * 2, s.latents * s.observations,
                         s.latents * s.observations, s.latents * s.latents,
                         s.latents * s.latents, s.latents})
      list.push_back(random ? random_array<T>(size) : std::vector<T>(size));
    if (random)
      for (int i : {7, 9, 10}) list[i] = random_levels<T>(int64_t(list[i].size()));
  }

  disrnn::Parameters pointers() {
    disrnn::Parameters p;
    void** const where[] = {&p.input_kernel, &p.input_bias, &p.hidden_kernel, &p.hidden_bias,
                            &p.output_kernel, &p.output_bias, &p.first_multiplier, &p.first_sigma,
                            &p.second_multiplier, &p.second_sigma, &p.latent_sigma};
    for (size_t i = 0; i < list.size(); i++) *where[i] = list[i].data();
    return p;
  }
};

template <typename T> void* aligned(std::vector<T>& array) {
  return reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(array.data()) + 63) / 64 * 64);
}

// Returns false where a result is not finite, or depends on the number of threads.
template <typename T>
bool check(const Shape& s, int64_t activation, int64_t instructions, int64_t noise) {
  const int64_t states = s.sessions * s.rows * s.latents;
  auto features = random_array<T>(s.sessions * s.rows * s.observations);
  std::vector<uint8_t> mask(s.sessions * s.rows);
  for (int64_t i = 0; i < s.sessions * s.rows; i++) {
    mask[i] = generator() % 8 != 0;
    if (generator() % 8 == 0)
      for (int64_t o = 0; o < s.observations; o++) features[i * s.observations + o] = T(NAN);
  }
  const auto initial = random_array<T>(s.sessions * s.latents);
  const auto obs = random_array<T>(s.rows * s.latents * s.observations * s.sessions);
  const auto update = random_array<T>(s.rows * s.latents * s.latents * s.sessions);
  const auto latent = random_array<T>(s.rows * s.latents * s.sessions);
  const auto dz = random_array<T>(states);
  const auto dcost = random_array<T>(s.sessions * s.rows);
  Arrays<T> parameters(s, true);
  std::vector<T> before;
  for (int64_t threads : {1, 3, 8}) {
    std::vector<T> z(states), dfeatures(features.size()), dinitial(initial.size());
    std::vector<std::vector<T>> costs(3, dcost);
    Arrays<T> gradients(s, false);
    disrnn::Problem p{};
    p.sessions = s.sessions, p.rows = s.rows, p.observations = s.observations;
    p.latents = s.latents, p.units = s.units, p.layers = s.layers;
    p.activation = activation, p.threads = threads, p.instructions = instructions;
    p.noise = noise, p.seed[0] = 7, p.seed[1] = 9, p.max_latent_value = 2.0;
    p.features = features.data(), p.mask = mask.data(), p.initial = initial.data();
    p.obs_noise = obs.data(), p.update_noise = update.data(), p.latent_noise = latent.data();
    p.parameters = parameters.pointers(), p.z = z.data(), p.dz = dz.data();
    for (int c = 0; c < 3; c++) p.costs[c] = costs[c].data(), p.dcosts[c] = dcost.data();
    p.dfeatures = dfeatures.data(), p.dinitial = dinitial.data();
    p.gradients = gradients.pointers();
    const int64_t wide = sizeof(T) == 8;
    std::vector<T> kept(disrnn_kept_size(&p, wide, 0) + 64 / sizeof(T));
    if (threads != 8) p.kept = aligned(kept);
    if (disrnn_forward(&p, wide, 0) || disrnn_backward(&p, wide, 0)) return false;
    std::vector<T> results(z);
    for (const auto& cost : costs) results.insert(results.end(), cost.begin(), cost.end());
    results.insert(results.end(), dfeatures.begin(), dfeatures.end());
    results.insert(results.end(), dinitial.begin(), dinitial.end());
    for (const auto& gradient : gradients.list)
      results.insert(results.end(), gradient.begin(), gradient.end());
    for (T value : results)
      if (!std::isfinite(value)) return false;
    if (!before.empty() && results != before) return false;
    before = results;
    std::vector<T> drawn_obs(obs.size()), drawn_update(update.size()), drawn(latent.size());
    p.noise = disrnn::kDrawn;
    p.kept = nullptr;
    if (disrnn_noise(&p, wide, 0, drawn_obs.data(), drawn_update.data(), drawn.data())) return false;
  }
  return true;
}

// The same of a readout.
template <typename T>
bool check_readout(const Shape& s, int64_t activation, int64_t instructions, int64_t noise,
                   int64_t previous) {
  const int64_t rows = s.sessions * s.rows, observed = previous ? s.observations : 0, outputs = 3;
  const int64_t inputs = s.latents + observed;
  auto features = random_array<T>(rows * s.observations);
  for (int64_t i = 0; i < rows; i++)
    if (generator() % 8 == 0)
      for (int64_t o = 0; o < s.observations; o++) features[i * s.observations + o] = T(NAN);
  auto z = random_array<T>(rows * s.latents);
  const auto initial = random_array<T>(s.latents), given = random_array<T>(rows * inputs);
  const auto dy = random_array<T>(rows * outputs), dcost = random_array<T>(rows);
  const int64_t sizes[] = {inputs * s.units, s.units, s.layers * s.units * s.units,
                           s.layers * s.units, s.units * outputs, outputs, inputs, inputs};
  std::vector<std::vector<T>> parameters, gradients;
  for (int64_t size : sizes) parameters.push_back(random_array<T>(size));
  parameters.back() = random_levels<T>(inputs);
  const auto point = [](std::vector<std::vector<T>>& list, disrnn::Parameters& p) {
    void** const where[] = {&p.input_kernel,  &p.input_bias,  &p.hidden_kernel,
                            &p.hidden_bias,   &p.output_kernel, &p.output_bias,
                            &p.first_multiplier, &p.first_sigma};
    for (size_t i = 0; i < list.size(); i++) *where[i] = list[i].data();
  };
  std::vector<T> before;
  for (int64_t threads : {1, 3, 8}) {
    std::vector<T> y(rows * outputs), cost(rows), dlatents(z.size()), dfeatures(features.size());
    std::vector<T> dinitial(initial.size());
    gradients.clear();
    for (int64_t size : sizes) gradients.emplace_back(size);
    disrnn::Problem p{};
    p.sessions = s.sessions, p.rows = s.rows, p.observations = s.observations;
    p.latents = s.latents, p.units = s.units, p.layers = s.layers, p.outputs = outputs;
    p.observed = observed, p.previous = previous;
    p.activation = activation, p.threads = threads, p.instructions = instructions;
    p.noise = noise, p.seed[0] = 7, p.seed[1] = 9;
    p.features = features.data(), p.z = z.data(), p.initial = initial.data();
    p.latent_noise = given.data(), p.y = y.data(), p.costs[0] = cost.data();
    p.dy = dy.data(), p.dcosts[0] = dcost.data(), p.dlatents = dlatents.data();
    p.dfeatures = dfeatures.data(), p.dinitial = dinitial.data();
    point(parameters, p.parameters), point(gradients, p.gradients);
    const int64_t wide = sizeof(T) == 8;
    std::vector<T> kept(disrnn_kept_size(&p, wide, 1) + 64 / sizeof(T));
    if (threads != 8) p.kept = aligned(kept);
    if (disrnn_forward(&p, wide, 1) || disrnn_backward(&p, wide, 1)) return false;
    std::vector<T> results(y);
    for (const auto* part : {&cost, &dlatents, &dfeatures, &dinitial})
      results.insert(results.end(), part->begin(), part->end());
    for (const auto& gradient : gradients)
      results.insert(results.end(), gradient.begin(), gradient.end());
    for (T value : results)
      if (!std::isfinite(value)) return false;
    if (!before.empty() && results != before) return false;
    before = results;
  }
  return true;
}

template <typename T> bool check_likelihood(int64_t instructions) {
  const int64_t count = 20011, arms = 3;
  std::vector<T> choice(count), log_p(count), gradient(count * arms);
  for (T& arm : choice) arm = T(generator() % arms);
  const auto upstream = random_array<T>(count);
  auto logits = random_array<T>(count * arms);
  // An arm that does not exist, and logits that are not numbers, among the others and in the rest.
  for (int64_t odd : {int64_t(5), count - 1}) {
    choice[odd - 1] = T(arms + 2), choice[odd] = T(0);
    logits[odd * arms + 1] = T(NAN);
  }
  disrnn::Likelihood p{};
  p.count = count, p.arms = arms, p.threads = 3, p.instructions = instructions;
  p.choice = choice.data(), p.logits = logits.data(), p.log_p = log_p.data();
  p.dlog_p = upstream.data(), p.dlogits = gradient.data();
  const int64_t wide = sizeof(T) == 8;
  if (disrnn_likelihood(&p, wide, 0) || disrnn_likelihood(&p, wide, 1)) return false;
  for (int64_t i = 0; i < count; i++) {
    const bool odd = i == 5 || i == count - 1;
    if (odd ? log_p[i] == log_p[i] : !(log_p[i] < 0)) return false;
    for (int64_t arm = 0; arm < arms; arm++)
      if (std::isfinite(gradient[i * arms + arm]) == odd) return false;
  }
  return true;
}

// Calls from several threads of a program at once, each with threads of its own, as of two models
// that Python runs side by side.
bool check_side_by_side(int64_t instructions) {
  std::atomic<bool> good(true);
  std::vector<std::thread> callers;
  for (int64_t caller = 0; caller < 4; caller++)
    callers.emplace_back([&, caller] {
      const Shape shape{70 + caller, 4, 2, 3, 5, 2};
      for (int64_t noise = 0; noise < 3; noise++)
        if (!check<float>(shape, disrnn::kTanh, instructions, noise) ||
            !check_readout<float>(shape, disrnn::kTanh, instructions, noise, caller % 2) ||
            !check_likelihood<float>(instructions))
          good = false;
    });
  for (auto& caller : callers) caller.join();
  return good;
}

}  // namespace

int main() {
  const Shape shapes[] = {{1, 1, 1, 1, 1, 0}, {33, 40, 2, 3, 5, 2}, {100, 7, 4, 2, 8, 1},
                          {300, 3, 2, 5, 9, 3}, {70, 4, 1, 6, 4, 0}, {0, 3, 2, 2, 5, 1},
                          {3, 0, 2, 2, 5, 1}};
  for (int64_t instructions = 0; instructions <= disrnn_best_instructions(); instructions++) {
    if (!check_likelihood<float>(instructions) || !check_likelihood<double>(instructions)) {
      std::printf("wrong likelihoods: instructions %ld\n", long(instructions));
      return 1;
    }
    if (!check_side_by_side(instructions)) {
      std::printf("wrong results side by side: instructions %ld\n", long(instructions));
      return 1;
    }
    for (const Shape& shape : shapes)
      for (int64_t noise = 0; noise < 3; noise++)
        for (int64_t activation = disrnn::kLinear; activation <= disrnn::kGelu; activation++) {
          bool good = check<float>(shape, activation, instructions, noise) &&
                      check<double>(shape, activation, instructions, noise);
          for (int64_t previous = 0; previous < 2; previous++)
            good = good && check_readout<float>(shape, activation, instructions, noise, previous) &&
                   check_readout<double>(shape, activation, instructions, noise, previous);
          if (!good) {
            std::printf("wrong results: %ld sessions, activation %ld, instructions %ld, noise %ld\n",
                        long(shape.sessions), long(activation), long(instructions), long(noise));
            return 1;
          }
        }
  }
  return 0;
}
