"""`python -m keras_disrnn` is `keras-disrnn`."""

import sys

from keras_disrnn.cli import main

if __name__ == "__main__":
    sys.exit(main())
