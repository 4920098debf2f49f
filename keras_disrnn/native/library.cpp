// The DisRNN on the CPU, forward and backward, as a plain shared library: no TensorFlow and no
// Python in it. Builds by itself with
//   g++ -std=c++17 -O3 -fno-math-errno -fno-trapping-math -shared -fPIC library.cpp -pthread
// The backward pass of the core needs nothing but the latents (and the noise, if it was kept): it
// runs the networks again. Results do not depend on the number of threads: lanes are cut into
// blocks and blocks into chunks by their number alone, and the chunks' gradients are added up in
// their order.

#include <math.h>

#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <type_traits>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

#include "library.h"

#define INLINE inline __attribute__((always_inline))

namespace disrnn {

constexpr int64_t kUnitsMultiple = 4;
constexpr int64_t kMostChunks = 64;

// Where a network's parameters are, once packed: network by network, with units padded by zeros to
// a multiple of kUnitsMultiple (a padded unit's outgoing weights are zeros, so it has no effect).
// Behind them, among the sums of a backward pass, the extras.
struct Layout {
  bool readout;
  int64_t networks, first, second, inputs, units, layers, outputs;
  int64_t groups;  // of four draws that a network takes for a lane
  int64_t input_kernel, input_bias, hidden, output_kernel, output_bias, multiplier, sigma;
  int64_t latent_sigma, size;
  int64_t squares;  // [inputs]: sums of price * input^2
  int64_t prices;   // [3]: sums of the prices of the costs
  int64_t extra;    // [latents], of a readout: gradients of the initial latents
  int64_t extras;

  Layout(const Problem& p, bool is_readout)
      : readout(is_readout), networks(readout ? 1 : p.latents),
        first(readout ? p.latents + p.observed : p.observations), second(readout ? 0 : p.latents),
        inputs(first + second),
        units((p.units + kUnitsMultiple - 1) / kUnitsMultiple * kUnitsMultiple),
        layers(p.layers), outputs(readout ? p.outputs : 2),
        groups((inputs + (readout ? 0 : 1) + 3) / 4) {
    input_kernel = 0;
    input_bias = input_kernel + inputs * units;
    hidden = input_bias + units;
    output_kernel = hidden + layers * (units + 1) * units;
    output_bias = output_kernel + units * outputs;
    multiplier = output_bias + outputs;
    sigma = multiplier + inputs;
    latent_sigma = sigma + inputs;
    size = latent_sigma + (readout ? 0 : 1);
    squares = networks * size;
    prices = squares + inputs;
    extra = prices + 3;
    extras = extra + (readout ? p.latents : 0) - squares;
  }
  int64_t hidden_kernel(int64_t q) const { return hidden + q * (units + 1) * units; }
  int64_t hidden_bias(int64_t q) const { return hidden_kernel(q) + units * units; }
  int64_t parameters() const { return networks * size; }
  int64_t total() const { return parameters() + extras; }

  // Calls visit(number in the Keras layout, its place in the packed one) for every parameter.
  template <typename T, typename Visit>
  void match(const Problem& p, const Parameters& parameters, Visit visit) const {
    const int64_t n = networks, h = p.units;
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
        for (int64_t c = 0; c < outputs; c++)
          visit(at(parameters.output_kernel, (l * h + k) * outputs + c),
                base + output_kernel + k * outputs + c);
      }
      for (int64_t c = 0; c < outputs; c++)
        visit(at(parameters.output_bias, l * outputs + c), base + output_bias + c);
      for (int64_t i = 0; i < first; i++) {
        visit(at(parameters.first_multiplier, l * first + i), base + multiplier + i);
        visit(at(parameters.first_sigma, l * first + i), base + sigma + i);
      }
      for (int64_t i = 0; i < second; i++) {
        visit(at(parameters.second_multiplier, l * second + i), base + multiplier + first + i);
        visit(at(parameters.second_sigma, l * second + i), base + sigma + first + i);
      }
      if (!readout) visit(at(parameters.latent_sigma, l), base + latent_sigma);
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

// What one thread runs: blocks of lanes, with memory of its own.
struct Worker {
  virtual ~Worker() = default;
  virtual void forward(int64_t block) = 0;
  virtual void backward(int64_t block) = 0;
  virtual void clear_sums() = 0;
  virtual void sum_lanes(double* out) = 0;  // the sums since clear_sums
  virtual void noise(int64_t block, void* obs, void* update, void* latent) = 0;
};

// What an instruction set has for one type of number.
template <typename T> struct Versions {
  typedef Worker* (*Make)(const Problem&, const Layout&, const T* packed, bool backward);
  int lanes;
  Make recurrence, readout;
  void (*likelihood)(const Likelihood&, int64_t begin, int64_t end, bool backward);
};

// ---- The kernel, once for each instruction set ----

// Blocks of two registers a number give the processor more independent sums, those of one leave
// fewer lanes without a session.

#define DISRNN_NAMESPACE baseline
#define DISRNN_BYTES 16
#define DISRNN_REGISTERS 2
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
#define DISRNN_REGISTERS 2
#define DISRNN_INTRINSIC(name) _mm256_##name
#include "kernel.h"
#define DISRNN_NAMESPACE avx2_narrow
#define DISRNN_BYTES 32
#define DISRNN_REGISTERS 1
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
#define DISRNN_REGISTERS 2
#define DISRNN_INTRINSIC(name) _mm512_##name
#include "kernel.h"
#define DISRNN_NAMESPACE avx512_narrow
#define DISRNN_BYTES 64
#define DISRNN_REGISTERS 1
#define DISRNN_INTRINSIC(name) _mm512_##name
#include "kernel.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

template <typename T> Versions<T> versions_of(int64_t instructions) {
#if defined(__x86_64__)
  if (instructions == kAvx512) return avx512::versions<T>();
  if (instructions == kAvx2) return avx2::versions<T>();
#endif
  (void)instructions;
  return baseline::versions<T>();
}

// The version for a pass of one kind over these sessions.
template <typename T> Versions<T> versions_for(const Problem& p, bool readout) {
  const Versions<T> wide = versions_of<T>(p.instructions);
#if defined(__x86_64__)
  // Draws come in registers of floats, which a single register of doubles would not fill.
  if constexpr (std::is_same<T, float>::value) {
    if (readout || p.instructions == kBaseline) return wide;
    const Versions<T> narrow =
        p.instructions == kAvx512 ? avx512_narrow::versions<T>() : avx2_narrow::versions<T>();
    const auto lanes = [&](int64_t a) { return (p.sessions + a - 1) / a * a; };
    // Two narrow blocks also have work for two threads.
    if (p.sessions <= wide.lanes || 8 * lanes(narrow.lanes) < 7 * lanes(wide.lanes)) return narrow;
  }
#endif
  (void)readout;
  return wide;
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

// Threads that wait for work. They are never ended: the process ends with them. A call takes part in
// its own work and waits only for threads that have begun with it. So a thread that gets no processor
// in time costs nothing.
class Helpers {
 public:
  struct Job {
    std::function<void(int64_t)> run;
    int64_t joined, most, active;
  };

  // Runs job(thread) in this thread, and in up to `threads` - 1 others beside it.
  static void run(int64_t threads, std::function<void(int64_t)> body) {
    Job job{std::move(body), 0, threads - 1, 0};
    if (job.most < 1) return job.run(0);
    Helpers& helpers = get();
    helpers.open(job);
    job.run(0);
    helpers.close(job);
  }

 private:
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::deque<Job*> jobs_;  // those that want more threads
  int64_t count_ = 0;

  static Helpers*& instance() {
    static Helpers* helpers = new Helpers;
    return helpers;
  }

  static Helpers& get() {
#if defined(__unix__) || defined(__APPLE__)
    // A fork has none of the threads, and the mutex may be locked in it.
    static const int registered = pthread_atfork(nullptr, nullptr, [] { instance() = new Helpers; });
    (void)registered;
#endif
    return *instance();
  }

  void open(Job& job) {
    std::lock_guard<std::mutex> lock(mutex_);
    jobs_.push_back(&job);
    try {
      for (; count_ < job.most; count_++) std::thread([this] { serve(); }).detach();
    } catch (const std::system_error&) {
      // No more threads to be had: those there are, the caller at least, do all of it.
    }
    job.most > 1 ? wake_.notify_all() : wake_.notify_one();
  }

  void close(Job& job) {
    std::unique_lock<std::mutex> lock(mutex_);
    for (auto at = jobs_.begin(); at != jobs_.end(); ++at)
      if (*at == &job) {
        jobs_.erase(at);
        break;
      }
    done_.wait(lock, [&] { return job.active == 0; });
  }

  void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return !jobs_.empty(); });
      Job& job = *jobs_.front();
      const int64_t thread = ++job.joined;
      job.active++;
      if (job.joined == job.most) jobs_.pop_front();
      lock.unlock();
      job.run(thread);
      lock.lock();
      if (--job.active == 0) done_.notify_all();
    }
  }
};

// Runs task(thread, i) for i below `tasks`, on as many threads.
template <typename Task> void share_out(int64_t threads, int64_t tasks, const Task& task) {
  std::atomic<int64_t> next(0);
  Helpers::run(threads, [&](int64_t thread) {
    for (int64_t i = next++; i < tasks; i = next++) task(thread, i);
  });
}

template <typename T> int64_t blocks_of(const Problem& p, bool readout) {
  const int64_t lanes = versions_for<T>(p, readout).lanes;
  return ((readout ? p.sessions * p.rows : p.sessions) + lanes - 1) / lanes;
}

// How many numbers of drawn noise a pass keeps.
template <typename T> int64_t kept_size(const Problem& p, bool readout) {
  const int64_t lanes = blocks_of<T>(p, readout) * versions_for<T>(p, readout).lanes;
  const int64_t draws = lanes * Layout(p, readout).groups * 4;
  return readout ? draws : draws * p.rows * p.latents;
}

template <typename T> struct Pass {
  const Problem& problem;
  const Layout layout;
  const int64_t blocks, chunks;
  std::vector<T> packed;
  std::vector<std::unique_ptr<Worker>> workers;

  Pass(const Problem& p, bool readout, bool backward)
      : problem(p), layout(p, readout), blocks(blocks_of<T>(p, readout)),
        chunks(blocks < kMostChunks ? blocks : kMostChunks), packed(layout.parameters()) {
    layout.template match<T>(p, p.parameters, [&](T& from, int64_t to) { packed[to] = from; });
    const Versions<T> versions = versions_for<T>(p, readout);
    const auto make = readout ? versions.readout : versions.recurrence;
    const int64_t threads = p.threads < chunks ? p.threads : chunks;
    for (int64_t i = 0; i == 0 || i < threads; i++)
      workers.emplace_back(make(p, layout, packed.data(), backward));
  }

  template <typename Task> void each_chunk(const Task& task) {
    share_out(int64_t(workers.size()), chunks, [&](int64_t thread, int64_t chunk) {
      task(*workers[thread], chunk, chunk * blocks / chunks, (chunk + 1) * blocks / chunks);
    });
  }

  void forward() {
    each_chunk([](Worker& worker, int64_t, int64_t block, int64_t end) {
      for (; block < end; block++) worker.forward(block);
    });
  }

  void backward() {
    const int64_t total = layout.total();
    std::vector<double> parts(chunks * total), sums(total);
    each_chunk([&](Worker& worker, int64_t chunk, int64_t block, int64_t end) {
      worker.clear_sums();
      for (; block < end; block++) worker.backward(block);
      worker.sum_lanes(parts.data() + chunk * total);
    });
    for (int64_t chunk = 0; chunk < chunks; chunk++)
      for (int64_t i = 0; i < total; i++) sums[i] += parts[chunk * total + i];
    add_costs(sums);
    layout.template match<T>(problem, problem.gradients,
                             [&](T& to, int64_t from) { to = T(sums[from]); });
    if (layout.readout)
      for (int64_t l = 0; l < problem.latents; l++)
        static_cast<T*>(problem.dinitial)[l] = T(sums[layout.extra + l]);
  }

  // What the costs have for the parameters of the bottlenecks. The cost of one is
  // (m^2 x^2 + sigma^2 - 1 - log sigma^2) / 2, at a price that differs from row to row.
  void add_costs(std::vector<double>& sums) const {
    const double* price = sums.data() + layout.prices;
    for (int64_t l = 0; l < layout.networks; l++) {
      double* sum = sums.data() + l * layout.size;
      const T* w = packed.data() + l * layout.size;
      const auto of_sigma = [&](int64_t i, double total) {
        sum[i] += (double(w[i]) - 1.0 / double(w[i])) * total;
      };
      for (int64_t i = 0; i < layout.inputs; i++) {
        const int64_t group = layout.readout ? 0 : i < layout.first ? 1 : 2;
        of_sigma(layout.sigma + i, price[group]);
        sum[layout.multiplier + i] += double(w[layout.multiplier + i]) * sums[layout.squares + i];
      }
      if (!layout.readout) of_sigma(layout.latent_sigma, price[0]);
    }
  }

  void noise(void* obs, void* update, void* latent) {
    each_chunk([&](Worker& worker, int64_t, int64_t block, int64_t end) {
      for (; block < end; block++) worker.noise(block, obs, update, latent);
    });
  }
};

template <typename T> void likelihood(const Likelihood& p, bool backward) {
  // Fewer are not worth a second thread.
  constexpr int64_t kPart = 8192;
  const auto run = versions_of<T>(p.instructions).likelihood;
  const int64_t parts = (p.count + kPart - 1) / kPart;
  share_out(p.threads < parts ? p.threads : parts, parts, [&](int64_t, int64_t part) {
    const int64_t end = (part + 1) * kPart;
    run(p, part * kPart, end < p.count ? end : p.count, backward);
  });
}

template <typename Body> int64_t guarded(const Body& body) {
  try {
    body();
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kDone;
}

}  // namespace disrnn

// Each returns a disrnn::Status. `wide` is 0 where the arrays are of float, 1 where of double;
// `readout` is 1 for a readout, 0 for the core.
extern "C" {

#define DISRNN_EXPORT __attribute__((visibility("default")))

DISRNN_EXPORT int64_t disrnn_interface() {
  return disrnn::kInterface * 1000000 + int64_t(sizeof(disrnn::Problem)) * 1000 +
         int64_t(sizeof(disrnn::Likelihood));
}

DISRNN_EXPORT int64_t disrnn_best_instructions() { return disrnn::best_instructions(); }

DISRNN_EXPORT int64_t disrnn_kept_size(const disrnn::Problem* problem, int64_t wide,
                                       int64_t readout) {
  return wide ? disrnn::kept_size<double>(*problem, readout)
              : disrnn::kept_size<float>(*problem, readout);
}

DISRNN_EXPORT int64_t disrnn_forward(const disrnn::Problem* problem, int64_t wide,
                                     int64_t readout) {
  return disrnn::guarded([&] {
    if (wide) disrnn::Pass<double>(*problem, readout, false).forward();
    else disrnn::Pass<float>(*problem, readout, false).forward();
  });
}

DISRNN_EXPORT int64_t disrnn_backward(const disrnn::Problem* problem, int64_t wide,
                                      int64_t readout) {
  return disrnn::guarded([&] {
    if (wide) disrnn::Pass<double>(*problem, readout, true).backward();
    else disrnn::Pass<float>(*problem, readout, true).backward();
  });
}

// The draws that the passes use, in the layout of given noise; of a readout all go to the first.
DISRNN_EXPORT int64_t disrnn_noise(const disrnn::Problem* problem, int64_t wide, int64_t readout,
                                   void* obs, void* update, void* latent) {
  return disrnn::guarded([&] {
    if (wide) disrnn::Pass<double>(*problem, readout, false).noise(obs, update, latent);
    else disrnn::Pass<float>(*problem, readout, false).noise(obs, update, latent);
  });
}

DISRNN_EXPORT int64_t disrnn_likelihood(const disrnn::Likelihood* problem, int64_t wide,
                                        int64_t backward) {
  return disrnn::guarded([&] {
    if (wide) disrnn::likelihood<double>(*problem, backward);
    else disrnn::likelihood<float>(*problem, backward);
  });
}
}
