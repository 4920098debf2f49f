// A driver for sanitize.sh: many shapes, ragged sessions and threads, on arrays of exact size.

#include <cmath>
#include <cstdio>
#include <random>

#include "recurrence.cpp"

namespace {

struct Shape { int64_t sessions, rows, observations, latents, units, layers; };

std::mt19937 generator(1);

template <typename T> std::vector<T> random_array(int64_t size) {
  std::normal_distribution<double> normal(0.0, 0.5);
  std::vector<T> array(size);
  for (T& value : array) value = T(normal(generator));
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
  }

  disrnn::Parameters pointers() {
    disrnn::Parameters p;
    void** const where[] = {&p.input_kernel, &p.input_bias, &p.hidden_kernel, &p.hidden_bias,
                            &p.output_kernel, &p.output_bias, &p.obs_multiplier, &p.obs_sigma,
                            &p.latent_multiplier, &p.update_sigma, &p.latent_sigma};
    for (size_t i = 0; i < list.size(); i++) *where[i] = list[i].data();
    return p;
  }
};

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
  const auto dz = random_array<T>(states), dmu = random_array<T>(states);
  Arrays<T> parameters(s, true);
  std::vector<T> before;
  for (int64_t threads : {1, 3, 8}) {
    std::vector<T> z(states), mu(states), dfeatures(features.size()), dinitial(initial.size());
    Arrays<T> gradients(s, false);
    disrnn::Problem p{};
    p.sessions = s.sessions, p.rows = s.rows, p.observations = s.observations;
    p.latents = s.latents, p.units = s.units, p.layers = s.layers;
    p.activation = activation, p.threads = threads, p.instructions = instructions;
    p.noise = noise, p.seed[0] = 7, p.seed[1] = 9, p.max_latent_value = 2.0;
    p.features = features.data(), p.mask = mask.data(), p.initial = initial.data();
    p.obs_noise = obs.data(), p.update_noise = update.data(), p.latent_noise = latent.data();
    p.parameters = parameters.pointers(), p.z = z.data(), p.mu = mu.data();
    p.dz = dz.data(), p.dmu = dmu.data();
    p.dfeatures = dfeatures.data(), p.dinitial = dinitial.data();
    p.gradients = gradients.pointers();
    const int64_t wide = sizeof(T) == 8;
    if (disrnn_forward(&p, wide) || disrnn_backward(&p, wide)) return false;
    std::vector<T> results(z);
    results.insert(results.end(), mu.begin(), mu.end());
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
    if (disrnn_noise(&p, wide, drawn_obs.data(), drawn_update.data(), drawn.data())) return false;
  }
  return true;
}

}  // namespace

int main() {
  const Shape shapes[] = {{1, 1, 1, 1, 1, 0}, {33, 5, 2, 3, 5, 2}, {100, 7, 4, 2, 8, 1},
                          {300, 3, 2, 5, 9, 3}, {70, 4, 1, 6, 4, 0}};
  for (const Shape& shape : shapes)
    for (int64_t instructions = 0; instructions <= disrnn_best_instructions(); instructions++)
      for (int64_t noise = 0; noise < 3; noise++)
        for (int64_t activation = disrnn::kLinear; activation <= disrnn::kGelu; activation++)
          if (!check<float>(shape, activation, instructions, noise) ||
              !check<double>(shape, activation, instructions, noise)) {
            std::printf("wrong results: %ld sessions, activation %ld, instructions %ld, noise %ld\n",
                        long(shape.sessions), long(activation), long(instructions), long(noise));
            return 1;
          }
  return 0;
}
