#!/usr/bin/env python3
"""Training logs (json lines) -> one SVG a run, without any plotting package."""
import json, math, os, sys


def series(path):
    out = {}
    for l in open(path):
        try:
            d = json.loads(l)
        except ValueError:
            continue
        x = d.get("step")
        for k in ("loss", "lm", "rows", "acc"):
            if x is not None and isinstance(d.get(k), (int, float)) and "event" not in d:
                out.setdefault(k, []).append((x, d[k]))
    return out


def svg(title, ss, w=720, h=360):
    cols = dict(loss="#1f77b4", lm="#1f77b4", rows="#d62728", acc="#2ca02c")
    pts = [p for s in ss.values() for p in s]
    x0, x1 = min(p[0] for p in pts), max(p[0] for p in pts)
    y0, y1 = min(p[1] for p in pts), max(p[1] for p in pts)
    y1 = min(y1, sorted(p[1] for p in pts)[int(len(pts) * 0.97)] * 1.3)
    X = lambda v: 60 + (w - 80) * (v - x0) / max(1e-9, x1 - x0)
    Y = lambda v: h - 40 - (h - 80) * (min(v, y1) - y0) / max(1e-9, y1 - y0)
    o = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" font-family="sans-serif" font-size="12"><rect width="{w}" height="{h}" fill="white"/>',
         f'<text x="60" y="20" font-size="14">{title}</text>']
    for i in range(6):
        v = y0 + (y1 - y0) * i / 5
        o.append(f'<line x1="60" x2="{w-20}" y1="{Y(v):.1f}" y2="{Y(v):.1f}" stroke="#ddd"/><text x="52" y="{Y(v)+4:.1f}" text-anchor="end">{v:.3g}</text>')
        u = x0 + (x1 - x0) * i / 5
        o.append(f'<text x="{X(u):.1f}" y="{h-20}" text-anchor="middle">{u:.0f}</text>')
    for i, (k, s) in enumerate(ss.items()):
        o.append(f'<polyline fill="none" stroke="{cols[k]}" stroke-width="1.5" points="' + " ".join(f"{X(a):.1f},{Y(b):.1f}" for a, b in s) + '"/>')
        o.append(f'<text x="{w-160}" y="{40+16*i}" fill="{cols[k]}">{dict(loss="loss", lm="text loss", rows="task loss", acc="in-batch accuracy")[k]}</text>')
    o.append(f'<text x="{w/2}" y="{h-4}" text-anchor="middle">step</text></svg>')
    return "\n".join(o)


if __name__ == "__main__":
    src, dst = sys.argv[1:3]
    os.makedirs(dst, exist_ok=True)
    for f in sorted(os.listdir(src)):
        if f.endswith(".jsonl") and f != "chain.jsonl":
            s = {k: v for k, v in series(f"{src}/{f}").items() if len(v) > 2}
            if s:
                open(f"{dst}/{f[:-6].replace('.pt', '')}.svg", "w").write(svg(f[:-6].replace(".pt", ""), s))
