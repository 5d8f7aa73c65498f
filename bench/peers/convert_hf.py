"""A folder of safetensors to GGUF by llama.cpp's converter, without a vocabulary (its reader of SentencePiece models is no Debian package).

    run --dir D python3 /peers/convert_hf.py /data/FOLDER /data/OUT.gguf f16

Prints the seconds of the conversion alone, without the loading of its libraries.
"""
import json
import runpy
import sys
import time

folder, out, kind = sys.argv[1:4]
module = runpy.run_path("/usr/share/doc/llama.cpp-tools/scripts/convert_hf_to_gguf.py", run_name="converter")
with open(folder + "/config.json") as f:
    model = module["get_model_class"](json.load(f)["architectures"][0])


def no_vocab(self, *_, **__):
    self.gguf_writer.add_tokenizer_model("no_vocab")
    self.gguf_writer.add_vocab_size(self.hparams["vocab_size"])


model.set_vocab = no_vocab
sys.argv = ["convert", folder, "--outfile", out, "--outtype", kind]
begin = time.monotonic()
module["main"]()
print(f"seconds {time.monotonic() - begin:.3f}")
