"""Each public header compiles alone, as C11 and as C++17."""
import pathlib
import shutil
import subprocess
import sys

include = pathlib.Path(sys.argv[1])
compilers = [(["cc", "-std=c11"], "c"), (["c++", "-std=c++17"], "c++")]
faults = 0
for header in sorted((include / "ruvllm").glob("*.h")):
    for command, language in compilers:
        if not shutil.which(command[0]):
            continue
        run = subprocess.run([*command, "-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only", "-x", language, f"-I{include}", "-"],
                             input=f'#include "ruvllm/{header.name}"\n', text=True, capture_output=True)
        if run.returncode:
            faults += 1
            print(f"{header.name} as {language}:\n{run.stderr}")
sys.exit(bool(faults))
