"""Compiles single sources beside a finished build, changed or with other flags, and links test programs with them: the build stays as it is.
For tools/mutate and tools/coverage."""
import json
import pathlib
import shlex
import subprocess

TOP = pathlib.Path(__file__).resolve().parent.parent


class Build:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder).resolve()
        if not (self.folder / "compile_commands.json").exists():
            raise SystemExit(f"{self.folder} is no finished build: cmake --preset release && cmake --build --preset release")
        self.entries = json.loads((self.folder / "compile_commands.json").read_text())
        self.links = {}

    def compile(self, source, text, obj, flags=()):
        """The object of a source with this file in its place. False if it does not compile."""
        entry = next((e for e in self.entries if e["file"].endswith("/" + source)), None)
        if entry is None:
            raise SystemExit(f"{source} is not in the build")
        words = shlex.split(entry["command"])
        words[words.index("-c") + 1] = str(text)
        words[words.index("-o") + 1] = str(obj)
        words = [w for i, w in enumerate(words) if w not in ("-MD", "-MT", "-MF") and words[i - 1] not in ("-MT", "-MF")]
        return subprocess.run([*words, f"-I{TOP}", "-w", *flags], cwd=entry["directory"], capture_output=True).returncode == 0

    def link(self, test, program, objects, flags=()):
        """The test's program with these objects, which the linker then does not take from the archives."""
        if test not in self.links:
            text = subprocess.run(["ninja", "-C", str(self.folder), "-t", "commands", "-s", f"bin/{test}"], capture_output=True, text=True, check=True).stdout
            self.links[test] = next(line for line in reversed(text.split("\n")) if f"-o bin/{test}" in line)
        more = " ".join(shlex.quote(str(o)) for o in [*objects, *flags])
        command = self.links[test].replace(f"-o bin/{test}", f"-o {shlex.quote(str(program))} {more}")
        return subprocess.run(command, shell=True, cwd=self.folder, capture_output=True).returncode == 0
