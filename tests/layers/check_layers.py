"""Holds every #include of src/ and tools/ against src/LAYERS: a layer includes only layers on lines below its own."""
import pathlib
import re
import sys

root = pathlib.Path(sys.argv[1])
rank, only = {}, {}
lines = [l.split("#")[0].strip() for l in (root / "src/LAYERS").read_text().splitlines()]
lines = [l for l in lines if l]
for height, line in enumerate(reversed(lines)):
    names, _, allowed = line.partition(":")
    for name in names.split():
        rank[name] = height
        if allowed:
            only[name] = set(allowed.split())

faults = []
n_includes = 0


def layer_of(path):
    parts = path.relative_to(root).parts
    return "tools" if parts[0] == "tools" else parts[1]


files = [p for top in ("src", "tools") for p in (root / top).rglob("*") if p.suffix in (".c", ".h", ".cu", ".cuh")]
for path in sorted(files):
    here = layer_of(path)
    if here not in rank:
        faults.append(f"{path.relative_to(root)}: its folder is not a layer of src/LAYERS")
        continue
    for number, text in enumerate(path.read_text(errors="replace").splitlines(), 1):
        match = re.match(r'\s*#\s*include\s+"([^"]+)"', text)
        if not match:
            continue
        n_includes += 1
        name = match.group(1)
        where = f"{path.relative_to(root)}:{number}"
        if name.startswith("ruvllm/"):
            if not (root / "include" / name).exists():
                faults.append(f"{where}: include/{name} does not exist")
            continue
        if "/" not in name:
            if here == "tools" and (root / "tools" / name).exists():
                continue
            faults.append(f'{where}: "{name}" must be written with its layer')
            continue
        there = name.split("/")[0]
        if there not in rank:
            faults.append(f'{where}: "{name}" is in no layer')
        elif there != here and (rank[there] >= rank[here] or there not in only.get(here, {there})):
            faults.append(f"{where}: {here} must not include {there} ({name})")
        elif not (root / "src" / name).exists():
            faults.append(f"{where}: src/{name} does not exist")

print("\n".join(faults) or f"{n_includes} includes of {len(files)} files keep the layers")
sys.exit(bool(faults))
