#!/usr/bin/env python3
"""Writes files that are not what they should be: make.py FOLDER makes one file or folder for each, and FOLDER/table, a line for each: its
name, the reader that it is for, the error's code and a part of its text, between tabs. make.py FOLDER valid: small valid files of every
format, for damage. make.py FOLDER small: the first without those at a cap. Without a code the file may be valid or not, and must only do no harm."""
import json
import pathlib
import sys
import zipfile

import cap_cases
import edge_cases
import files
import gguf_cases
import model_cases
import native_cases
import table_cases
import tensor_cases
import text_cases
import tuning_cases

CASES = (cap_cases, gguf_cases, native_cases, tensor_cases, table_cases, text_cases, model_cases, tuning_cases, edge_cases)


def valid():
    six = b"\0" * 24
    config = json.dumps(files.CONFIG).encode()
    chat = "{% for m in messages %}{{ m['role'] ~ ': ' ~ m.content|trim }}\n{% endfor %}{% if add_generation_prompt %}A{% endif %}"
    rows = {
        "model": [files.llama(), files.llama(8), files.llama2c()],
        "gguf": [files.gguf([files.entry(b"a", 0, b"\1"), files.array(b"b", 8, 2, files.text(b"x") + files.text(b"yz"))],
                            [files.tensor(b"w", [2, 3]), files.tensor(b"v", [32], 2, 32)], b"\0" * 64)],
        "qorus": [files.native([files.entry(b"a", 0, b"\1")])],
        "safetensors": [files.safetensors({"w": ("F32", [2], b"\0" * 8), "b": ("BF16", [2], b"\0" * 4)}, {"k": "\n"})],
        "checkpoint": [files.sealed({"w": ("F32", [2], b"\0" * 8), "v": ("U8", [3], b"abc")}, {"step": "1"})],
        "npy": [files.npy("(2, 3)", data=six), files.npy("(3, 1)", "<i8", six, order="True", version=2)],
        "npz": [files.npz(zipfile.ZIP_STORED), files.npz(zipfile.ZIP_DEFLATED)],
        "idx": [files.idx(8, [2, 2], b"abcd"), files.gz(files.idx(8, [2, 2], b"abcd")), files.idx(0x0e, [1], b"\0" * 8)],
        "csv": [b'a,b,c\n1,x,2020-01-01\n2,"y,""",2020-01-02 10:30\n,x,\n'],
        "jsonl": [b'{"a": 1, "b": "x \\u00e4\\n"}\n{"b": null, "c": true, "a": -2.5e3}\n'],
        "tokenizer.json": [text_cases.dump(files.bpe()), text_cases.dump(files.unigram()), text_cases.dump(files.wordpiece())],
        "sentencepiece": [files.sentencepiece(), files.sentencepiece(trainer=b"\x18\1")],
        "tokenizer.bin": [files.llama2c_tokenizer()],
        "tiktoken": [b"YQ== 0\nYg== 1\nYWI= 2\n"],
        "chat": [chat.encode()],
        "layers": [b'{"kind":"chain","layers":[{"kind":"linear","out_features":4},{"kind":"relu"}]}'],
        "config": [config],
        "index": [b'{"metadata":{},"weight_map":{"a":"one.safetensors"}}'],
    }
    for reader, contents in rows.items():
        for number, content in enumerate(contents):
            yield f"{reader}-{number}", reader, content, "ok", ""
    yield "folder", "folder", model_cases.whole_folder(), "ok", ""
    yield "folder-of-shards", "folder", model_cases.template_folder(), "ok", ""
    yield from tuning_cases.valid()
    yield "weights", "", model_cases.WEIGHTS, "ok", ""


def write(path, content):
    if isinstance(content, dict):
        path.mkdir()
        for name, part in content.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(part, str):
                (path / name).symlink_to(part)
            else:
                (path / name).write_bytes(part)
    elif isinstance(content, int):
        with open(path, "wb") as file:
            file.truncate(content)
    else:
        path.write_bytes(content)


def main():
    folder = pathlib.Path(sys.argv[1])
    groups = [group for group in CASES if sys.argv[2:] != ["small"] or group is not cap_cases]
    cases = valid() if sys.argv[2:] == ["valid"] else (case for group in groups for case in group.all_cases())
    seen = set()
    with open(folder / "table", "w", encoding="utf-8") as table:
        for number, (name, reader, content, code, message) in enumerate(cases):
            assert name not in seen, name
            seen.add(name)
            write(folder / str(number), content)
            print(*(part.replace("\n", " ").replace("\t", " ").replace("\0", "0") for part in (name, reader, code, message)), sep="\t", file=table)


main()
