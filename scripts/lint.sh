#!/usr/bin/env bash
# Warnings as errors, cppcheck and formatting. Needs cppcheck and clang-format.
set -euo pipefail
cd "$(dirname "$0")/.."
status=0
cmake --preset release -B build-lint -DRUV_WERROR=ON >/dev/null
cmake --build build-lint -- --quiet || status=1
cppcheck --quiet --std=c11 --enable=warning,portability --inline-suppr --error-exitcode=1 \
  --suppress=missingInclude --suppress=unknownMacro --suppress=funcArgOrderDifferent --suppress=pointerSize:src/tensor/cpu/backend.c \
  --suppress=arrayIndexOutOfBoundsCond:src/tensor/blocks.h --suppress=invalidFunctionArg:src/text/document_html.c \
  --suppress=invalidPointerCast:src/tensor/cpu/* --suppress=uninitvar:src/tensor/cpu/generic.h --suppress=uninitvar:tools/cmd_bench.c -Iinclude -Isrc src tools || status=1
git ls-files '*.c' '*.h' | xargs clang-format --dry-run --Werror || status=1
exit $status
