#!/usr/bin/env python3
"""Whether an adapter in PEFT's layout does to transformers' model what it does to Qorus'.

    bench/peers/run --dir DIR python3 /peers/peft_adapter.py BASE ADAPTER LOGITS.npy --ids 1,2,3

Runs in the chroot, whose Python has safetensors, torch and transformers but no PEFT: names, shapes and settings are read as PEFT's documentation gives them
(base_model.model.NAME.lora_A.weight [r, in], .lora_B.weight [out, r]; W + lora_alpha / r B A), and every tensor has to belong to a module that
target_modules names. BASE and ADAPTER are folders, LOGITS what `qorus logits BASE --ids … --lora ADAPTER --npy` wrote. Prints the largest
difference; exit status 1 if it is above 1e-4 of the largest logit, or anything of the layout is not as it should be."""
import argparse
import json
import sys

import numpy
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

PREFIX = "base_model.model."


def merge(model, folder):
    """Adds the adapter to the model's weights; how many matrices changed."""
    with open(folder + "/adapter_config.json") as f:
        config = json.load(f)
    assert config["peft_type"] == "LORA" and config["task_type"] == "CAUSAL_LM" and config["bias"] == "none", config
    tensors, modules = load_file(folder + "/adapter_model.safetensors"), dict(model.named_modules())
    count = 0
    for name, a in tensors.items():
        assert name.startswith(PREFIX) and name.endswith((".lora_A.weight", ".lora_B.weight")), name
        if name.endswith(".lora_B.weight"):
            continue
        b, path = tensors[name.replace(".lora_A.", ".lora_B.")], name[len(PREFIX):-len(".lora_A.weight")]
        module = modules[path]
        assert path.rsplit(".", 1)[-1] in config["target_modules"], path
        assert a.shape == (config["r"], module.in_features) and b.shape == (module.out_features, config["r"]), name
        with torch.no_grad():
            module.weight += config["lora_alpha"] / config["r"] * (b.double() @ a.double()).float()
        count += 1
    assert 2 * count == len(tensors), "pairs"
    return count


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("adapter")
    parser.add_argument("logits")
    parser.add_argument("--ids", required=True)
    given = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(given.base, torch_dtype=torch.float32).eval()
    ids = torch.tensor([[int(i) for i in given.ids.split(",")]])
    with torch.no_grad():
        plain = model(ids).logits[0].numpy()
        count = merge(model, given.adapter)
        wanted = model(ids).logits[0].numpy()
    ours = numpy.load(given.logits)
    apart, most = float(abs(ours - wanted).max()), float(abs(wanted).max())
    print(f"{count} matrices; logits up to {most:.3f}, {float(abs(wanted - plain).max()):.3f} of it the adapter's doing; largest difference {apart:.2e}")
    sys.exit(apart > 1e-4 * most)


if __name__ == "__main__":
    main()
