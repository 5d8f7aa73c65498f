"""The ends of ranges: characters beside digits and letters, numbers beside their least and most, in every format that spells them; and what may follow or be
missing at each place of small grammars. Each with the error that it must give, or none."""
import base64
import json
import re
import struct

from files import (CONFIG, PIECES, array, bpe, entry, f32, gguf, idx, llama, llama_safetensors, native, npy, piece, proto, safetensors, sentencepiece, tensor, text, u32,
                   unigram, varint, wordpiece)

BESIDE = "/09:@AFGZ[`afgz{"  # the ends of digits and letters, and their neighbours
HEX = set("0123456789abcdefABCDEF")
EIGHT = b"\0" * 8
WEIGHTS = llama_safetensors()
W = '"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'


def verdict(good, words=""):
    return ("ok", "") if good else ("corrupt", words)


def dump(made):
    return json.dumps(made).encode()


def escapes():
    """(name, what stands after a backslash, whether it is one)."""
    for c in BESIDE:
        yield f"u-{ord(c):x}", f"u004{c}", c in HEX
        yield f"first-{ord(c):x}", f"u{c}041", c in HEX and c not in "dD"
    for name, words, good in (("short", "u00", False), ("none", "", False), ("upper", "U0041", False), ("high", "ud800", False), ("high-text", "ud800ab", False),
                              ("high-half", "ud800\\", False), ("high-newline", "ud800\\n", False), ("high-u", "ud800\\u", False), ("high-high", "ud800\\udbff", False),
                              ("high-after", "ud800\\ue000", False), ("high-before", "ud800\\u0041", False), ("low", "udc00", False), ("last-low", "udfff", False),
                              ("before", "ud7ff", True), ("after", "ue000", True), ("pair", "ud83d\\ude00", True), ("last-pair", "udbff\\udfff", True),
                              ("one", "u007f", True), ("two", "u0080", True), ("two-last", "u07ff", True), ("three", "u0800", True)):
        yield name, words, good
    for letter in "\"\\/bfnrt":
        yield f"letter-{ord(letter):x}", letter, True


UTF8 = {"c1": b"\xc1\x80", "c2": b"\xc2\x80", "c2-7f": b"\xc2\x7f", "c2-c0": b"\xc2\xc0", "df": b"\xdf\xbf", "e0-9f": b"\xe0\x9f\x80", "e0-a0": b"\xe0\xa0\x80",
        "e0-c0": b"\xe0\xc0\x80", "e1-7f": b"\xe1\x7f\x80", "e1-tail": b"\xe1\x80\x7f", "ed-9f": b"\xed\x9f\xbf", "ed-a0": b"\xed\xa0\x80", "ef": b"\xef\xbf\xbf",
        "f0-8f": b"\xf0\x8f\x80\x80", "f0-90": b"\xf0\x90\x80\x80", "f0-tail": b"\xf0\x90\x7f\x80", "f0-last": b"\xf0\x90\x80\x7f", "f4-8f": b"\xf4\x8f\xbf\xbf",
        "f4-90": b"\xf4\x90\x80\x80", "f5": b"\xf5\x80\x80\x80", "80": b"\x80", "ff": b"\xff", "cut-c2": b"\xc2", "cut-2": b"\xc3", "cut-3": b"\xe2\x82", "cut-4": b"\xf0\x9f\x98"}


def is_utf8(letters):
    try:
        letters.decode()
        return True
    except UnicodeDecodeError:
        return False


def numbers():
    for words, good in (("0", True), ("-0", True), ("01", False), ("-", False), ("1.", False), ("1.5", True), (".5", False), ("1e", False), ("1e5", True), ("1E+5", True),
                        ("1e-5", True), ("1e+", False), ("1.5e", False), ("10", True), ("00", False), ("-01", False), ("1:", False), ("1/", False)):
        yield words, good


def tensors():
    for name, words, good in escapes():
        yield f"safetensors-escape-{name}", "safetensors", safetensors(EIGHT, header='{"__metadata__":{"k":"\\%s"},%s}' % (words, W)), *verdict(good)
    yield "safetensors-escaped-key", "safetensors", safetensors(EIGHT, header='{"__metadata__":{"\\u0041":"b"},%s}' % W), "ok", ""
    for name, letters in UTF8.items():
        yield f"safetensors-utf8-{name}", "safetensors", safetensors(EIGHT, header=b'{"__metadata__":{"k":"' + letters + b'"},' + W.encode() + b"}"), *verdict(is_utf8(letters))
        yield f"gguf-utf8-{name}", "gguf", gguf([entry(b"k" + letters, 0, b"\1")]), *verdict(is_utf8(letters) and name != "c2")
        yield f"gguf-text-{name}", "gguf", gguf([entry(b"k", 8, text(letters + b"x" * 70)), entry(b"l", 8, text(b"x" * 58 + letters + b"y" * 9))]), "ok", ""
    for name, shape in (("slash", "[2/]"), ("colon", "[2:]"), ("point", "[2.]"), ("e", "[2e1]"), ("upper", "[2E1]"), ("open", "[2"), ("blank", "[ 2 ]"), ("zeros", "[00]")):
        made = safetensors(EIGHT, header='{"w":{"dtype":"F32","shape":%s,"data_offsets":[0,8]}}' % shape)
        yield f"safetensors-shape-{name}", "safetensors", made, *verdict(name == "blank")
    for field in ("dtype", "shape", "data_offsets"):
        yield f"safetensors-no-{field}", "safetensors", safetensors(EIGHT, header="{%s}" % W.replace(field, "x")), "corrupt", "nothing else"
    for length in range(2, len(W) + 2):  # the header ends anywhere
        yield f"safetensors-cut-{length}", "safetensors", safetensors(EIGHT, header=("{%s}" % W)[:length]), *verdict(length == len(W) + 2)
    yield "gguf-scalar", "gguf", gguf([], [tensor(b"w", [])], b"\0" * 32), "ok", ""
    yield "gguf-empty", "gguf", gguf([], [tensor(b"v", [0]), tensor(b"w", [0]), tensor(b"u", [1])], b"\0" * 32), "ok", ""
    yield "gguf-text-tails", "gguf", gguf([entry(b"k", 8, text(b"\x80" * 70)), entry(b"l", 8, text(b"a\tb\nc"))]), "ok", ""
    values = ((0, b"\xff"), (1, b"\xff"), (2, b"\xff\xff"), (3, b"\xff\xff"), (4, b"\xff" * 4), (5, b"\xff" * 4), (6, f32(1)), (7, b"\1"), (10, b"\xff" * 8), (11, b"\xff" * 8),
              (12, struct.pack("<d", 1e300)), (12, struct.pack("<d", float("inf"))))
    for number, (kind, value) in enumerate(values):
        yield f"gguf-value-{number}", "gguf", gguf([entry(b"k", kind, value), array(b"l", kind, 2, value * 2)]), "ok", ""
    six = b"\0" * 24
    good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"
    for length in range(len(good)):
        yield f"npy-header-{length}", "npy", npy("", header=good[:length], data=six), "corrupt", ""
    for name, header, good in (("double", good.replace("'", '"'), True), ("mixed", good.replace("'<f4'", "'<f4\""), False), ("tight", good.replace(" ", ""), True),
                               ("order-twice", good.replace("False", "False, 'fortran_order': True"), False), ("no-colon", good.replace("':", "'"), False),
                               ("no-comma", good.replace("'<f4',", "'<f4'"), False), ("one", good.replace("(2, 3)", "(6,)"), True), ("after", good + "x", False),
                               ("native", good.replace("<", "="), True), ("byte", good.replace("'<f4'", "'<u1'").replace("(2, 3)", "(24,)"), True),
                               ("letter", good.replace("<f4", "f4"), False), ("short", good.replace("<f4", "<"), False), ("bar", good.replace("<f4", "|f4"), False)):
        code, words = verdict(good)
        yield f"npy-{name}", "npy", npy("", header=header, data=six), "" if name in ("letter", "bar", "mixed") else code, words
    for kind, width in (("<f2", 2), ("<f8", 8), ("|b1", 1), ("<i2", 2), ("<u2", 2), ("<u4", 4), ("<u8", 8), ("<i8", 8), ("|i1", 1)):
        yield f"npy-type-{kind}", "npy", npy("(24,)", kind, b"\1" + b"\0" * (24 * width - 1)), "ok", ""
    yield "npy-u8-large", "npy", npy("(1,)", "<u8", b"\xff" * 8), "overflow", "does not fit i32"
    yield "npy-i8-least", "npy", npy("(1,)", "<i8", struct.pack("<q", -2**31 - 1)), "overflow", "does not fit i32"
    yield "npy-scalar", "npy", npy("()", data=b"\0" * 4), "ok", ""
    yield "npy-fortran-i8", "npy", npy("(2, 3)", "<i8", b"\0" * 48, order="True"), "ok", ""
    yield "npy-version-2-cut", "npy", b"\x93NUMPY\2\0\0\0", "corrupt", "ends within its header"
    for code in (8, 9, 0xb, 0xc, 0xd, 0xe):
        yield f"idx-type-{code}", "idx", idx(code, [3], b"\x7f\x80\xff" * 8)[:8 + 3 * {8: 1, 9: 1, 0xb: 2, 0xc: 4, 0xd: 4, 0xe: 8}[code]], "ok", ""
    yield "idx-magic-second", "idx", b"\0\1\x08\1\0\0\0\1a", "corrupt", "it begins with 0 0"
    yield "idx-none", "idx", idx(8, [0]), "ok", ""
    yield "idx-long", "idx", idx(0xc, [5000], b"\0" * 20000), "ok", ""


def tables():
    for name, words, good in escapes():
        yield f"jsonl-escape-{name}", "jsonl", ('{"a":"\\%s"}\n' % words).encode(), *verdict(good)
    for words, good in numbers():
        yield f"jsonl-number-{words}", "jsonl", ('{"a":%s}\n' % words).encode(), "ok" if good else "", ""
    for name, line in (("list", "[]"), ("open", "{"), ("no-key", "{:1}"), ("key-number", "{1:1}"), ("no-colon", '{"a"1}'), ("no-value", '{"a":}'), ("no-comma", '{"a":1 "b":2}'),
                       ("after", '{"a":1}x'), ("twice", '{"a":1,"a":2}'), ("word", '{"a":nul}'), ("infinity", '{"a":Infinity}'), ("nan", '{"a":nan}'), ("quote", '{"a":"'),
                       ("control", '{"a":"\1"}'), ("control-key", '{"a\1":1}'), ("key-open", '{"a'), ("huge", '{"a":1e999}'), ("colon", '{"a":1:}'), ("plus", '{"a":+1}'),
                       ("minus", '{"a":-}'), ("dash", '{"a":-x}'), ("end", '{"a":1')):
        yield f"jsonl-{name}", "jsonl", line.encode() + b"\n", "ok" if name == "huge" else "corrupt", "line 1" if name != "huge" else ""
    for name, value in (("object", "{}"), ("array", "[1]")):
        yield f"jsonl-{name}", "jsonl", ('{"a":%s}' % value).encode(), "unsupported", "tables are flat"
    whole = '{"a":"\\ud83d\\ude00","b\\"":-1.5e3,"c":"\\n"}'
    for length in range(1, len(whole)):
        yield f"jsonl-cut-{length}", "jsonl", whole[:length].encode(), "corrupt", "line 1"
    for key in ("a", "ab"):
        yield f"jsonl-quotes-{key}", "jsonl", ('{"%s":"%s"}' % (key, '\\"' * 60)).encode(), "ok", ""
    yield "jsonl-empty", "jsonl", b"", "corrupt", "nothing in it"
    yield "jsonl-blanks", "jsonl", b"\xef\xbb\xbf \t\r\n\n", "corrupt", "nothing in it"
    yield "jsonl-nothing", "jsonl", b"{}\n{}\n", "corrupt", "nothing in it"
    yield "jsonl-many", "jsonl", b'{"b":1,"a":"x\\"y","c":null}\r\n\n{"a":true,"d":false,"b":""}', "ok", ""
    for field in ("  ", "    ", "/", ":", "0", "+1", "+-1", "+", " 1 ", "1 2", "TRUE", "False", "tru", "trues", "[rue", "@", "1e400", "nan", "inf", "-inf", "0x1", "1_0"):
        yield f"csv-field-{field}", "csv", f"a,b\n{field},1\n".encode(), "ok", ""
    for date in ("2020-01-01", "2020/01/01", "2020-02-29", "2021-02-29", "1900-02-29", "2000-02-29", "2020-1-1", "2020-13-01", "2020-00-01", "2020-01-00", "2020-01-32", "2020-04-31",
                 "0000-01-01", "2020", "2020-", "2020-01", "2020-01/01", "202:-01-01", "202/-01-01", "2020-0:-01", "2020-01-0/", "2020-01-01x", "2020-01-01T", "2020-01-01T10",
                 "2020-01-01T10:", "2020-01-01T10:3", "2020-01-01T10:30", "2020-01-01 10:30:15", "2020-01-01T10:30:15Z", "2020-01-01T10:30Z", "2020-01-01T10:30:15.25",
                 "2020-01-01T10:30:15./", "2020-01-01T10:30:15.:", "2020-01-01T24:00", "2020-01-01T23:60", "2020-01-01T23:59:61", "2020-01-01T23:59:60", "2020-01-01T-1:00",
                 "2020-01-01T10:-1", "2020-01-01T10:30:-1", "2020-01-01T10:30:5", "2020-01-01T10.30", "2020-01-01T10:30.15", "2020.01.01"):
        yield f"csv-date-{date}", "csv", f"a,b\n{date},1\n{date},2\n".encode(), "ok", ""
    for name, words in (("cr", b"a,b\r1,2\r"), ("crlf", b"a,b\r\n1,2\r\n"), ("quoted-end", b'a,b\n1,"2"'), ("quoted-crlf", b'a,b\r\n1,"2"\r\n'), ("quoted-cr", b'a,b\n1,"2"\r'),
                        ("lines", b'a,b\n"1\n2\n3",2\nx'), ("blank-quoted", b'a,b\n""\n1,2\n'), ("one-column", b"a\n\n1\n"), ("cut", b"a,"), ("mixed", b"a\n1\n2020-01-01\nTrue\n"),
                        ("truths", b"a,b\nTRUE,1\nfalse,\n"), ("dates", b"a\n2020-01-01\n\n2020-01\n"), ("times", b"a\n2020-01-01 10:00\n2020-01-02\n"), ("header-only", b"a,b\n")):
        yield f"csv-{name}", "csv", words, "corrupt" if name in ("quoted-cr", "lines", "blank-quoted") else "ok", ""


def tokenizers():
    def model(**change):
        return bpe(model={**bpe()["model"], **change})
    for name, words, good in escapes():
        yield f"json-escape-{name}", "tokenizer.json", dump(bpe(extra=1)).replace(b'"extra": 1', b'"extra": "\\' + words.encode() + b'"'), *verdict(good)
    for name, letters in UTF8.items():
        yield f"json-utf8-{name}", "tokenizer.json", dump(bpe(extra=1)).replace(b'"extra": 1', b'"extra": "' + letters + b'"'), *verdict(is_utf8(letters))
    for words, good in numbers():
        yield f"json-number-{words}", "tokenizer.json", dump(bpe(extra=1)).replace(b'"extra": 1', b'"extra": ' + words.encode()), *verdict(good)
    small = b'{"a":[true,false,null,"x",{"b":1}],"c":-2.5e3} '
    for length in range(len(small)):
        yield f"json-cut-{length}", "tokenizer.json", small[:length], "corrupt", ""
    for ident in (2**31 - 1, 1023, 1024 + 4 * 5):
        yield f"id-{ident}", "tokenizer.json", dump(model(vocab={"<s>": 0, "a": 1, "b": 2, "ab": 3, "x": ident})), "", ""
    for c in BESIDE:
        for word in (f"<0x{c}1>", f"<0x1{c}>"):
            good = c in HEX
            yield f"byte-{word}", "tokenizer.json", dump(unigram(vocab=[["<unk>", 0], [word, -1]], byte_fallback=True)), *verdict(good, "not spelled like <0x0A>")
    for word in ("<0x", "<0x41", "<0x41>>", "<0y41>", "<0x41)", "0x41>>"):
        yield f"byte-{word}", "sentencepiece", sentencepiece([*PIECES[:4], piece(word.encode(), 0, 6)]), "corrupt", "not spelled like <0x0A>"
    for number in (1, 2, 3, 24, 40, 41, 42, 43):  # of the trainer and the normalizer, of every kind
        for wire, value in ((0, varint(1)), (1, EIGHT), (2, varint(1) + b"x"), (5, b"\0" * 4)):
            field = varint(number << 3 | wire) + value
            yield f"trainer-{number}-{wire}", "sentencepiece", sentencepiece(trainer=field), "", ""
            yield f"normalizer-{number}-{wire}", "sentencepiece", sentencepiece(more=proto(3, field)), "", ""
            yield f"piece-{number}-{wire}", "sentencepiece", sentencepiece([*PIECES, proto(1, field)]), "", ""
            yield f"model-{number}-{wire}", "sentencepiece", sentencepiece(more=field), "", ""
    for name, value in (("negative", 2**64 - 1), ("past", 5), ("huge", 2**63 - 1)):
        yield f"trainer-ids-{name}", "sentencepiece", sentencepiece(trainer=b"\x18\2" + b"".join(proto(n, value) for n in (40, 41, 42))), "ok", ""
    for name, part in (("piece", proto(1, b"\x08")), ("trainer", proto(2, b"\x08")), ("normalizer", proto(3, b"\x08")), ("ten-bytes", varint(3 << 3) + b"\x80" * 9 + b"\1")):
        yield f"broken-{name}", "sentencepiece", sentencepiece(more=part), "ok" if name == "ten-bytes" else "corrupt", ""
    for c in BESIDE + "+,-.=":
        line = base64.b64encode(b"abc")[:3] + c.encode()
        yield f"tiktoken-{ord(c):x}", "tiktoken", line + b" 0\n", "", ""
        yield f"tiktoken-rank-{ord(c):x}", "tiktoken", b"YQ== " + c.encode() + b"\n", "ok" if c == "0" else "corrupt", ""
    yield "tiktoken-return", "tiktoken", b"YQ== 0\r\nYg== 1\r\n", "ok", ""
    yield "tiktoken-return-more", "tiktoken", b"YQ== 0\rx\n", "corrupt", ""
    for name, merges in (("eight-spaces", ["a b" + " " * 10]), ("spaces", ["  "]), ("three", [["a", "b", "c"]]), ("one", [["a"]]), ("both-unknown", ["x y"]), ("first-unknown", ["x b"])):
        yield f"merge-{name}", "tokenizer.json", dump(model(merges=merges)), "" if name == "three" else "corrupt", ""
    marker = "\u2581"
    plain = {"type": "BPE", "vocab": {"<unk>": 0, "a": 1, marker: 2, marker + "a": 3}, "merges": [[marker, "a"]], "unk_token": "<unk>"}
    steps = {"prepend": {"type": "Prepend", "prepend": marker}, "replace": {"type": "Replace", "pattern": {"String": " "}, "content": marker},
             "replace-other": {"type": "Replace", "pattern": {"String": "x"}, "content": marker}, "replace-by": {"type": "Replace", "pattern": {"String": " "}, "content": "x"},
             "prepend-other": {"type": "Prepend", "prepend": "x"}, "nfc": {"type": "NFC"}, "bert": {"type": "BertNormalizer"}, "number": 1, "null": None}
    for name, step in steps.items():
        yield f"normalizer-{name}", "tokenizer.json", dump(bpe(model=plain, added_tokens=[], pre_tokenizer=None, decoder=None, normalizer=step)), "", ""
        yield f"normalizer-list-{name}", "tokenizer.json", dump(bpe(model=plain, added_tokens=[], pre_tokenizer=None, decoder=None, normalizer={"type": "Sequence", "normalizers": [step]})), "", ""
    pres = {"metaspace": {"type": "Metaspace"}, "metaspace-never": {"type": "Metaspace", "prepend_scheme": "never"}, "metaspace-first": {"type": "Metaspace", "prepend_scheme": "first"},
            "byte-level": {"type": "ByteLevel"}, "byte-level-plain": {"type": "ByteLevel", "use_regex": False, "add_prefix_space": True}, "digits": {"type": "Digits"},
            "bert": {"type": "BertPreTokenizer"}, "punctuation": {"type": "Punctuation"}, "split-space": {"type": "Split", "pattern": {"String": " "}},
            "split-removed": {"type": "Split", "pattern": {"Regex": "\\s"}, "behavior": "Removed", "invert": True}, "split-isolated": {"type": "Split", "pattern": {"Regex": "\\d"}, "behavior": "Isolated"}}
    models = {"bytes": bpe(), "characters": bpe(model=plain, added_tokens=[], decoder=None), "unigram": unigram(), "wordpiece": wordpiece()}
    for name, step in pres.items():
        for kind, made in models.items():
            yield f"pre-{kind}-{name}", "tokenizer.json", dump({**made, "pre_tokenizer": step}), "", ""
    sequence = {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}, {"type": "Digits"}]}
    yield "pre-of-two", "tokenizer.json", dump(bpe(pre_tokenizer=sequence)), "ok", ""
    yield "decoder-of-two", "tokenizer.json", dump(bpe(pre_tokenizer={"type": "Digits"}, decoder={"type": "Sequence", "decoders": [{"type": "ByteLevel"}, {"type": "Fuse"}]})), "ok", ""
    spaced = bpe(normalizer={"type": "Prepend", "prepend": marker}, pre_tokenizer={"type": "ByteLevel"})
    yield "space-twice", "tokenizer.json", dump(spaced), "", ""
    for word in ("abcdef", "<0x41)", "<0x41>", "0x4100"):
        yield f"fallback-{word}", "tokenizer.json", dump(unigram(vocab=[["<unk>", 0], [word, -1]], byte_fallback=True)), "ok", ""
        yield f"fallback-bpe-{word}", "tokenizer.json", dump(bpe(model={**plain, "vocab": {**plain["vocab"], word: 4}, "byte_fallback": True}, added_tokens=[], decoder=None, pre_tokenizer=None)), "ok", ""
    eight = [["<unk>", 0]] + [[f"p{i}", -1] for i in range(7)]
    yield "eight-and-one", "tokenizer.json", dump({**unigram(vocab=eight), "added_tokens": [{"id": 8, "content": "x", "lstrip": True, "rstrip": True}]}), "ok", ""
    for count in (5, 9):
        a, b = "a" * count, "b" * count
        made = {**plain, "vocab": {"<unk>": 0, a: 1, b: 2, a + b: 3}, "merges": [[a, b]]}
        yield f"merge-long-{count}", "tokenizer.json", dump(bpe(model=made, added_tokens=[], decoder=None, pre_tokenizer=None)), "ok", ""
    yield "merge-pairs", "tokenizer.json", dump(model(merges=[["a", "b"]])), "ok", ""
    yield "blanks", "tokenizer.json", dump(bpe()).replace(b": ", b"\r\n:\t "), "ok", ""
    for kind, made in models.items():
        for name, change in (("no-type", {"type": None}), ("no-type-list", {"type": None, "vocab": [["<unk>", 0]]}), ("no-merges", {"type": None, "merges": None}), ("other", {"type": "Other"}),
                             ("prefix", {"continuing_subword_prefix": "##"}), ("prefix-other", {"continuing_subword_prefix": "@"}), ("suffix", {"end_of_word_suffix": "</w>"}),
                             ("unknown", {"unk_token": "a", "unk_id": 1}), ("fallback", {"byte_fallback": True}), ("fuse", {"fuse_unk": True}), ("ignore", {"ignore_merges": True}),
                             ("vocab-number", {"vocab": 1}), ("vocab-object", {"vocab": {}}), ("vocab-list", {"vocab": []})):
            changed = {key: value for key, value in {**made["model"], **change}.items() if value is not None}
            yield f"model-{kind}-{name}", "tokenizer.json", dump({**made, "model": changed}), "", ""
    for name, token in (("special", {"id": 4, "content": "x", "special": True}), ("plain", {"id": 4, "content": "x"}), ("strips", {"id": 4, "content": "x", "lstrip": True}),
                        ("right", {"id": 4, "content": "x", "rstrip": True}), ("far", {"id": 900, "content": "x"}), ("same", {"id": 1, "content": "a"}), ("other", {"id": 1, "content": "x"})):
        for kind, made in models.items():
            yield f"added-{kind}-{name}", "tokenizer.json", dump({**made, "added_tokens": [token]}), "", ""
    for name, post in (("template", {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "<s>"}}]}),
                       ("none", {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "none"}}]}), ("other", {"type": "ByteLevel"}), ("numbers", {"single": [1, {}]}),
                       ("list", {"processors": [{"type": "ByteLevel"}, {"type": "TemplateProcessing", "single": [{"Sequence": {}}]}]})):
        yield f"post-{name}", "tokenizer.json", dump(bpe(post_processor=post)), "ok", ""
    words = {"[UNK]": 0, "a": 1, "##b": 2, "[CLS]": 3, "[": 4, "[]": 5, "[x": 6, "x]": 7}
    yield "wordpiece-brackets", "tokenizer.json", dump(wordpiece(vocab=words)), "ok", ""


def vocabularies():
    """In GGUF files."""
    key = b"tokenizer.ggml."

    def made(change, **more):
        return llama(change={key + name: value for name, value in change.items()}, **more)
    for model in (b"gpt2", b"llama", b"t5", b"bert"):
        merges = {b"model": (8, text(model)), b"merges": (9, u32(8) + struct.pack("<Q", 1) + text(b"a b"))}
        for name, more in (("plain", {}), ("cls", {b"cls_token_id": (4, u32(1))}), ("separator", {b"seperator_token_id": (4, u32(1))}), ("flags", {b"add_bos_token": (7, b"\1"), b"add_eos_token": (7, b"\1")}),
                           ("squeeze", {b"remove_extra_whitespaces": (7, b"\1")}), ("whole", {b"pre": (8, text(b"llama3"))}),
                           ("charsmap-i8", {b"precompiled_charsmap": (9, u32(1) + struct.pack("<Q", 4) + b"\0" * 4)}), ("charsmap-u8", {b"precompiled_charsmap": (9, u32(0) + struct.pack("<Q", 4) + b"\0" * 4)}),
                           ("charsmap-u16", {b"precompiled_charsmap": (9, u32(2) + struct.pack("<Q", 2) + b"\0" * 4)}), ("charsmap-one", {b"precompiled_charsmap": (0, b"\0")})):
            yield f"{model.decode()}-{name}", "model", made({**merges, **more}), "", ""
    for kind in range(0, 8):
        kinds = [2, 3, 3, 1, kind, 1]
        for model in (b"llama", b"gpt2", b"t5", b"bert"):
            merges = {b"model": (8, text(model)), b"merges": (9, u32(8) + struct.pack("<Q", 0))}
            yield f"kind-{kind}-{model.decode()}", "model", made(merges, kinds=kinds), "", ""
    for name, word in (("long", "\u2581" + "x" * 20), ("marker", "\u2581x"), ("marker-later", "x\u2581"), ("markers", "\u2581\u2581"), ("letters", "\u0120x"), ("outside", "\u4e00"), ("no-letter", "\u00ad"), ("broken", "\udcff"), ("blank", " ")):
        for model in (b"llama", b"gpt2", b"t5", b"bert"):
            merges = {b"model": (8, text(model)), b"merges": (9, u32(8) + struct.pack("<Q", 0))}
            words = [b"<unk>", b"<s>", b"</s>", b"a", b"b", word.encode("utf-8", "surrogateescape")]
            yield f"word-{name}-{model.decode()}", "model", made(merges, words=words), "", ""


TEMPLATES = (
    "{{ 1 }}", "{{ 'a' \"b\" }}", "{{ 1.5e-3 + 2_0 - 1E2 }}", "{{ 1, 2 }}", "{{ (1, 2,) }}", "{{ () }}", "{{ [1, 'b', [2,]] }}", "{{ {'a': 1, 'b': {},} }}",
    "{{ 1 if true else 2 }}", "{{ 1 if False }}", "{{ 1 if 0 else 2 if none else 3 }}", "{{ not True and false or None }}", "{{ 1 < 2 <= 3 == 3 != 4 > 1 >= 0 }}",
    "{{ 1 in [1] and 2 not in [1] }}", "{{ -1 + +2 - 3 * 4 // 5 % 6 + 7 ** 2 }}{{ 8 / 2 ~ 'x' ~ 'y' }}", "{{ messages[0].role }}", "{{ messages[0]['role'] }}", "{{ messages.0.role }}",
    "{{ messages[0:2:1]|length }}", "{{ messages[::-1]|length }}", "{{ messages[:1]|length }}", "{{ 'a'|upper|trim }}", "{{ 'a'|replace('a', 'b') }}",
    "{{ [3, 1]|sort(reverse=true)|join(',') }}", "{{ 1 is defined and 2 is not none }}", "{{ 4 is divisibleby 2 }}", "{{ 4 is divisibleby(2) or x is undefined }}",
    "{{ 'a' is in ['a'] }}", "{{ 4 is odd if 1 is number else 2 }}", "{{ -(messages|length) }}", "{{ namespace(a=1).a }}", "{{ 'a'.upper() }}", "{{ ('a')|upper }}",
    "{% set x = 1 %}{{ x }}", "{% set x, y = 1, 2 %}{{ y }}", "{% set x %}a{% endset %}{{ x }}", "{% set x | upper %}a{% endset %}{{ x }}",
    "{% set ns = namespace(a=1) %}{% set ns.a = 2 %}{{ ns.a }}", "{% if 1 %}a{% elif 2 %}b{% else %}c{% endif %}", "{% if 0 %}a{% endif %}",
    "{% for a in [1, 2] %}{{ a }}{% endfor %}", "{% for a, b in [(1, 2)] %}{{ b }}{% else %}n{% endfor %}", "{% for a in [1] if a %}{{ loop.index }}{% endfor %}",
    "{% for (a, b,) in [(1, 2)] %}{% break %}{% continue %}{% endfor %}", "{% macro m(a, b=1) %}{{ a }}{{ b }}{% endmacro %}{{ m(2) }}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}x{% endcall %}", "{% macro m() %}{{ caller(1) }}{% endmacro %}{% call(v) m() %}{{ v }}{% endcall %}",
    "{% filter upper %}a{% endfilter %}", "{% filter replace('a', 'b') | upper %}a{% endfilter %}", "{% generation %}a{% endgeneration %}", "{% raw %}{{ x }}{% endraw %}",
    "{% raw -%} {{ x }} {%- endraw -%} ", "{%- raw %}{% x {%+ endraw %}", "{# c #}", "{#- c -#} ", "{{- 1 -}}", "a {%- if 1 -%} b {%- endif -%} c", "  {% if 1 %}\n  x\n  {% endif %}\n",
    "{%+ if 1 +%}\nx{% endif %}\n\n", "{ { } %}{", "x{", "{{ '\\n\\x41\\u00e4\\U0001f600\\q\\\n\\\\\\'' }}", "{{ {'a': 1}['a'] + [1][0] }}", "\r\n{{ 1 }}\r\n",
    "\n{{ 1 }}", "{##}", "{{ 1 }}a{{ 1 }}a{% raw %}x{% endraw %}", "{{ 2.5 is number }}", "{{ 1 is defined or 2 }}", "{{ 'a'|upper is string }}",
)
BROKEN = (
    "{{ raw }}", "{{ f(**a) }}", "{{ f(1 2) }}", "{{ f(a '=') }}", "{{ f(a 1) }}", "{{ 'a'|upper()('b') }}", "{{ a is defined('b') }}", "{{ 1 not 'in' }}", "{{ 1 not 2 }}",
    "{{ 1 is defined is defined }}", "{{ 1 is defined in [true] }}", "{{ 1 is defined not in [1] }}", "{{ 1 is defined and 2 }}", "{{ 1 is divisibleby 2.5 }}", "{{ 1 is in {} }}",
    "{{ 1 is in [] }}", "{{ 1 is in 'a' }}", "{{ 1 is defined if 1 else 2 }}", "{{ 1 if 1 is defined else 2 }}", "{% for a in b recursive %}{% endfor %}", "{% set x %}a{% endset y %}",
    "{{ 'a\\", "{{ 1 is defined not }}",
)
PARTS = re.compile(r"\{[{%#][-+]?|[-+]?[}%#]\}|\w+|\s+|.", re.S)


def templates():
    for number, template in enumerate(TEMPLATES):
        for before in range(8):  # nodes, so that their list grows at each place
            yield f"{number}-after-{before}", "chat", "a" * (before % 2) + "{{ 1 }}" * (before // 2) + template, "ok", ""
    for number, template in enumerate(BROKEN):
        yield f"broken-{number}", "chat", template, "", ""
    for letters in range(4):
        yield f"deep-brackets-{letters}", "chat", "{{ " + "not " * letters + "(" * 100 + "1" + ")" * 100 + " }}", "overflow", "nested too deep"
        yield f"deep-ifs-{letters}", "chat", "{% for a in [1] %}" * letters + "{% if 1 %}" * 150 + "{% endif %}" * 150 + "{% endfor %}" * letters, "overflow", "nested too deep"
    for depth in range(197, 203):
        yield f"deep-generation-{depth}", "chat", "{% generation %}" * depth + "{% if 1 %}", "", ""
    yield "deep-fors", "chat", "{% for a in [1] %}" * 300 + "{% endfor %}" * 300, "overflow", "nested too deep"
    yield "neighbours", "chat", "{{ '" + "a" * 100_000 + "'" + " 'b'" * 150 + " }}", "overflow", "takes more memory than it may"
    for number, template in enumerate(TEMPLATES):
        parts = PARTS.findall(template)
        for cut in range(len(parts)):
            yield f"{number}-cut-{cut}", "chat", "".join(parts[:cut]), "", ""
            yield f"{number}-without-{cut}", "chat", "".join(parts[:cut] + parts[cut + 1:]), "", ""
            yield f"{number}-twice-{cut}", "chat", "".join(parts[:cut] + parts[cut:cut + 1] + parts[cut:]), "", ""
    for c in BESIDE + "_@^$!?;&\\\x7f\x80":
        yield f"name-{ord(c):x}", "chat", "{% set a" + c + " = 1 %}", "", ""
        yield f"name-begins-{ord(c):x}", "chat", "{% set " + c + " = 1 %}", "", ""
        yield f"number-{ord(c):x}", "chat", "{{ 1" + c + " }}", "", ""
        for escape, digits in (("x", 2), ("u", 4), ("U", 8)):
            yield f"escape-{escape}-{ord(c):x}", "chat", "{{ '\\" + escape + "0" * (digits - 1) + c + "' }}", "", ""
    for name, words in (("surrogate", "\\ud800"), ("last-surrogate", "\\udfff"), ("before", "\\ud7ff"), ("after", "\\ue000"), ("last", "\\U0010ffff"), ("past", "\\U00110000"),
                        ("short", "\\x4"), ("end", "\\x")):
        yield f"code-{name}", "chat", "{{ '%s' }}" % words, *verdict(name in ("before", "after", "last"))
    for words in ("1e", "1e+", "1e-", "1e+x", "1.e", "1.x", "1..2", "1.5", "1_", "9" * 64, "9" * 65, "1" + "0" * 64 + ".5", "9223372036854775807", "9223372036854775808", "1e999", "1e", "1E", "1e5", "1.5e", "1", "1."):
        yield f"number-{words[:12]}", "chat", "{{ %s }}" % words, "", ""
        yield f"number-end-{words[:12]}", "chat", "{{ %s" % words, "corrupt", ""


def configs():
    def folder(**change):
        config = {key: value for key, value in {**CONFIG, **change}.items() if value != "drop"}
        return {"config.json": json.dumps(config).encode(), "model.safetensors": WEIGHTS}
    yarn = {"rope_type": "yarn", "factor": 4, "mscale": 1, "mscale_all_dim": 1}
    for name, change in (("yarn", {}), ("yarn-no-mscale", {"mscale": 0}), ("yarn-no-all", {"mscale_all_dim": 0}), ("yarn-factor", {"factor": 1}), ("yarn-attention", {"attention_factor": 2}),
                         ("yarn-slow", {"beta_slow": 0}), ("yarn-fast", {"beta_fast": 0}), ("yarn-context", {"original_max_position_embeddings": 0}), ("linear", {"rope_type": "linear"}),
                         ("dynamic", {"rope_type": "dynamic"}), ("llama3", {"rope_type": "llama3"}), ("llama3-low", {"rope_type": "llama3", "low_freq_factor": 0}),
                         ("longrope", {"rope_type": "longrope", "short_factor": [1], "long_factor": [2]}), ("su", {"rope_type": None, "type": "su", "short_factor": [1], "long_factor": [2]}),
                         ("short", {"rope_type": "longrope", "short_factor": [], "long_factor": [2]})):
        yield f"rope-{name}", "folder", folder(rope_scaling={**yarn, **change}), "", ""
        yield f"rope-parameters-{name}", "folder", folder(rope_parameters={**yarn, **change}), "", ""
        yield f"rope-of-two-{name}", "folder", folder(rope_parameters={"full_attention": {**yarn, **change}, "sliding_attention": {**yarn, **change}}), "", ""
    for kind in ("llama", "gemma", "gemma2", "gemma3_text", "qwen2", "qwen2_moe", "qwen3_moe", "gpt2", "gpt_bigcode", "starcoder2", "mixtral", "phi3"):
        for name, change in (("sliding", {"sliding_window": 4}), ("sliding-used", {"sliding_window": 4, "use_sliding_window": True, "max_window_layers": 0}), ("windowed", {"sliding_window": 4, "layer_types": ["full_attention"]}),
                             ("types-no-window", {"layer_types": ["sliding_attention"]}), ("types-number", {"layer_types": 1, "sliding_window": 4}), ("activation-none", {"hidden_act": None}),
                             ("activation", {"hidden_activation": "gelu"}), ("activation-function", {"hidden_activation": "", "activation_function": "relu"}), ("scale", {"query_pre_attn_scalar": 4}),
                             ("unscaled", {"scale_attn_weights": False}), ("inner", {"intermediate_size": 0}), ("inner-null", {"intermediate_size": None, "n_inner": 8}), ("bigcode", {"multi_query": True}),
                             ("experts", {"num_local_experts": 2, "num_experts": 2, "num_experts_per_tok": 1, "norm_topk_prob": True}), ("experts-used-none", {"num_local_experts": 2, "num_experts": 2}),
                             ("experts-shared", {"num_local_experts": 2, "num_experts": 2, "num_experts_per_tok": 1, "shared_expert_intermediate_size": -1}),
                             ("experts-step", {"num_local_experts": 2, "num_experts": 2, "num_experts_per_tok": 1, "decoder_sparse_step": 0}), ("names", {"num_hidden_layers": None, "n_layer": 1}),
                             ("eps", {"rms_norm_eps": None, "layer_norm_epsilon": 1e-6, "norm_epsilon": 1e-6}), ("rope-local", {"rope_local_base_freq": 0}), ("head", {"head_dim": 3}), ("odd", {"head_dim": 1})):
            yield f"{kind}-{name}", "folder", folder(model_type=kind, **change), "", ""
    for name, content in (("qorus-broken", native()[:100]), ("qorus", native())):
        yield name, "model", content, "corrupt" if name.endswith("broken") else "not found", ""
    without = [b"<unk>", b"<s>", b"x", b"a", b"b", b"ab"]
    yield "eot-first", "model", llama(words=without, change={b"tokenizer.ggml.eot_token_id": (4, u32(2)), b"tokenizer.ggml.eos_token_id": (4, u32(2**32 - 1))}), "ok", ""
    yield "eot", "model", llama(change={b"tokenizer.ggml.eot_token_id": (4, u32(2)), b"tokenizer.ggml.eos_token_id": (4, u32(2**32 - 1))}), "ok", ""
    own = b"llama."
    yarn = {own + b"rope.scaling.type": (8, text(b"yarn")), own + b"rope.scaling.factor": (6, f32(4))}
    one = f32(1) + b"\0" * 28
    frequencies = llama(shapes={b"rope_freqs.weight": (1,)})
    yield "gguf-freqs-good", "model", frequencies[:-32] + one, "", ""
    for name, change in (("value-length-text", {own + b"attention.value_length": (8, text(b"2"))}), ("key-length", {own + b"attention.key_length": (4, u32(2)), own + b"attention.head_count": (4, u32(3)), own + b"attention.head_count_kv": (4, u32(1))}),
                         ("value-length", {own + b"attention.value_length": (4, u32(4))}), ("factor-no-kind", {own + b"rope.scaling.factor": (6, f32(4))}),
                         ("scale-linear-yarn", {**yarn, own + b"rope.scale_linear": (6, f32(2))}), ("scale-linear-1", {own + b"rope.scale_linear": (6, f32(1))}), ("none", {own + b"rope.scaling.type": (8, text(b"none"))}),
                         ("yarn-attention-none", yarn), ("yarn-slow", {**yarn, own + b"rope.scaling.yarn_beta_slow": (6, f32(-1))}), ("longrope", {own + b"rope.scaling.type": (8, text(b"longrope"))}),
                         ("freqs-attention", {own + b"rope.scaling.attn_factor": (6, f32(2))}), ("dimension-2", {own + b"rope.dimension_count": (4, u32(2))}),
                         ("heads-list-number", {own + b"feed_forward_length": (9, u32(4) + struct.pack("<Q", 1) + u32(4))})):
        yield f"gguf-{name}", "model", llama(change=change), "", ""
        yield f"gguf-{name}-freqs", "model", llama(change=change, shapes={b"rope_freqs.weight": (1,)}), "", ""


def all_cases():
    for group in (tensors, tables, tokenizers, vocabularies, templates, configs):
        seen = {}
        for name, reader, content, code, message in group():
            seen[name] = seen.get(name, 0) + 1
            content = content.encode() if isinstance(content, str) else content
            yield f"{reader}/edge-{name}" + (f"-{seen[name]}" if seen[name] > 1 else ""), reader, content, code, message
