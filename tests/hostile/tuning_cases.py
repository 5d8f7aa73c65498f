"""What fine-tuning reads, and the doors that tell formats apart by their content: adapters, importance matrices, conversations, corpora, MNIST's folder. Each
with the error that it must give."""
import base64
import json
import struct

from files import (MOST32, array, entry, f32, gguf, gz, idx, llama, llama2c_tokenizer, native, npy, safetensors, sentencepiece, tensor, text, u32,
                   unigram)

F16, I64 = 1, 27  # numbers of GGUF's formats


def i32(*values):
    return struct.pack(f"<{len(values)}i", *values)


def lora(tensors=None, drop=(), **change):
    values = {"general.architecture": (8, text(b"llama")), "general.type": (8, text(b"adapter")), "adapter.type": (8, text(b"lora")),
              "adapter.lora.alpha": (6, f32(4)), **{key.replace("__", "."): value for key, value in change.items()}}
    entries = [entry(key.encode(), kind, value) for key, (kind, value) in values.items() if key not in drop]
    tensors = {"blk.0.attn_q.weight.lora_a": (4, 2), "blk.0.attn_q.weight.lora_b": (2, 4)} if tensors is None else tensors
    lines, data = [], b""
    for name, shape in tensors.items():
        form = 0
        if isinstance(shape[0], str):
            form, shape = {"f16": F16, "i64": I64}[shape[0]], shape[1:]
        count = 1
        for extent in shape:
            count *= extent
        lines.append(tensor(name.encode(), shape, form, len(data)))
        data += b"\0" * (-(-count * 8 // 32) * 32)
    return gguf(entries, lines, data)


def adapter_cases():
    q_a, q_b, v = "blk.0.attn_q.weight.lora_a", "blk.0.attn_q.weight.lora_b", "blk.0.attn_v.weight.lora_"
    yield "good", lora(), "ok", ""
    yield "good-f16", lora({v + "a": ("f16", 4, 2), v + "b": ("f16", 2, 4)}), "ok", ""
    yield "alpha-none", lora(drop=("adapter.lora.alpha",)), "ok", ""
    yield "not-gguf", b"GGUX", "corrupt", "not a GGUF file"
    yield "type-none", lora(drop=("general.type",)), "not found", "no adapter"
    for key in ("general__type", "adapter__type", "general__architecture"):
        yield f"{key}-number", lora(**{key: (4, u32(1))}), "not found", "no adapter"
    yield "type-other", lora(general__type=(8, text(b"model"))), "not found", "no adapter"
    yield "kind-other", lora(adapter__type=(8, text(b"loha"))), "unsupported", "only those of type lora"
    yield "architecture-other", lora(general__architecture=(8, text(b"qwen2"))), "invalid argument", "another architecture"
    yield "alpha-text", lora(adapter__lora__alpha=(8, text(b"4"))), "corrupt", "is no number"
    yield "alpha-nan", lora(adapter__lora__alpha=(6, f32(float("nan")))), "corrupt", "is no number"
    yield "half", lora({q_a: (4, 2)}), "corrupt", "half a pair"
    yield "other-half", lora({q_b: (2, 4)}), "unsupported", "no pairs"
    yield "none", lora({}), "unsupported", "no pairs"
    yield "more", lora({q_a: (4, 2), q_b: (2, 4), "blk.0.attn_norm.weight": (4,)}), "unsupported", "no pairs"
    yield "format", lora({q_a: ("i64", 4, 2), q_b: (2, 4)}), "unsupported", "tensors do not have this format"
    for name, a, b in (("ranks", (4, 2), (3, 4)), ("flat-a", (4,), (2, 4)), ("flat-b", (4, 2), (2,)), ("deep", (4, 2), (2, 4, 1)), ("zero", (4, 0), (0, 4))):
        yield name, lora({q_a: a, q_b: b}), "corrupt", "must agree on the rank"
    yield "heads", lora({q_a: (4, 2), q_b: (2, 3)}), "invalid size", "no whole heads"


def peft_cases():
    good = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
    stem = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    pair = {stem + "A.weight": ("F32", [2, 4], b"\0" * 32), stem + "B.weight": ("F32", [4, 2], b"\0" * 32)}

    def made(change=None, tensors=pair, config=None):
        config = json.dumps({**good, **(change or {})}).encode() if config is None else config
        return {"adapter_config.json": config, "adapter_model.safetensors": safetensors(tensors)}
    yield "good", made(), "ok", ""
    yield "rslora", made({"use_rslora": True}), "ok", ""
    yield "json", made(config=b"{"), "corrupt", "adapter_config.json"
    yield "weights-none", {"adapter_config.json": json.dumps(good).encode()}, "not found", "adapter_model.safetensors"
    yield "type", made({"peft_type": "IA3"}), "unsupported", "only LORA"
    for key in ("rank_pattern", "alpha_pattern", "modules_to_save"):
        yield key, made({key: {"x": 1}}), "unsupported", key
    yield "dora", made({"use_dora": True}), "unsupported", "use_dora"
    for key in ("r", "lora_alpha"):
        for value in (0, -1, None):
            yield f"{key}-{value}", made({key: value}), "corrupt", "must be above 0"
    for part, other in ("AB", "BA"):
        yield f"without-{part}", made(tensors={stem + f"{other}.weight": pair[stem + f"{other}.weight"]}), "not found", ""
    yield "none", made(tensors={}), "unsupported", "no place for"
    yield "more", made(tensors={**pair, "x": ("F32", [1], b"\0" * 4)}), "unsupported", "no place for"
    yield "type-i64", made(tensors={**pair, stem + "A.weight": ("I64", [2, 4], b"\0" * 64)}), "unsupported", "element type"
    yield "ranks", made(tensors={**pair, stem + "A.weight": ("F32", [3, 4], b"\0" * 48)}), "corrupt", "must agree on the rank"
    yield "heads", made(tensors={**pair, stem + "B.weight": ("F32", [3, 2], b"\0" * 24)}), "invalid size", "no whole heads"
    value = {name.replace("q_proj", "v_proj"): v for name, v in pair.items()}
    yield "not-reordered", made(tensors=value), "ok", ""
    head = {"base_model.model.lm_head.lora_A.weight": ("F32", [2, 4], b"\0" * 32), "base_model.model.lm_head.lora_B.weight": ("F32", [6, 2], b"\0" * 48)}
    yield "output", made(tensors=head), "ok", ""
    yield "output-ranks", made(tensors={**head, "base_model.model.lm_head.lora_B.weight": ("F32", [6, 1], b"\0" * 24)}), "corrupt", "must agree on the rank"


def importance_cases():
    def dat(entries=((b"w", 2, (4.0, 8.0)),), count=None):
        out = i32(len(entries) if count is None else count)
        for name, calls, values in entries:
            out += i32(len(name)) + name + i32(calls, len(values)) + b"".join(f32(v) for v in values)
        return out
    good = dat()
    yield "good", good, "ok", ""
    yield "calls-none", dat(((b"w", 0, (4.0,)), (b"v", -1, (1.0,)))), "ok", ""
    for length in (0, 3, 4, 7, 8, 9, 12, 13, 16, 17, len(good) - 1):
        yield f"cut-{length}", good[:length], "corrupt", "no importance matrix"
    for count in (0, -1, 65537, 2**31 - 1):
        yield f"entries-{count}", dat(count=count), "corrupt", "no importance matrix"
    for letters in (0, -1, 2**31 - 1):
        yield f"letters-{letters}", i32(1, letters) + b"w" + i32(1, 1) + f32(1), "corrupt", "no importance matrix"
    for count in (0, -1, 2, 2**31 - 1):
        yield f"values-{count}", i32(1, 1) + b"w" + i32(1, count) + f32(1), "corrupt", "no importance matrix"
    for value in (-1.0, float("nan"), float("inf")):
        yield f"value-{value}", dat(((b"w", 1, (value,)),)), "corrupt", "a number and not negative"
    yield "twice", dat(((b"w", 1, (1.0,)), (b"w", 1, (1.0,)))), "corrupt", "a tensor stands twice"

    def sums(shape=(4,), counts=(1,), more=(), drop=False, form=0, form_of_counts=0):
        lines = [tensor(b"w.in_sum2", shape, form, 0)] + ([] if drop else [tensor(b"w.counts", counts, form_of_counts, 64)])
        return gguf([], lines + [tensor(b"x", [1], 0, 128)] if more else lines, f32(1) * 48)
    yield "gguf-good", sums(), "ok", ""
    yield "gguf-more", sums(more=True), "ok", ""
    yield "gguf-matrices", sums((4, 2), (2,)), "ok", ""
    yield "gguf-none", gguf([], [tensor(b"x", [1], 0, 0)], b"\0" * 32), "corrupt", "no sums of squares"
    yield "gguf-half", sums(drop=True), "not found", "w.counts"
    yield "gguf-f16", sums(form=F16), "corrupt", "sums and counts are f32"
    yield "gguf-counts-f16", sums(form_of_counts=F16), "corrupt", "sums and counts are f32"
    yield "gguf-i64", sums(form=I64), "unsupported", ""
    yield "gguf-scalar", sums(()), "corrupt", "sums and counts are f32"
    yield "gguf-counts-none", sums(counts=(0,)), "corrupt", "as many for each matrix"
    yield "gguf-counts-three", sums(counts=(3,)), "corrupt", "as many for each matrix"
    yield "gguf-count-0", gguf([], [tensor(b"w.in_sum2", (4,), 0, 0), tensor(b"w.counts", (1,), 0, 32)], b"\0" * 64), "ok", ""


def samples_cases():
    model = llama()

    def made(content, name="data/talk.jsonl", **more):
        more = {key.replace("__", "/"): value for key, value in more.items()}
        return {"model.gguf": model, name: content if isinstance(content, bytes) else b"\n".join(json.dumps(line).encode() for line in content), **more}
    pair = {"prompt": "a", "response": "b"}
    talk = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    spelled = b"{% for m in messages %}{{ m.content }}{% endfor %}"
    yield "good", made([pair, pair]), "ok", ""
    yield "json", made([pair], "data/talk.json"), "ok", ""
    yield "text", made(b"ab ab a", "data/text.txt"), "ok", ""
    yield "text-long", made(b"ab" * 100, "data/text.txt"), "ok", ""
    yield "text-empty", made(b"", "data/text.txt"), "", ""
    yield "blank-lines", made(b"\n \t\r\n" + json.dumps(pair).encode() + b"\n\n"), "ok", ""
    yield "hidden", made(b"{", "data/.hidden"), "invalid size", "nothing to learn from"
    yield "folders", {**made([pair], "data/b/c/talk.jsonl"), "data/a.txt": b"ab"}, "ok", ""
    yield "folders-deep", made([pair], "data" + "/d" * 17 + "/talk.jsonl"), "overflow", "folders more than 16 deep"
    yield "nothing", {"model.gguf": model}, "not found", "cannot be read"
    for name, line in (("open", b"{"), ("list", b"[]"), ("number", b"1"), ("empty", b"{}"), ("no-prompt", b'{"response":"a"}'), ("prompt-number", b'{"prompt":1,"response":"a"}')):
        yield f"line-{name}", made(line), "corrupt", ":1"
    for name, line in (("none", {"prompt": "a"}), ("number", {"prompt": "a", "response": 1}), ("empty", {"prompt": "a", "response": ""})):
        yield f"response-{name}", made([pair, line]), "invalid argument", "no response, or an empty one"
    for name, message in (("role", {"content": "a"}), ("role-number", {"role": 1, "content": "a"}), ("content", {"role": "user"}), ("number", 1)):
        yield f"message-{name}", made([{"messages": [message]}], jinja=spelled), "corrupt", "a role and a content"
    yield "messages-number", made([{"messages": 1}], jinja=spelled), "", ""
    yield "messages-none", made([{"messages": []}], jinja=spelled), "invalid argument", "an answer of the assistant"
    yield "messages-plain", made([talk]), "not found", "messages need a chat template"
    yield "messages", made([talk], jinja=spelled), "ok", ""
    yield "messages-ended", made([talk], jinja=b"{% for m in messages %}{{ m.content }}</s>{% endfor %}"), "ok", ""
    yield "messages-begun", made([talk], jinja=b"<s>{% for m in messages %}{{ m.content }}{% endfor %}"), "ok", ""
    yield "messages-user-last", made([{"messages": [*talk["messages"], talk["messages"][0]]}], jinja=spelled), "ok", ""
    yield "messages-user", made([{"messages": talk["messages"][:1]}], jinja=spelled), "invalid argument", "an answer of the assistant"
    yield "messages-silent", made([talk], jinja=b"{{ 1 }}"), "invalid argument", "an answer of the assistant"
    yield "messages-refused", made([talk], jinja=b"{{ raise_exception('no') }}"), "invalid argument", "the template refuses"
    for turns in (0, 1, 2):  # refused at one of the spellings
        yield f"messages-refused-{turns}", made([talk], jinja=b"{%% if messages|length == %d %%}{{ raise_exception('no') }}{%% endif %%}x" % turns), "", ""
    yield "template-broken", made([talk], jinja=b"{{"), "corrupt", ""
    yield "pair-spelled", made([pair], jinja=spelled), "ok", ""
    for n in range(1, 7):  # so many tokens that a list is full when the last comes
        yield f"pair-{n}", made([{"prompt": "a" * n, "response": "b"}]), "ok", ""
        yield f"talk-{n}", made([{"messages": [{"role": "user", "content": "a" * n}, talk["messages"][1]]}], jinja=spelled), "ok", ""
    for n in range(1, 20):
        yield f"text-{n}", made(b"ab" * n, "data/text.txt"), "ok", ""
    yield "plain", made([pair], jinja=spelled, plain=b""), "ok", ""
    yield "long", made([{"prompt": "ab" * 20, "response": "b"}]), "invalid size", "more tokens than the context has"
    yield "no-tokenizer", {**made([pair]), "model.gguf": llama(drop=(b"tokenizer.ggml.model",))}, "not found", "without a tokenizer"
    none = {b"tokenizer.ggml.eos_token_id": (4, u32(MOST32)), b"tokenizer.ggml.add_bos_token": (7, b"\0")}
    for name, content, more in (("pair", [pair], {}), ("talk", [talk], {"jinja": spelled}), ("text", b"ab", {"name": "data/x.txt"})):
        yield f"no-end-{name}", {**made(content, **more), "model.gguf": llama(change=none)}, "ok", ""
        begun = {b"tokenizer.ggml.bos_token_id": (4, u32(MOST32))}
        yield f"no-begin-{name}", {**made(content, **more), "model.gguf": llama(change=begun)}, "ok", ""


def corpus_cases():
    yield "good", {"a.txt": b"one\ntwo\n" * 20, "b/c.txt": b"three\n" * 20}, "ok", ""
    yield "empty-files", {"a.txt": b"", "b.txt": b""}, "invalid size", "no text"
    yield "hidden", {".a.txt": b"text"}, "invalid size", "no text"
    yield "some-empty", {"a.txt": b"", "b.txt": b"x" * 100}, "ok", ""
    yield "deep-64", {"d/" * 64 + "a.txt": b"text of some length"}, "ok", ""
    yield "deep-65", {"d/" * 65 + "a.txt": b"text of some length"}, "unsupported", "more than 64 deep"
    yield "letters", {"a.txt": "ä€𝄞".encode() * 50}, "ok", ""
    yield "one-line", {"a.txt": b"x" * 99 + b"\n"}, "ok", ""
    yield "far-line", {"a.txt": b"x" * 900_000 + b"\n" + b"x" * 9}, "ok", ""
    yield "one-byte", {"a.txt": b"x"}, "ok", ""
    yield "dangling", {"a.txt": b"text of some length", "b.txt": "none", "c": "."}, "ok", ""
    yield "no-letter", {"a.txt": b"x" * 89 + b"\x80" * 11}, "ok", ""
    yield "one-file", b"text of some length", "ok", ""
    yield "cut-between", {"a.txt": b"x" * 90, "b.txt": b"y" * 10}, "ok", ""


def mnist_cases():
    names = [f"{part}-{what}" for part in ("train", "t10k") for what in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    images, labels = idx(8, [2, 2, 2], b"\0" * 8), idx(8, [2], b"\0\1")

    def made(changed=None, content=None, drop=(), packed=()):
        contents = {name: images if "images" in name else labels for name in names}
        if changed is not None:
            contents[names[changed]] = content
        return {name + (".gz" if name in packed else ""): gz(c) if name in packed else c for name, c in contents.items() if name not in drop}
    yield "good", made(), "ok", ""
    yield "packed", made(packed=names), "ok", ""
    for number, name in enumerate(names):
        yield f"no-{name}", made(drop=(name,)), "not found", name
        yield f"empty-{name}", made(number, b""), "corrupt", "fewer bytes than its header announces"
        yield f"cut-{name}", made(number, (images if number % 2 == 0 else labels)[:-1]), "corrupt", "fewer bytes than its header announces"
        rank = idx(8, [2], b"\0" * 2) if number % 2 == 0 else idx(8, [2, 1], b"\0" * 2)
        yield f"rank-{name}", made(number, rank), "corrupt", "images are bytes" if number % 2 == 0 else "labels are bytes"
        kind = idx(0xc, [2, 2, 2], b"\0" * 32) if number % 2 == 0 else idx(0xc, [2], b"\0" * 8)
        yield f"type-{name}", made(number, kind), "corrupt", "images are bytes" if number % 2 == 0 else "labels are bytes"
    yield "label-10", made(1, idx(8, [2], b"\0\x0a")), "corrupt", "a label is not below 10"
    yield "labels-fewer", made(1, idx(8, [1], b"\0")), "invalid size", "as many labels as images"
    yield "none", {**made(), names[0]: idx(8, [0, 2, 2]), names[1]: idx(8, [0])}, "invalid size", "holds no examples"
    yield "broken-gz", {**made(drop=(names[0],)), names[0] + ".gz": b"\x1f\x8b"}, "corrupt", ""


def labelled_cases():
    def made(images, labels):
        return {"images": images, "labels": labels}
    yield "good", made(idx(0xc, [2, 2], b"\0" * 16), idx(8, [2], b"\0\1")), "ok", ""
    yield "floats", made(idx(0xd, [2, 2], b"\0" * 16), idx(0xd, [2], b"\0" * 8)), "ok", ""
    yield "floats-flat", made(idx(0xd, [2, 2], b"\0" * 16), idx(0xd, [2, 1], b"\0" * 8)), "ok", ""
    yield "rank", made(idx(8, [2, 2], b"\0" * 4), idx(8, [2, 1], b"\0\1")), "invalid argument", "labels are a list"
    yield "labels-broken", made(idx(8, [2, 2], b"\0" * 4), b""), "corrupt", ""


def ranks(count):
    return b"".join(base64.b64encode(b"%05d" % i) + b" %d\n" % i for i in range(count))


def tokenizer_cases():
    yield "gguf", llama(), "ok", ""
    yield "gguf-none", gguf(), "not found", "tokenizer.ggml.model"
    yield "gguf-broken", b"GGUF", "corrupt", ""
    vocabulary = [entry(b"tokenizer.ggml.model", 8, text(b"llama")), array(b"tokenizer.ggml.tokens", 8, 1, text(b"a"))]
    yield "qorus", native(vocabulary), "ok", ""
    yield "qorus-none", native(), "not found", "tokenizer.ggml.model"
    yield "qorus-broken", native()[:100], "corrupt", ""
    yield "json", b" \n" + json.dumps(unigram()).encode(), "ok", ""
    yield "json-broken", b"{", "corrupt", ""
    yield "sentencepiece", sentencepiece(), "ok", ""
    yield "llama2c", llama2c_tokenizer(longest=27), "ok", ""
    yield "llama2c-ten", llama2c_tokenizer(longest=10), "ok", ""  # whose first byte is a line's end, as that of a .model
    yield "empty", b"", "corrupt", "too short for a header"
    yield "blank", b"  \n", "corrupt", ""
    yield "short", b"\n\0", "ok", ""  # one piece, of no bytes
    yield "ranks-gpt2", ranks(50256), "ok", ""
    yield "ranks-gpt2-open", ranks(50256)[:-1], "ok", ""
    yield "ranks-twice", ranks(50255) + b"MDAwMDA= 50255\n", "corrupt", "a piece stands twice"
    yield "ranks-returns", ranks(2).replace(b"\n", b"\r\n"), "unsupported", "a rank file of tiktoken that is not known"
    yield "ranks-one", b"YQ== 0", "unsupported", "a rank file of tiktoken that is not known"
    for name, line in (("three", b"YQ= 0\n"), ("none", b" 0\n"), ("two", b"YQ== 1\n"), ("tab", b"YQ==\t0\n"), ("long", b"YQ== 00\n"), ("plus", b"+/== 0\n"), ("at", b"@Q== 0\n")):
        yield f"ranks-{name}", line, "", ""


def vocabulary_cases():
    yield "json", json.dumps(unigram()).encode(), "ok", ""
    yield "json-broken", b"{", "corrupt", ""
    yield "sentencepiece", sentencepiece(), "ok", ""
    yield "llama2c", llama2c_tokenizer(longest=27), "ok", ""
    yield "llama2c-ten", llama2c_tokenizer(longest=10), "ok", ""
    yield "empty", b"", "corrupt", "too short for a header"
    yield "blank", b"\r\n\t ", "", ""
    yield "short", b"\n\0", "ok", ""


def refused_cases():
    yield "json", json.dumps(unigram()).encode(), "unsupported", ""
    yield "llama2c", llama2c_tokenizer(longest=27), "unsupported", ""


def peft_gpt2_cases():
    config = json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}).encode()
    yield "nothing", {"adapter_config.json": config, "adapter_model.safetensors": safetensors({})}, "unsupported", "no place for"


def mapped_npy_cases():
    yield "good", npy("(2,)", data=b"\0" * 8), "ok", ""
    yield "broken", b"", "corrupt", "not an npy file"
    for name, made in (("type", npy("(1,)", "<i8", b"\0" * 8)), ("order", npy("(2,)", data=b"\0" * 8, order="True"))):
        yield name, made, "unsupported", "cannot be used where it lies"
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}"
    yield "unaligned", b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + b"\0" * 4, "unsupported" if (len(header) + 10) % 4 else "ok", ""


def valid():
    """Of each of these readers what is valid."""
    for reader, cases in GROUPS:
        for name, content, code, _ in cases():
            if code == "ok" and name in ("good", "gguf-good", "messages", "json", "sentencepiece", "llama2c", "gguf", "qorus", "folders", "one-file"):
                yield f"{reader}-{name}", reader, content, "ok", ""


GROUPS = (("adapter", adapter_cases), ("peft", peft_cases), ("importance", importance_cases), ("samples", samples_cases), ("corpus", corpus_cases),
          ("mnist", mnist_cases), ("labelled", labelled_cases), ("peft-gpt2", peft_gpt2_cases), ("vocabulary-refused", refused_cases), ("tokenizer", tokenizer_cases), ("vocabulary", vocabulary_cases), ("mapped-npy", mapped_npy_cases))


def all_cases():
    for reader, cases in GROUPS:
        for name, content, code, message in cases():
            yield f"{reader}/{name}", reader, content, code, message
