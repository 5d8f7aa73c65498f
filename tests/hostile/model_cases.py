"""Language models whose files are sound and say nonsense, configurations, indices of shards, and layers written as JSON: each with the error
that it must give."""
import json
import struct

from files import CONFIG, MOST32, f32, llama, llama2c, llama_safetensors, safetensors, text, u32, u64, unigram

WEIGHTS = llama_safetensors()


def gguf_models():
    def with_(key, kind, value):
        return llama(change={key: (kind, value)})
    yield "good", llama(), "ok", ""
    yield "good-q8", llama(8), "ok", ""
    for key in ("block_count", "embedding_length", "context_length", "attention.head_count", "feed_forward_length"):
        full = b"llama." + key.encode()
        yield f"no-{key}", llama(drop=(full,)), "not found", key
        yield f"zero-{key}", with_(full, 4, u32(0)), "", ""
        yield f"huge-{key}", with_(full, 4, u32(MOST32)), "", ""
        yield f"u64-{key}", with_(full, 10, u64(2**64 - 1)), "overflow", key
        yield f"negative-{key}", with_(full, 5, struct.pack("<i", -1)), "overflow", key
        yield f"text-{key}", with_(full, 8, text(b"4")), "invalid dtype", key
        yield f"float-{key}", with_(full, 6, f32(4)), "invalid dtype", key
    for count in (3, 4096, 4097, 1 << 24):
        yield f"layers-{count}", with_(b"llama.block_count", 4, u32(count)), "", ""
    for heads in (3, 5, 1 << 24):
        yield f"heads-{heads}", with_(b"llama.attention.head_count", 4, u32(heads)), "invalid argument", ""
    for heads in (0, 3, MOST32):
        yield f"kv-heads-{heads}", with_(b"llama.attention.head_count_kv", 4, u32(heads)), "invalid argument", ""
    yield "heads-array-empty", with_(b"llama.attention.head_count", 9, u32(4) + u64(0)), "unsupported", "layers of different sizes"
    yield "heads-array-mixed", with_(b"llama.attention.head_count", 9, u32(4) + u64(2) + u32(2) + u32(1)), "unsupported", "layers of different sizes"
    for key in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
        for value in (0, 1, 3, 2**20, MOST32):
            yield f"{key}-{value}", with_(b"llama." + key.encode(), 4, u32(value)), "", ""
    for value in (0.0, -1.0, float("nan"), float("inf")):
        yield f"eps-{value}", with_(b"llama.attention.layer_norm_rms_epsilon", 6, f32(value)), "invalid argument", "eps must be positive"
        yield f"rope-base-{value}", with_(b"llama.rope.freq_base", 6, f32(value)), "invalid argument", "rope's base and factor must be positive"
    yield "rope-base-huge", with_(b"llama.rope.freq_base", 12, struct.pack("<d", 1e300)), "overflow", "rope.freq_base"
    yield "rope-type", with_(b"llama.rope.scaling.type", 8, text(b"spiral")), "unsupported", "spiral"
    for kind in (b"linear", b"yarn", b"longrope"):
        for factor in (0.0, -4.0, float("nan"), float("inf")):
            change = {b"llama.rope.scaling.type": (8, text(kind)), b"llama.rope.scaling.factor": (6, f32(factor))}
            yield f"rope-{kind.decode()}-{factor}", llama(change=change), "invalid argument", ""
    yield "rope-original-0", llama(change={b"llama.rope.scaling.type": (8, text(b"yarn")), b"llama.rope.scaling.factor": (6, f32(4)),
                                           b"llama.rope.scaling.original_context_length": (4, u32(0))}), "invalid argument", "original context"
    yield "architecture", with_(b"general.architecture", 8, text(b"lambs")), "unsupported", "lambs"
    yield "architecture-missing", llama(drop=(b"general.architecture",)), "not found", "general.architecture"
    yield "architecture-number", with_(b"general.architecture", 4, u32(1)), "invalid dtype", "general.architecture"
    yield "architecture-200kb", with_(b"general.architecture", 8, text(b"x" * 200000)), "unsupported", "no such architecture"
    for key, value in (("expert_count", 4097), ("expert_count", MOST32)):
        yield f"{key}-{value}", llama(change={b"llama.expert_count": (4, u32(value)), b"llama.expert_used_count": (4, u32(1))}), "invalid argument", "experts"
    for used in (0, 9, 65, MOST32):
        yield f"experts-used-{used}", llama(change={b"llama.expert_count": (4, u32(8)), b"llama.expert_used_count": (4, u32(used))}), "invalid argument", "experts"
    yield "window-huge", with_(b"llama.attention.sliding_window", 4, u32(MOST32)), "ok", ""
    for name in (b"token_embd.weight", b"output_norm.weight", b"blk.0.attn_q.weight", b"blk.0.ffn_down.weight"):
        yield f"no-{name.decode()}", llama(shapes={name: None}), "not found", name.decode()
    for name, shape in ((b"token_embd.weight", (4,)), (b"token_embd.weight", (4, 6, 1)), (b"token_embd.weight", (8, 6)), (b"output_norm.weight", (5,)),
                        (b"blk.0.attn_q.weight", (4, 8)), (b"blk.0.attn_k.weight", (4, 4)), (b"blk.0.ffn_gate.weight", (4, 8)), (b"blk.0.ffn_down.weight", (8, 4)),
                        (b"blk.0.attn_norm.weight", (4, 1))):
        yield f"shape-{name.decode()}-{'x'.join(map(str, shape))}", llama(shapes={name: shape}), "invalid size", ""
    yield "embedding-empty", llama(shapes={b"token_embd.weight": (4, 0)}), "", ""
    words = [b"<unk>", b"<s>", b"</s>", b"a", b"b"]
    yield "piece-twice", llama(words=[*words, b"a"]), "corrupt", "a piece stands twice"
    yield "piece-200kb", llama(words=[*words, b"x" * 200000]), "unsupported", "a piece of more than 64 KiB"
    yield "scores-fewer", llama(scores=[0, 1]), "corrupt", "not as many scores as pieces"
    yield "score-nan", llama(scores=[0, 1, 2, 3, 4, float("nan")]), "corrupt", "a score that is not finite"
    yield "kinds-fewer", llama(kinds=[1]), "corrupt", "not as many kinds as pieces"
    for kind in (7, -1, 2**31 - 1):
        yield f"kind-{kind}", llama(kinds=[2, 3, 3, 1, 1, kind]), "corrupt", "a piece of a kind that is not known"
    for word in (b"<0x-1>", b"<0x100>", b"ab"):
        yield f"byte-{word.decode()}", llama(words=[*words, word], kinds=[2, 3, 3, 1, 1, 6]), "corrupt", "not spelled like <0x0A>"
    for key in ("bos", "eos", "unknown"):
        for value in (6, 2**31, MOST32 - 1):
            change = {f"tokenizer.ggml.{key}_token_id".encode(): (4, u32(value))}
            yield f"{key}-{value}", llama(change=change), "corrupt", "a special id beyond the vocabulary"
    yield "tokenizer-model", with_(b"tokenizer.ggml.model", 8, text(b"abacus")), "unsupported", "abacus"
    yield "tokens-numbers", with_(b"tokenizer.ggml.tokens", 9, u32(4) + u64(1) + u32(1)), "invalid dtype", "tokenizer.ggml.tokens"
    yield "more-pieces-than-rows", llama(words=[*words, b"ab", b"c"], scores=range(7), kinds=[2, 3, 3, 1, 1, 1, 1], shapes={b"token_embd.weight": (4, 6)}), \
        "invalid size", "more pieces than the embedding has rows"
    yield from gguf_families()
    yield from gguf_tokenizers(words)
    gpt2 = {b"tokenizer.ggml.model": (8, text(b"gpt2")), b"tokenizer.ggml.merges": (9, u32(8) + u64(1) + text(b"a c"))}
    yield "merge-unknown", llama(change=gpt2), "corrupt", "a merge of pieces"
    yield "merges-missing", llama(change={b"tokenizer.ggml.model": (8, text(b"gpt2"))}), "", ""


def gguf_families():
    """What other architectures read; whether a file is one of theirs its tensors tell, so that most end there."""
    for family in (b"gemma", b"gemma2", b"gemma3", b"qwen2", b"qwen2moe", b"qwen3", b"qwen3moe", b"gpt2", b"phi3", b"starcoder", b"starcoder2"):
        own = family + b"."
        yield f"family-{family.decode()}", llama(name=family), "", ""
        for layers in (46, 62):
            yield f"family-{family.decode()}-{layers}", llama(name=family, change={own + b"block_count": (4, u32(layers))}), "", ""
        caps = {own + b"attn_logit_softcapping": (6, f32(-1)), own + b"final_logit_softcapping": (6, f32(float("nan"))),
                own + b"attention.layer_norm_epsilon": (6, f32(1e-5))}
        yield f"family-{family.decode()}-caps", llama(name=family, change=caps), "", ""
        experts = {own + b"expert_count": (4, u32(2)), own + b"expert_used_count": (4, u32(1)), own + b"expert_feed_forward_length": (4, u32(0)),
                   own + b"attention.layer_norm_epsilon": (6, f32(1e-5))}
        yield f"family-{family.decode()}-experts", llama(name=family, change=experts), "", ""
    for scale in (0.0, -1.0, float("nan"), 2.0):
        yield f"rope-scale-linear-{scale}", llama(change={b"llama.rope.scale_linear": (6, f32(scale))}), "ok" if scale == 2 else "invalid argument", ""
    yarn = {b"llama.rope.scaling.type": (8, text(b"yarn")), b"llama.rope.scaling.factor": (6, f32(4)), b"llama.rope.scaling.attn_factor": (6, f32(1.5))}
    yield "rope-yarn", llama(change=yarn), "ok", ""
    yield "rope-yarn-beta", llama(change={**yarn, b"llama.rope.scaling.yarn_beta_fast": (6, f32(0))}), "invalid argument", "yarn's betas must be positive"
    yield "rope-yarn-base", llama(change={**yarn, b"llama.rope.freq_base": (6, f32(1))}), "invalid argument", "yarn's betas must be positive"
    yield "rope-type-number", llama(change={b"llama.rope.scaling.type": (4, u32(1))}), "invalid dtype", "rope.scaling.type"
    for name in (b"rope_freqs.weight", b"rope_factors_long.weight", b"rope_factors_short.weight"):
        yield f"{name.decode()}-zeros", llama(shapes={name: (1,)}), "invalid argument", ""
        yield f"{name.decode()}-many", llama(shapes={name: (100,)}), "invalid argument", "longrope needs a factor for each pair"
        yield f"{name.decode()}-blocks", llama(8, shapes={name: (32, 1)}), "invalid dtype", name.decode()
    yield "heads-array-floats", llama(change={b"llama.attention.head_count": (9, u32(6) + u64(1) + f32(2))}), "invalid dtype", "head_count"
    yield "heads-array", llama(change={b"llama.attention.head_count": (9, u32(4) + u64(1) + u32(2))}), "ok", ""
    yield "attention-scale", llama(change={b"llama.attention.scale": (6, f32(-1))}), "invalid argument", "scales and caps"


def gguf_tokenizers(words):
    key = b"tokenizer.ggml."
    def made(change, **more):
        return llama(change={key + name: value for name, value in change.items()}, **more)
    for model in (b"gpt2", b"bert", b"t5", b"no_vocab", b"none"):
        yield f"tokenizer-{model.decode()}", made({b"model": (8, text(model))}), "", ""
        merges = {b"model": (8, text(model)), b"merges": (9, u32(8) + u64(1) + text(b"a b"))}
        for pre in (b"llama-bpe", b"default", b"gpt-2", b"nonsense", b""):
            yield f"tokenizer-{model.decode()}-{pre.decode()}", made({**merges, b"pre": (8, text(pre))}), "", ""
        yield f"tokenizer-{model.decode()}-pre-number", made({**merges, b"pre": (4, u32(1))}), "" if model in (b"no_vocab", b"none") else "invalid dtype", ""
    for name in (b"cls_token_id", b"seperator_token_id"):
        yield f"{name.decode()}-beyond", made({b"model": (8, text(b"bert")), name: (4, u32(99))}), "corrupt", "a special id beyond the vocabulary"
    for name in (b"bos_token_id", b"eos_token_id", b"unknown_token_id", b"eot_token_id", b"eom_token_id"):
        yield f"{name.decode()}-text", made({name: (8, text(b"1"))}), "invalid dtype", name.decode()
        yield f"{name.decode()}-none", made({name: (4, u32(MOST32))}), "ok", ""
    for name in (b"add_bos_token", b"add_eos_token", b"add_space_prefix", b"remove_extra_whitespaces"):
        yield f"{name.decode()}-number", made({name: (4, u32(1))}), "invalid dtype", name.decode()
    yield "scores-text", made({b"scores": (9, u32(8) + u64(1) + text(b"1"))}), "invalid dtype", "scores"
    yield "types-floats", made({b"token_type": (9, u32(6) + u64(1) + f32(1))}), "invalid dtype", "token_type"
    yield "merges-number", made({b"model": (8, text(b"gpt2")), b"merges": (4, u32(1))}), "invalid dtype", "merges"
    for name, value in (("text", (8, text(b"x"))), ("numbers", (9, u32(4) + u64(1) + u32(1))), ("short", (9, u32(0) + u64(3) + b"abc")),
                        ("length", (9, u32(0) + u64(8) + u32(MOST32) + b"abcd"))):
        yield f"charsmap-{name}", made({b"model": (8, text(b"t5")), b"precompiled_charsmap": value}), "", ""
    yield "template-number", llama(change={b"tokenizer.chat_template": (4, u32(1))}), "invalid dtype", "chat_template"


def llama2c_models():
    good = llama2c()
    yield "good", good, "ok", ""
    for length in (0, 4, 27, 28, len(good) - 1):
        yield f"cut-{length}", good[:length], "corrupt", "not a model"
    yield "after", good + b"\0", "corrupt", "not a model"
    yield "version-1", b"24ka" + good[4:], "unsupported", "of llama2.c's checkpoints only version 0"
    for field in ("d", "ff", "layers", "heads", "kv", "vocab", "context"):
        for value in (0, -2**31, 2**31 - 1, -1) if field != "vocab" else (0, -2**31, 2**31 - 1):
            change = {"d": 4, "ff": 4, "layers": 1, "heads": 2, "kv": 1, "vocab": 6, "context": 8, field: value}
            yield f"{field}-{value}", llama2c(**change, data=good[28:]), "corrupt", "not a model"
    most = (1 << 28) - 1
    yield "all-most", llama2c(most, most, most, 1, 1, most, most, good[28:]), "corrupt", "not a model"
    yield "kv-of-heads", llama2c(d=6, heads=3, kv=2, data=good[28:]), "corrupt", "not a model"
    yield "untied", llama2c(vocab=-6, data=llama2c()[28:] + b"\0" * 96), "ok", ""
    yield "heads-of-d", llama2c(heads=3, data=good[28:]), "corrupt", "not a model"


def folders():
    def made(config=None, drop=(), **files):
        if not isinstance(config, bytes):
            config = json.dumps({k: v for k, v in {**CONFIG, **(config or {})}.items() if k not in drop}).replace("Infinity", "1e999").encode()
        return {"config.json": config, "model.safetensors": WEIGHTS, **files}
    yield "good", made(), "ok", ""
    for name, words in (("empty", b""), ("half", b'{"model_type": "llama"'), ("nested", b"[" * 10000), ("list", b"[]"), ("utf8", b'{"model_type": "\xff"}')):
        yield f"config-{name}", made(words), "not found" if name == "list" else "corrupt", ""
    yield "type-missing", made(drop=("model_type",)), "not found", "model_type"
    for kind in ("t5", "LLAMA", "llama ", "x" * 100000, 1, None, ["llama"]):
        yield f"type-{str(kind)[:10]}", made({"model_type": kind}), "unsupported" if isinstance(kind, str) else "not found", ""
    for key in ("num_hidden_layers", "hidden_size", "num_attention_heads", "max_position_embeddings", "intermediate_size"):
        yield f"no-{key}", made(drop=(key,)), "not found", key
        for value in (0, -1, -2**63, 1.5, "4", [4], True):
            negative = key == "intermediate_size" and isinstance(value, int) and value < 0
            yield f"{key}-{value}", made({key: value}), "invalid argument" if negative else "not found", "" if negative else key
        for value in (2**24 + 1, 2**31, 2**62, 2**63 - 1):
            yield f"{key}-{value}", made({key: value}), "invalid argument", ""
    for key in ("num_key_value_heads", "head_dim"):
        for value in (0, -1, -2**63, 3, 2**31, 2**62, 2**63 - 1):
            yield f"{key}-{value}", made({key: value}), "", ""
    for value in (0, -1e-5, 1e999, "x"):
        yield f"eps-{value}", made({"rms_norm_eps": value}), "" if value == "x" else "invalid argument", ""
    for value in (0, -1, 1e-999, 1e999):
        yield f"rope-theta-{value}", made({"rope_theta": value}), "invalid argument", "rope's base and factor"
    for value in (0, -0.5, 1.5, 1e999, 0.25):
        yield f"rotary-{value}", made({"partial_rotary_factor": value}), "invalid argument", ""
    for kind in ("spiral", "Linear"):
        yield f"rope-{kind}", made({"rope_scaling": {"type": kind, "factor": 2}}), "unsupported", kind
    for kind in ("linear", "dynamic", "yarn", "llama3", "longrope"):
        for factor in (0, -2, 1e999):
            yield f"rope-{kind}-{factor}", made({"rope_scaling": {"rope_type": kind, "factor": factor}}), "invalid argument", ""
    yield "rope-llama3-order", made({"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1,
                                                      "original_max_position_embeddings": 8}}), "invalid argument", "low_freq_factor"
    for count in (0, 2, 100000):
        factors = {"rope_type": "longrope", "factor": 2, "short_factor": [1] * count, "long_factor": [1] * count, "original_max_position_embeddings": 4}
        yield f"rope-factors-{count}", made({"rope_scaling": factors}), "invalid argument", "longrope needs a factor for each pair"
    gpt2 = {"model_type": "gpt2", "n_embd": 2**62, "n_layer": 1, "n_head": 2, "n_positions": 8, "hidden_size": None, "intermediate_size": None}
    yield "gpt2-four-times", made({**gpt2, "num_hidden_layers": None, "num_attention_heads": None, "max_position_embeddings": None}), "invalid argument", ""
    for activation in ("mish", "x" * 5000):
        yield f"activation-{activation[:8]}", made({"hidden_act": activation}), "unsupported", "an activation that is not known"
    yield "layer-types", made({"model_type": "gemma2", "layer_types": ["windowed"], "sliding_window": 4}), "unsupported", "a kind of layer"
    for experts, used in ((4097, 1), (8, 9), (8, 65), (2**62, 2)):
        yield f"experts-{experts}-{used}", made({"model_type": "mixtral", "num_local_experts": experts, "num_experts_per_tok": used}), "invalid argument", ""
    for kind in ("gemma", "gemma2", "gemma3", "gemma3_text", "qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "gpt2", "gpt_bigcode", "phi3", "starcoder2",
                 "mistral", "mixtral", "phimoe"):
        yield f"family-{kind}", made({"model_type": kind}), "", ""
        yield f"family-{kind}-windows", made({"model_type": kind, "sliding_window": -1, "use_sliding_window": True}), "", ""
        yield f"family-{kind}-huge", made({"model_type": kind, "sliding_window": 2**63 - 1, "sliding_window_pattern": 2**63 - 1, "max_window_layers": 2**63 - 1}), "", ""
        yield f"family-{kind}-text", made({"text_config": {**CONFIG, "model_type": kind}}), "", ""
    for key, value in (("attn_logit_softcapping", -1), ("final_logit_softcapping", -0.5), ("query_pre_attn_scalar", 1e-320), ("scale_attn_weights", False),
                       ("scale_attn_by_inverse_layer_idx", True), ("use_bidirectional_attention", True), ("multi_query", False)):
        for kind in ("gemma2", "gpt_bigcode"):
            yield f"{kind}-{key}", made({"model_type": kind, key: value}), "", ""
    for types in ([], ["full_attention"], ["sliding_attention", "full_attention"] * 3, ["full_attention", "sliding_attention", "sliding_attention"]):
        yield f"layer-types-{len(types)}", made({"model_type": "gemma2", "layer_types": types, "sliding_window": 4}), "", ""
    ropes = {"full_attention": {"rope_type": "default", "rope_theta": 1e4}, "sliding_attention": {"rope_type": "default", "rope_theta": -1}}
    yield "rope-of-two", made({"model_type": "gemma3_text", "rope_parameters": ropes}), "invalid argument", ""
    yield "rope-yarn-mscale", made({"rope_scaling": {"rope_type": "yarn", "factor": 4, "mscale": 1, "mscale_all_dim": 1, "beta_fast": 0}}), "invalid argument", "yarn"
    yield "rope-longrope-negative", made({"rope_scaling": {"rope_type": "longrope", "factor": 2, "short_factor": [-1], "long_factor": ["x"],
                                                           "original_max_position_embeddings": 4}}), "invalid argument", "factors must be positive"
    yield "mlp-only-layers", made({"model_type": "qwen2_moe", "num_experts": 2, "num_experts_per_tok": 1, "mlp_only_layers": [0]}), "unsupported", "mlp_only_layers"
    yield "vocab-of-others", made({"vocab_size": 2**62}), "", ""
    yield "layers-more", made({"num_hidden_layers": 2}), "not found", "blk.1."
    yield "width-other", made({"hidden_size": 8, "num_attention_heads": 4}), "invalid size", ""

    def sharded(index, **files):
        return {"config.json": json.dumps(CONFIG).encode(), "model.safetensors.index.json": index if isinstance(index, bytes) else json.dumps(index).encode(),
                **files}
    yield "index-good", sharded({"weight_map": {"a": "one.safetensors"}}, **{"one.safetensors": WEIGHTS}), "ok", ""
    for name, index in (("empty", b""), ("half", b'{"weight_map": {'), ("no-map", {}), ("list", {"weight_map": []}), ("nothing", {"weight_map": {}})):
        yield f"index-{name}", sharded(index), "corrupt", "index.json"
    for path in ("../model.safetensors", "/etc/passwd", "", "a/b", "./one.safetensors"):
        yield f"index-path-{path}", sharded({"weight_map": {"a": path}}), "corrupt", "no file of its folder"
    yield "index-path-number", sharded({"weight_map": {"a": 1}}), "corrupt", "no file of its folder"
    yield "index-path-zero", sharded({"weight_map": {"a": "one\0.safetensors"}}), "invalid argument", ""
    yield "index-path-long", sharded({"weight_map": {"a": "x" * 10000}}), "invalid argument", ""
    for path in ("..", "."):
        yield f"index-folder-{path}", sharded({"weight_map": {"a": path}}), "input/output error", "not a regular file"
    yield "index-missing", sharded({"weight_map": {"a": "none.safetensors"}}), "not found", "none.safetensors"
    yield "index-itself", sharded({"weight_map": {"a": "model.safetensors.index.json"}}), "corrupt", ""
    yield "index-many", sharded({"weight_map": {str(i): f"{i}.safetensors" for i in range(100000)}}), "not found", "0.safetensors"
    for prefix in ("transformer.", "language_model.", "language_model.model."):
        yield f"prefix-{prefix}", made(**{"model.safetensors": llama_safetensors(prefix)}), "not found" if prefix.endswith("model.model.") else "ok", ""
    untied = {key: value for key, value in CONFIG.items() if key != "tie_word_embeddings"}
    yield "untied", made({**untied, "tie_word_embeddings": False}), "", ""
    yield "unaligned", made(**{"model.safetensors": llama_safetensors(unaligned=True)}), "misaligned", "not at a multiple"
    yield "config-folder", {"config.json/x": b"", "model.safetensors": WEIGHTS}, "", ""
    yield "layer-order", made({"model_type": "gemma2", "layer_types": [f"{x}_attention" for x in ("sliding", "sliding", "full", "sliding", "full", "full")], "sliding_window": 4}), \
        "unsupported", "an order of layers that is not known"
    yield "eos", made({"eos_token_id": 2}), "ok", ""
    yield "sharded-2", sharded({"weight_map": {"a": "one.safetensors", "b": "one.safetensors"}}, **{"one.safetensors": WEIGHTS}), "ok", ""
    yield "weights-empty", made(**{"model.safetensors": safetensors({})}), "not found", ""
    yield "tokenizer-broken", made(**{"tokenizer.json": b"{"}), "corrupt", "tokenizer.json"
    yield "generation-broken", made(**{"generation_config.json": b"{"}), "corrupt", "generation_config.json"
    yield "template-of-several", made(**{"tokenizer_config.json": b'{"chat_template": [{"name": "default", "template": "x"}, {"name": 1}, 2]}'}), "ok", ""
    yield "template-of-its-own", made(**{"chat_template.jinja": b"{{ messages }}"}), "ok", ""
    yield "sampling", made(**{"generation_config.json": b'{"do_sample": true, "temperature": -1e308, "top_k": -9223372036854775808, "top_p": 1e999}'}), "ok", ""
    yield "tokenizer-good", made(**{"tokenizer.json": json.dumps(unigram()).encode()}), "ok", ""
    yield "template-broken", made(**{"tokenizer_config.json": b"{"}), "corrupt", "tokenizer_config.json"
    yield "eos-beyond", made(**{"generation_config.json": b'{"eos_token_id": [9223372036854775807, -1, 1e300, "x", null]}'}), "ok", ""


def template_folder():
    return {"config.json": json.dumps({**CONFIG, "eos_token_id": 2}).encode(), "one.safetensors": WEIGHTS,
            "model.safetensors.index.json": b'{"weight_map":{"a":"one.safetensors"}}', "chat_template.jinja": b"{{ messages }}"}


def whole_folder():
    """With all that may lie beside the weights."""
    return {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": WEIGHTS, "tokenizer.json": json.dumps(unigram()).encode(),
            "generation_config.json": b'{"do_sample": true, "temperature": 0.5, "eos_token_id": [2, 1]}',
            "tokenizer_config.json": b'{"chat_template": [{"name": "tools", "template": "x"}, {"name": "default", "template": "{{ messages }}"}]}'}


def layers():
    for name, words in (("empty", ""), ("open", "{"), ("list", "[]"), ("number", "1"), ("null", "null"), ("after", '{"kind":"relu"}x'), ("nan", '{"kind":NaN}'),
                        ("infinite", '{"kind":"linear","out_features":1e999}'), ("control", '{"kind":"re\nlu"}'), ("no-kind", "{}"), ("kind-number", '{"kind":1}')):
        yield name, words, "corrupt", ""
    yield "graph-good", '{"kind":"graph","nodes":[{"kind":"relu","from":[0]}]}', "ok", ""
    yield "escape", '{"kind":"\\u0041"}', "unsupported", "names have no escapes"
    yield "unknown", '{"kind":"quantum"}', "not found", "quantum"
    for value in ("-1", "0.5", "1e18", "9223372036854775808", '"4"', "true", "[4]"):
        yield f"out-{value}", '{"kind":"linear","out_features":%s}' % value, "", ""
    relu = '{"kind":"relu"}'
    nest = lambda n: '{"kind":"chain","layers":[' * n + relu + "]}" * n
    repeat = lambda n, inside=relu: '{"kind":"repeat","count":%s,"pattern":%s}' % (n, inside)
    for count in ("-1", "0.5", "65537", "1e300", '"4"'):
        yield f"repeat-{count}", repeat(count), "corrupt", "a setting is of another kind or out of range"
    yield "repeat-of-repeats", repeat(4096, repeat(4096)), "unsupported", "stands for too many layers"
    yield "repeat-cap", repeat(256, repeat(256)), "", ""
    yield "repeat-no-pattern", '{"kind":"repeat","count":2}', "corrupt", "a repeat has a pattern"
    yield "chain-no-list", '{"kind":"chain","layers":1}', "corrupt", "a container has a list of layers"
    for edge in ("-1", "0.5", "65536", '"0"', "1e300"):
        yield f"graph-edge-{edge}", '{"kind":"graph","nodes":[{"kind":"relu","from":[%s]}]}' % edge, "corrupt", "reads from nodes by number"
    yield "graph-inputs", '{"kind":"graph","inputs":65,"nodes":[]}', "corrupt", "out of range"
    yield "graph-no-from", '{"kind":"graph","nodes":[{"kind":"relu"}]}', "corrupt", "says where it reads from"
    yield "near-depth", nest(15), "ok", ""
    yield "past-depth", nest(17), "unsupported", "too long, too deep or too many values"
    for name, words in (("frozen", '{"kind":"relu","frozen":true}'), ("frozen-number", '{"kind":"relu","frozen":1}'), ("named", '{"kind":"chain","layers":[{"kind":"relu","name":"a"},{"kind":"relu","name":1}]}'),
                        ("blanks", '\r\n{\t"kind"\r:\n"relu"\t}\n'), ("true", '{"kind":"relu","a":tru}'), ("true-end", '{"kind":"relu","a":t'), ("false", '{"kind":"relu","a":falsx}'),
                        ("null", '{"kind":"relu","a":nulx}'), ("null-end", '{"kind":"relu","a":n'), ("not-frozen", '{"kind":"relu","frozen":false}'), ("from-number", '{"kind":"graph","nodes":[{"kind":"relu","from":1}]}'),
                        ("graph", '{"kind":"graph","nodes":[{"kind":"relu","from":[0]}]}'), ("names", '{"kind":"graph","nodes":[{"kind":"relu","from":[0],"name":1}]}'),
                        ("transformer-whole", '{"kind":"transformer","blocks":{"count":1,"pattern":{}},"norm":{},"normed":true}'),
                        ("transformer-block", '{"kind":"transformer","blocks":{"count":1,"pattern":{"pre_norm":"x"}},"norm":{}}'), ("chain-broken", '{"kind":"chain","layers":[{"kind":"quantum"}]}'), ("concat", '{"kind":"concat","axis":99,"layers":[{"kind":"relu"}]}'),
                        ("concat-axis", '{"kind":"concat","axis":"x","layers":[]}'), ("residual", '{"kind":"residual","body":{"kind":"quantum"}}'),
                        ("transformer", '{"kind":"transformer"}'), ("transformer-blocks", '{"kind":"transformer","blocks":{},"norm":{}}'),
                        ("transformer-count", '{"kind":"transformer","blocks":{"count":1e9,"pattern":{}},"norm":{}}'),
                        ("transformer-pattern", '{"kind":"transformer","blocks":{"count":2,"pattern":{"heads":-1}},"norm":{"eps":"x"},"normed":7}')):
        yield f"made-{name}", words, "", ""
    yield "nested-100000", "[" * 100000, "unsupported", "too long, too deep or too many values"
    yield "nested-chains", nest(5000), "unsupported", "too long, too deep or too many values"


def all_cases():
    for group, reader in ((gguf_models, "model"), (llama2c_models, "model"), (folders, "folder"), (layers, "layers")):
        for name, content, code, message in group():
            yield f"{reader}/{group.__name__}-{name}", reader, content.encode() if isinstance(content, str) else content, code, message
