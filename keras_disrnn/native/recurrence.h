// The C interface of the native recurrence: what the Python side fills in and reads back.
#pragma once
#include <cstdint>

namespace disrnn {

// Raised whenever a structure below changes, so that Python never talks to a stale library.
constexpr int64_t kInterface = 1;

enum Activation : int64_t {
  kLinear, kRelu, kLeakyRelu, kTanh, kSigmoid, kSilu, kElu, kSelu, kSoftplus, kGelu
};

enum Noise : int64_t { kNone, kDrawn, kGiven };

enum Instructions : int64_t { kBaseline, kAvx2, kAvx512 };

enum Status : int64_t { kDone, kOutOfMemory };

// The cell's parameters, in the layout of the Keras layer, or their gradients.
struct Parameters {
  void* input_kernel;       // [latents, observations + latents, units]
  void* input_bias;         // [latents, units]
  void* hidden_kernel;      // [layers, latents, units, units]
  void* hidden_bias;        // [layers, latents, units]
  void* output_kernel;      // [latents, units, 2]
  void* output_bias;        // [latents, 2]
  void* obs_multiplier;     // [latents, observations]
  void* obs_sigma;          // [latents, observations]
  void* latent_multiplier;  // [latents, latents]
  void* update_sigma;       // [latents, latents]
  void* latent_sigma;       // [latents]
};

// One pass over a batch of sessions. Arrays are contiguous, of float or of double throughout.
struct Problem {
  int64_t sessions, rows, observations, latents, units, layers;
  int64_t activation;
  int64_t threads;
  int64_t instructions;  // an Instructions value this machine has
  int64_t noise;         // a Noise value
  uint64_t seed[2];      // of drawn noise; the low 32 bits count
  double max_latent_value;
  const void* features;        // [sessions, rows, observations]; NaN throughout a row: padding
  const uint8_t* mask;         // [sessions, rows], 0 to pass over a row; or null
  const void* initial;         // [sessions, latents]
  const void* obs_noise;       // given noise: [rows, latents, observations, sessions],
  const void* update_noise;    // [rows, latents, latents, sessions]
  const void* latent_noise;    // and [rows, latents, sessions]
  Parameters parameters;
  void* z;                     // [sessions, rows, latents]: latents after each row
  void* mu;                    // the same before the latent bottleneck's noise; or null
  // Read and written by the backward pass only.
  const void* dz;              // [sessions, rows, latents]
  const void* dmu;             // [sessions, rows, latents], or null
  void* dfeatures;             // [sessions, rows, observations]
  void* dinitial;              // [sessions, latents]
  Parameters gradients;
};

}  // namespace disrnn
