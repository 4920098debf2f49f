// The DisRNN recurrence on the CPU, forward and backward, as a plain shared library: no TensorFlow
// and no Python in it. Builds by itself with
//   g++ -std=c++17 -O3 -fno-math-errno -fno-trapping-math -shared -fPIC recurrence.cpp -pthread
// The backward pass stores nothing but the latents: it runs the networks, and draws the noise, again.
// Results do not depend on the number of threads: sessions are cut into blocks and blocks into
// chunks by their number alone, and the chunks' gradients are added up in their order.

#include <math.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <system_error>
#include <thread>
#include <type_traits>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "recurrence.h"

#define INLINE inline __attribute__((always_inline))

namespace disrnn {

constexpr int64_t kUnitsMultiple = 4;
constexpr int64_t kMostChunks = 64;

// Where a latent's parameters are, once packed: latent by latent, with units padded by zeros to a
// multiple of kUnitsMultiple (a padded unit's outgoing weights are zeros, so it has no effect).
struct Layout {
  int64_t inputs, units, layers;
  int64_t input_kernel, input_bias, hidden, output_kernel, output_bias, multiplier, sigma;
  int64_t latent_sigma, size;

  explicit Layout(const Problem& p)
      : inputs(p.observations + p.latents),
        units((p.units + kUnitsMultiple - 1) / kUnitsMultiple * kUnitsMultiple),
        layers(p.layers) {
    input_kernel = 0;
    input_bias = input_kernel + inputs * units;
    hidden = input_bias + units;
    output_kernel = hidden + layers * (units + 1) * units;
    output_bias = output_kernel + 2 * units;
    multiplier = output_bias + 2;
    sigma = multiplier + inputs;
    latent_sigma = sigma + inputs;
    size = latent_sigma + 1;
  }
  int64_t hidden_kernel(int64_t q) const { return hidden + q * (units + 1) * units; }
  int64_t hidden_bias(int64_t q) const { return hidden_kernel(q) + units * units; }

  // Calls visit(number in the Keras layout, its place in the packed one) for every parameter.
  template <typename T, typename Visit>
  void match(const Problem& p, const Parameters& parameters, Visit visit) const {
    const int64_t n = p.latents, o = p.observations, h = p.units;
    const auto at = [](void* array, int64_t i) -> T& { return static_cast<T*>(array)[i]; };
    for (int64_t l = 0; l < n; l++) {
      const int64_t base = l * size;
      for (int64_t k = 0; k < h; k++) {
        for (int64_t i = 0; i < inputs; i++)
          visit(at(parameters.input_kernel, (l * inputs + i) * h + k),
                base + input_kernel + i * units + k);
        visit(at(parameters.input_bias, l * h + k), base + input_bias + k);
        for (int64_t q = 0; q < layers; q++) {
          for (int64_t j = 0; j < h; j++)
            visit(at(parameters.hidden_kernel, ((q * n + l) * h + j) * h + k),
                  base + hidden_kernel(q) + j * units + k);
          visit(at(parameters.hidden_bias, (q * n + l) * h + k), base + hidden_bias(q) + k);
        }
        for (int64_t c = 0; c < 2; c++)
          visit(at(parameters.output_kernel, (l * h + k) * 2 + c),
                base + output_kernel + c * units + k);
      }
      for (int64_t c = 0; c < 2; c++)
        visit(at(parameters.output_bias, l * 2 + c), base + output_bias + c);
      for (int64_t i = 0; i < o; i++) {
        visit(at(parameters.obs_multiplier, l * o + i), base + multiplier + i);
        visit(at(parameters.obs_sigma, l * o + i), base + sigma + i);
      }
      for (int64_t i = 0; i < n; i++) {
        visit(at(parameters.latent_multiplier, l * n + i), base + multiplier + o + i);
        visit(at(parameters.update_sigma, l * n + i), base + sigma + o + i);
      }
      visit(at(parameters.latent_sigma, l), base + latent_sigma);
    }
  }
};

class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { std::free(memory_); }

  // Zeroed memory, aligned for the widest registers. Once only.
  void* allocate(size_t bytes) {
    const size_t room = (bytes + 63) / 64 * 64 + 64;
    if (posix_memalign(&memory_, 64, room) != 0) throw std::bad_alloc();
    return std::memset(memory_, 0, room);
  }

 private:
  void* memory_ = nullptr;
};

// What one thread runs: blocks of sessions, with memory of its own.
struct Worker {
  virtual ~Worker() = default;
  virtual void forward(int64_t block) = 0;
  virtual void backward(int64_t block) = 0;
  virtual void clear_sums() = 0;
  virtual void sum_lanes(double* out) const = 0;  // the gradients since clear_sums
  virtual void noise(int64_t block, void* obs, void* update, void* latent) = 0;
};

struct Kernel {
  int lanes32, lanes64;
  Worker* (*make32)(const Problem&, const Layout&, const void* packed, bool backward);
  Worker* (*make64)(const Problem&, const Layout&, const void* packed, bool backward);
};

// ---- The kernel, once for each instruction set ----

#define DISRNN_NAMESPACE baseline
#define DISRNN_BYTES 16
#if defined(__x86_64__)
#define DISRNN_INTRINSIC(name) _mm_##name
#endif
#include "kernel.h"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define DISRNN_NAMESPACE avx2
#define DISRNN_BYTES 32
#define DISRNN_INTRINSIC(name) _mm256_##name
#include "kernel.h"
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512dq,avx512bw,avx512vl"))), \
                             apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512dq,avx512bw,avx512vl")
#endif
#define DISRNN_NAMESPACE avx512
#define DISRNN_BYTES 64
#define DISRNN_INTRINSIC(name) _mm512_##name
#include "kernel.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

const Kernel& kernel_of(int64_t instructions) {
#if defined(__x86_64__)
  if (instructions == kAvx512) return avx512::kKernel;
  if (instructions == kAvx2) return avx2::kKernel;
#endif
  (void)instructions;
  return baseline::kKernel;
}

int64_t best_instructions() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
      return kAvx512;
    return kAvx2;
  }
#endif
  return kBaseline;
}

// Runs task(worker, i) for i below `tasks`, on as many threads as there are workers.
template <typename Task>
void share_out(std::vector<std::unique_ptr<Worker>>& workers, int64_t tasks, const Task& task) {
  std::atomic<int64_t> next(0);
  const auto run = [&](Worker& worker) {
    for (int64_t i = next++; i < tasks; i = next++) task(worker, i);
  };
  std::vector<std::thread> threads;
  threads.reserve(workers.size());
  try {
    for (size_t i = 1; i < workers.size(); i++) threads.emplace_back(run, std::ref(*workers[i]));
  } catch (const std::system_error&) {
    // No more threads to be had: those there are, this one at least, do all of it.
  }
  run(*workers[0]);
  for (auto& thread : threads) thread.join();
}

template <typename T> struct Pass {
  const Problem& problem;
  const Layout layout;
  const int64_t parameters, blocks, chunks;
  std::vector<T> packed;
  std::vector<std::unique_ptr<Worker>> workers;

  Pass(const Problem& p, bool backward)
      : problem(p), layout(p), parameters(layout.size * p.latents),
        blocks((p.sessions + lanes() - 1) / lanes()),
        chunks(blocks < kMostChunks ? blocks : kMostChunks), packed(parameters) {
    layout.template match<T>(p, p.parameters, [&](T& from, int64_t to) { packed[to] = from; });
    const Kernel& kernel = kernel_of(p.instructions);
    const auto make = sizeof(T) == sizeof(float) ? kernel.make32 : kernel.make64;
    const int64_t threads = p.threads < chunks ? p.threads : chunks;
    for (int64_t i = 0; i == 0 || i < threads; i++)
      workers.emplace_back(make(p, layout, packed.data(), backward));
  }

  int64_t lanes() const {
    const Kernel& kernel = kernel_of(problem.instructions);
    return sizeof(T) == sizeof(float) ? kernel.lanes32 : kernel.lanes64;
  }

  template <typename Task> void each_chunk(const Task& task) {
    share_out(workers, chunks, [&](Worker& worker, int64_t chunk) {
      task(worker, chunk, chunk * blocks / chunks, (chunk + 1) * blocks / chunks);
    });
  }

  void forward() {
    each_chunk([](Worker& worker, int64_t, int64_t block, int64_t end) {
      for (; block < end; block++) worker.forward(block);
    });
  }

  void backward() {
    std::vector<double> sums(chunks * parameters);
    each_chunk([&](Worker& worker, int64_t chunk, int64_t block, int64_t end) {
      worker.clear_sums();
      for (; block < end; block++) worker.backward(block);
      worker.sum_lanes(sums.data() + chunk * parameters);
    });
    layout.template match<T>(problem, problem.gradients, [&](T& to, int64_t from) {
      double sum = 0;
      for (int64_t chunk = 0; chunk < chunks; chunk++) sum += sums[chunk * parameters + from];
      to = T(sum);
    });
  }

  void noise(void* obs, void* update, void* latent) {
    each_chunk([&](Worker& worker, int64_t, int64_t block, int64_t end) {
      for (; block < end; block++) worker.noise(block, obs, update, latent);
    });
  }
};

template <typename Body> int64_t guarded(const Body& body) {
  try {
    body();
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kDone;
}

}  // namespace disrnn

// Each returns a disrnn::Status. `wide` is 0 where the arrays are of float, 1 where of double.
extern "C" {

#define DISRNN_EXPORT __attribute__((visibility("default")))

DISRNN_EXPORT int64_t disrnn_interface() {
  return disrnn::kInterface * 100000 + int64_t(sizeof(disrnn::Problem));
}

DISRNN_EXPORT int64_t disrnn_best_instructions() { return disrnn::best_instructions(); }

DISRNN_EXPORT int64_t disrnn_forward(const disrnn::Problem* problem, int64_t wide) {
  return disrnn::guarded([&] {
    if (wide) disrnn::Pass<double>(*problem, false).forward();
    else disrnn::Pass<float>(*problem, false).forward();
  });
}

DISRNN_EXPORT int64_t disrnn_backward(const disrnn::Problem* problem, int64_t wide) {
  return disrnn::guarded([&] {
    if (wide) disrnn::Pass<double>(*problem, true).backward();
    else disrnn::Pass<float>(*problem, true).backward();
  });
}

// The draws that the passes use, in the layout of given noise.
DISRNN_EXPORT int64_t disrnn_noise(const disrnn::Problem* problem, int64_t wide, void* obs,
                                   void* update, void* latent) {
  return disrnn::guarded([&] {
    if (wide) disrnn::Pass<double>(*problem, false).noise(obs, update, latent);
    else disrnn::Pass<float>(*problem, false).noise(obs, update, latent);
  });
}
}
