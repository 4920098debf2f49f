/* Step an exported model through one session, from C: ./step SAVED_MODEL TRIALS.csv
 *
 * The first line of TRIALS.csv names its two columns: choice (0, 1, ...), reward. The program finds
 * the tensors in the signatures `initial_state` and `step`. It prints the time of a step to the
 * standard error. It needs TensorFlow's C library, which the Python package contains:
 *
 *   TF=$(python -c "import tensorflow, os; print(os.path.dirname(tensorflow.__file__))")
 *   gcc -O2 -o step exports/step.c -lm -I$TF/include -L$TF -Wl,-rpath,$TF \
 *     -l:libtensorflow_cc.so.2 -l:libtensorflow_framework.so.2
 */

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tensorflow/c/c_api.h"

static void fail(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

/* === Signatures: MetaGraphDef.signature_def, in protobuf's wire format === */

typedef struct {
  const uint8_t *at, *end;
} Span;

static uint64_t varint(Span *in) {
  uint64_t value = 0;
  for (int shift = 0; in->at < in->end && shift < 64; shift += 7) {
    uint8_t byte = *in->at++;
    value |= (uint64_t)(byte & 127) << shift;
    if (byte < 128) return value;
  }
  fail("the model's description", "cut short");
  return 0;
}

/* The next field of a message: its number, or 0 at the end; its bytes if it has a length. */
static int field(Span *in, Span *bytes) {
  if (in->at >= in->end) return 0;
  uint64_t tag = varint(in), length = 0;
  int kind = (int)(tag & 7);
  if (kind == 0) varint(in);
  else length = kind == 1 ? 8 : kind == 5 ? 4 : varint(in);
  if (length > (uint64_t)(in->end - in->at)) fail("the model's description", "cut short");
  bytes->at = in->at;
  bytes->end = in->at += length;
  return (int)(tag >> 3);
}

/* In a message the value under `key` of the map that is field `number`. */
static Span entry(Span message, int number, const char *key) {
  Span pair, part;
  for (int found; (found = field(&message, &pair));) {
    if (found != number) continue;
    Span value = {0, 0};
    int matches = 0;
    while ((found = field(&pair, &part))) {
      size_t length = (size_t)(part.end - part.at);
      if (found == 1) matches = length == strlen(key) && !memcmp(part.at, key, length);
      if (found == 2) value = part;
    }
    if (matches) return value;
  }
  fail(key, "the model has no such signature, input or output");
  return message;
}

enum { SIGNATURES = 5, INPUTS = 1, OUTPUTS = 2, NAME = 1 };

/* The tensor of a signature's input or output. */
static TF_Output tensor(TF_Graph *graph, Span meta, const char *signature, int side, const char *key) {
  Span info = entry(entry(meta, SIGNATURES, signature), side, key), name = {0, 0};
  char text[256] = "";
  for (int found; (found = field(&info, &name));)
    if (found == NAME && name.end - name.at < 256) memcpy(text, name.at, (size_t)(name.end - name.at));
  char *colon = strrchr(text, ':'); /* "operation:index" */
  if (!colon) fail(key, "its tensor has no name");
  *colon = 0;
  TF_Output output = {TF_GraphOperationByName(graph, text), atoi(colon + 1)};
  if (!output.oper) fail(text, "no such operation");
  return output;
}

/* === The model === */

static void check(TF_Status *status, const char *what) {
  if (TF_GetCode(status) != TF_OK) fail(what, TF_Message(status));
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

int main(int count, char **arguments) {
  if (count != 3) fail("usage", "step SAVED_MODEL TRIALS.csv");
  TF_Status *status = TF_NewStatus();
  TF_SessionOptions *options = TF_NewSessionOptions();
  /* ConfigProto: intra_op_parallelism_threads (field 2) and inter_op_parallelism_threads (5) are 1. */
  const uint8_t one_thread[] = {0x10, 1, 0x28, 1};
  TF_SetConfig(options, one_thread, sizeof one_thread, status);
  check(status, "options");

  TF_Graph *graph = TF_NewGraph();
  TF_Buffer *description = TF_NewBuffer();
  const char *tags[] = {"serve"};
  TF_Session *session = TF_LoadSessionFromSavedModel(options, NULL, arguments[1], tags, 1, graph,
                                                     description, status);
  check(status, arguments[1]);
  const uint8_t *bytes = description->data;
  Span meta = {bytes, bytes + description->length};

  TF_Output sessions = tensor(graph, meta, "initial_state", INPUTS, "sessions");
  TF_Output first = tensor(graph, meta, "initial_state", OUTPUTS, "latents");
  TF_Output inputs[] = {tensor(graph, meta, "step", INPUTS, "features"),
                        tensor(graph, meta, "step", INPUTS, "latents")};
  TF_Output outputs[] = {tensor(graph, meta, "step", OUTPUTS, "choice"),
                         tensor(graph, meta, "step", OUTPUTS, "latents"),
                         tensor(graph, meta, "step", OUTPUTS, "dopamine")};

  TF_Tensor *values[2], *results[3];
  TF_Tensor *one = TF_AllocateTensor(TF_INT32, NULL, 0, sizeof(int32_t));
  *(int32_t *)TF_TensorData(one) = 1;
  TF_SessionRun(session, NULL, &sessions, &one, 1, &first, &values[1], 1, NULL, 0, NULL, status);
  check(status, "initial_state");

  FILE *file = fopen(arguments[2], "r");
  char line[256];
  if (!file || !fgets(line, sizeof line, file)) fail(arguments[2], "cannot be read");
  if (strncmp(line, "choice,reward", 13)) fail(arguments[2], "expected the columns choice,reward");

  const int64_t shape[] = {1, 2};
  double *seconds = NULL;
  float probability[256];
  size_t trials = 0;
  float choice = 0, reward = 0; /* the first time step: nothing has happened yet */
  printf("trial,probability_of_choice,predicted_dopamine\n");
  for (size_t row = 0;; row++) {
    values[0] = TF_AllocateTensor(TF_FLOAT, shape, 2, 2 * sizeof(float));
    float *features = TF_TensorData(values[0]);
    features[0] = choice, features[1] = reward;
    double began = now();
    TF_SessionRun(session, NULL, inputs, values, 2, outputs, results, 3, NULL, 0, NULL, status);
    check(status, "step");
    seconds = realloc(seconds, (row + 1) * sizeof *seconds);
    if (!seconds) fail("memory", "no more");
    seconds[row] = now() - began;
    if (row) printf("%zu,%.4f,%.4f\n", row - 1, probability[(int)choice], *(float *)TF_TensorData(results[2]));
    TF_DeleteTensor(values[0]), TF_DeleteTensor(values[1]), TF_DeleteTensor(results[2]);
    values[1] = results[1];
    trials = row;

    const float *logits = TF_TensorData(results[0]);
    int arms = (int)TF_Dim(results[0], 1);
    float largest = logits[0], sum = 0;
    if (arms > 256) fail("choice", "more arms than this example has room for");
    for (int arm = 1; arm < arms; arm++) largest = fmaxf(largest, logits[arm]);
    for (int arm = 0; arm < arms; arm++) sum += probability[arm] = expf(logits[arm] - largest);
    for (int arm = 0; arm < arms; arm++) probability[arm] /= sum;
    TF_DeleteTensor(results[0]);

    if (!fgets(line, sizeof line, file)) break;
    if (sscanf(line, "%f,%f", &choice, &reward) != 2) fail(line, "expected two numbers");
    if (choice < 0 || choice >= (float)arms || choice != floorf(choice)) fail(line, "expected an arm");
  }
  fclose(file);
  if (trials) {
    qsort(seconds + 1, trials, sizeof *seconds, by_value); /* the first one warms up */
    fprintf(stderr, "%zu steps: median %.4f ms, 95 %% below %.4f ms, longest %.4f ms\n", trials,
            1e3 * seconds[1 + trials / 2], 1e3 * seconds[1 + trials * 95 / 100], 1e3 * seconds[trials]);
  }

  free(seconds);
  TF_DeleteTensor(values[1]), TF_DeleteTensor(one);
  TF_CloseSession(session, status), TF_DeleteSession(session, status);
  TF_DeleteGraph(graph), TF_DeleteBuffer(description), TF_DeleteSessionOptions(options);
  TF_DeleteStatus(status);
  return 0;
}
