// The C interface of the native library: what the Python side fills in and reads back.
#pragma once
#include <cstdint>

namespace disrnn {

// Raised whenever a structure below changes, so that Python never talks to a stale library.
constexpr int64_t kInterface = 3;

enum Activation : int64_t {
  kLinear, kRelu, kLeakyRelu, kTanh, kSigmoid, kSilu, kElu, kSelu, kSoftplus, kGelu
};

enum Noise : int64_t { kNone, kDrawn, kGiven };

enum Instructions : int64_t { kBaseline, kAvx2, kAvx512 };

enum Status : int64_t { kDone, kOutOfMemory };

// The parameters of a bank of networks and of the bottlenecks they read through, in the layout of
// the Keras layers, or their gradients. The inputs come in two groups, each with bottlenecks of its
// own: observations and previous latents for the core; for a readout, which is a bank of one, all
// of its inputs and none.
struct Parameters {
  void* input_kernel;       // [networks, first + second, units]
  void* input_bias;         // [networks, units]
  void* hidden_kernel;      // [layers, networks, units, units]
  void* hidden_bias;        // [layers, networks, units]
  void* output_kernel;      // [networks, units, outputs]
  void* output_bias;        // [networks, outputs]
  void* first_multiplier;   // [networks, first]
  void* first_sigma;        // [networks, first]
  void* second_multiplier;  // [networks, second]
  void* second_sigma;       // [networks, second]
  void* latent_sigma;       // [networks], of the core only
};

// One pass of the core or of a readout over a batch of sessions. Arrays are contiguous, of float or
// of double throughout.
struct Problem {
  int64_t sessions, rows, observations, latents, units, layers;
  int64_t outputs;       // of a readout
  int64_t activation;
  int64_t threads;
  int64_t instructions;  // an Instructions value this machine has
  int64_t noise;         // a Noise value
  int64_t observed;      // how many of the observations a readout reads, after the latents
  int64_t previous;      // 1 where a readout reads the latents of the row before, else 0
  int64_t first_session; // the number of the first session, which drawn noise is counted by
  uint64_t seed[2];      // of drawn noise; the low 32 bits count
  double max_latent_value;
  const void* features;        // [sessions, rows, observations]; NaN throughout a row: padding
  const uint8_t* mask;         // [sessions, rows], 0 to pass over a row; or null
  const void* initial;         // [sessions, latents]; for a readout [latents]
  const void* obs_noise;       // given noise: [rows, latents, observations, sessions],
  const void* update_noise;    // [rows, latents, latents, sessions]
  const void* latent_noise;    // and [rows, latents, sessions]; of a readout, this alone:
                               // [sessions, rows, inputs]
  Parameters parameters;
  void* z;                     // [sessions, rows, latents]: latents after each row
  void* y;                     // a readout's outputs, [sessions, rows, outputs]
  void* costs[3];              // [sessions, rows] each, or null: latent, observations, previous
                               // latents; of a readout the first only. 0 on rows passed over
  void* kept;                  // drawn noise, from the forward pass to the backward; or null
  // Read and written by the backward pass only.
  const void* dz;              // [sessions, rows, latents]
  const void* dy;              // [sessions, rows, outputs]
  const void* dcosts[3];       // [sessions, rows], or null
  void* dlatents;              // of a readout: [sessions, rows, latents]
  void* dfeatures;             // [sessions, rows, observations]
  void* dinitial;              // as initial
  Parameters gradients;
};

// The log likelihood of choices.
struct Likelihood {
  int64_t count, arms;
  int64_t threads;
  int64_t instructions;
  const void* choice;  // [count], the arm, a whole number
  const void* logits;  // [count, arms]
  void* log_p;         // [count]
  const void* dlog_p;  // [count]
  void* dlogits;       // [count, arms]
};

}  // namespace disrnn
