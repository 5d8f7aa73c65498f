"""Each cap of modules/trust/trust.cppm at the cap, where a file is taken or fails for another reason, and one past it, where it gives that cap's error. Those
that no file shows stand in tests/caps_test.cpp; every_cap_is_tried says if one is in neither."""
import json
import pathlib
import random
import re

import files
from files import CONFIG, array, bpe, entry, gguf, idx, npy, piece, safetensors, sentencepiece, tensor, text

TOP = pathlib.Path(__file__).resolve().parents[2]
WEIGHTS = files.llama_safetensors()
GGUF_TYPE_U8, GGUF_TYPE_TEXT, GGUF_FORMAT_I8 = 0, 8, 24


def folder(**change):
    return {"config.json": json.dumps({**CONFIG, **change}).encode(), "model.safetensors": WEIGHTS}


def mixtral(**change):
    return folder(model_type="mixtral", **{"num_local_experts": 8, "num_experts_per_tok": 2, **change})


def dump(made):
    return json.dumps(made).encode()


def npy_header(size):
    """Of version 2, whose header has just so many bytes."""
    words = b"{'descr': '<f4', 'fortran_order': False, 'shape': (6,)}"
    return b"\x93NUMPY\2\0" + files.u32(size) + words + b" " * (size - len(words)) + b"\0" * 24


def layers_nested(depth):
    return '{"kind":"relu","x":' + "[" * depth + "]" * depth + "}"


def template_value_nested(depth):
    return "{%% set ns = namespace(a=1) %%}{%% for i in range(%d) %%}{%% set ns.a = [ns.a] %%}{%% endfor %%}{{ ns.a }}" % depth


# cap, of which reader, what makes a file of n, n at the cap, (code, words of the error) there, one past it. One past is n + 1 if nothing is said.
def rows():
    small, eight = entry(b"k", 0, b"\1"), b"\0" * 8
    ok, no = ("ok", ""), lambda words: ("unsupported", words)
    yield "gguf_entries", "gguf", lambda n: gguf([entry(b"k%d" % i, GGUF_TYPE_U8, b"\1") for i in range(n)]), 16384, ok, no("more than 16384 entries of metadata")
    yield "gguf_tensors", "gguf", lambda n: gguf([], [tensor(b"%d" % i, [1], GGUF_FORMAT_I8, 32 * i) for i in range(n)], b"\0" * (32 * n)), 65536, ok, \
        no("more than 65536 tensors")
    yield "gguf_key", "gguf", lambda n: gguf([entry(b"k" * n, GGUF_TYPE_U8, b"\1")]), 65535, ok, no("a key of more than 65535 bytes")
    yield "gguf_text", "gguf", lambda n: gguf([entry(b"k", GGUF_TYPE_TEXT, text(b"t" * n))]), 32 << 20, ok, no("a text of more than 32 MiB")
    yield "gguf_array", "gguf", lambda n: gguf([array(b"k", GGUF_TYPE_U8, n, b"a" * n)]), 1 << 24, ok, no("an array of more than 2^24 elements")
    yield "gguf_name", "gguf", lambda n: gguf([], [tensor(b"n" * n, [1])], b"\0" * 32), 255, ok, no("name of more than 255 bytes")
    yield "gguf_dimensions", "gguf", lambda n: gguf([small], [tensor(b"w", [1] * n)], b"\0" * 32), 4, ok, no("4 dimensions")
    yield "gguf_alignment", "gguf", lambda n: gguf([entry(b"general.alignment", 4, files.u32(1 << n))]), 20, ok, no("more than 1 MiB")
    yield "elements-gguf", "gguf", lambda n: gguf([], [tensor(b"w", [n])]), 1 << 47, ("corrupt", "not inside the file"), ("overflow", "more elements than can be addressed")

    one = lambda shape: safetensors(eight, header='{"w":{"dtype":"F32","shape":%s,"data_offsets":[0,8]}}' % shape)
    header = '{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}%s}'
    yield "safetensors_header", "safetensors", lambda n: safetensors(eight, header=header % (" " * (n - len(header) + 2))), 100_000_000, ok, \
        ("corrupt", "a header of more than 100 MB")
    yield "safetensors_metadata", "safetensors", \
        lambda n: safetensors(eight, header=header % (',"__metadata__":{%s}' % ",".join(f'"{i}":""' for i in range(n)))), 65536, ok, \
        ("corrupt", "more than 65536 texts of metadata")
    yield "rank-safetensors", "safetensors", lambda n: one(json.dumps([1] * (n - 1) + [2])), 6, ok, no("more than 6 dimensions")
    yield "elements-safetensors", "safetensors", lambda n: one(f"[{n}]"), 1 << 47, ("corrupt", "not as many as its shape and type need"), \
        ("overflow", "more elements than can be addressed")
    yield "npy_header", "npy", npy_header, 65536, ok, no("a header of more than 64 KiB")
    yield "rank-npy", "npy", lambda n: npy("(%s6,)" % ("1, " * (n - 1)), data=b"\0" * 24), 6, ok, no("more than 6 dimensions")
    yield "elements-npy", "npy", lambda n: npy(f"({n},)"), 1 << 47, ("corrupt", "fewer bytes than its shape needs"), ("overflow", "more elements than can be addressed")
    yield "rank-idx", "idx", lambda n: idx(8, [1] * n, b"a"), 6, ok, no("1 to 6 dimensions")
    yield "elements-idx", "idx", lambda n: idx(8, [1 << 23, n], b"a"), 1 << 24, ("corrupt", "fewer bytes than its header announces"), \
        ("overflow", "more elements than can be addressed")
    # At the cap memory is taken for what is announced; past it what there is is counted first (hostile_test.cpp looks at the memory).
    noise = random.Random(1).randbytes(70_000)
    yield "gzip_unexamined", "idx", lambda n: files.gz(idx(8, [n], noise)), 64 << 20, ("corrupt", "fewer bytes than its header announces"), \
        ("corrupt", "fewer bytes than its header announces")

    many = no("too many rows or columns")
    yield "csv_columns", "csv", lambda n: b",".join([b"c"] * n) + b"\n", 4096, ok, many
    yield "csv_rows", "csv", lambda n: b"1\n" * n, 10_000_000, ok, many
    yield "csv_columns-jsonl", "jsonl", lambda n: dump({f"c{i}": 1 for i in range(n)}), 4096, ok, many
    yield "csv_rows-jsonl", "jsonl", lambda n: b"{}\n" * n, 10_000_000, ("corrupt", "nothing in it"), many

    yield "json_depth", "tokenizer.json", lambda n: dump(bpe(extra=1)).replace(b'"extra": 1', b'"extra": ' + b"[" * (n - 1) + b"]" * (n - 1)), 64, ok, \
        ("corrupt", "nested more than 64 deep")
    long_piece = lambda n: dump(bpe(model={**bpe()["model"], "vocab": {"<s>": 0, "a": 1, "b": 2, "ab": 3, "x" * n: 4}}))
    yield "piece_bytes", "tokenizer.json", long_piece, 65536, ok, no("a piece of more than 64 KiB")
    yield "piece_bytes-sentencepiece", "sentencepiece", lambda n: sentencepiece([*files.PIECES, piece(b"x" * n)]), 65536, ok, no("a piece of more than 64 KiB")
    steps = lambda n: dump(bpe(pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "Digits"}] * n}))
    yield "steps", "tokenizer.json", steps, 8, ok, no("more than 8 steps")

    nonsense = lambda words: ("invalid argument", words)
    yield "model_size", "folder", lambda n: folder(max_position_embeddings=n), 1 << 24, ok, nonsense("sizes lie between 1 and 2^24")
    yield "model_layers", "folder", lambda n: folder(num_hidden_layers=n), 4096, ("not found", "blk.1."), nonsense("at most 4096 layers")
    yield "model_experts", "folder", lambda n: mixtral(num_local_experts=n), 4096, ("not found", "ffn"), nonsense("experts: at most 4096")
    yield "model_experts_used", "folder", lambda n: mixtral(num_local_experts=100, num_experts_per_tok=n), 64, ("not found", "ffn"), \
        nonsense("of which at most 64 are used")

    much = no("too long, too deep or too many values")
    relu = '{"kind":"relu"}'
    yield "layers_bytes", "layers", lambda n: relu + " " * (n - len(relu)), 1 << 20, ok, much
    yield "layers_depth", "layers", layers_nested, 32, ok, much
    yield "layers_values", "layers", lambda n: '{"kind":"relu","x":[%s]}' % ",".join("0" * (n - 3)), 65536, ok, much
    yield "layers", "layers", lambda n: '{"kind":"repeat","count":%d,"pattern":%s}' % (n - 1, relu), 65536, ok, no("the structure stands for too many layers")

    far = lambda words: ("overflow", words)
    yield "template_bytes", "chat", lambda n: "x" * n, 1 << 20, ok, far("more than 1 MiB")
    yield "template_depth", "chat", lambda n: "{{ " + "not " * (n - 4) + "1 }}", 200, ok, far("nested too deep")
    yield "template_depth-row", "chat", lambda n: "{{ 1" + "+1" * n + " }}", 200, ok, far("too many operators in a row")
    yield "template_calls", "chat", recursion, 500, ok, far("nested too deep")
    yield "template_range", "chat", lambda n: "{{ range(%d)|length }}" % n, 100_000, ok, far("a range of more than 100000 numbers")
    yield "template_value_depth", "chat", template_value_nested, 64, ok, far("a value nested too deep")


def recursion(frames):
    """A macro that calls itself: 25 frames each, and those of the expressions around it."""
    return "{%% macro f(n) %%}{{ f(n - 1) if n else 1 }}{%% endmacro %%}{{ f(%d) }}" % (16 if frames == 500 else 17)


def every_cap_is_tried(names):
    table = (TOP / "modules/trust/trust.cppm").read_text().split("namespace qorus::limits {")[1].split("}  // namespace")[0]
    caps = set(re.findall(r"\b([a-z_]+) =\s", re.sub("//.*", "", table)))
    tried = {name.split("-")[0] for name in names} | set(re.findall(r"limits::(\w+)", (TOP / "tests/caps_test.cpp").read_text()))
    assert caps and caps <= tried, caps - tried


def all_cases():
    names = []
    for name, reader, make, cap, at, past in rows():
        names.append(name)
        for which, n, (code, words) in (("at", cap, at), ("past", cap + 1, past)):
            content = make(n)
            yield f"cap/{name}-{which}", reader, content.encode() if isinstance(content, str) else content, code, words
    every_cap_is_tried(names)
