"""Convert `step` of an exported model for LiteRT: python to_litert.py SAVED_MODEL OUT.tflite.

The program needs only TensorFlow. The file runs in the interpreter of TensorFlow or of
`ai-edge-litert`:

    runner = Interpreter(model_path="OUT.tflite").get_signature_runner("step")
    outputs = runner(features=features, latents=latents)
"""

import sys
from pathlib import Path

import tensorflow as tf


def main(folder: str, out: str) -> None:
    """Write the converted model to a new file."""
    if Path(out).exists():
        sys.exit(f"{out}: expected a new file, got one that exists; choose another name")
    converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["step"])
    Path(out).write_bytes(converter.convert())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
