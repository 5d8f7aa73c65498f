"""Tokenizers and chat templates that are not what they should be, each with the error that it must give."""
import json
import struct

from files import PIECES, bpe, f32, llama2c_tokenizer, piece, proto, sentencepiece, u32, unigram, varint, wordpiece


def dump(made):
    return json.dumps(made).encode()


def model(**change):
    return bpe(model={**bpe()["model"], **change})


def json_cases():
    for name, words in (("empty", b""), ("blank", b"  "), ("open", b"{"), ("nothing", b"{}"), ("list", b"[]"), ("number", b"1"), ("null", b"null"),
                        ("half", dump(bpe())[:-2]), ("after", dump(bpe()) + b"x"), ("comma", b'{"model":{},}'), ("quotes", b"{'model':1}"),
                        ("nan", b'{"a":NaN}'), ("hex", b'{"a":0x1}'), ("zeros", b'{"a":01}'), ("plus", b'{"a":+1}'), ("dot", b'{"a":.5}'),
                        ("control", b'{"a":"\n"}'), ("utf8", b'{"a":"\xff"}'), ("escape", b'{"a":"\\x41"}'), ("surrogate", b'{"a":"\\ud800"}'),
                        ("unicode", b'{"a":"\\u12"}'), ("comment", b"{/* */}"), ("model-number", b'{"model":1}'), ("model-empty", b'{"model":{}}')):
        yield f"json-{name}", words, "corrupt", ""
    yield "nested-100000", b"[" * 100000, "corrupt", "nested more than 64 deep"
    yield "nested-objects", b'{"a":' * 100000, "corrupt", "nested more than 64 deep"
    for kind in ("", "bpe", "WordLevel", "CRF", "\u0000"):
        yield f"type-{kind!r}", dump(model(type=kind)), "unsupported" if kind else "ok", ""  # files of old have none
    for ident in (-1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 1.5, "0", None, True, 1e300):
        yield f"id-{ident}", dump(model(vocab={"<s>": 0, "a": ident})), "corrupt", ""
    yield "id-gap", dump(model(vocab={"<s>": 0, "a": 1, "b": 2, "ab": 1000000})), "corrupt", ""
    yield "id-twice", dump(model(vocab={"<s>": 0, "a": 1, "b": 1, "ab": 2})), "corrupt", ""
    yield "piece-twice", b'{"model":{"type":"BPE","vocab":{"a":0,"a":1},"merges":[]}}', "corrupt", "a piece stands twice"
    yield "vocab-list", dump(model(vocab=["a"])), "corrupt", ""
    yield "vocab-empty", dump(bpe(added_tokens=[], model={"type": "BPE", "vocab": {}, "merges": []})), "corrupt", ""
    for name, merges in (("unknown", ["a c"]), ("result", ["b a"]), ("one", ["a"]), ("none", [""]), ("space", [" "]), ("numbers", [1]), ("empty-pair", [[]]),
                         ("pair-of-numbers", [[1, 2]]), ("list-of-lists", [[["a"], ["b"]]])):
        yield f"merge-{name}", dump(model(merges=merges)), "corrupt", "a merge of pieces"
    yield "merge-200kb", dump(model(merges=["a " + "b" * 200000])), "corrupt", "a merge that is too long"
    yield "merge-of-spaces", dump(model(merges=[" " * 100000])), "corrupt", "a merge"
    yield "piece-200kb", dump(model(vocab={"<s>": 0, "a": 1, "b": 2, "ab": 3, "x" * 200000: 4})), "unsupported", "a piece of more than 64 KiB"
    for name, token in (("no-content", {"id": 0}), ("content-number", {"id": 0, "content": 1}), ("no-id", {"content": "x"}),
                        ("id-negative", {"id": -1, "content": "x"}), ("id-far", {"id": 2**31 - 1, "content": "x"}), ("id-huge", {"id": 2**63 - 1, "content": "x"}),
                        ("id-text", {"id": "0", "content": "x"}), ("number", 7)):
        yield f"added-{name}", dump(bpe(added_tokens=[token])), "corrupt", ""
    yield "added-twice", dump(bpe(added_tokens=[{"id": 4, "content": "x"}, {"id": 5, "content": "x"}])), "corrupt", "a piece stands twice"
    for expression in ("(a+)+$", "(a|a)*b", "(x+x+)+y", ".*.*.*.*=.*", "(?:a?){50}a{50}", "[", "(", "(?<=a)b", "\\p{Q}", "\\p{L", "a{99999999}", "(" * 5000, "\\"):
        split = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated"}
        yield f"regex-{expression[:20]}", dump(bpe(pre_tokenizer=split)), "unsupported", ""
    for name, split in (("string", {"pattern": {"String": "x"}, "behavior": "Isolated"}), ("behavior", {"pattern": {"Regex": " "}, "behavior": "MergedWithNext"}),
                        ("nothing", {}), ("invert", {"pattern": {"Regex": "\\s+"}, "behavior": "Removed"})):
        yield f"split-{name}", dump(bpe(pre_tokenizer={"type": "Split", **split})), "unsupported", ""
    for name in ("", "Bytelevel", "UnicodeScripts", "Metaspace", "BertPreTokenizer", "CharDelimiterSplit"):
        yield f"pre-{name}", dump(bpe(pre_tokenizer={"type": name})), "unsupported", ""
    for name in ("", "NFKD", "Precompiled", "Lowercase", "Nmt"):
        yield f"normalizer-{name}", dump(bpe(normalizer={"type": name})), "unsupported", ""
    plain = {"type": "BPE", "vocab": {"<unk>": 0, "a": 1, "\u2581": 2, "<0x41>": 3}, "merges": [["a", "\u2581", "c"]], "byte_fallback": True, "fuse_unk": True}
    for name, change in (("affix", {"model": {**plain, "end_of_word_suffix": "</w>"}}), ("prefix", {"model": {**plain, "continuing_subword_prefix": "@"}}),
                         ("step-number", {"pre_tokenizer": 1}), ("step-null", {"pre_tokenizer": None, "normalizer": None}), ("step-list", {"normalizer": []}),
                         ("prepend", {"model": plain, "pre_tokenizer": None, "normalizer": {"type": "Sequence", "normalizers": [
                             {"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]}}),
                         ("prepend-other", {"normalizer": {"type": "Prepend", "prepend": "x"}}), ("replace-other", {"normalizer": {"type": "Replace"}}),
                         ("metaspace", {"model": plain, "pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "first"}, "decoder": None}),
                         ("metaspace-old", {"model": plain, "pre_tokenizer": {"type": "Metaspace", "add_prefix_space": False}, "decoder": None}),
                         ("split-space", {"model": plain, "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}}, "decoder": None}),
                         ("punctuation", {"pre_tokenizer": {"type": "Punctuation", "behavior": "Contiguous"}}), ("digits", {"pre_tokenizer": {"type": "Digits", "individual_digits": True}}),
                         ("strips", {"added_tokens": [{"id": 0, "content": "<s>", "special": True, "lstrip": True, "rstrip": True}]}),
                         ("decoder-sequence", {"decoder": {"type": "Sequence", "decoders": [{"type": "ByteLevel"}, 1]}}),
                         ("post", {"post_processor": {"processors": [{"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {}},
                                                                                                             {"SpecialToken": {"id": "none"}}]}]}})):
        yield f"made-{name}", dump(bpe(**change)), "", ""
    yield "unigram-added", dump({**unigram(), "added_tokens": [{"id": 5, "content": "x"}]}), "", ""
    yield "wordpiece-names", dump(wordpiece(vocab={"[UNK]": 0, "[": 1, "[]": 2, "##": 3, "": 4})), "", ""
    nested = {"type": "ByteLevel"}
    for _ in range(20):
        nested = {"type": "Sequence", "pretokenizers": [nested]}
    yield "sequence-in-sequence", dump(bpe(pre_tokenizer=nested)), "unsupported", ""
    for score in ("x", None, [], True):
        yield f"score-{score}", dump(unigram(vocab=[["<unk>", 0], ["a", score]])), "corrupt", "a score that is not finite"
    yield "score-1e999", dump(unigram()).replace(b"-1.0", b"-1e999"), "corrupt", "a score that is not finite"
    for unk in (3, 2**31, 2**63 - 1):
        yield f"unk-{unk}", dump(unigram(unk_id=unk)), "corrupt", "a special id beyond the vocabulary"
    yield "unigram-object", dump(unigram(vocab={"a": 0})), "corrupt", "a vocabulary that is no array"
    yield "unigram-entry", dump(unigram(vocab=[1, 2])), "corrupt", ""
    for word in ("<0x-1>", "<0xGG>", "<0x 1>", "<0x1G>"):
        made = unigram(vocab=[["<unk>", 0], [word, -1]], byte_fallback=True)
        yield f"byte-{word}", dump(made), "corrupt", "a piece for a byte that is not spelled like <0x0A>"
    yield "wordpiece-prefix", dump(wordpiece(continuing_subword_prefix="@@")), "unsupported", ""
    yield "wordpiece-id", dump(wordpiece(vocab={"[UNK]": 0, "a": 2**40})), "corrupt", ""


def sentencepiece_cases():
    good = sentencepiece()
    for length in (1, 2, 3, 7, len(good) - 1):
        yield f"cut-{length}", good[:length], "corrupt", "not a protobuf message"
    yield "empty", b"", "corrupt", "it has no pieces"
    yield "no-pieces", proto(2, b"\x18\2"), "corrupt", "it has no pieces"
    for size in (100, 2**31, 2**32, 2**63, 2**64 - 1):
        yield f"length-{size}", varint(1 << 3 | 2) + varint(size) + b"abc", "corrupt", "not a protobuf message"
    for wire in (3, 4, 6, 7):
        yield f"wire-{wire}", bytes([8 | wire]) + b"\0" * 20, "corrupt", "not a protobuf message"
    yield "varint-long", b"\xff" * 20, "corrupt", "not a protobuf message"
    yield "varint-cut", b"\x80", "corrupt", "not a protobuf message"
    yield "fixed64-cut", b"\x09" + b"\0" * 7, "corrupt", "not a protobuf message"
    yield "fixed32-cut", b"\x0d" + b"\0" * 3, "corrupt", "not a protobuf message"
    yield "nested-deep", proto(1, proto(1, proto(1, proto(1, b"a")))) * 2, "corrupt", "a piece stands twice"
    for kind in (0, 7, 255, 2**32 - 1, 2**64 - 1):
        yield f"kind-{kind}", sentencepiece([*PIECES, piece(b"z", 0, kind)]), "corrupt", "a piece of a kind that is not known"
    for score in (float("nan"), float("inf"), float("-inf")):
        yield f"score-{score}", sentencepiece([*PIECES, piece(b"z", score)]), "corrupt", "a score that is not finite"
    yield "twice", sentencepiece([*PIECES, piece(b"z"), piece(b"z")]), "corrupt", "z: corrupt: a piece stands twice"
    for word in (b"<0x-1>", b"<0x1>", b"<0x100>", b"0x41", b"<0xG0>", b"", b"<0x4>>", b"< 0x41"):
        yield f"byte-{word.decode()}", sentencepiece([*PIECES, piece(word, 0, 6)]), "corrupt", "not spelled like <0x0A>"
    yield "byte-twice", sentencepiece([*PIECES, piece(b"<0x41>", 0, 6)]), "corrupt", "a piece stands twice"
    yield "piece-200kb", sentencepiece([*PIECES, piece(b"x" * 200000)]), "unsupported", "a piece of more than 64 KiB"
    for algorithm in (0, 3, 4, 99, 2**63):
        yield f"model-type-{algorithm}", sentencepiece(trainer=b"\x18" + varint(algorithm)), "unsupported", "neither BPE nor unigram"
    yield "trainer-cut", sentencepiece(trainer=b"\x18"), "corrupt", "not a protobuf message"
    for name, table in (("short", b"\1"), ("length", u32(2**32 - 1) + b"abcd"), ("units", u32(5) + b"abcde"), ("empty-trie", u32(0) + b"a")):
        yield f"charsmap-{name}", sentencepiece(more=proto(3, proto(2, table))), "corrupt", ""


def llama2c_tokenizer_cases():
    good = llama2c_tokenizer()
    for length in (0, 1, 3):
        yield f"cut-{length}", good[:length], "corrupt", "too short for a header"
    for length in (5, 11):
        yield f"cut-{length}", good[:length], "corrupt", "ends within a piece"
    yield "cut-piece", good[:-1], "corrupt", "not inside the file"
    yield "few", good[:4 + 3 * 8 + 5 + 3 + 4], "corrupt", "fewer pieces than 256 bytes"
    for size in (-1, -2**31, 2**31 - 1, 1000):
        yield f"size-{size}", good + struct.pack("<fi", 0, size) + b"abc", "corrupt", "not inside the file"
    for score in (float("nan"), float("inf")):
        yield f"score-{score}", good + struct.pack("<fi", score, 1) + b"z", "corrupt", "a score that is not finite"
    yield "twice", good + struct.pack("<fi", 0, 2) + b"ab", "corrupt", "ab: corrupt: a piece stands twice"
    words = [b"<unk>", b"<s>", b"</s>"] + [b"<0x%02X>" % b for b in range(256)]
    for word in (b"<0x-1>", b"\n<0x00>", b"x"):
        yield f"byte-{word.decode().strip()}", llama2c_tokenizer([*words[:3], word, *words[4:], b"a"]), "corrupt", "not spelled like <0x0A>"
    yield "piece-200kb", llama2c_tokenizer([*words, b"x" * 200000]), "unsupported", "a piece of more than 64 KiB"


def tiktoken_cases():
    for name, lines in (("no-rank", b"YQ=="), ("rank-1", b"YQ== 1\n"), ("rank-gap", b"YQ== 0\nYg== 2\n"), ("rank-twice", b"YQ== 0\nYg== 0\n"),
                        ("rank-negative", b"YQ== -1\n"), ("rank-huge", b"YQ== 99999999999999999999\n"), ("rank-2^64", b"YQ== 0\nYg== 18446744073709551617\n"),
                        ("rank-text", b"YQ== a\n"), ("no-space", b"YQ==0\n"), ("bytes", b"\xff\xfe 0\n"), ("blank-line", b"YQ== 0\n\nYg== 1\n"),
                        ("digits", b"YQ== 0000000000\n")):
        yield name, lines, "corrupt", "expected lines of base64 and ranks from 0 on"
    yield "empty", b"", "corrupt", "a vocabulary without pieces"
    yield "twice", b"YQ== 0\nYQ== 1\n", "corrupt", "a: corrupt: a piece stands twice"
    yield "piece-200kb", b"eHh4" * 66667 + b" 0\n", "unsupported", "a piece of more than 64 KiB"


def chat_cases():
    for name, words in (("print", "{{"), ("block", "{%"), ("comment", "{#"), ("print-open", "{{ a"), ("block-open", "{% if"), ("no-endif", "{% if a %}"),
                        ("no-endfor", "{% for a in b %}"),
                        ("empty-print", "{{ }}"), ("quote", "{{ 'a }}"), ("bracket", "{{ (a }}"), ("list", "{{ [1, }}"), ("dot", "{{ a. }}"), ("pipe", "{{ a| }}"),
                        ("two", "{{ a b }}"), ("op", "{{ 1 + }}"), ("for", "{% for in a %}{% endfor %}"), ("set", "{% set %}"), ("set-number", "{% set 1 = 2 %}"),
                        ("is", "{{ a is }}"), ("brackets", "{{ a[ }}"), ("slice", "{{ a[1:2:3:4] }}"), ("dict", "{{ {1} }}"), ("macro", "{% macro %}{% endmacro %}")):
        yield f"parse-{name}", words, "corrupt", ""
    for name, words in (("endif", "{% endif %}"), ("else", "{% else %}"), ("crossed", "{% if a %}{% for b in c %}{% endif %}{% endfor %}")):
        yield f"parse-{name}", words, "unsupported", "a statement that is not done"
    for name, words in (("include", "{% include 'x' %}"), ("import", "{% import 'x' as y %}"), ("extends", "{% extends 'x' %}"), ("filter", "{{ 'a'|no_such }}"),
                        ("test", "{{ 1 is no_such }}"), ("function", "{{ no_such(1) }}"), ("method", "{{ 'a'.no_such() }}"), ("os", "{{ ''.__class__.__mro__ }}")):
        yield f"unknown-{name}", words, "", ""
    for name, words in (("parentheses", "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}"), ("lists", "{{ " + "[" * 5000), ("nots", "{{ " + "not " * 5000 + "1 }}"),
                        ("minus", "{{ " + "-" * 5000 + "1 }}"), ("plus", "{{ 1" + "+1" * 5000 + " }}"), ("ifs", "{% if 1 %}" * 5000),
                        ("fors", "{% for a in [1] %}" * 5000), ("filters", "{{ 1" + "|string" * 5000 + " }}"), ("dots", "{{ a" + ".b" * 5000 + " }}"),
                        ("calls", "{{ f" + "()" * 5000 + " }}"), ("else-if", "{{ " + "1 if 0 else " * 5000 + "1 }}")):
        yield f"deep-{name}", words, "", ""
    parentheses = lambda n: "{{ " + "(" * n + "1" + ")" * n + " }}"
    yield "near-depth", parentheses(50), "ok", ""
    for name, words in (("loops", "{% for a in range(1000) %}{% for b in range(1000) %}{% for c in range(1000) %}{% endfor %}{% endfor %}{% endfor %}"),
                        ("recursion", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"), ("repeat", "{{ 'x' * 10000000000 }}"), ("repeat-list", "{{ [1] * 10000000000 }}"),
                        ("double", "{% set ns = namespace(a='xxxxxxxx') %}{% for i in range(60) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}{{ ns.a }}"),
                        ("double-list", "{% set ns = namespace(a=[1]) %}{% for i in range(60) %}{% set ns.a = ns.a + ns.a %}{% endfor %}{{ ns.a }}"),
                        ("nest-list", "{% set ns = namespace(a=[1]) %}{% for i in range(200) %}{% set ns.a = [ns.a] %}{% endfor %}{{ ns.a }}"),
                        ("laugh", "{% set ns = namespace(a=['ha']) %}{% for i in range(40) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ ns.a|tojson }}"),
                        ("power", "{{ 10 ** 100000 }}"), ("integer", "{{ 99999999999999999999999 }}"), ("shift", "{{ 9223372036854775807 + 1 }}"),
                        ("multiply", "{{ 9223372036854775807 * 9223372036854775807 }}"), ("divide", "{{ 1 // 0 }}"), ("modulo", "{{ 1 % 0 }}"),
                        ("divide-most", "{{ (-9223372036854775807 - 1) // -1 }}"), ("negate", "{{ -(-9223372036854775807 - 1) }}"), ("step-0", "{{ range(1, 2, 0) }}"),
                        ("slice-0", "{{ 'abc'[::0] }}"), ("raise", "{{ raise_exception('no') }}"), ("undefined", "{{ a.b.c }}"), ("call-none", "{{ none() }}"),
                        ("index", "{{ [1][9223372036854775807] + 1 }}"), ("indent", "{{ 'a\\nb'|indent(10000000000) }}"), ("join", "{{ range(100000)|join('x' * 10000) }}"),
                        ("replace", "{{ ('a' * 100000)|replace('a', 'b' * 100000) }}"), ("split", "{{ ('a' * 1000000).split('a')|length }}")):
        yield f"run-{name}", words, "", ""


def all_cases():
    for group, reader in ((json_cases, "tokenizer.json"), (sentencepiece_cases, "sentencepiece"), (llama2c_tokenizer_cases, "tokenizer.bin"),
                          (tiktoken_cases, "tiktoken"), (chat_cases, "chat")):
        for name, content, code, message in group():
            yield f"{reader}/{name}", reader, content.encode() if isinstance(content, str) else content, code, message
