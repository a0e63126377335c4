"""What quire does, in a minute, with the model that ships with it: `make demo`."""

from __future__ import annotations

import json
import time
from typing import Any

from quire import LLM, SamplingParams

GREEDY = SamplingParams(temperature=0, max_tokens=96)

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "name of the city"}},
            "required": ["city"],
        },
    },
}


def main() -> None:
    """Run every part of the demonstration, one engine for all."""
    start = time.perf_counter()
    with LLM() as llm:
        print(f"The bundled model is ready after {time.perf_counter() - start:.1f} s.")
        complete(llm)
        chat(llm)
        answer_from_context(llm)
        call_tool(llm)
        stream(llm)
        batch(llm)


def complete(llm: LLM) -> None:
    heading("Completion: LLM.generate")
    prompt = "The capital of France is"
    [output] = llm.generate(prompt, SamplingParams(temperature=0, max_tokens=12))
    print(f"{prompt}{output.outputs[0].text}")


def chat(llm: LLM) -> None:
    heading("Chat: LLM.chat")
    for question in ("What is the capital of Japan?", "What is a KV cache?"):
        ask(llm, [{"role": "user", "content": question}])


def answer_from_context(llm: LLM) -> None:
    heading("An answer out of a given text")
    context = "Mira Dalton is the director of the Halden Museum. She lives in Varnholm."
    for question in ("Where does Mira Dalton live?", "What is Mira Dalton's phone number?"):
        ask(llm, [{"role": "user", "content": f"Context: {context}\n\nQuestion: {question}"}])


def call_tool(llm: LLM) -> None:
    heading("A tool call, and an answer from the tool's result")
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "What is the weather in Lisbon?"},
    ]
    call = ask(llm, messages, tools=[WEATHER])
    messages += [
        {"role": "assistant", "content": call},
        {
            "role": "tool",
            "content": json.dumps({"city": "Lisbon", "temperature": 24, "condition": "sunny"}),
        },
    ]
    answer = llm.chat(messages, GREEDY, tools=[WEATHER])[0].outputs[0].text
    print(f"  tool> {messages[-1]['content']}\n model> {answer}")


def stream(llm: LLM) -> None:
    heading("Streaming: LLM.stream_chat")
    print(" model> ", end="")
    for chunk in llm.stream_chat([{"role": "user", "content": "What is paged attention?"}], GREEDY):
        print(chunk.outputs[0].text, end="", flush=True)
    print()


def batch(llm: LLM) -> None:
    heading("Continuous batching: 64 prompts of different lengths at once")
    prompts = ["Once upon a time" + " there was a" * (index % 8) for index in range(64)]
    params = [
        SamplingParams(temperature=0.8, seed=index, max_tokens=16 + index, ignore_eos=True)
        for index in range(64)
    ]
    start = time.perf_counter()
    outputs = llm.generate(prompts, params, use_tqdm=False)
    seconds = time.perf_counter() - start
    num_tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
    print(f"{num_tokens} tokens in {seconds:.1f} s: {num_tokens / seconds:.0f} tokens/s")


def ask(llm: LLM, messages: list[dict[str, Any]], **template: Any) -> str:
    """Print the last message and the model's answer to it, and return the answer."""
    answer = llm.chat(messages, GREEDY, **template)[0].outputs[0].text
    question = messages[-1]["content"].replace("\n\n", "\n       ")
    print(f"  user> {question}\n model> {answer}")
    return answer


def heading(text: str) -> None:
    print(f"\n== {text}")


if __name__ == "__main__":
    main()
