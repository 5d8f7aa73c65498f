"""GGUF files that are not what they should be, each with the error that it must give."""
import struct

from files import MOST32, MOST64, array, bomb, entry, f32, gguf, tensor, text, u32, u64

NEAR = (2**32 - 1, 2**62, 2**63 - 1, 2**63, MOST64 - 7, MOST64)


def header():
    good = gguf()
    yield "empty", b"", "corrupt", "not a GGUF file"
    for length in (1, 3, 4, 7, 8, 15, 16, 23):
        yield f"header-{length}", good[:length], "corrupt", "not a GGUF file" if length < 4 else "ends within its tables"
    yield "magic", b"GGUG" + good[4:], "corrupt", "not a GGUF file"
    yield "magic-reversed", b"FUGG" + good[4:], "corrupt", "not a GGUF file"
    yield "version-0", gguf(version=0), "corrupt", "there is no version 0"
    yield "version-1", gguf(version=1), "unsupported", "version 1;"
    for version in (4, 5, 255, 65535, MOST32):
        yield f"version-{version}", gguf(version=version), "unsupported", "a version after 3"
    for version in (2, 3):
        yield f"big-endian-{version}", gguf(version=version << 24), "unsupported", "big-endian"
    for count in (1, 1000) + NEAR:
        yield f"entries-{count}", gguf(n_entries=count), "corrupt", "claims more than the file can hold"
        yield f"tensors-{count}", gguf(n_tensors=count), "corrupt", "claims more than the file can hold"


def metadata():
    def one(raw, **more):
        return gguf([raw], **more)
    for length in (1000,) + NEAR:
        yield f"key-length-{length}", one(text(b"k", length) + u32(0) + b"\1"), "corrupt", "past the end of the file"
        yield f"text-length-{length}", one(entry(b"k", 8, text(b"v", length))), "corrupt", "past the end of the file"
        yield f"array-length-{length}", one(array(b"k", 0, length, b"")), "corrupt", "goes past the end of the file"
        yield f"array-of-u64-{length}", one(array(b"k", 10, length, b"")), "corrupt", "goes past the end of the file"
        yield f"texts-{length}", one(array(b"k", 8, length, text(b"a"))), "corrupt", "goes past the end of the file"
    for count in (2**61, 2**61 + 1, 2**60, 2**63 + 1):  # whose bytes wrap around
        yield f"array-wraps-{count}", one(array(b"k", 10, count, b"\0" * 64)), "corrupt", "goes past the end of the file"
    yield "text-in-array", one(array(b"k", 8, 2, text(b"a") + text(b"b", 99))), "corrupt", "past the end of the file"
    for kind in (13, 14, 255, 2**31, MOST32):
        yield f"type-{kind}", one(entry(b"k", kind, b"\0" * 8)), "unsupported", "a type of value that is not known"
        yield f"array-type-{kind}", one(array(b"k", kind, 1, b"\0" * 8)), "unsupported", "a type of value that is not known"
    yield "array-of-arrays", one(array(b"k", 9, 1, u32(9) + u64(1) + u32(0) + u64(1) + b"\1")), "unsupported", "an array of arrays"
    yield "array-deep", one(entry(b"k", 9, (u32(9) + u64(1)) * 1000)), "unsupported", "an array of arrays"
    for value in (2, 128, 255):
        yield f"boolean-{value}", one(entry(b"k", 7, bytes([value]))), "corrupt", "a boolean is 0 or 1"
    yield "booleans", one(array(b"k", 7, 4, b"\0\1\1\2")), "corrupt", "a boolean is 0 or 1"
    yield "key-empty", one(entry(b"", 0, b"\1")), "corrupt", "a key that is empty"
    for name, key in (("zero", b"a\0b"), ("newline", b"a\nb"), ("escape", b"\x1b[31m"), ("utf8", b"\xff"), ("c1", b"\xc2\x9b"),
                      ("surrogate", b"\xed\xa0\x80"), ("overlong", b"\xc0\x80")):
        yield f"key-{name}", one(entry(key, 0, b"\1")), "corrupt", "not UTF-8, or has control characters"
    for code in (0xa0, 0x7ff, 0x800, 0xfff, 0x1000, 0xd7ff, 0xe000, 0xffff, 0x10000, 0x3ffff, 0x40000, 0xfffff, 0x100000, 0x10ffff):  # ends of UTF-8's lengths
        yield f"key-u{code:x}", one(entry(chr(code).encode(), 0, b"\1")), "ok", ""
    twice = entry(b"same", 0, b"\1")
    yield "key-twice", gguf([twice, entry(b"other", 0, b"\1"), twice]), "corrupt", "same: corrupt: a key stands twice"
    for value in (0, 1, 4, 7, 24, 33, MOST32, 2**31 + 1):
        yield f"alignment-{value}", one(entry(b"general.alignment", 4, u32(value))), "corrupt", "the alignment is a power of two"
    yield "alignment-u64", one(entry(b"general.alignment", 10, u64(32))), "corrupt", "the alignment is a u32"
    yield "alignment-array", one(array(b"general.alignment", 4, 1, u32(32))), "corrupt", "the alignment is a u32"
    yield "alignment-2^31", one(entry(b"general.alignment", 4, u32(2**31))), "unsupported", "more than 1 MiB"


def tensors():
    def one(raw, data=b"\0" * 64, entries=()):
        return gguf(entries, [raw], data)
    for name, key in (("empty", b""), ("zero", b"a\0b"), ("newline", b"a\nb"), ("utf8", b"\x80")):
        yield f"name-{name}", one(tensor(key, [1])), "corrupt", "name"
    yield "name-twice", gguf([], [tensor(b"w", [1]), tensor(b"w", [1], 0, 32)], b"\0" * 64), "corrupt", "two tensors have the same name"
    for length in (300, MOST64, 2**63):
        yield f"name-length-{length}", one(text(b"w", length) + u32(0)), "corrupt", "past the end of the file"
    for count in (5, 6, 7, 100, 2**31, MOST32):
        yield f"dimensions-{count}", one(tensor(b"w", [1] * min(count, 8), dimensions=count)), "unsupported", "4 dimensions"
    for extent in (2**63, MOST64, MOST64 - 31):
        yield f"extent-{extent}", one(tensor(b"w", [extent])), "overflow", "an extent does not fit"
    for extents in ((2**63 - 1,), (2**62, 2), (2**32, 2**32), (2**32, 2**31, 2), (65536, 65536, 65536, 65536), (2**48,), (2**47 + 1,)):
        yield f"extents-{'x'.join(map(str, extents))}", one(tensor(b"w", list(extents))), "overflow", "more elements than can be addressed"
    yield "extents-within", one(tensor(b"w", [2**46])), "corrupt", "not inside the file"
    yield "zero-and-huge", one(tensor(b"w", [0, 2**62, 2**62])), "overflow", "more elements"
    for form, name in ((4, "Q4_2"), (5, "Q4_3"), (31, "Q4_0_4_4"), (32, "Q4_0_4_8"), (33, "Q4_0_8_8"), (36, "IQ4_NL_4_4"), (37, "IQ4_NL_4_8"),
                       (38, "IQ4_NL_8_8")):
        yield f"retired-{form}", one(tensor(b"w", [32], form)), "unsupported", f"type {form} ({name}): unsupported: a retired tensor format"
    for form in (40, 41, 99, 255, 65536, 2**31, MOST32):
        yield f"format-{form}", one(tensor(b"w", [32], form)), "unsupported", f"type {form}: unsupported: a tensor format that is not known"
    for form, row in ((2, 31), (2, 33), (8, 1), (12, 255), (12, 32), (14, 128), (20, 16), (39, 31)):
        yield f"rows-{form}-{row}", one(tensor(b"w", [row], form)), "corrupt", "not whole blocks"
    for offset in (1, 2, 31, 33, 48, MOST64):
        yield f"offset-{offset}", one(tensor(b"w", [1], 0, offset)), "misaligned", "a multiple of the file's alignment"
    for offset in (64, 96, 2**32, 2**62, 2**63):
        yield f"offset-{offset}", one(tensor(b"w", [1], 0, offset)), "corrupt", "not inside the file"
    for offset in (MOST64 - 31, MOST64 - 63):
        yield f"offset-wraps-{offset}", one(tensor(b"w", [16], 0, offset)), "overflow", "offset does not fit"
    yield "data-none", one(tensor(b"w", [1]), b""), "corrupt", "not inside the file"
    yield "data-short", one(tensor(b"w", [16]), b"\0" * 63), "corrupt", "not inside the file"
    yield "overlap-same", gguf([], [tensor(b"v", [1]), tensor(b"w", [1])], b"\0" * 64), "corrupt", "two tensors share bytes"
    yield "overlap-part", gguf([], [tensor(b"v", [9]), tensor(b"w", [8], 0, 32)], b"\0" * 64), "corrupt", "two tensors share bytes"
    yield "overlap-within", gguf([], [tensor(b"v", [32]), tensor(b"w", [1], 0, 96)], b"\0" * 128), "corrupt", "two tensors share bytes"
    wide = entry(b"general.alignment", 4, u32(64))
    yield "offset-32-of-64", one(tensor(b"w", [1], 0, 32), b"\0" * 96, [wide]), "misaligned", "a multiple of the file's alignment"
    padded = entry(b"general.alignment", 4, u32(1 << 20))
    yield "alignment-past-the-end", one(tensor(b"w", [1]), b"\0" * 64, [padded]), "corrupt", "not inside the file"
    yield "tables-cut", gguf([], [tensor(b"w", [1])], b"\0" * 32)[:50], "corrupt", "ends within its tables"
    yield "a-gzip", bomb(1 << 20), "corrupt", "not a GGUF file"


def all_cases():
    for group in (header, metadata, tensors):
        for name, content, code, message in group():
            yield f"gguf/{group.__name__}-{name}", "gguf", content, code, message
