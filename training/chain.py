#!/usr/bin/env python3
"""Runs all stages inside one time box on one or two GPUs; every stage has an end time, a failed stage never stops the ones after it.

W/in/*.7z (PPMd) is unpacked as it arrives: chunk_*.txt, heldout_wiki.txt, real.jsonl, qsent.jsonl. W/total (seconds) may be rewritten while running:
stage ends are shares of it. W/resume/*.pt: checkpoints of an earlier run are used in place of training from nothing where they exist; W/in/*.p8
(export.py pack8) becomes one.
"""
import argparse, glob, json, os, shutil, subprocess, sys, threading, time, traceback

HERE = os.path.dirname(os.path.abspath(__file__))
T0 = time.time()


class Chain:
    def __init__(self, a):
        self.a, self.w = a, os.path.abspath(a.w)
        self.py = sys.executable
        for d in ("in", "text", "tok", "rows", "cand", "pairs", "qg", "log", "ck", "out", "resume"):
            os.makedirs(f"{self.w}/{d}", exist_ok=True)
        if not os.path.exists(f"{self.w}/total"):
            open(f"{self.w}/total", "w").write(str(a.total))
        self.ev = open(f"{self.w}/log/chain.jsonl", "a")
        self.lock = threading.Lock()

    def at(self, share):
        try:
            t = float(open(f"{self.w}/total").read())
        except Exception:
            t = self.a.total
        return T0 + share * t

    def say(self, **kw):
        with self.lock:
            kw = dict(t=round(time.time() - T0, 1), **kw)
            self.ev.write(json.dumps(kw) + "\n"); self.ev.flush()
            print(kw, flush=True)

    def stage(self, name, gpu, script, *args, plain=False):
        """runs a script to its end; a GPU stage that fails soon after its start gets a second try without compiled code"""
        t = time.time()
        env = dict(os.environ, CUDA_VISIBLE_DEVICES=str(gpu), PYTHONUNBUFFERED="1", PYTHONPATH=HERE, TOKENIZERS_PARALLELISM="true",
                   TORCHINDUCTOR_CACHE_DIR=f"{self.w}/inductor", PYTHONHASHSEED="0", **({"TORCHDYNAMO_DISABLE": "1"} if plain else {}))
        self.say(stage=name, event="start", args=[str(x) for x in args])
        with open(f"{self.w}/log/{name}.out", "a") as f:
            limit = None
            if "--until" in args:
                limit = float(args[args.index("--until") + 1]) - time.time() + self.a.grace
            try:
                rc = subprocess.call([self.py, f"{HERE}/{script}"] + [str(x) for x in args], stdout=f, stderr=subprocess.STDOUT, env=env, cwd=HERE, timeout=limit)
            except subprocess.TimeoutExpired:
                rc = "timeout"
        self.say(stage=name, event="end", rc=rc, seconds=round(time.time() - t, 1))
        if rc and "--until" in args and not plain and float(args[args.index("--until") + 1]) - time.time() > 0.5 * (float(args[args.index("--until") + 1]) - t):
            return self.stage(name, gpu, script, *args, plain=True)
        return rc

    def ck(self, n):
        return f"{self.w}/ck/{n}.pt"

    def wait(self, path, until):
        while not os.path.exists(path) and time.time() < until:
            time.sleep(0.25)
        return os.path.exists(path)

    # ---- CPU side ---------------------------------------------------------------------------------------------
    def cpu(self):
        a, w = self.a, self.w
        done, pend = set(), []
        rows = None
        while time.time() < self.at(1.0):
            for f in sorted(glob.glob(f"{w}/in/*.p8")):
                if f not in done:
                    done.add(f)
                    subprocess.Popen([self.py, f"{HERE}/export.py", "unpack8", f, f"{w}/resume/{os.path.basename(f)[:-3]}.pt"], cwd=HERE)
            for f in sorted(glob.glob(f"{w}/in/*.7z")):
                if f in done:
                    continue
                done.add(f)
                n = os.path.basename(f)[:-3]
                dst = f"{w}/text/{n}" if n.endswith(".txt") else f"{w}/{n}"
                pend.append((subprocess.Popen(f"{a.sevenzip} x -so {f} > {dst}.part 2>{w}/log/unpack.err && mv {dst}.part {dst}", shell=True), dst))
                while sum(p.poll() is None for p, _ in pend) >= a.procs:
                    time.sleep(0.05)
            if rows is None and len(glob.glob(f"{w}/text/chunk_*.txt")) >= a.min_chunks and (os.path.exists(f"{w}/tokenizer.json") or all(p.poll() is not None for p, _ in pend)):
                if not os.path.exists(f"{w}/tokenizer.json"):
                    t = time.time()
                    import tok
                    files = sorted(glob.glob(f"{w}/text/chunk_*.txt"))
                    tok.train(files[:4], f"{w}/tokenizer.json.tmp", a.vocab, a.tok_bytes)
                    os.replace(f"{w}/tokenizer.json.tmp", f"{w}/tokenizer.json")
                    self.say(event="tokenizer", seconds=round(time.time() - t, 1))
                f = open(f"{w}/log/mkrows.out", "a")
                rows = subprocess.Popen([self.py, f"{HERE}/mkrows.py", "--w", w, "--procs", str(a.procs), "--until", str(self.at(0.95)), "--scale", str(a.scale),
                                         "--real-parts", str(a.real_parts)], stdout=f, stderr=subprocess.STDOUT, cwd=HERE, env=dict(os.environ, PYTHONHASHSEED="0"))
                self.say(event="mkrows started", chunks=len(glob.glob(f"{w}/text/chunk_*.txt")))
            time.sleep(0.3)

    # ---- stages ---------------------------------------------------------------------------------------------------
    def lm(self, size, gpu, end, mid=0, extra=()):
        a = self.a
        out = self.ck(f"{size}.lm")
        r = f"{self.w}/resume/{size}.pt"
        if os.path.exists(r):
            extra = tuple(extra) + ("--init", r)
        self.stage(f"lm_{size}", gpu, "train_lm.py", "--size", a.sizes[size], "--w", self.w, "--out", out, "--until", self.at(end), "--mid", self.at(mid) if mid else 0,
                   "--vocab", a.vocab, "--batch", a.batch, "--T", a.T, "--row-tokens", a.row_tokens, *extra)

    def qgen(self, gpu, init, t_end, end):
        a = self.a
        self.stage("qgen", gpu, "qgen.py", "--init", init, "--w", self.w, "--out", self.ck("qg"), "--tune-until", self.at(t_end), "--until", self.at(end), "--batch", a.qg_batch)

    def tune(self, size, gpu, end, teacher="", extra=()):
        a = self.a
        out = self.ck(size)
        args = ["--init", self.ck(f"{size}.lm"), "--w", self.w, "--out", out, "--until", self.at(end), "--lm-batch", a.lm_batch, "--row-tokens", a.row_tokens, "--T", a.T,
                "--eval-every", a.eval_every, *extra]
        if teacher and os.path.exists(teacher):
            args += ["--teacher", teacher]
        self.stage(f"tune_{size}", gpu, "tune.py", *args)
        if not os.path.exists(out):
            for c in (self.ck(f"{size}.best"), self.ck(f"{size}.lm"), self.ck(f"{size}.lm.mid")):
                if os.path.exists(c):
                    shutil.copy(c, out); self.say(event="fallback", size=size, used=c)
                    break
        self.pack(size)

    def encoder(self, gpu, mlm_end, end):
        a = self.a
        self.lm("E", gpu, mlm_end, extra=("--mlm", "--decay", 0.3, "--end-scale", 0.2))
        self.stage("encoder", gpu, "encoder.py", "--init", self.ck("E.lm"), "--w", self.w, "--out", self.ck("E"), "--until", self.at(end), "--batch", a.pair_batch)
        self.pack("E")

    def pack(self, size):
        threading.Thread(target=lambda: self.stage(f"pack_{size}", "", "export.py", "pack", self.ck(size), f"{self.w}/out/{size}.pack", "--tokenizer", f"{self.w}/tokenizer.json")).start()

    def guard(self, f, *args, **kw):
        try:
            f(*args, **kw)
        except Exception:
            self.say(event="error", what=traceback.format_exc())

    def two(self):
        g = self.guard
        L, lm_mid = self.ck("L"), self.ck("L.lm.mid")

        def gpu0():
            g(self.lm, "L", 0, 0.43, mid=0.20, extra=("--rows", 0.35, "--rows-from", 0.35))
            g(self.tune, "L", 0, 0.82, extra=("--qat", 0.2))
            g(self.tune, "S", 0, 0.985, L)

        def gpu1():
            g(self.lm, "M", 1, 0.198, extra=("--rows", 0.2, "--rows-from", 0.7))
            self.wait(lm_mid, self.at(0.30))
            g(self.qgen, 1, lm_mid if os.path.exists(lm_mid) else self.ck("M.lm"), 0.25, 0.36)
            g(self.encoder, 1, 0.43, 0.62)
            g(self.lm, "S", 1, 0.735, extra=("--rows", 0.25, "--rows-from", 0.3))
            if os.path.exists(self.ck("M.lm")):
                g(self.lm, "M", 1, 0.81, extra=("--rows", 0.35, "--rows-from", 0.0, "--init", self.ck("M.lm"), "--seed", 11))
            self.wait(L, self.at(0.86))
            g(self.tune, "M", 1, 0.985, L, extra=("--qat", 0.25))
        ts = [threading.Thread(target=t) for t in (gpu0, gpu1)]
        [t.start() for t in ts]; [t.join() for t in ts]

    def fast(self):
        """about ten minutes on two GPUs: L alone on the first, the three small models side by side on the second (each alone would not fill it); no question writer"""
        g = self.guard
        nf = ("--no-final",)

        def big():
            g(self.lm, "L", 0, self.a.l_lm, extra=("--rows", 0.35, "--rows-from", 0.42))
            g(self.tune, "L", 0, 1.0, extra=("--qat", 0.18, "--hold", 0.12) + nf)

        def mid():
            g(self.lm, "M", 1, self.a.l_lm, extra=("--rows", 0.3, "--rows-from", 0.5))
            g(self.tune, "M", 1, self.a.small_end, extra=("--qat", 0.18, "--hold", 0.12) + nf)

        def small():
            g(self.lm, "S", 1, self.a.l_lm * 0.8, extra=("--rows", 0.3, "--rows-from", 0.6))
            g(self.tune, "S", 1, self.a.small_end, extra=("--hold", 0.12) + nf)

        def enc():
            g(self.encoder, 1, 0.21, 0.66)
        ts = [threading.Thread(target=t) for t in (big, mid, small, enc)]
        [t.start() for t in ts]; [t.join() for t in ts]

    def resume(self):
        """Continues the models in W/resume. Plain text stays in every step, so there is no separate pretraining. The first GPU is L's alone. On the second the encoder,
        M and S share the time; after a quarter of it the question writer joins, started from L's average, and from the middle on L teaches M and S."""
        g, a = self.guard, self.a
        one = min(1, a.gpus - 1)
        mids = ",".join(str(self.at(x)) for x in (0.24, 0.5, 0.76))
        common = ("--mids", mids, "--no-final", "--lr-scale", 0.5, "--lm-weight", 0.6)

        def tuned(size, gpu, end, *extra):
            r = f"{self.w}/resume/{size}.pt"
            if not self.wait(r, self.at(0.3)):
                return self.say(event="nothing to resume", size=size)
            shutil.copy(r, self.ck(f"{size}.lm"))
            self.tune(size, gpu, end, extra=common + extra)

        def big():
            w = dict(real=0.48, qg=0.26, rule=0.02, skill=0.16, judge=0.13, ask=0.08)
            tuned("L", 0, 1.0, "--hold", 0.3, "--qat", 0.2, "--weights", json.dumps(w))

        def small(size, *extra):
            tuned(size, one, a.small_end, "--hold", 0.35, "--teacher", self.ck("T"), *extra)

        def write():
            m = self.ck("L.mid1")
            if self.wait(m, self.at(0.3)):
                self.qgen(one, m, 0.27, 0.37)

        def encode():
            r = f"{self.w}/resume/E.pt"
            if self.wait(r, self.at(0.3)):
                self.stage("encoder", one, "encoder.py", "--init", r, "--w", self.w, "--out", self.ck("E"), "--until", self.at(0.62), "--batch", a.pair_batch, "--procs", a.pair_procs)
                self.pack("E")

        def teach():
            for m in ("L.mid2", "L.mid3"):
                if self.wait(self.ck(m), self.at(0.95)):
                    shutil.copy(self.ck(m), self.ck("T") + ".tmp"); os.replace(self.ck("T") + ".tmp", self.ck("T"))
                    for s in "LMS":                # for the way back, should the rest be lost
                        if self.wait(self.ck(f"{s}.{m[2:]}"), self.at(0.97)):
                            self.stage(f"pack_{s}_{m[2:]}", "", "export.py", "pack", self.ck(f"{s}.{m[2:]}"), f"{self.w}/out/{s}.mid.pack", "--tokenizer", f"{self.w}/tokenizer.json")

        ts = [threading.Thread(target=g, args=x) for x in ((big,), (small, "M", "--qat", 0.2), (small, "S"), (write,), (encode,), (teach,))]
        [t.start() for t in ts]; [t.join() for t in ts]

    def single(self):
        """Continues L, M and the encoder of W/resume on one GPU, side by side: L to the end, M for most of the time, the encoder for the first two fifths.
        No teacher and no question writer, whose passes would cost L's share. L's and M's averages of the middle are packed for safety."""
        g, a = self.guard, self.a
        mid = self.at(0.55)
        w = dict(real=0.5, rule=0.02, skill=0.16, judge=0.13, ask=0.08)
        common = ("--mids", mid, "--no-final", "--lr-scale", 0.5, "--lm-weight", 0.6, "--hold", 0.3, "--qat", 0.2, "--weights", json.dumps(w))

        def tuned(size, end):
            r = f"{self.w}/resume/{size}.pt"
            if not self.wait(r, self.at(0.3)):
                return self.say(event="nothing to resume", size=size)
            shutil.copy(r, self.ck(f"{size}.lm"))
            self.tune(size, 0, end, extra=common)

        def encode():
            r = f"{self.w}/resume/E.pt"
            if self.wait(r, self.at(0.3)):
                self.stage("encoder", 0, "encoder.py", "--init", r, "--w", self.w, "--out", self.ck("E"), "--until", self.at(0.42), "--batch", a.pair_batch, "--procs", a.pair_procs)
                self.pack("E")

        def keep(size):
            m = self.ck(f"{size}.mid1")
            if self.wait(m, self.at(0.9)):
                self.stage(f"pack_{size}_mid1", "", "export.py", "pack", m, f"{self.w}/out/{size}.mid.pack", "--tokenizer", f"{self.w}/tokenizer.json")

        ts = [threading.Thread(target=g, args=x) for x in ((tuned, "L", 1.0), (tuned, "M", a.small_end), (encode,), (keep, "L"), (keep, "M"))]
        [t.start() for t in ts]; [t.join() for t in ts]

    def one(self):
        g = self.guard
        g(self.lm, "L", 0, 0.32, mid=0, extra=("--rows", 0.35, "--rows-from", 0.4))
        g(self.qgen, 0, self.ck("L.lm"), 0.36, 0.43)
        g(self.tune, "L", 0, 0.67, extra=("--qat", 0.2))
        g(self.encoder, 0, 0.71, 0.78)
        g(self.lm, "M", 0, 0.85)
        g(self.tune, "M", 0, 0.92, self.ck("L"), extra=("--qat", 0.2))
        g(self.lm, "S", 0, 0.95)
        g(self.tune, "S", 0, 0.985, self.ck("L"))

    def run(self):
        c = threading.Thread(target=lambda: self.guard(self.cpu), daemon=True)
        c.start()
        (self.single if self.a.plan == "single" else self.resume if self.a.plan == "resume" else self.fast if self.a.plan == "fast" else self.two if self.a.gpus == 2 else self.one)()
        time.sleep(1)
        while any(t.name.startswith("Thread") and t is not c and t is not threading.current_thread() and t.is_alive() for t in threading.enumerate()):
            time.sleep(0.2)
        open(f"{self.w}/rows.stop", "w").close()
        self.logs()
        open(f"{self.w}/done", "w").close()
        self.say(event="done")

    def logs(self):
        subprocess.call(f"cd {self.w} && tar cJf out/logs.tar.xz log tokenizer.json dev.jsonl", shell=True)


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--w", required=True)
    ap.add_argument("--total", type=float, default=1350)
    ap.add_argument("--gpus", type=int, default=2)
    ap.add_argument("--plan", default="", help="fast: ten minutes on two GPUs; resume: continues W/resume on one or two; single: L, M and E of W/resume on one")
    ap.add_argument("--l-lm", type=float, default=0.4, help="fast: share of the time for pretraining")
    ap.add_argument("--small-end", type=float, default=0.91, help="fast, resume: end of S and M")
    ap.add_argument("--procs", type=int, default=28)
    ap.add_argument("--sevenzip", default="7za")
    ap.add_argument("--min-chunks", type=int, default=8)
    ap.add_argument("--vocab", type=int, default=16384)
    ap.add_argument("--tok-bytes", type=int, default=64_000_000)
    ap.add_argument("--batch", type=int, default=96)
    ap.add_argument("--T", type=int, default=1024)
    ap.add_argument("--lm-batch", type=int, default=32)
    ap.add_argument("--row-tokens", type=int, default=65536)
    ap.add_argument("--pair-batch", type=int, default=1536)
    ap.add_argument("--pair-procs", type=int, default=6)
    ap.add_argument("--qg-batch", type=int, default=2048)
    ap.add_argument("--eval-every", type=float, default=75)
    ap.add_argument("--grace", type=float, default=75, help="seconds after its end time at which a stage is killed")
    ap.add_argument("--scale", type=float, default=1.0)
    ap.add_argument("--real-parts", type=int, default=24)
    ap.add_argument("--sizes", default='{"S":"S","M":"M","L":"L","E":"E"}')
    a = ap.parse_args()
    a.sizes = json.loads(a.sizes)
    Chain(a).run()
