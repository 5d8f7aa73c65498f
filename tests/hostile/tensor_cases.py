"""safetensors, checkpoints, npy and npz files that are not what they should be, each with the error that it must give."""
import json
import struct
import zlib

from files import MOST64, deflated, npy, safetensors, sealed, u64, zipped

W = '"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
EIGHT = b"\0" * 8


def st(header, data=EIGHT):
    return safetensors(data, header=header)


def one(dtype='"F32"', shape="[2]", offsets="[0,8]", more="", data=EIGHT):
    return st('{"w":{"dtype":%s,"shape":%s,"data_offsets":%s%s}}' % (dtype, shape, offsets, more), data)


def safetensors_cases():
    yield "empty", b"", "corrupt", "too short for a header"
    yield "short", b"\0" * 7, "corrupt", "too short for a header"
    for length in (9, 1000, 99_999_999):
        yield f"length-{length}", u64(length) + b"{}", "corrupt", "the file ends within its header"
    for length in (100_000_001, 2**32, 2**63 - 1, 2**63, MOST64 - 8, MOST64 - 7, MOST64):
        yield f"length-{length}", u64(length) + b"{}", "corrupt", "a header of more than 100 MB"
    yield "length-0", u64(0) + b"{}", "corrupt", "does not begin with {"
    for name, words in (("blank", " {}"), ("array", "[]"), ("text", '"a"'), ("bom", "\ufeff{}")):
        yield f"begins-with-{name}", st(words, b""), "corrupt", "does not begin with {"
    for name, words, message in (
            ("open", "{", "expected a string"), ("number-key", "{1:2}", "expected a string"), ("no-colon", '{"w"}', "expected a colon"),
            ("comma", "{,}", "expected a string"), ("trailing-comma", "{%s,}" % W, "expected a string"), ("after", "{%s}x" % W, ""),
            ("two-objects", "{}{}", ""), ("null", '{"w":null}', "expected an object"), ("list", '{"w":[]}', "expected an object"),
            ("deep", '{"w":' * 5000, "dtype, shape and data_offsets"), ("deep-array", '{"w":{"shape":' + "[" * 5000, ""),
            ("raw-newline", '{"a\nb":{}}', ""), ("bad-escape", '{"\\x":{}}', ""), ("half-surrogate", '{"\\ud800":{}}', ""),
            ("utf8", b'{"\xff":{}}', ""), ("zero-byte", b'{"w\0":{}}', "")):
        yield f"json-{name}", st(words), "corrupt", message
    yield "empty-tensor", st('{"w":{}}'), "corrupt", "lacks its dtype, shape or data_offsets"
    yield "no-offsets", st('{"w":{"dtype":"F32","shape":[2]}}'), "corrupt", "lacks its dtype, shape or data_offsets"
    yield "field-unknown", one(more=',"strides":[1]'), "corrupt", "dtype, shape and data_offsets, nothing else"
    yield "field-twice", one(more=',"dtype":"F32"'), "corrupt", "a field twice"
    for name in ("F31", "f32", "", "F32 ", "Q4_0", "F16\\u0000", "FLOAT"):
        yield f"dtype-{name}", one(dtype=f'"{name}"'), "unsupported", "an element type that is not known"
    yield "dtype-number", one(dtype="7"), "corrupt", "expected a string"
    for shape in ("2", '"2"', "[2", "[-1]", "[1.0]", "[1e3]", "[true]", "[01]", "[[2]]", "[2,]", "[null]"):
        yield f"shape-{shape}", one(shape=shape), "corrupt", ""
    for shape in ("[9223372036854775808]", "[18446744073709551615]"):
        yield f"shape-{shape}", one(shape=shape), "overflow", "an extent does not fit"
    yield "shape-2^64", one(shape="[18446744073709551616]"), "overflow", "a number does not fit 64 bits"
    yield "offsets-2^64", one(offsets="[0,18446744073709551616]"), "overflow", "a number does not fit 64 bits"
    for shape in ("[9223372036854775807]", "[4294967296,4294967296]", "[4611686018427387904,4]", "[3037000500,3037000500,2]", "[0,4611686018427387904,8]"):
        yield f"shape-{shape}", one(shape=shape), "overflow", "more elements than can be addressed"
    yield "shape-seven", one(shape="[1,1,1,1,1,1,2]"), "unsupported", "more than 6 dimensions"
    for shape in ("[3]", "[1]", "[]", "[0]", "[2,2]", "[140737488355328]"):
        yield f"shape-{shape}-of-8-bytes", one(shape=shape), "corrupt", "not as many as its shape and type need"
    for offsets in ("[0,9]", "[8,0]", "[9,9]", "[0,18446744073709551615]", "[18446744073709551615,0]", "[18446744073709551608,18446744073709551615]",
                    "[9223372036854775808,9223372036854775808]"):
        yield f"offsets-{offsets}", one(offsets=offsets), "corrupt", "not inside the file"
    for offsets in ("[0]", "[0,8,8]", "[]"):
        yield f"offsets-{offsets}", one(offsets=offsets), "corrupt", "a begin and an end"
    for offsets in ("[-1,8]", "[0,8.5]", "8", "[0,null]"):
        yield f"offsets-{offsets}", one(offsets=offsets), "corrupt", ""
    two = '{"v":{"dtype":"F32","shape":[2],"data_offsets":[%d,%d]},"w":{"dtype":"F32","shape":[2],"data_offsets":[%d,%d]}}'
    yield "overlap-same", st(two % (0, 8, 0, 8)), "corrupt", "two tensors share bytes"
    yield "overlap-part", st(two % (0, 8, 4, 12), b"\0" * 12), "corrupt", "two tensors share bytes"
    yield "hole", st(two % (0, 8, 9, 17), b"\0" * 17), "corrupt", "bytes that belong to no tensor"
    yield "hole-first", st(two % (1, 9, 9, 17), b"\0" * 17), "corrupt", "bytes that belong to no tensor"
    yield "data-after", one(data=b"\0" * 9), "corrupt", "bytes that belong to no tensor"
    yield "data-short", one(data=b"\0" * 7), "corrupt", "not inside the file"
    yield "name-twice", st("{%s,%s}" % (W, W)), "corrupt", "two tensors share bytes"
    yield "empty-twice", st('{"w":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"\\u0077":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}', b""), \
        "corrupt", "two tensors have the same name"
    yield "metadata-twice", st('{"__metadata__":{},"__metadata__":{},%s}' % W), "corrupt", "__metadata__ stands twice"
    yield "metadata-key-twice", st('{"__metadata__":{"k":"1","\\u006b":"2"},%s}' % W), "corrupt", "a key of the metadata stands twice"
    for value in ("1", "null", "{}", "[]", "true"):
        yield f"metadata-{value}", st('{"__metadata__":{"k":%s},%s}' % (value, W)), "corrupt", "expected a string"
    yield "metadata-list", st('{"__metadata__":[],%s}' % W), "corrupt", "expected an object"


def checkpoint_cases():
    tensors, texts = {"w": ("F32", [2], EIGHT), "v": ("U8", [3], b"abc")}, {"step": "1"}
    good = sealed(tensors, texts)
    yield "good", good, "ok", ""
    yield "plain", safetensors(tensors, texts), "corrupt", "no trailer"
    yield "magic", sealed(tensors, texts, magic=b"QSEALED2"), "corrupt", "the trailer does not fit the texts"
    yield "magic-old", sealed(tensors, texts, magic=b"QORUSEND"), "corrupt", "the trailer does not fit the texts"
    yield "sum-of-texts", sealed(tensors, texts, crc=0), "corrupt", "the trailer does not fit the texts"
    for count in (0, 1, 3, 2**32 - 1):
        yield f"count-{count}", sealed(tensors, texts, count=count), "corrupt", "the trailer does not fit the texts"
    yield "sum-wrong", sealed(tensors, texts, sums={"crc32.w": "00000000"}), "corrupt", "w: corrupt: a tensor does not fit its checksum"
    yield "sum-upper", sealed(tensors, texts, sums={"crc32.v": "352441C2"}), "corrupt", "v: corrupt: a tensor does not fit its checksum"
    yield "sum-long", sealed(tensors, texts, sums={"crc32.w": "0" * 1000}), "corrupt", "a tensor does not fit its checksum"
    yield "data", good.replace(b"abc", b"abd"), "corrupt", "v: corrupt: a tensor does not fit its checksum"
    yield "text", good.replace(b'"step": "1"', b'"step": "2"'), "corrupt", "the trailer does not fit the texts"
    yield "trailer-cut", good[:-1], "corrupt", "not inside the file"
    yield "trailer-twice", good + good[-16:], "corrupt", "bytes that belong to no tensor"
    yield "trailer-alone", sealed({}, {}), "ok", ""
    yield "trailer-of-another-type", safetensors({**tensors, "sealed.trailer": ("F16", [8], b"\0" * 16)}, texts), "", ""
    yield "trailer-of-other-bytes", safetensors({**tensors, "sealed.trailer": ("I64", [2], b"\0" * 16)}, texts), "", ""
    yield "trailer-short", safetensors({**tensors, "sealed.trailer": ("U8", [15], b"\0" * 15)}, texts), "corrupt", "no trailer"
    yield "sum-missing", sealed({**tensors, "u": ("U8", [1], b"x")}, texts, sums={"crc32.u": ""}), "corrupt", "a tensor does not fit its checksum"
    for name in ("w", "v"):
        yield f"no-sum-{name}", sealed(tensors, texts, sums={f"crc32.{name}": None}), "corrupt", "a tensor does not fit its checksum"
    yield "no-sums", sealed(tensors, {}, sums={"crc32.w": None, "crc32.v": None}), "corrupt", "a tensor does not fit its checksum"
    yield "no-sums-texts", sealed(tensors, texts, sums={"crc32.w": None, "crc32.v": None}), "corrupt", "a tensor does not fit its checksum"
    yield "nothing", safetensors({}, {}), "corrupt", "no trailer"
    yield "empty", sealed({"e": ("F32", [0], b"")}, {}), "ok", ""
    yield "i64", sealed({"w": ("I64", [1], EIGHT)}, {}), "unsupported", "do not have this element type"


def npy_cases():
    six = b"\0" * 24
    good = npy("(2, 3)", data=six)
    for length in (0, 1, 5, 6, 8, 9):
        yield f"cut-{length}", good[:length], "corrupt", "not an npy file"
    for length in (10, 60, 127):
        yield f"cut-{length}", good[:length], "corrupt", "the file ends within its header"
    yield "cut-data", good[:-1], "corrupt", "fewer bytes than its shape needs"
    yield "data-after", good + b"\0", "corrupt", "more bytes than its shape needs"
    for version in (0, 4, 255):
        yield f"version-{version}", good[:6] + bytes([version]) + good[7:], "unsupported", "versions 1 to 3"
    yield "length-65535", npy("(2,)", length=65535), "corrupt", "the file ends within its header"
    for length in (2**31, 2**32 - 1):
        yield f"length-{length}", npy("(2,)", version=2, length=length), "corrupt", "the file ends within its header"
    yield "length-0", npy("(2,)", length=0), "corrupt", "the header is not a dictionary"
    for shape in ("(-1,)", "(2, 3", "2", "(a,)", "(1.0,)", "[2, 3]", "((2), 3)", "(2,, 3)", "(, 2)", "(0x2,)", "(True,)", "(2 3)", "(" * 9999):
        yield f"shape-{shape[:20]}", npy(shape, data=six), "corrupt", ""
    for shape in ("(18446744073709551616,)", "(9223372036854775808,)", "(99999999999999999999999999,)"):
        yield f"shape-{shape}", npy(shape, data=six), "overflow", "an extent does not fit"
    for shape in ("(9223372036854775807,)", "(4294967296, 4294967296)", "(4611686018427387904, 4)", "(0, 4611686018427387904, 4)", "(281474976710656,)"):
        yield f"shape-{shape}", npy(shape, data=six), "overflow", ""
    yield "shape-claims", npy("(70368744177664,)", data=six), "corrupt", "fewer bytes than its shape needs"
    yield "shape-seven", npy("(1, 1, 1, 1, 1, 1, 6)", data=six), "unsupported", "more than 6 dimensions"
    for kind in ("<c8", "|O", "<U4", "|S8", "<M8[ns]", "<f16", "|V8", "<x4"):
        yield f"type-{kind}", npy("(6,)", kind, six), "unsupported", "an element type that tensors do not have"
    for kind in (">f4", ">i8"):
        yield f"type-{kind}", npy("(6,)", kind, six), "unsupported", "big-endian numbers"
    yield "type-empty", npy("(6,)", "", six), "corrupt", "an element type like '<f4' is needed"
    yield "records", npy("", header="{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (6,)}", data=six), "unsupported", "an array of records"
    for order in ("Maybe", "1", "'False'", ""):
        yield f"order-{order}", npy("(6,)", order=order, data=six), "corrupt", "fortran_order is True or False"
    for name, words in (("list", "[]"), ("empty", "{}"), ("twice", "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (6,)}"),
                        ("unknown", "{'descr': '<f4', 'fortran_order': False, 'shape': (6,), 'more': 1}"), ("lacks", "{'descr': '<f4', 'shape': (6,)}"),
                        ("code", "__import__('os').system('true')"), ("open", "{'descr': '<f4', 'fortran_order': False, 'shape': (6,)"),
                        ("after", "{'descr': '<f4', 'fortran_order': False, 'shape': (6,)} 1"), ("quote", "{'descr: '<f4'}")):
        yield f"header-{name}", npy("", header=words, data=six), "corrupt", ""
    yield "does-not-fit", npy("(1,)", "<i8", struct.pack("<q", 2**31)), "overflow", "a number does not fit i32"
    yield "does-not-fit-u4", npy("(1,)", "<u4", struct.pack("<I", 2**31)), "overflow", "a number does not fit i32"


def npz_cases():
    x = npy("(2,)", data=b"\0" * 8)
    one = lambda **lies: zipped([(b"x.npy", x, lies)])
    packed = lambda data, content=x, **lies: zipped([(b"x.npy", data, dict(method=8, crc=zlib.crc32(content), size=len(content)) | lies)])
    outside = lambda *values: dict(size=2**32 - 1, extra=struct.pack("<HH", 1, 8 * len(values)) + b"".join(struct.pack("<Q", v) for v in values))
    yield "good", one(), "ok", ""
    yield "none", zipped([]), "ok", ""
    yield "no-bytes", b"", "corrupt", "no zip file, or cut short"
    yield "no-end", one()[:-22], "corrupt", "no zip file, or cut short"
    yield "cut", one()[:-1], "corrupt", "no zip file, or cut short"
    yield "comment-longer", zipped([(b"x.npy", x, {})], comment=1), "corrupt", "no zip file, or cut short"
    yield "disk", zipped([(b"x.npy", x, {})], disk=1), "unsupported", "an archive in several parts"
    yield "count-more", zipped([(b"x.npy", x, {})], count=2), "corrupt", "the directory is broken"
    yield "count-less", zipped([(b"x.npy", x, {}), (b"y.npy", x, {})], count=1), "ok", ""
    yield "count-all-ones", zipped([(b"x.npy", x, {})], count=65535), "corrupt", "the directory's place is missing"
    for begin in (2**31, 2**32 - 2):
        yield f"begin-{begin}", zipped([(b"x.npy", x, {})], begin=begin), "corrupt", "the directory lies outside the file"
        yield f"size-{begin}", zipped([(b"x.npy", x, {})], size=begin), "corrupt", "the directory lies outside the file"
    yield "begin-0", zipped([(b"x.npy", x, {})], begin=0), "corrupt", "the directory is broken"
    yield "begin-all-ones", zipped([(b"x.npy", x, {})], begin=2**32 - 1), "corrupt", "the directory's place is missing"
    locator = lambda at: struct.pack("<IIQI", 0x07064b50, 0, at, 1)
    for at in (0, 2**63, 2**64 - 1, 2**64 - 56):
        good = zipped([(b"x.npy", x, {})], count=65535)
        yield f"zip64-at-{at}", good[:-22] + locator(at) + good[-22:], "corrupt", "the directory's place is missing"
    for begin, size, count in ((2**64 - 1, 60, 1), (0, 2**64 - 1, 1), (2**63, 2**63, 1), (0, 0, 1), (0, 0, 2**64 - 1)):
        wide = struct.pack("<IQHHIIQQQQ", 0x06064b50, 44, 45, 45, 0, 0, count, count, size, begin)
        last = struct.pack("<IHHHHIIH", 0x06054b50, 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
        yield f"zip64-{begin}-{size}-{count}", wide + locator(0) + last, "corrupt", "the directory"
    yield "magic", one(magic=0), "corrupt", "the directory is broken"
    yield "name-twice", zipped([(b"x.npy", x, {}), (b"y.npy", x, {}), (b"x.npy", x, {})]), "corrupt", "a name is there twice"
    yield "name-and-ending", zipped([(b"x.npy", x, {}), (b"x", x, {})]), "corrupt", "a name is there twice"
    yield "overlap-same", zipped([(b"x.npy", x, {}), (b"y.npy", x, dict(offset=0))]), "corrupt", "entries overlap"
    yield "overlap-into", zipped([(b"x.npy", x, {}), (b"y.npy", x, dict(offset=100))]), "corrupt", "entries overlap"
    yield "overlap-longer", zipped([(b"x.npy", x, dict(packed=len(x) + 40)), (b"y.npy", x, {})]), "corrupt", "entries overlap"
    yield "overlap-many", zipped([(b"%d.npy" % i, x if i == 0 else b"", dict(offset=0, packed=len(x), size=len(x), crc=zlib.crc32(x))) for i in range(2000)]), "corrupt", "entries overlap"
    yield "encrypted", one(flags=1), "unsupported", "an encrypted entry"
    for method in (1, 9, 12, 14, 93, 65535):
        yield f"method-{method}", one(method=method), "unsupported", "neither stored nor deflated"
    for offset in (1, 2**31, 2**32 - 2):
        yield f"offset-{offset}", one(offset=offset), "corrupt", "an entry lies elsewhere than the directory says"
    for lies in (dict(packed=2**31), dict(packed=2**32 - 2)):
        yield f"packed-{lies['packed']}", one(**lies), "corrupt", "an entry lies outside the file"
    yield "size-more", one(size=len(x) + 1), "corrupt", "an entry's checksum or size is another"
    yield "sum", one(crc=1), "corrupt", "an entry's checksum or size is another"
    yield "extra-short", one(size=2**32 - 1, extra=struct.pack("<HH", 1, 0)), "corrupt", "the directory is broken"
    yield "extra-none", one(size=2**32 - 1), "corrupt", "the directory is broken"
    yield "extra-length", one(extra=struct.pack("<HH", 1, 65535)), "corrupt", "the directory is broken"
    yield "extra-past", one(extra_length=65535), "corrupt", "the directory is broken"
    for size in (2**63, 2**64 - 1):
        yield f"wide-size-{size}", one(**outside(size)), "corrupt", "an entry's checksum or size is another"
        yield f"wide-unpacked-{size}", packed(deflated(x), **outside(size)), "corrupt", "an entry of another size than it says"
        yield f"wide-offset-{size}", one(**outside(len(x), size), offset=2**32 - 1), "corrupt", "an entry lies elsewhere than the directory says"
        yield f"wide-packed-{size}", one(**outside(len(x), size), packed=2**32 - 1), "corrupt", "an entry lies outside the file"
    yield "packed-none", one(packed=2**32 - 1), "corrupt", "the directory is broken"
    yield "offset-none", one(offset=2**32 - 1), "corrupt", "the directory is broken"
    yield "end-alone", struct.pack("<IHHHHIIH", 0x06054b50, 0, 0, 65535, 65535, 0, 0, 0), "corrupt", "the directory's place is missing"
    yield "begin-none", struct.pack("<IHHHHIIH", 0x06054b50, 0, 0, 0, 0, 0, 2**32 - 1, 0), "corrupt", "the directory's place is missing"
    yield "deflated", packed(deflated(x)), "ok", ""
    yield "deflated-more", packed(deflated(x), size=len(x) + 1), "corrupt", "an entry's compressed bytes are broken"
    yield "deflated-less", packed(deflated(x), size=len(x) - 1), "corrupt", "an entry's compressed bytes are broken"
    yield "deflated-cut", packed(deflated(x)[:-2]), "corrupt", "an entry's compressed bytes are broken"
    yield "deflated-after", packed(deflated(x) + b"\0"), "corrupt", "an entry's compressed bytes are broken"
    yield "deflated-block", packed(b"\7"), "corrupt", "an entry's compressed bytes are broken"
    zeros = deflated(b"\0" * (80 << 20))
    yield "bomb-lies", packed(zeros, size=(80 << 20) + 1), "corrupt", "an entry's compressed bytes are broken"
    yield "bomb-ratio", packed(zeros, size=1 << 30), "corrupt", "an entry of another size than it says"
    yield "not-npy", zipped([(b"x.npy", b"abc", {})]), "corrupt", "not an npy file"


def all_cases():
    for group, reader in ((safetensors_cases, "safetensors"), (checkpoint_cases, "checkpoint"), (npy_cases, "npy"), (npz_cases, "npz")):
        for name, content, code, message in group():
            yield f"{reader}/{name}", reader, content, code, message
