"""Filling a JSON object from a sentence: the asked keys in the asked order, numbers as numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import words
from dialogue import Example
from world import World, articled

Value = str | int | float | None


@dataclass(frozen=True)
class Field:
    """A value one can tell in a sentence: key names, JSON type, source, ways to say it."""

    keys: list[str]
    kind: str
    value: Callable[[World], str | int | float]
    say: list[str]


def _f(keys: str, kind: str, value: Callable[[World], str | int | float], say: str) -> Field:
    return Field(keys.split("|"), kind, value, say.split("|"))


TEXT, WHOLE = "string", "integer"
RECORDS: dict[str, tuple[list[str], Callable[[World], str], list[Field]]] = {
    "person": (
        ["name", "name", "person", "full_name"],
        World.person,
        [
            _f("age|years", WHOLE, lambda w: w.number(1, 99), "is {} years old|is {}|is aged {}"),
            _f(
                "city|town|home|location", TEXT, World.place, "lives in {}|is from {}|comes from {}"
            ),
            _f(
                "job|occupation|profession",
                TEXT,
                lambda w: w.pick(words.JOBS),
                "works as a {}|is a {}",
            ),
            _f("company|employer", TEXT, World.company, "works for {}|is employed at {}"),
            _f("email|mail", TEXT, World.email, "can be reached at {}|has the email {}"),
            _f("hobby|interest", TEXT, lambda w: w.pick(words.HOBBIES), "enjoys {}|loves {}"),
            _f("pet|pet_name", TEXT, World.first, "has a pet called {}|owns a pet named {}"),
            _f(
                "phone|phone_number",
                TEXT,
                lambda w: f"555-{w.number(1000, 9999)}",
                "has the phone number {}|answers the phone at {}",
            ),
            _f("language|speaks", TEXT, lambda w: w.pick(words.LANGUAGES), "speaks {}"),
            _f("children|kids", WHOLE, lambda w: w.number(2, 6), "has {} children|has {} kids"),
        ],
    ),
    "product": (
        ["product", "name", "item"],
        lambda w: f"the {w.made_up()} {w.pick(words.THINGS)}",
        [
            _f("price|cost", WHOLE, World.amount, "costs {} dollars|sells for {} euros|costs {}"),
            _f(
                "colour|color",
                TEXT,
                lambda w: w.pick(words.COLOURS),
                "is {}|is painted {}|comes in {}",
            ),
            _f(
                "material|made_of",
                TEXT,
                lambda w: w.pick(words.MATERIALS),
                "is made of {}|consists of {}",
            ),
            _f(
                "weight|weight_kg",
                WHOLE,
                lambda w: w.number(1, 90),
                "weighs {} kg|weighs {} kilograms",
            ),
            _f("brand|maker|company", TEXT, World.company, "is made by {}|is sold by {}"),
            _f("stock|quantity", WHOLE, World.amount, "has {} pieces in stock|has a stock of {}"),
            _f("code|sku", TEXT, World.code, "has the code {}|carries the code {}"),
            _f(
                "rating|score",
                "number",
                lambda w: w.number(10, 50) / 10,
                "is rated {}|has a rating of {}",
            ),
        ],
    ),
    "event": (
        ["event", "title", "name"],
        lambda w: (
            f"the {w.made_up()} {w.pick(words.BUILDING)} "
            + w.pick(("party", "concert", "meeting", "fair", "workshop"))
        ),
        [
            _f("date|day", TEXT, World.date, "takes place on {}|is on {}"),
            _f("city|place|location", TEXT, World.place, "is held in {}|happens in {}"),
            _f("time|start", TEXT, World.time, "starts at {}|begins at {}"),
            _f("guests|people|visitors", WHOLE, World.amount, "expects {} guests|has {} guests"),
            _f("host|organizer", TEXT, World.person, "is hosted by {}|is organized by {}"),
            _f(
                "price|ticket_price",
                WHOLE,
                lambda w: w.number(1, 200),
                "costs {} euros|costs {} dollars",
            ),
        ],
    ),
    "order": (
        ["customer", "name", "buyer"],
        World.person,
        [
            _f(
                "quantity|count|amount",
                WHOLE,
                lambda w: w.number(2, 99),
                "orders {} pieces|buys {} pieces",
            ),
            _f("item|product", TEXT, lambda w: w.pick(words.FOODS), "wants {}|asks for {}"),
            _f("date|delivery_date", TEXT, World.date, "needs it on {}|expects delivery on {}"),
            _f("address|street", TEXT, World.street, "lives at {}|wants it sent to {}"),
            _f("city|place", TEXT, World.place, "lives in {}|orders from {}"),
            _f("total|price", WHOLE, World.amount, "pays {} dollars|pays {} euros"),
            _f("order_id|id", WHOLE, World.amount, "has order number {}|refers to order {}"),
        ],
    ),
}
FOO = (
    '{"properties": {"foo": {"title": "Foo", "description": "a list of strings", "type": "array", '
    '"items": {"type": "string"}}}, "required": ["foo"]}'
)
PARSER = (
    "The output should be formatted as a JSON instance that conforms to the JSON schema below.\n\n"
    f"As an example, for the schema {FOO}\nthe object "
    '{"foo": ["bar", "baz"]} is a well-formatted instance of the schema. The object '
    '{"properties": {"foo": ["bar", "baz"]}} is not well-formatted.\n\n'
    "Here is the output schema:\n```\n{j}\n```\n{s}"
)
ASKS = [
    PARSER,
    "Turn this text into a JSON object with {k}: {s}",
    "Convert this sentence to JSON ({k}): {s}",
    "Write this sentence as JSON with the keys {k}: {s}",
    "Make JSON ({k}) of this: {s}",
    "Extract {k} from: {s}",
    "Extract {k} from this sentence as JSON: {s}",
    "What are {k}? Answer as JSON.\n\n{s}",
    "Sentence: {s}\nTurn it into JSON with {k}.",
    "{s}\n\nSchema: {j}",
    "Parse the following text into the JSON schema {j}\n\nText: {s}",
    "Extract {k} as JSON.\n\n{s}",
    "Return a JSON object with the keys {k}.\n{s}",
    "{s}\n\nGive me a JSON object with {k}.",
    "Fill in the JSON object {e} from this text: {s}",
    "Text: {s}\nKeys: {k}\nJSON:",
    "Extract the data from the text as JSON with the fields {k}: {s}",
    "Extract information from the text.\n\nText: {s}\n\nReturn JSON in this form: {e}",
    "{s}\nAnswer with JSON that fits this schema:\n{j}",
    "Answer with a JSON object that matches the schema.\n\nSchema: {j}\n\n{s}",
    "{s}\nReturn only JSON with these keys: {k}.",
    "Read: {s}\nWrite {k} as a JSON object.",
    "The output should be formatted as a JSON instance that conforms to the JSON schema below."
    "\n\nHere is the output schema:\n```\n{j}\n```\n\n{s}",
    "Answer the user query.\n{s}\nReturn a JSON object.\nSTRICTLY follow this schema: {j}",
    "Turn this sentence into JSON ({k}): {s}",
]


def _tell(world: World, who: str, told: list[tuple[Field, Any]]) -> str:
    """The values in one or more sentences about `who`."""
    clauses = [world.pick(f.say).format(v) for f, v in told]
    subject = who[0].upper() + who[1:]
    text = f"{subject} {clauses[0]}"
    for i, clause in enumerate(clauses[1:], 1):
        again = "It" if who.startswith("the ") else world.pick((subject, "They"))
        if again == "They":
            again = subject
        last = i == len(clauses) - 1
        text += world.pick((f" and {clause}" if last else f", {clause}", f". {again} {clause}"))
    return articled(text) + "."


def _schema(keys: list[str], kinds: list[str], world: World) -> str:
    props: dict[str, Any] = {}
    for key, kind in zip(keys, kinds, strict=True):
        props[key] = {"type": kind}
    if world.chance(0.25):
        props = {k: {"title": k.replace("_", " ").title(), **v} for k, v in props.items()}
    schema: dict[str, Any] = {"properties": props, "required": keys}
    if world.chance(0.6):
        schema = {"type": "object", **schema}
    return json.dumps(schema)


def _keys(world: World, keys: list[str]) -> str:
    style = world.number(0, 3)
    if style == 0:
        return ", ".join(f'"{k}"' for k in keys)
    if style == 1 and len(keys) > 1:
        return ", ".join(keys[:-1]) + " and " + keys[-1]
    if style == 2:
        return json.dumps(keys)
    return ", ".join(keys)


def item(world: World) -> tuple[str, str]:
    """A request and the JSON object that answers it."""
    name_keys, make, fields = RECORDS[world.pick(sorted(RECORDS))]
    who = make(world)
    most = 1 + round(4 * world.hardness)
    told = [(f, f.value(world)) for f in world.some(fields, 1, most)]
    pool: list[tuple[str, str, Value]] = [(world.pick(name_keys), TEXT, who.removeprefix("the "))]
    pool += [(world.pick(f.keys), f.kind, v) for f, v in told]
    if world.chance(0.12):
        rest = [f for f in fields if f not in [t[0] for t in told]]
        extra = world.pick(rest)
        pool.append((world.pick(extra.keys), extra.kind, None))
    if world.chance(0.5):
        world.rng.shuffle(pool)
    if world.chance(0.35):
        pool = pool[: world.number(1, len(pool))]
    answer: dict[str, Value] = {}
    kinds: dict[str, str] = {}
    for key, kind, value in pool:
        answer.setdefault(key, value)
        kinds.setdefault(key, kind)
    keys = list(answer)
    blank = {k: {TEXT: "", WHOLE: 0}.get(kinds[k], 0.0) for k in keys}
    text = world.phrase(ASKS)
    filled = (
        text.replace("{k}", _keys(world, keys))
        .replace("{e}", json.dumps(blank))
        .replace("{j}", _schema(keys, [kinds[k] for k in keys], world))
        .replace("{s}", _tell(world, who, told))
    )
    return filled, json.dumps(answer)


def generate(world: World) -> Example:
    """One or two requests in a dialogue."""
    example = Example("json")
    if world.chance(0.15):
        text = world.pick(("You are a helpful assistant.", "You extract data as JSON."))
        example.messages.append({"role": "system", "content": text})
    for _ in range(1 if world.held else world.number(1, 2)):
        ask, answer = item(world)
        example.user(ask)
        example.answer(answer)
    return example
