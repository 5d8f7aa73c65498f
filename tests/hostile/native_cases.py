"""`.qorus` files that are not what they should be, with checksums that fit, each with the error that it must give."""
from files import MOST32, MOST64, entry, native, u32

NEAR = (1, 2**31, 2**32, 2**62, 2**63, MOST64 - 63, MOST64)


def native_cases():
    good = native([entry(b"k", 0, b"\1")])
    yield "good", good, "ok", ""
    yield "empty", native(tensors=()), "ok", ""
    for length in (0, 4, 8, 100, 127, 143):
        yield f"cut-{length}", good[:length], "corrupt", ""
    yield "cut-trailer", good[:-1], "corrupt", "not as long as it says"
    yield "after", native(more=b"\0"), "corrupt", "not as long as it says"
    yield "magic", b"QORUS\n\n\x1a" + good[8:], "corrupt", "not a .qorus file"
    yield "sum", good[:124] + b"\0\0\0\0" + good[128:], "corrupt", "the header does not fit its checksum"
    yield "table", good.replace(b"wv", b"vw"), "corrupt", "the table does not fit its checksum"
    yield "trailer", good.replace(b"QORUSEND", b"QORUSENT"), "corrupt", "no trailer"
    for version in (0, 2, MOST32):
        yield f"version-{version}", native(header={"version": version}), "unsupported" if version else "corrupt", "version"
    for field in ("metadata", "metadata_bytes", "table", "names", "names_bytes", "data", "sums", "file"):
        for value in NEAR:
            yield f"{field}-{value}", native(header={field: value}), "corrupt", ""
    for field in ("tensors", "laid_out"):
        for value in (2, 65536, MOST32):
            yield f"{field}-{value}", native(header={field: value}), "", ""
    yield "cap-tensors-past", native(header={"tensors": 65537}), "unsupported", "more than 65536 tensors"
    for value in (1, 16384, MOST32):
        yield f"entries-{value}", native(header={"entries": value}), "corrupt", ""
    for field, values in (("name", (1, MOST32)), ("letters", (0, 1, 3, 65535)), ("rank", (0, 5, 255)), ("layout", (1, 2, 255)), ("zero", (1,)), ("of", (1, MOST32)),
                          ("format", (4, 31, 40, 255, 65535)), ("offset", NEAR), ("bytes", (0, 63, 65) + NEAR)):
        for value in values:
            yield f"line-{field}-{value}", native(line={field: value}), "", ""
    for extents in ((2, 8, 1, 1), (0, 8, 0, 0), (2**63, 1, 0, 0), (2**62, 8, 0, 0), (2**32, 2**32, 0, 0), (MOST64, MOST64, 0, 0)):
        yield f"line-extents-{extents[0]}-{extents[1]}", native(line={"extents": extents}), "", ""
    w = ("w", 0, (2, 8), b"\0" * 64)
    yield "name-twice", native(tensors=(w, w)), "corrupt", "two tensors have the same name"
    for name in ("", "a\nb", "\x1b[0m"):
        yield f"name-{name!r}", native(tensors=((name, 0, (2, 8), b"\0" * 64),)), "", ""
    yield "laid-out-of-none", native(laid_out=((1, b"\0" * 64),)), "corrupt", "a line of the table is broken"
    yield "laid-out-size", native(laid_out=((0, b"\0" * 64),)), "", ""
    w4 = ("w", 0, (2, 4, 2, 2), b"\0" * 128)
    yield "laid-out-of-four", native(tensors=(w4,), laid_out=((0, b"\0" * 64),)), "corrupt", "a matrix laid out has another size"
    yield "laid-out-of-three", native(tensors=(("w", 0, (2, 4, 4), b"\0" * 128),), laid_out=((0, b"\0" * 64),)), "corrupt", "a matrix laid out has another size"
    yield "laid-out-none", native(laid_out=((0, b""),)), "corrupt", "a matrix laid out has another size"
    yield "laid-out-letters", native(laid_out=((0, b"\0" * 64, 1),)), "corrupt", "a line of the table is broken"
    yield "laid-out-of-i64", native(tensors=(("w", 27, (2, 4), b"\0" * 64),), laid_out=((0, b"\0" * 64),)), "unsupported", ""
    blocks = ("w", 8, (2, 32), b"\0" * 68)
    for count, code, words in ((1, "ok", ""), (2, "corrupt", "a matrix is laid out twice")):  # a panel of 16 rows of a block of 34 bytes
        yield f"laid-out-{count}", native(tensors=(blocks, ("v", 0, (2, 2), b"\0" * 16)), laid_out=((0, b"\0" * 544),) * count), code, words
    yield "name-256", native(tensors=(("n" * 256, 0, (2, 8), b"\0" * 64),)), "corrupt", "a tensor's name"
    yield "large", native(tensors=(("w", 0, (400, 400), b"\1" * 640_000),)), "ok", ""
    large = b"\1" * 640_000
    yield "large-two", native(tensors=(("v", 0, (400, 400), large), ("w", 0, (400, 400), large))), "ok", ""
    yield "metadata", native([entry(b"k", 13, u32(1))]), "unsupported", "a type of value that is not known"


def all_cases():
    for name, content, code, message in native_cases():
        yield f"qorus/{name}", "qorus", content, code, message
