"""Writes the page's files as a C table: embed.py OUTPUT FILE... (by CMake). Each has its path, type, bytes and an ETag of its content."""
import hashlib
import pathlib
import sys

TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
         ".svg": "image/svg+xml"}
out = ['/* Made by web/embed.py. */', '#include "server/assets.h"', ""]
rows = []
for i, name in enumerate(sys.argv[2:]):
    path = pathlib.Path(name)
    data = path.read_bytes()
    out.append(f"static const unsigned char file_{i}[] = {{")
    out += ["\t" + ", ".join(map(str, data[k:k + 24])) + "," for k in range(0, len(data), 24)]
    out.append("};")
    rows.append(f'    {{"{path.name}", "{TYPES[path.suffix]}", "\\"{hashlib.sha256(data).hexdigest()[:32]}\\"", file_{i}, sizeof file_{i}}},')
out += ["", "const ruv_asset ruv_assets[] = {", *rows, "    {0},", "};", ""]
pathlib.Path(sys.argv[1]).write_text("\n".join(out))
