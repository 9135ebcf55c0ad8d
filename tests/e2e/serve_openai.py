#!/usr/bin/env python3
"""OpenAI's client (PyPI: openai) talks to a running `valise serve` with the model "tiny". Usage: serve_openai.py URL. 77: the package is not installed."""
import json
import sys
from concurrent.futures import ThreadPoolExecutor

try:
    import openai
except ImportError:
    sys.exit(77)

client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0, timeout=60)
ask = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "seed": 5, "max_tokens": 16, "temperature": 1}

assert [m.id for m in client.models.list()] == ["tiny"] and client.models.retrieve("tiny").id == "tiny"
whole = client.chat.completions.create(**ask)
assert whole.choices[0].message.role == "assistant" and whole.choices[0].finish_reason in ("stop", "length")
assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
chunks = list(client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
assert chunks[-1].usage == whole.usage.model_copy(update={"prompt_tokens_details": chunks[-1].usage.prompt_tokens_details})
with ThreadPoolExecutor(6) as pool:
    assert len({a.choices[0].message.content for a in pool.map(lambda _: client.chat.completions.create(**ask), range(6))}) == 1
schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 5}, "ok": {"type": "boolean"}}, "required": ["n", "ok"], "additionalProperties": False}
shaped = client.chat.completions.create(**{**ask, "max_tokens": 100}, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}})
value = json.loads(shaped.choices[0].message.content)
assert 1 <= value["n"] <= 5 and isinstance(value["ok"], bool)
tools = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}}]
client.chat.completions.create(**ask, tools=tools)
for choice in ("required", {"type": "function", "function": {"name": "f"}}):
    called = client.chat.completions.create(**{**ask, "max_tokens": 150}, tools=tools, tool_choice=choice).choices[0]
    if called.finish_reason != "length":  # of noise, an integer may be long
        assert called.finish_reason == "tool_calls" and called.message.tool_calls[0].function.name == "f"
        assert isinstance(json.loads(called.message.tool_calls[0].function.arguments), dict)
text = client.completions.create(model="tiny", prompt="hello", max_tokens=6, seed=1)
streamed = "".join(c.choices[0].text for c in client.completions.create(model="tiny", prompt="hello", max_tokens=6, seed=1, stream=True))
assert streamed == text.choices[0].text
for wrong in ({"temperature": -1}, {"n": 3}, {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}}):
    try:
        client.chat.completions.create(**{**ask, **wrong})
        sys.exit(f"{wrong} was answered")
    except openai.BadRequestError as error:
        assert error.body["message"] and "\n" not in error.body["message"]
with client.chat.completions.create(**{**ask, "max_tokens": 200}, stream=True) as stream:  # left before its end
    next(iter(stream))
client.chat.completions.create(**ask)
