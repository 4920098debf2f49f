"""Converts `step` of an exported model for LiteRT: python to_litert.py SAVED_MODEL OUT.tflite

Needs TensorFlow alone. The file runs in the interpreter of TensorFlow or of `ai-edge-litert`:

    runner = Interpreter(model_path="OUT.tflite").get_signature_runner("step")
    outputs = runner(features=features, latents=latents)
"""

import sys
from pathlib import Path

import tensorflow as tf


def main(folder, out):
    if Path(out).exists():
        sys.exit(f"{out}: exists already; choose a new file")
    converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["step"])
    Path(out).write_bytes(converter.convert())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
