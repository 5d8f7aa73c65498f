"""Small files of every format, and the pieces they are made of: for the fuzzers' seeds and for files that are not what they should be."""
import gzip
import io
import json
import struct
import zipfile
import zlib

U32, U64, I32, F32 = "<I", "<Q", "<i", "<f"
MOST32, MOST64 = 2**32 - 1, 2**64 - 1


def u32(v):
    return struct.pack(U32, v)


def u64(v):
    return struct.pack(U64, v)


def f32(v):
    return struct.pack(F32, v)


def text(s, length=None):
    """A text of GGUF, which may lie about its length."""
    return u64(len(s) if length is None else length) + s


def entry(key, kind, value):
    return text(key) + u32(kind) + value


def array(key, kind, count, values):
    return entry(key, 9, u32(kind) + u64(count) + values)


def tensor(name, extents, form=0, offset=0, dimensions=None):
    count = len(extents) if dimensions is None else dimensions
    return text(name) + u32(count) + b"".join(u64(e) for e in extents) + u32(form) + u64(offset)


def gguf(entries=(), tensors=(), data=b"", magic=b"GGUF", version=3, n_tensors=None, n_entries=None):
    out = magic + struct.pack("<IQQ", version, len(tensors) if n_tensors is None else n_tensors,
                              len(entries) if n_entries is None else n_entries)
    out += b"".join(entries) + b"".join(tensors)
    return out + b"\0" * (-len(out) % 32) + data


WORDS = [b"<unk>", b"<s>", b"</s>", b"a", b"b", b"ab"]


def llama(form=0, change=None, drop=(), shapes=None, words=WORDS, scores=None, kinds=(2, 3, 3, 1, 1, 1), more=(), name=b"llama"):
    """A model of one layer: 4 wide (32 where blocks want it), 2 heads, 6 pieces. change: {key: (type, bytes)} instead of what is right."""
    own = name + b"."
    width, hidden, pieces = (4, 4, len(words)) if form == 0 else (32, 32, len(words))
    size = (lambda n: n * 4) if form == 0 else (lambda n: n // 32 * 34)
    values = {b"general.architecture": (8, text(name))}
    for key, value in ((b"block_count", 1), (b"context_length", 8), (b"embedding_length", width), (b"feed_forward_length", hidden),
                       (b"attention.head_count", 2), (b"attention.head_count_kv", 1), (b"vocab_size", pieces)):
        values[own + key] = (4, u32(value))
    values[own + b"attention.layer_norm_rms_epsilon"] = (6, f32(1e-5))
    values[b"tokenizer.ggml.model"] = (8, text(b"llama"))
    values[b"tokenizer.ggml.tokens"] = (9, u32(8) + u64(pieces) + b"".join(text(w) for w in words))
    scores = range(pieces) if scores is None else scores
    values[b"tokenizer.ggml.scores"] = (9, u32(6) + u64(len(scores)) + b"".join(f32(s) for s in scores))
    values[b"tokenizer.ggml.token_type"] = (9, u32(5) + u64(len(kinds)) + b"".join(struct.pack(I32, k) for k in kinds))
    values.update(change or {})
    entries = [entry(key, kind, value) for key, (kind, value) in values.items() if key not in drop] + list(more)
    all_shapes = {b"token_embd.weight": (width, pieces), b"output_norm.weight": (width,), b"blk.0.attn_norm.weight": (width,),
                  b"blk.0.ffn_norm.weight": (width,), b"blk.0.attn_q.weight": (width, width), b"blk.0.attn_k.weight": (width, width // 2),
                  b"blk.0.attn_v.weight": (width, width // 2), b"blk.0.attn_output.weight": (width, width),
                  b"blk.0.ffn_gate.weight": (width, hidden), b"blk.0.ffn_up.weight": (width, hidden), b"blk.0.ffn_down.weight": (hidden, width)}
    all_shapes.update(shapes or {})
    tensors, data = [], b""
    for name, shape in all_shapes.items():
        if shape is None:
            continue
        count = 1
        for extent in shape:
            count *= extent
        packed = len(shape) == 2 and form != 0
        tensors.append(tensor(name, shape, form if packed else 0, len(data)))
        data += (b"\1" if packed else b"\0") * (size(count) if packed else count * 4)
        data += b"\0" * (-len(data) % 32)
    return gguf(entries, tensors, data)


NATIVE = struct.Struct("<8sIIIIQQQQQQQQ16sII12x")  # of a .qorus header, all but its sum
LINE = struct.Struct("<IHHBBHI4QQQ")  # of its table


def native(entries=(), tensors=(("wv", 0, (2, 8), b"\0" * 64),), laid_out=(), header=None, line=None, sums=None, cut=None, more=b""):
    """A .qorus file (modules/formats/FORMAT.md). tensors: (name, format, extents, bytes); header, line: {field: value} that lie, with right checksums;
    line is of the first tensor."""
    metadata, names = b"".join(entries), b"".join(n.encode() for n, *_ in tensors)
    up = lambda n: -(-n // 64) * 64
    fields = dict(magic=b"QORUS\r\n\x1a", version=1, tensors=len(tensors), laid_out=len(laid_out), entries=len(entries), file=0, metadata=128,
                  metadata_bytes=len(metadata), table=up(128 + len(metadata)), names=0, names_bytes=len(names), data=0, sums=0, order=b"panels16.own",
                  metadata_sum=zlib.crc32(metadata), table_sum=0)
    fields["names"] = fields["table"] + 64 * (len(tensors) + len(laid_out))
    fields["data"] = at = up(fields["names"] + len(names))
    lines, place, data, checks = b"", 0, b"", b""
    for number, (name, form, extents, content) in enumerate(tensors):
        own = dict(name=place, letters=len(name.encode()), format=form, rank=len(extents), layout=0, zero=0, of=0,
                   extents=(*extents, *([0] * (4 - len(extents)))), offset=at + len(data), bytes=len(content))
        own.update(line or {} if number == 0 else {})
        lines += LINE.pack(own["name"], own["letters"], own["format"], own["rank"], own["layout"], own["zero"], own["of"], *own["extents"], own["offset"], own["bytes"])
        place += len(name.encode())
        data += content + b"\0" * (-len(content) % 64)
        checks += u32(zlib.crc32(content))
    for of, content, *letters in laid_out:
        lines += LINE.pack(place, *(letters or [0]), 0, 0, 1, 0, of, 0, 0, 0, 0, at + len(data), len(content))
        data += content + b"\0" * (-len(content) % 64)
        checks += u32(zlib.crc32(content))
    fields["sums"] = at + len(data)
    checks = checks if sums is None else sums
    fields["file"] = fields["sums"] + len(checks) + 16
    fields["table_sum"] = zlib.crc32(lines + names)
    fields.update(header or {})
    head = NATIVE.pack(*fields.values())
    sum_of_head = zlib.crc32(head[:124])
    head = head[:124] + u32(sum_of_head)
    pad = lambda part, end: part + b"\0" * (end - len(part))
    out = pad(pad(head + metadata, up(128 + len(metadata))) + lines + names, at) + data + checks
    out += b"QORUSEND" + u32(zlib.crc32(checks)) + u32(sum_of_head) + more
    return out if cut is None else out[:cut]


def safetensors(tensors, metadata=None, header=None):
    """tensors: {name: (dtype, shape, bytes)}, or the header's own text and the bytes after it."""
    if header is not None:
        words = header if isinstance(header, bytes) else header.encode()
        return u64(len(words)) + words + tensors
    table, data = ({"__metadata__": metadata} if metadata else {}), b""
    for name, (kind, shape, value) in tensors.items():
        table[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), len(data) + len(value)]}
        data += value
    words = json.dumps(table).encode()
    words += b" " * (-len(words) % 8)
    return u64(len(words)) + words + data


def sealed(tensors, metadata, magic=b"QSEALED1", crc=None, count=None, sums=None):
    """As io::write_sealed leaves it: a checksum for each tensor and each text, and a trailer."""
    texts = dict(metadata)
    for name, (_, _, value) in tensors.items():
        texts["crc32." + name] = "%08x" % zlib.crc32(value)
    texts.update(sums or {})
    texts = {key: value for key, value in texts.items() if value is not None}
    sum_of_all = 0
    for key in sorted(texts, key=lambda k: k.encode()):
        sum_of_all = zlib.crc32(key.encode() + b"\0" + texts[key].encode() + b"\0", sum_of_all)
    trailer = magic + u32(sum_of_all if crc is None else crc) + u32(len(tensors) if count is None else count)
    return safetensors({**tensors, "sealed.trailer": ("U8", [16], trailer)}, texts)


def npy(shape, kind="<f4", data=b"", order="False", header=None, version=1, length=None):
    words = (f"{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {shape}, }}" if header is None else header).encode("latin-1")
    words += b" " * (63 - (len(words) + 10) % 64) + b"\n"
    size = len(words) if length is None else length
    lead = struct.pack("<H", size & 65535) if version == 1 else u32(size)
    return b"\x93NUMPY" + bytes([version, 0]) + lead + words + data


def npz(method):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        with archive.open("x.npy", "w", force_zip64=True) as entry_:
            entry_.write(npy("(2, 3)", "<f4", b"\0" * 24))
        archive.writestr("y.npy", npy("(3,)", "<i8", struct.pack("<3q", 1, -2, 3)))
    return out.getvalue()


def zipped(entries, **end):
    """A zip file. entries: (name, content as it lies there, {field of the directory: what it says instead}); end: the same of its last record."""
    body, directory = b"", b""
    for name, content, lies in entries:
        says = dict(magic=0x02014b50, flags=0, method=0, crc=zlib.crc32(content), packed=len(content), size=len(content), extra=b"", extra_length=None,
                    offset=len(body))
        says.update(lies)
        body += struct.pack("<IHHHHHIIIHH", 0x04034b50, 20, 0, 0, 0, 33, 0, 0, 0, len(name), 0) + name + content
        length = len(says["extra"]) if says["extra_length"] is None else says["extra_length"]
        directory += struct.pack("<IHHHHHHIIIHHHHHII", says["magic"], 20, 20, says["flags"], says["method"], 0, 33, says["crc"], says["packed"], says["size"],
                                 len(name), length, 0, 0, 0, 0, says["offset"]) + name + says["extra"]
    says = dict(disk=0, count=len(entries), size=len(directory), begin=len(body), comment=0)
    says.update(end)
    return body + directory + struct.pack("<IHHHHIIH", 0x06054b50, says["disk"], 0, says["count"], says["count"], says["size"], says["begin"], says["comment"])


def deflated(content):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush()


def idx(kind, extents, data=b"", rank=None):
    return struct.pack(">BBBB", 0, 0, kind, len(extents) if rank is None else rank) + struct.pack(f">{len(extents)}I", *extents) + data


def gz(data):
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as packed:
        packed.write(data)
    return out.getvalue()


def bomb(zeros, lead=b""):
    """A gzip of `lead` and so many zeros, a thousandth as long."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    chunk = b"\0" * (1 << 20)
    out = packer.compress(lead)
    for _ in range(zeros >> 20):
        out += packer.compress(chunk)
    return out + packer.compress(b"\0" * (zeros & ((1 << 20) - 1))) + packer.flush()


def varint(value):
    out = b""
    while value >= 128:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def proto(field, value):
    """A field of a protobuf message: bytes, or a number."""
    if isinstance(value, int):
        return varint(field << 3) + varint(value)
    return varint(field << 3 | 2) + varint(len(value)) + value


def piece(word, score=0.0, kind=1):
    return proto(1, proto(1, word) + b"\x15" + f32(score) + b"\x18" + varint(kind))


PIECES = [piece(b"<unk>", 0, 2), piece(b"<s>", 0, 3), piece(b"</s>", 0, 3), piece(b"\xe2\x96\x81a", -1), piece(b"<0x41>", 0, 6)]


def sentencepiece(pieces=PIECES, trainer=b"\x18\2", more=b""):
    return b"".join(pieces) + proto(2, trainer) + more


def llama2c_tokenizer(words=None, longest=8):
    if words is None:
        words = [b"<unk>", b"<s>", b"</s>"] + [b"<0x%02X>" % b for b in range(256)] + [b"a", b"b", b"ab"]
    return u32(longest) + b"".join(struct.pack("<fI", 0, len(w)) + w for w in words)


def bpe(**change):
    made = {"version": "1.0", "added_tokens": [{"id": 0, "content": "<s>", "special": True, "lstrip": False, "rstrip": False}],
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}, "decoder": {"type": "ByteLevel"},
            "model": {"type": "BPE", "vocab": {"<s>": 0, "a": 1, "b": 2, "ab": 3}, "merges": ["a b"]}}
    return {**made, **change}


def unigram(**change):
    model = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["\u2581a", -1.0], ["b", -2.0]]}
    return {"version": "1.0", "model": {**model, **change}}


def wordpiece(**change):
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "vocab": {"[UNK]": 0, "a": 1, "##b": 2}}
    return {"version": "1.0", "normalizer": {"type": "BertNormalizer", "lowercase": True}, "pre_tokenizer": {"type": "BertPreTokenizer"},
            "model": {**model, **change}}


def llama2c(d=4, ff=4, layers=1, heads=2, kv=1, vocab=6, context=8, data=None):
    """A checkpoint of llama2.c, version 0."""
    head = struct.pack("<7i", d, ff, layers, heads, kv, vocab, context)
    if data is None:
        count = vocab * d + layers * (2 * d + 2 * d * d + 2 * d * (d // heads * kv) + 3 * d * ff) + d + context * (d // heads // 2) * 2
        data = b"\0" * (4 * count)
    return head + data


CONFIG = {"model_type": "llama", "hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2,
          "num_key_value_heads": 1, "vocab_size": 6, "max_position_embeddings": 8, "rms_norm_eps": 1e-05, "tie_word_embeddings": True}


def llama_safetensors(prefix="", unaligned=False):
    """The weights that go with CONFIG."""
    shapes = {"model.embed_tokens.weight": [6, 4], "model.norm.weight": [4]}
    for name, shape in {"input_layernorm": [4], "post_attention_layernorm": [4], "self_attn.q_proj": [4, 4], "self_attn.k_proj": [2, 4],
                        "self_attn.v_proj": [2, 4], "self_attn.o_proj": [4, 4], "mlp.gate_proj": [4, 4], "mlp.up_proj": [4, 4],
                        "mlp.down_proj": [4, 4]}.items():
        shapes[f"model.layers.0.{name}.weight"] = shape
    tensors = {}
    for name, shape in shapes.items():
        count = shape[0] * (shape[1] if len(shape) == 2 else 1)
        tensors[prefix + name] = ("F32", shape, b"\0" * (4 * count))
    made = safetensors(tensors)
    if not unaligned:
        return made
    length = int.from_bytes(made[:8], "little")
    return u64(length + 1) + made[8:8 + length] + b" " + made[8 + length:]
