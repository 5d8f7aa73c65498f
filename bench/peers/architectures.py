#!/usr/bin/env python3
"""Small random models of every architecture that qorus.llm opens, and what transformers computes for them.

    run --dir D python3 /peers/architectures.py fixtures /data/out      # NAME.json each: config, tensors' rules, logits
    run --dir D python3 /peers/architectures.py models /data/models     # folders with safetensors, and logits.npy
    run --dir D python3 /peers/architectures.py gguf /data/models       # the same, and model.gguf by llama.cpp's converter

A weight is a rule, not data: element i of a tensor is shift + scale (2 u - 1), u from the top 24 bits of splitmix64(FNV-1a of the
name + i). So the fixtures stay small, and a test can write the files itself. NAME alone after the folder makes that one only.
"""
import json
import os
import runpy
import sys

import numpy as np
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file

BASE = dict(vocab_size=48, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2,
            pad_token_id=0)


def rope(kind, **more):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **more}}


MODELS = {
    "llama": ("llama", {}),
    "llama_tied_bias": ("llama", dict(tie_word_embeddings=True, attention_bias=True, head_dim=16)),
    "llama_linear": ("llama", rope("linear", factor=4.0)),
    "llama_dynamic": ("llama", dict(max_position_embeddings=8, **rope("dynamic", factor=4.0))),
    "llama_yarn": ("llama", rope("yarn", factor=4.0, original_max_position_embeddings=16)),
    "llama_llama3": ("llama", rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                   original_max_position_embeddings=16)),
    "mistral": ("mistral", dict(sliding_window=5)),
    "mixtral": ("mixtral", dict(num_local_experts=4, num_experts_per_tok=2)),
    "qwen2": ("qwen2", dict(tie_word_embeddings=True)),
    "qwen2_moe": ("qwen2_moe", dict(num_experts=5, num_experts_per_tok=2, moe_intermediate_size=16,
                                    shared_expert_intermediate_size=24)),
    "qwen3": ("qwen3", dict(head_dim=16)),
    "qwen3_moe": ("qwen3_moe", dict(head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16,
                                    norm_topk_prob=True)),
    "gemma": ("gemma", dict(head_dim=16, tie_word_embeddings=True)),
    "gemma2": ("gemma2", dict(head_dim=16, sliding_window=6, query_pre_attn_scalar=8, attn_logit_softcapping=2.0,
                              final_logit_softcapping=3.0, tie_word_embeddings=True)),
    "gemma3": ("gemma3_text", dict(head_dim=16, num_hidden_layers=6, sliding_window=6, query_pre_attn_scalar=16,
                                   layer_types=["sliding_attention"] * 5 + ["full_attention"],
                                   rope_parameters={"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                                                    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}},
                                   tie_word_embeddings=True)),
    "phi3": ("phi3", dict(sliding_window=7)),
    "phi3_longrope": ("phi3", dict(original_max_position_embeddings=16,
                                   rope_parameters={"rope_type": "longrope", "rope_theta": 10000.0,
                                                    "partial_rotary_factor": 0.75,
                                                    "short_factor": [1.0, 1.1, 1.2], "long_factor": [1.5, 2.0, 4.0]})),
    "gpt2": ("gpt2", {}),
    "starcoder": ("gpt_bigcode", {}),
    "starcoder2": ("starcoder2", dict(sliding_window=9, use_bias=True, tie_word_embeddings=True)),
}
GPT = dict(vocab_size=48, n_embd=32, n_layer=2, n_head=4, n_positions=64, n_ctx=64, bos_token_id=1, eos_token_id=2)
# What GGUF has no key for, or the converter leaves out.
NOT_IN_GGUF = {"gemma2": dict(query_pre_attn_scalar=16), "mistral": dict(sliding_window=None),
               "starcoder2": dict(sliding_window=None), "llama_dynamic": rope("default")}
IDS = [1, 7, 30, 12, 45, 3, 3, 19, 26, 8, 41, 14, 22, 5, 37, 11, 2, 28, 33, 9, 47, 16, 24, 6]
ROWS = [0, 9, 23]  # whose logits a fixture keeps


def splitmix(name, count):
    seed = np.uint64(0xCBF29CE484222325)
    with np.errstate(over="ignore"):
        for byte in name.encode():
            seed = (seed ^ np.uint64(byte)) * np.uint64(0x100000001B3)
        z = (seed + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / 2**24


def rule(name, shape, gemma):
    """shift and scale of a tensor"""
    if len(shape) == 1:
        norm = ("norm" in name or ".ln_" in name) and name.endswith("weight")
        return (0.0 if gemma or not norm else 1.0), 0.25
    if "embed" in name or "wte" in name or "wpe" in name:
        return 0.0, 1.0
    return 0.0, float(f"{np.sqrt(3.0 / shape[-1]) * (3 if 'gate.weight' in name else 1.5):.4g}")


def values(name, shape, shift, scale):
    u = splitmix(name, int(np.prod(shape)))
    return (shift + scale * (2 * u - 1)).astype(np.float32).reshape(shape)


def make(name, folder, gguf=False):
    kind, more = MODELS[name]
    if gguf:
        more = {**more, **NOT_IN_GGUF.get(name, {})}
    torch.manual_seed(0)
    base = GPT if kind in ("gpt2", "gpt_bigcode") else {**BASE, **more}
    config = transformers.AutoConfig.for_model(kind, **base)
    config._attn_implementation = "eager"
    os.makedirs(folder, exist_ok=True)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    file = folder + "/model.safetensors"
    with safe_open(file, "np") as f:
        shapes = {k: list(f.get_slice(k).get_shape()) for k in f.keys()}
    rules = {k: rule(k, s, kind.startswith("gemma")) for k, s in shapes.items()}
    tensors = {k: torch.from_numpy(values(k, s, *rules[k])) for k, s in shapes.items()}
    save_file(tensors, file, metadata={"format": "pt"})
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(torch.tensor([IDS]), use_cache=False).logits[0].float().numpy()
    return config, shapes, rules, logits


def fixture(name, folder, out):
    config, shapes, rules, logits = make(name, folder)
    with open(folder + "/config.json") as f:
        saved = json.load(f)
    lines = ["{",
             f' "made_by": "bench/peers/architectures.py, transformers {transformers.__version__}, torch {torch.__version__}",',
             f' "config": {json.dumps(saved)},', f' "ids": {IDS},', ' "tensors": [']
    lines += [",\n".join(f'  ["{k}", {s}, {rules[k][0]:g}, {rules[k][1]:.4g}]' for k, s in shapes.items()), " ],"]
    lines += [f' "rows": {ROWS},', ' "logits": [' + ", ".join(f"{x:.7g}" for x in logits[ROWS].ravel()) + "]", "}"]
    with open(f"{out}/{name}.json", "w") as f:
        f.write("\n".join(lines) + "\n")


def convert(folder):
    """model.gguf beside the safetensors, by llama.cpp's converter, without a vocabulary"""
    module = runpy.run_path("/usr/share/doc/llama.cpp-tools/scripts/convert_hf_to_gguf.py", run_name="converter")
    with open(folder + "/config.json") as f:
        kind = json.load(f)["architectures"][0]
    of = module["get_model_class"](kind)

    def no_vocab(self, *_, **__):
        self.gguf_writer.add_tokenizer_model("no_vocab")
        self.gguf_writer.add_vocab_size(self.hparams["vocab_size"])

    of.set_vocab = no_vocab
    with open(folder + "/tokenizer.json", "w") as f:  # of which one class counts the pieces
        json.dump({"model": {"vocab": {str(i): i for i in range(48)}}, "added_tokens": []}, f)
    sys.argv = ["convert", folder, "--outfile", folder + "/model.gguf", "--outtype", "f32"]
    module["main"]()
    os.remove(folder + "/tokenizer.json")


def main():
    command, out = sys.argv[1], sys.argv[2]
    os.makedirs(out, exist_ok=True)
    for name in sys.argv[3:] or MODELS:
        try:
            if command == "fixtures":
                fixture(name, f"/tmp/architectures/{name}", out)
            else:
                logits = make(name, f"{out}/{name}", command == "gguf")[3]
                np.save(f"{out}/{name}/logits.npy", logits)
                if command == "gguf":
                    convert(f"{out}/{name}")
            print(name, flush=True)
        except Exception as error:  # the others can still be made
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
