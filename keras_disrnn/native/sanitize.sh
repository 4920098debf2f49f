#!/bin/sh
# Runs the native library, forward and backward, under AddressSanitizer with
# UndefinedBehaviorSanitizer and then under ThreadSanitizer:  sh keras_disrnn/native/sanitize.sh
set -eu
here=$(dirname "$0")
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
for sanitizer in address,undefined thread; do
    "${CXX:-g++}" -std=c++17 -O1 -g -fno-math-errno -fno-trapping-math -pthread \
        -fsanitize="$sanitizer" -fno-sanitize-recover=undefined \
        "$here/sanitize.cpp" -o "$build/driver"
    "$build/driver"
    echo "$sanitizer: nothing found"
done
