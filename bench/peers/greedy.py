#!/usr/bin/env python3
"""Whether llama.cpp makes of a GGUF file what Qorus makes of it: ids, greedy text, probabilities.

    bench/peers/greedy.py MODEL.gguf... [--prompt TEXT]... [-n 64] [--lora ADAPTER.gguf] [--qorus build/release/bin/qorus]

Runs here, with llama.cpp's server in the chroot. For each file and prompt prints `equal` or `UNEQUAL` for the ids of the prompt, for
the text that follows when always the likeliest token is taken (as many as llama.cpp writes, which ends where the context is full), and the largest difference of the log-probabilities of the ten
likeliest next tokens, at each of the n places (llama.cpp with its keys and values in f32). Exit status 1 if ids or texts differ anywhere.
"""
import argparse
import ast
import json
import math
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = 10


def ask(port, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as reply:
        return json.load(reply)


class Server:
    """llama-server over one file, gone at the end of the with."""

    def __init__(self, model, adapter=None):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        folder, name = os.path.split(os.path.abspath(model))
        self.copy, lora = None, []
        if adapter:  # one folder is shown in the chroot
            self.copy = tempfile.NamedTemporaryFile(dir=folder, suffix=".gguf")
            with open(adapter, "rb") as f:
                self.copy.write(f.read())
            self.copy.flush()
            lora = ["--lora", "/data/" + os.path.basename(self.copy.name)]
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [HERE + "/run", "--threads", "1", "--dir", folder, "llama-server", "-m", "/data/" + name, "-t", "1", "--host", "127.0.0.1",
             "--port", str(self.port), "--parallel", "1", "--no-warmup", "-ctk", "f32", "-ctv", "f32", "-fa", "off", *lora], stdout=self.log, stderr=subprocess.STDOUT)

    def __enter__(self):
        for _ in range(300):
            if self.process.poll() is not None:
                break
            try:
                ask(self.port, "/health")
                return self
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        self.__exit__()
        self.log.seek(0)
        sys.exit("llama-server does not run:\n" + self.log.read().decode(errors="replace")[-2000:])

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def tokens(self, text):
        return ask(self.port, "/tokenize", {"content": text, "add_special": True})["tokens"]

    def complete(self, ids, n):
        return ask(self.port, "/completion", {"prompt": ids, "n_predict": n, "temperature": 0, "n_probs": TOP, "cache_prompt": False,
                                              "ignore_eos": False, "return_tokens": True, "samplers": ["temperature"]})


def run(qorus, *words):
    return subprocess.run([qorus, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True).stdout


def ours(qorus, model, ids, n, lora):
    """The logits of the last n places, by qorus logits."""
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/logits.npy"
        run(qorus, "logits", model, "--ids", ",".join(map(str, ids)), "--npy", path, *lora)
        with open(path, "rb") as f:
            bytes_ = f.read()
    header = 10 + struct.unpack("<H", bytes_[8:10])[0]
    rows, vocab = ast.literal_eval(bytes_[10:header].decode().strip())["shape"]
    values = struct.unpack(f"<{rows * vocab}f", bytes_[header:])
    return [values[r * vocab:(r + 1) * vocab] for r in range(rows)][-n:]


def log_probabilities(row):
    most = max(row)
    total = math.log(sum(math.exp(x - most) for x in row)) + most
    return [x - total for x in row]


def compare(server, qorus, model, prompt, n, lora):
    ids = server.tokens(prompt)
    own_ids = [int(word) for word in run(qorus, "tokenize", model, "--text", prompt).split()]
    same_ids = own_ids in (ids, ids[1:])  # but for a BOS
    theirs = server.complete(ids, n)
    written = theirs["tokens"]
    text = run(qorus, "generate", model, "-p", prompt, "-n", str(len(written)), "--threads", "1", *lora).decode(errors="replace")
    expected = prompt + theirs["content"]
    same_text = text.rstrip("\n") == expected.rstrip("\n")
    rows = ours(qorus, model, ids + written[:-1], len(written), lora)
    difference = 0
    for row, place in zip(rows, theirs["completion_probabilities"]):
        own = log_probabilities(row)
        for candidate in place["top_logprobs"]:
            difference = max(difference, abs(own[candidate["id"]] - candidate["logprob"]))
    word = lambda same: "equal" if same else "UNEQUAL"
    print(f"{os.path.basename(model)}: {len(ids)} ids of the prompt {word(same_ids)}, text of {len(written)} tokens {word(same_text)}, "
          f"log-probabilities within {difference:.2g}", flush=True)
    if not same_text:
        print(f"  llama.cpp: {expected!r}\n  qorus:     {text!r}")
    return same_ids and same_text


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("models", nargs="+", metavar="MODEL.gguf")
    options.add_argument("--prompt", action="append")
    options.add_argument("--lora", metavar="ADAPTER.gguf", help="an adapter that both are to add")
    options.add_argument("-n", type=int, default=64)
    options.add_argument("--qorus", default=os.path.join(HERE, "../../build/release/bin/qorus"))
    given = options.parse_args()
    good = True
    for model in given.models:
        with Server(model, given.lora) as server:
            for prompt in given.prompt or ["First Citizen:\nBefore we", "ROMEO:\n"]:
                good = compare(server, given.qorus, model, prompt, given.n, ["--lora", given.lora] if given.lora else []) and good
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
