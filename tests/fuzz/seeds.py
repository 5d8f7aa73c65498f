#!/usr/bin/env python3
"""Writes what the fuzzers start from: seeds.py FOLDER makes FOLDER/NAME/* for each fuzzer and FOLDER/NAME.dict, small valid files of its
format and the words it is made of."""
import gzip
import io
import json
import pathlib
import struct
import sys
import zipfile
import zlib

TESTS = pathlib.Path(__file__).resolve().parent.parent


def text(s):
    return struct.pack("<Q", len(s)) + s


def gguf(entries, tensors, data):
    """entries: (key, type, bytes); tensors: (name, extents, format, offset)"""
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(entries))
    for key, kind, value in entries:
        out += text(key) + struct.pack("<I", kind) + value
    for name, extents, form, offset in tensors:
        out += text(name) + struct.pack("<I", len(extents)) + struct.pack(f"<{len(extents)}Q", *extents) + struct.pack("<IQ", form, offset)
    return out + b"\0" * (-len(out) % 32) + data


def llama(form=0):
    """A model of one layer: 4 wide (32 where blocks want it), 2 heads, 6 pieces."""
    width, hidden, pieces = (4, 4, 6) if form == 0 else (32, 32, 6)
    size = (lambda n: n * 4) if form == 0 else (lambda n: n // 32 * 34)
    u32, f32 = (lambda v: struct.pack("<I", v)), (lambda v: struct.pack("<f", v))
    words = [b"<unk>", b"<s>", b"</s>", b"a", b"b", b"ab"]
    entries = [(b"general.architecture", 8, text(b"llama"))]
    for key, value in ((b"block_count", 1), (b"context_length", 8), (b"embedding_length", width), (b"feed_forward_length", hidden),
                       (b"attention.head_count", 2), (b"attention.head_count_kv", 1), (b"vocab_size", pieces)):
        entries.append((b"llama." + key, 4, u32(value)))
    entries.append((b"llama.attention.layer_norm_rms_epsilon", 6, f32(1e-5)))
    entries.append((b"tokenizer.ggml.model", 8, text(b"llama")))
    entries.append((b"tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, pieces) + b"".join(text(w) for w in words)))
    entries.append((b"tokenizer.ggml.scores", 9, struct.pack("<IQ6f", 6, pieces, *range(6))))
    entries.append((b"tokenizer.ggml.token_type", 9, struct.pack("<IQ6i", 5, pieces, 2, 3, 3, 1, 1, 1)))
    tensors, data = [], b""
    shapes = [(b"token_embd.weight", (width, pieces)), (b"output_norm.weight", (width,)), (b"blk.0.attn_norm.weight", (width,)),
              (b"blk.0.ffn_norm.weight", (width,)), (b"blk.0.attn_q.weight", (width, width)), (b"blk.0.attn_k.weight", (width, width // 2)),
              (b"blk.0.attn_v.weight", (width, width // 2)), (b"blk.0.attn_output.weight", (width, width)),
              (b"blk.0.ffn_gate.weight", (width, hidden)), (b"blk.0.ffn_up.weight", (width, hidden)), (b"blk.0.ffn_down.weight", (hidden, width))]
    for name, shape in shapes:
        count = shape[0] * (shape[1] if len(shape) == 2 else 1)
        packed = len(shape) == 2 and form != 0
        tensors.append((name, shape, form if packed else 0, len(data)))
        data += (b"\1" if packed else b"\0") * (size(count) if packed else count * 4)
        data += b"\0" * (-len(data) % 32)
    return gguf(entries, tensors, data)


def safetensors(tensors, metadata=None):
    header, data = ({"__metadata__": metadata} if metadata else {}), b""
    for name, (kind, shape, value) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), len(data) + len(value)]}
        data += value
    words = json.dumps(header).encode()
    words += b" " * (-len(words) % 8)
    return struct.pack("<Q", len(words)) + words + data


def npz(method):
    bytes_ = io.BytesIO()
    with zipfile.ZipFile(bytes_, "w", method) as archive:
        with archive.open("x.npy", "w", force_zip64=True) as entry:
            entry.write(npy("(2, 3)", "<f4", b"\0" * 24))
        archive.writestr("y.npy", npy("(3,)", "<i8", b"\1" * 24))
    return bytes_.getvalue()


def npy(shape, kind, data):
    words = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    words += b" " * (63 - (len(words) + 10) % 64) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(words)) + words + data


def idx(kind, extents, data):
    return struct.pack(">BBBB", 0, 0, kind, len(extents)) + struct.pack(f">{len(extents)}I", *extents) + data


def proto(field, value):
    return bytes([field << 3 | 2, len(value)]) + value


def piece(word, score, kind):
    return proto(1, proto(1, word) + b"\x15" + struct.pack("<f", score) + b"\x18" + bytes([kind]))


def tokenizers():
    small = {"version": "1.0", "added_tokens": [{"id": 0, "content": "<s>", "special": True, "lstrip": False, "rstrip": False}],
             "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}, "decoder": {"type": "ByteLevel"},
             "model": {"type": "BPE", "vocab": {"<s>": 0, "a": 1, "b": 2, "ab": 3}, "merges": ["a b"]}}
    word = {"version": "1.0", "normalizer": {"type": "BertNormalizer", "lowercase": True}, "pre_tokenizer": {"type": "BertPreTokenizer"},
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                      "vocab": {"[UNK]": 0, "a": 1, "##b": 2}}}
    unigram = {"version": "1.0", "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["\u2581a", -1.0], ["b", -2.0]]}}
    model = b"".join([piece(b"<unk>", 0, 2), piece(b"<s>", 0, 3), piece(b"\xe2\x96\x81a", -1, 1), piece(b"<0x41>", 0, 6),
                      proto(2, b"\x18\2")])
    llama2c = struct.pack("<I", 3) + b"".join(struct.pack("<fI", 0, len(w)) + w for w in (b"<unk>", b"a", b"ab"))
    said = b"ab a\xff<s> 12"
    files = [(0, json.dumps(x).encode()) for x in (small, word, unigram)] + [(1, model), (2, llama2c), (3, b"YQ== 0\nYg== 1\nYWI= 2\n")]
    return [bytes([form]) + struct.pack("<H", len(said)) + body + said for form, body in files]


def sealed():
    """A checkpoint as io::write_sealed leaves it, if this can be said without it: the fuzzer finds the rest."""
    body = safetensors({"w": ("F32", [2], b"\0" * 8)}, {"step": "1"})
    return [body, body + struct.pack("<I", zlib.crc32(body)) + b"QORUSEND"]


def gz(data):
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as packed:
        packed.write(data)
    return out.getvalue()


def seeds():
    digits = idx(8, [2, 2, 2], bytes(range(8)))
    configs = [p.read_bytes() for p in sorted((TESTS / "architectures").glob("*.json"))]
    small = [json.dumps(json.loads(c).get("config", {})).encode() for c in configs]
    return {
        "chat": [p.read_bytes() for p in sorted((TESTS / "templates").glob("*.jinja"))],
        "checkpoint": sealed(),
        "csv": [b"a,b,c\n1,x,2020-01-01\n2,\"y,\"\"\",2020-01-02 10:30\n,x,\n3,z,1999-12-31\n", b"1;2\n3;4\n", b"t\ntrue\nfalse\n",
                b'{"a": 1, "b": "x \\u00e4\\n"}\n{"b": null, "c": true, "a": -2.5e3}\n'],
        "gguf": [llama(), llama(8), gguf([(b"a", 0, b"\1"), (b"b", 9, struct.pack("<IQ", 9, 0))], [], b"")],
        "idx": [digits, gz(digits), idx(13, [2], b"\0" * 8), idx(8, [0], b"")],
        "json": [*small, b'{"kind":"linear","out":4}', b'[1,2.5e3,"\\u00e4",null,true,{"a":[]}]'],
        "model": [llama(), llama(8)],
        "npy": [npy("(2, 3)", "<f4", b"\0" * 24), npy("()", "<i8", b"\0" * 8), npy("(0,)", "|u1", b""),
                npz(zipfile.ZIP_STORED), npz(zipfile.ZIP_DEFLATED)],
        "ops": [bytes((i * 37 + j * j) % 256 for j in range(64)) for i in range(16)],
        "safetensors": [safetensors({"w": ("F32", [2, 2], b"\0" * 16), "b": ("BF16", [2], b"\0" * 4)}, {"format": "pt"})],
        "tokenizer": tokenizers(),
    }


WORDS = {
    "chat": "{% %} {{ }} {%- -%} {# #} for in endfor if elif else endif set endset macro endmacro namespace( loop.index loop.last messages "
            "|tojson |trim |join( |length |map(attribute= |selectattr( |default( is defined is none not and or ~ [::-1] raise_exception( "
            "strftime_now( add_generation_prompt bos_token range( .split( .strip() .items() generation break continue",
    "csv": "\" \"\" , ; \r\n true false nan 1e999 -0 2020-01-01 T10:30:00Z",
    "gguf": "GGUF general.architecture general.alignment llama. tokenizer.ggml.tokens tokenizer.ggml.merges token_embd.weight "
            "\xff\xff\xff\xff \xff\xff\xff\xff\xff\xff\xff\x7f",
    "json": "{ } [ ] : , \" \\u0000 \\ud800 true false null 1e400 -0 \"model_type\" \"hidden_size\" \"rope_scaling\" \"kind\" \"layers\"",
    "model": "llama qwen2 gemma gpt2 phi3 rope.scaling.type expert_count attention.sliding_window blk.0. .bias",
    "npy": "descr fortran_order shape True False <f4 >f8 |u1 ( ) ,",
    "safetensors": "__metadata__ dtype shape data_offsets F32 BF16 F8_E4M3 I64 [0,0] 18446744073709551615",
    "tokenizer": "added_tokens normalizer pre_tokenizer Sequence Split Regex ByteLevel Metaspace Prepend Replace Strip model BPE Unigram "
                 "WordPiece vocab merges byte_fallback ignore_merges <0xFF> <0x-1> \\p{L}+ (?i: (?!\\S) [^\\r\\n]",
}


def main():
    folder = pathlib.Path(sys.argv[1])
    for name, files in seeds().items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(files):
            (folder / name / f"seed{number}").write_bytes(data)
        words = WORDS.get(name, "")
        lines = ['"' + "".join(f"\\x{b:02x}" for b in word.encode("latin-1")) + '"' for word in words.split(" ") if word]
        (folder / f"{name}.dict").write_text("\n".join(lines) + "\n")


main()
