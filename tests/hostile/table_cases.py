"""IDX files, gzipped ones, and tables that are not what they should be, each with the error that it must give."""
import random
import struct
import zlib

from files import bomb, gz, idx


def idx_cases():
    good = idx(8, [2, 2], b"abcd")
    for length in (0, 1, 3, 4, 8, 11):
        yield f"cut-{length}", good[:length], "corrupt", "fewer bytes than its header announces"
    yield "magic", b"\1" + good[1:], "corrupt", "it begins with 0 0"
    for kind in (0, 7, 10, 15, 16, 255):
        yield f"type-{kind}", idx(kind, [2, 2], b"abcd"), "corrupt", "an element type that IDX does not have"
    for rank in (0, 7, 8, 255):
        yield f"rank-{rank}", idx(8, [1] * min(rank, 9), b"a", rank=rank), "unsupported", "1 to 6 dimensions"
    for extents in ([2**32 - 1] * 2, [2**32 - 1] * 6, [2**16] * 3, [2**31, 2**31], [0, 2**32 - 1, 2**32 - 1]):
        yield f"extents-{'x'.join(map(str, extents))}", idx(8, extents, b"a"), "overflow", "more elements than can be addressed"
    for extents in ([2**32 - 1], [2**31], [2**16, 2**16], [5], [2**23, 2**23]):
        yield f"claims-{'x'.join(map(str, extents))}", idx(8, extents, b"abcd"), "corrupt", "fewer bytes than its header announces"
    for kind, width in ((0x0b, 2), (0x0c, 4), (0x0d, 4), (0x0e, 8)):
        yield f"short-{kind}", idx(kind, [2], b"\0" * (2 * width - 1)), "corrupt", "fewer bytes than its header announces"
    yield "data-after", good + b"e", "corrupt", "bytes are left over after its data"

    packed = gz(good)
    for length in (2, 9, 10, 12, len(packed) - 9, len(packed) - 1):
        yield f"gz-cut-{length}", packed[:length], "corrupt", ""
    yield "gz-method", packed[:2] + b"\7" + packed[3:], "corrupt", "broken gzip data"
    yield "gz-flags", packed[:3] + b"\xe0" + packed[4:], "corrupt", "broken gzip data"
    yield "gz-sum", packed[:-8] + b"\0\0\0\0" + packed[-4:], "corrupt", "broken gzip data"
    yield "gz-length", packed[:-4] + struct.pack("<I", 999), "corrupt", "broken gzip data"
    yield "gz-block", packed[:10] + b"\7" + packed[11:], "corrupt", "broken gzip data"
    yield "gz-far-back", packed[:10] + zlib.compress(good)[2:6] + b"\xff" * 9, "", ""
    yield "gz-after", packed + b"junk", "corrupt", "bytes are left over"
    yield "gz-two", packed + packed, "corrupt", "bytes are left over after its data"
    yield "gz-empty", gz(b""), "corrupt", "fewer bytes than its header announces"
    yield "gz-in-gz", gz(packed), "corrupt", "it begins with 0 0"
    for extents in ([2**32 - 1], [2**31 - 1], [2**16, 2**15], [2**20, 4096]):
        yield f"gz-claims-{'x'.join(map(str, extents))}", gz(idx(8, extents, b"a")), "corrupt", "fewer bytes than its header announces"
    noise = random.Random(2).randbytes(70_000)
    yield "gz-unexamined-broken", gz(idx(8, [(64 << 20) + 1], noise))[:-20], "corrupt", "cut off"
    yield "gz-unexamined-nothing", gz(idx(8, [(64 << 20) + 1], noise)) + b"junk", "corrupt", "left over"
    yield "gz-bomb", bomb(256 << 20, idx(8, [4], b"abcd")), "corrupt", "bytes are left over after its data"
    yield "gz-bomb-claimed", bomb(128 << 20, idx(8, [1 << 28], b"")), "corrupt", "fewer bytes than its header announces"
    yield "gz-bomb-of-floats", bomb(65 << 20, idx(0x0e, [1 << 24], b"")), "corrupt", "fewer bytes than its header announces"


def csv_cases():
    yield "empty", b"", "corrupt", "nothing in it"
    yield "blank", b"\n\n\r\n", "corrupt", "nothing in it"
    yield "bom", b"\xef\xbb\xbf", "corrupt", "nothing in it"
    yield "quote-open", b'a,b\n1,"2\n', "corrupt", "a quote is not closed"
    yield "quote-only", b'"', "corrupt", "a quote is not closed"
    yield "quote-within", b'a,b\n1,"2"x\n', "corrupt", "line 2"
    yield "quote-bare", b'a,b\n1,x"y\n', "ok", ""
    yield "quotes-1mb", b'a\n"' + b'""' * 500000, "corrupt", "a quote is not closed"
    for name, line in (("fewer", b"1"), ("more", b"1,2,3"), ("many", b"," * 100000)):
        yield f"fields-{name}", b"a,b\n1,2\n" + line + b"\n", "corrupt", "line 3"
    yield "header-wider", b"a,b,c\n1,2\n", "corrupt", "another number of fields"
    words = lambda n: b"a\n" + b"".join(b"w%d\n" % i for i in range(n))
    yield "cap-categories-at", words(65536), "ok", ""
    yield "cap-categories-past", words(65537), "ok", ""  # a text, which nothing is kept of


def text_cases():
    yield "cap-bytes-past", (1 << 30) + 1, "unsupported", "longer than 1 GiB"  # a file of so many zeros, none of them stored


def all_cases():
    for group, reader in ((idx_cases, "idx"), (csv_cases, "csv"), (text_cases, "text")):
        for name, content, code, message in group():
            yield f"{reader}/{name}", reader, content, code, message
