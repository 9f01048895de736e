"""The shared library exports exactly what include/ruvllm declares RUV_API; every global symbol of the static one begins with ruv_."""
import pathlib
import re
import subprocess
import sys

shared, static, headers = sys.argv[1:4]


def symbols(*arguments):
    text = subprocess.run(["nm", "--defined-only", "--extern-only", *arguments], check=True, capture_output=True, text=True).stdout
    return {line.split()[2].split("@")[0] for line in text.splitlines() if len(line.split()) == 3}


sanitizer = re.compile(r"^_*(asan|ubsan|tsan|sanitizer|sancov|odr_asan|start___|stop___)")
exported = {s for s in symbols("-D", shared) if not sanitizer.match(s)}
internal = {s for s in symbols(static) if not sanitizer.match(s)}
declared = set()
for header in pathlib.Path(headers).glob("*.h"):
    text = re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.S)
    declared |= set(re.findall(r"RUV_API\s[^;{]*?\b(ruv_\w+)\s*\(", text))

faults = [f"exported, but not declared RUV_API in include/ruvllm: {s}" for s in sorted(exported - declared)]
faults += [f"declared RUV_API, but not exported: {s}" for s in sorted(declared - exported)]
faults += [f"global symbol without the ruv_ prefix: {s}" for s in sorted(internal) if not s.startswith("ruv_")]
print("\n".join(faults) or f"{len(exported)} exported and {len(internal)} global symbols are in order")
sys.exit(bool(faults))
