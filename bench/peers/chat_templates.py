#!/usr/bin/env python3
"""What Jinja makes of chat templates, set up as transformers does, for qorus.text to be held against.

    run --dir D python3 /peers/chat_templates.py /data      # every NAME.jinja of the folder: NAME.json, its cases

A case is a template, the variables, and the text, or the error.
"""
import datetime
import glob
import json
import os
import sys

import jinja2
import jinja2.ext
import jinja2.sandbox

TOOL = {"type": "function", "function": {"name": "weather", "description": "Of a \"city\"", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "enum": ["Bern", "Köln"]}, "days": {"type": "integer"}},
    "required": ["city"]}}}
USER = {"role": "user", "content": " Hello, <b>world</b>!\n"}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "id": "abcdefghi", "function": {
    "name": "weather", "arguments": {"city": "Köln", "days": 2, "exact": True, "share": 0.5, "note": None}}}]}
PLAIN = [USER, {"role": "assistant", "content": "Hi.\n\n"}, {"role": "user", "content": "How are you?"}]
CASES = [
    {"messages": [USER], "add_generation_prompt": True},
    {"messages": PLAIN, "add_generation_prompt": False},
    {"messages": [{"role": "system", "content": "Be kind."}] + PLAIN, "add_generation_prompt": True},
    {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}], "add_generation_prompt": True},
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "<think>\nwell\n</think>\n\nSo."},
                  {"role": "user", "content": "b"}], "add_generation_prompt": True, "enable_thinking": False},
    {"messages": PLAIN, "tools": [TOOL, TOOL], "add_generation_prompt": True},
    {"messages": [USER, CALL, {"role": "tool", "name": "weather", "tool_call_id": "abcdefghi", "content": "rain"},
                  {"role": "assistant", "content": "It rains."}, {"role": "user", "content": "Thanks"}],
     "tools": [TOOL], "add_generation_prompt": True},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image"}]}], "add_generation_prompt": True},
]
NOW = 1700000000


def environment():
    class Generation(jinja2.ext.Extension):
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_same"), [], [], body).set_lineno(line)

        def _same(self, caller):
            return caller()

    made = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                        extensions=[Generation, jinja2.ext.loopcontrols])

    def refuse(message):
        raise jinja2.exceptions.TemplateError(message)

    made.filters["tojson"] = lambda x, ensure_ascii=False, indent=None, separators=None, sort_keys=False: json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    made.globals["raise_exception"] = refuse
    made.globals["strftime_now"] = lambda f: datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).strftime(f)
    return made


def main():
    folder = sys.argv[1]
    for path in sorted(glob.glob(folder + "/*.jinja")):
        with open(path, newline="") as f:
            source = f.read()
        cases = []
        for variables in CASES:
            given = {"bos_token": "<s>", "eos_token": "</s>", **variables}
            try:
                cases.append({"variables": json.dumps(variables, ensure_ascii=False),
                              "text": environment().from_string(source).render(**given)})
            except Exception as error:
                cases.append({"variables": json.dumps(variables, ensure_ascii=False), "error": str(error)})
        with open(os.path.splitext(path)[0] + ".json", "w") as f:
            json.dump({"made_by": f"bench/peers/chat_templates.py, Jinja {jinja2.__version__}", "template": source, "cases": cases},
                      f, ensure_ascii=False, indent=1)


if __name__ == "__main__":
    main()
