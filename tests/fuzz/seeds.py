#!/usr/bin/env python3
"""Writes what the fuzzers start from: seeds.py FOLDER makes FOLDER/NAME/* for each fuzzer and FOLDER/NAME.dict, small valid files of its
format and the words it is made of."""
import json
import pathlib
import random
import struct
import sys
import zipfile

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS / "hostile"))

import files as made  # noqa: E402


def tokenizers():
    said = b"ab a\xff<s> 12"
    all_kinds = [(0, json.dumps(x).encode()) for x in (made.bpe(), made.wordpiece(), made.unigram())]
    all_kinds += [(1, made.sentencepiece()), (2, made.llama2c_tokenizer()), (3, b"YQ== 0\nYg== 1\nYWI= 2\n")]
    return [bytes([form]) + struct.pack("<H", len(said)) + body + said for form, body in all_kinds]


def seeds():
    digits = made.idx(8, [2, 2, 2], bytes(range(8)))
    configs = [p.read_bytes() for p in sorted((TESTS / "architectures").glob("*.json"))]
    small = [json.dumps(json.loads(c).get("config", {})).encode() for c in configs]
    blocks = (("w", 8, (16, 32), bytes(544)), ("v", 0, (3,), bytes(12)))
    natives = [made.native([made.entry(b"k", 0, b"\1")]), made.native(tensors=()), made.native(tensors=blocks, laid_out=((0, bytes(544)),)),
               made.native([made.array(b"b", 8, 2, made.text(b"x") + made.text(b"yz"))], tensors=blocks)]
    return {
        "chat": [p.read_bytes() for p in sorted((TESTS / "templates").glob("*.jinja"))],
        "checkpoint": [made.sealed({"w": ("F32", [2], b"\0" * 8)}, {"step": "1"}), made.sealed({}, {})],
        "config": [*small, json.dumps(made.CONFIG).encode()],
        "encode": [bytes([i]) + "ab the caf\u00e9 \u20ac12<s>\n\n <|user|>".encode() for i in range(8)],
        "index": [b'{"weight_map":{"a":"one.safetensors"}}', b'{"weight_map":{"a":"none.safetensors"}}'],
        "csv": [b"a,b,c\n1,x,2020-01-01\n2,\"y,\"\"\",2020-01-02 10:30\n,x,\n3,z,1999-12-31\n", b"1;2\n3;4\n", b"t\ntrue\nfalse\n",
                b'{"a": 1, "b": "x \\u00e4\\n"}\n{"b": null, "c": true, "a": -2.5e3}\n'],
        "gguf": [made.llama(), made.llama(8), made.gguf([made.entry(b"a", 0, b"\1"), made.array(b"b", 9, 0, b"")])],
        "idx": [digits, made.gz(digits), made.idx(13, [2], b"\0" * 8), made.idx(8, [0])],
        "json": [*small, b'{"kind":"linear","out":4}', b'[1,2.5e3,"\\u00e4",null,true,{"a":[]}]'],
        "model": [made.llama(), made.llama(8), made.llama2c()],
        "npy": [made.npy("(2, 3)", "<f4", b"\0" * 24), made.npy("()", "<i8", b"\0" * 8), made.npy("(0,)", "|u1"), made.npz(zipfile.ZIP_STORED),
                made.npz(zipfile.ZIP_DEFLATED)],
        "qorus": [bytes([right]) + native for native in natives for right in (0, 1)],
        "ops": [random.Random(i).randbytes(40 + 10 * i) for i in range(40)],
        "safetensors": [made.safetensors({"w": ("F32", [2, 2], b"\0" * 16), "b": ("BF16", [2], b"\0" * 4)}, {"format": "pt"})],
        "sentencepiece": [made.sentencepiece(), made.sentencepiece(trainer=b"\x18\1")],
        "tokenizer": tokenizers(),
    }


WORDS = {
    "checkpoint": "__metadata__ dtype shape data_offsets F32 U8 QSEALED1 sealed.trailer crc32. [0,0] 18446744073709551615",
    "idx": "\0\0\x08\x01 \0\0\x0d\x03 \0\0\x0e\x02 \0\0\0\x01 \xff\xff\xff\xff \x7f\xff\xff\xff \x1f\x8b\x08\0",
    "ops": "\x06\0 \x06\x08 \x06\x0b \x07\0 \x07\x02 \x07\x03 \x03\x05 \x04\x05 \x05\x06 \x06\x0a",
    "qorus": "QORUS\r\n\x1a QORUSEND panels16.own general.architecture \xff\xff\xff\xff \xff\xff\xff\xff\xff\xff\xff\x7f "
             "\x40\0\0\0\0\0\0\0 \0\0\0\0\0\0\0\x80",
    "chat": "{% %} {{ }} {%- -%} {# #} for in endfor if elif else endif set endset macro endmacro namespace( loop.index loop.last messages "
            "|tojson |trim |join( |length |map(attribute= |selectattr( |default( is defined is none not and or ~ [::-1] raise_exception( "
            "strftime_now( add_generation_prompt bos_token range( .split( .strip() .items() generation break continue",
    "config": "\"model_type\" \"llama\" \"gpt2\" \"gemma2\" \"mixtral\" \"hidden_size\" \"num_attention_heads\" \"rope_scaling\" \"rope_parameters\" "
              "\"layer_types\" \"factor\" \"yarn\" \"llama3\" \"longrope\" \"long_factor\" 9223372036854775807 -1 1e400 null true",
    "encode": "<s> <|user|> \xe2\x96\x81 \xc3\xa9 the ab \xff\xff\xff\xff \r\n",
    "index": "\"weight_map\" one.safetensors ../ { } : , \"",
    "sentencepiece": "<0x41> <0x-1> \xe2\x96\x81 \x0a \x12 \x1a \x18\x02 \x18\x06 \xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
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
