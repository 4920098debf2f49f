#!/bin/sh
# Runs the native library, forward and backward, under AddressSanitizer with
# UndefinedBehaviorSanitizer and then under ThreadSanitizer:
#     sh keras_disrnn/native/sanitize.sh [address | thread]
# Without a name both run. The driver is a program of C++ alone. So every line that runs is checked,
# and no finding of Python or TensorFlow has to be suppressed.
set -eu
here=$(dirname "$0")
case "${1:-both}" in
    address) sanitizers=address,undefined ;;
    thread) sanitizers=thread ;;
    both) sanitizers="address,undefined thread" ;;
    *)
        echo "sanitize.sh: expected address, thread or nothing, got $1" >&2
        exit 2
        ;;
esac
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
for sanitizer in $sanitizers; do
    "${CXX:-g++}" -std=c++17 -O1 -g -fno-math-errno -fno-trapping-math -pthread \
        -fsanitize="$sanitizer" -fno-sanitize-recover=undefined \
        "$here/sanitize.cpp" -o "$build/driver"
    "$build/driver"
    echo "$sanitizer: nothing found"
done
