"""Dialogues with tools: the right call, copied arguments, the answer in words, or no call."""

# ruff: noqa: SIM905 - word lists read better as text

from __future__ import annotations

import json
from typing import Any

import facts
import prose
import words
from dialogue import Example
from toolbook import curated
from toolspecs import Param, Tool, Value, enum, generic, p
from world import World

NO_TOOL = "None of my tools can do that."
# Topics whose questions another tool, or no tool at all, may answer just as well.
SUMS = {"add", "multiply", "subtract", "divide", "calculate"}
PLAIN = {"capital", "add", "multiply", "time", "date"}
OPEN = {"time", "date", "news", "search", "stock", "user"}

VERBS = """create delete update find get list open close send check start stop move copy rename
share print book cancel order rent count rate review archive restore publish approve reject assign
fetch read write track schedule""".split()
NOUNS = """order invoice ticket user account report file folder task project note message meeting
customer product car flight room train song movie recipe contract payment backup server device
sensor camera door robot package parcel shipment course lesson student teacher patient book album
photo video map route record profile group team channel post comment page job event poll form key
license coupon garden ship printer player game score""".split()

PARAMS: list[tuple[Param, list[str]]] = [
    (p("name", "string", World.made_up, "The name"), ["named {}", "called {}", "with the name {}"]),
    (p("id", "integer", World.amount, "The id"), ["with id {}", "number {}", "{}"]),
    (p("city", "string", World.place), ["in {}", "in the city of {}", "for {}"]),
    (p("owner", "string", World.person), ["of {}", "owned by {}", "for {}"]),
    (p("person", "string", World.person), ["for {}", "of {}", "with {}"]),
    (p("count", "integer", lambda w: w.number(1, 50)), ["{} times", "with count {}"]),
    (p("date", "string", World.date), ["on {}", "for {}", "dated {}"]),
    (p("time", "string", World.time), ["at {}", "for {}"]),
    (p("code", "string", World.code), ["with code {}", "{}"]),
    (enum("colour", words.COLOURS[:6]), ["in {}", "with the colour {}"]),
    (enum("priority", ["low", "medium", "high"]), ["with {} priority", "with priority {}"]),
    (enum("size", ["small", "medium", "large"]), ["of size {}", "in size {}"]),
    (p("email", "string", World.email), ["for {}", "of {}", "with email {}"]),
    (p("amount", "number", lambda w: w.number(1, 9999) / 10), ["over {}", "with amount {}"]),
    (p("year", "integer", World.year), ["from {}", "of the year {}"]),
    (p("company", "string", World.company), ["of {}", "for {}", "at {}"]),
    (p("address", "string", World.street), ["to {}", "at {}"]),
    (p("title", "string", World.subject), ['titled "{}"', 'with the title "{}"']),
    (p("language", "string", lambda w: w.pick(words.LANGUAGES)), ["in {}"]),
    (p("urgent", "boolean", lambda w: w.chance(0.5)), ["with urgent set to {}"]),
    (p("limit", "integer", lambda w: w.number(1, 100)), ["with a limit of {}", "at most {}"]),
]
ASK = [
    "{}.",
    "Please {}.",
    "Can you {}?",
    "{}, please.",
    "I want to {}.",
    "Could you {}?",
    "I need to {}.",
    "Now {}.",
    "{}",
    "I would like to {}.",
    "Help me to {}.",
]


def invented(world: World) -> Tool:
    """A tool made of a verb, a noun and parameters."""
    verb = world.pick(VERBS)
    noun = world.word() if world.chance(0.15) else world.pick(NOUNS)
    style = world.number(0, 9)
    name = f"{verb}_{noun}" if style < 7 else f"{verb}{noun.capitalize()}"
    name = f"{noun}_{verb}" if style == 9 else name
    chosen = world.some(PARAMS, 1, 1 + round(2 * world.hardness))
    if world.chance(0.07):
        chosen = []
    parts = []
    for param, ways in chosen:
        slot = f"{{{param.name}}}"
        parts.append(world.pick(ways).replace("{}", slot))
    the = world.pick(("the", "a", "the"))
    order = " ".join([verb, the, noun, *parts])
    about = world.pick(
        (
            f"{verb.capitalize()} a {noun}",
            f"{verb.capitalize()} a {noun}.",
            f"{verb.capitalize()} the {noun} of a user",
            f"Use this to {verb} a {noun}",
        )
    )
    requests = [_fit(ask, order) for ask in world.some(ASK, 2, 2)]
    return Tool(name, about, [c[0] for c in chosen], requests, generic, f"{verb} {noun}")


def _fit(ask: str, order: str) -> str:
    return ask.format(order if ask[0] != "{" else order[0].upper() + order[1:])


def toolbox(world: World, count: int) -> list[Tool]:
    """Different tools, no two of one topic."""
    out: dict[str, Tool] = {}
    names: set[str] = set()
    share = world.pick((0.0, 0.3, 0.7))
    while len(out) < count:
        tool = curated(world) if world.chance(share) else invented(world)
        clash = tool.topic == "calculate" and bool(SUMS & set(out))
        clash = clash or ("calculate" in out and tool.topic in SUMS)
        if tool.topic not in out and tool.name not in names and not clash:
            out[tool.topic] = tool
            names.add(tool.name)
    return list(out.values())


def shown(value: Value) -> str:
    """An argument as it stands in a request."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def request(world: World, tool: Tool) -> tuple[str, dict[str, Value]]:
    """A request for a tool, with the arguments it names."""
    arguments = {q.name: q.value(world) for q in tool.params}
    text = world.phrase(tool.requests)
    return text.format(**{k: shown(v) for k, v in arguments.items()}), arguments


def in_words(tool: Tool, arguments: dict[str, Value], result: Any) -> str:
    """The answer that follows from a tool's result; one result has one answer."""
    if isinstance(result, dict):
        if "error" in result:
            return f"The tool failed: {result['error']}."
        if tool.topic == "weather":
            place = next(iter(arguments.values()))
            sky = [str(result["condition"])] if "condition" in result else []
            if "temperature" in result:
                sky.append(f"{result['temperature']} degrees")
            return f"The weather in {place} is {', '.join(sky)}."
        parts = [f"the {k.replace('_', ' ')} is {shown(v)}" for k, v in result.items()]
        text = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
        return "T" + text[1:] + "."
    if isinstance(result, list):
        return f"I found {', '.join(map(str, result)).rstrip('.')}."
    text = shown(result)
    if tool.topic == "weather" and text[0].islower():
        return f"The weather in {next(iter(arguments.values()))} is {text}."
    if " " not in text and not text.endswith("."):
        return f"The result is {text}."
    return text if text.endswith(".") else text + "."


def as_content(result: Any) -> str:
    """A result as the text of a tool message."""
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)


def _calls(example: Example, calls: list[tuple[Tool, dict[str, Value]]]) -> None:
    functions = [
        {"type": "function", "function": {"name": t.name, "arguments": a}} for t, a in calls
    ]
    example.messages.append({"role": "assistant", "content": "", "tool_calls": functions})


def joined(world: World, one: str, two: str) -> str:
    """Two requests in one message."""
    style = world.number(0, 3)
    if style == 0 and one[-1] in ".?" and not one.endswith("please."):
        return f"{one[:-1]} and {two[0].lower()}{two[1:]}"
    if style == 1:
        return f"{one} {world.pick(('And', 'Also,', 'Then'))} {two[0].lower()}{two[1:]}"
    return f"{one} {two}"


def _round(world: World, example: Example, tools: list[Tool]) -> None:
    calls = []
    text, arguments = request(world, first := world.pick(tools))
    calls.append((first, arguments))
    if world.chance(0.14):
        second = first if world.chance(0.5) else world.pick(tools)
        more, arguments = request(world, second)
        text = joined(world, text, more)
        calls.append((second, arguments))
    example.user(text)
    _calls(example, calls)
    answers = []
    for tool, given in calls:
        result = tool.result(world, given)
        example.messages.append({"role": "tool", "name": tool.name, "content": as_content(result)})
        answers.append(in_words(tool, given, result))
    example.answer(" ".join(answers))


def _plain(world: World, example: Example, tools: list[Tool]) -> None:
    """A turn no tool fits: small talk, a fact, or a wish for a tool that is not there."""
    if world.chance(0.35):
        topics = {t.topic for t in tools}
        verbs = {t.topic.split(" ")[-1] for t in tools}
        while True:
            other = toolbox(world, 1)[0]
            answerable = other.topic in PLAIN or (other.topic in SUMS and topics & SUMS)
            if other.topic in topics or answerable or (other.topic == "news" and topics & OPEN):
                continue
            if other.topic.split(" ")[-1] not in verbs:
                break
        example.user(request(world, other)[0])
        example.answer(NO_TOOL)
        return
    known = {t.topic for t in tools}
    while True:
        q, a = facts.exchange(world)
        if known & SUMS and any(c.isdigit() for c in q):
            continue
        if (known & OPEN and a == facts.UNKNOWN) or ("capital" in known and "capital" in a):
            continue
        break
    example.user(q)
    example.answer(a)


SYSTEMS = [
    "You are a helpful assistant.",
    "You are quire, a small helpful model.",
    "Answer the user. Use tools when they help.",
    "You can use tools.",
    "You are a helpful assistant. Use the tools if needed.",
]


def generate(world: World) -> Example:
    """A dialogue over one to five tools with one to three rounds."""
    most = 1 + round(4 * world.hardness)
    tools = toolbox(world, min(world.number(1, most), world.number(1, most + 1)))
    example = Example("tools", tools=[t.schema(world) for t in tools])
    if world.chance(0.3):
        text = prose.role(world) if world.chance(0.3) else world.phrase(SYSTEMS)
        example.messages.append({"role": "system", "content": text})
    for _ in range(1 if world.held else world.number(1, 3)):
        if world.chance(0.22):
            _plain(world, example, tools)
        else:
            _round(world, example, tools)
    return example
