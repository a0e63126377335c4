"""Tools the model learns to call: a hand-written list and a generator of random ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import words
from relations import RELATIONS
from world import World

Value = str | int | float | bool
Result = Callable[[World, dict[str, Value]], Any]


@dataclass
class Param:
    """An argument: its name, JSON type, the source of values and optional text."""

    name: str
    kind: str
    value: Callable[[World], Value]
    about: str = ""
    options: list[str] = field(default_factory=list)


@dataclass
class Tool:
    """A tool with the ways to ask for it; `{name}` in a request stands for an argument."""

    name: str
    about: str
    params: list[Param]
    requests: list[str]
    result: Result
    topic: str = ""

    def schema(self, world: World) -> dict[str, Any]:
        """The OpenAI form of the tool, with descriptions of parameters at times."""
        described = world.chance(0.4)
        titled = world.chance(0.1)
        props: dict[str, Any] = {}
        for p in self.params:
            entry: dict[str, Any] = {"title": p.name.title()} if titled else {}
            entry["type"] = p.kind
            if p.options:
                entry["enum"] = p.options
            if described:
                entry["description"] = p.about or f"The {p.name.replace('_', ' ')}"
            if titled or world.chance(0.05):
                entry = dict(sorted(entry.items()))
            props[p.name] = entry
        parameters: dict[str, Any] = {"type": "object", "properties": props}
        if self.params or world.chance(0.5):
            parameters["required"] = [p.name for p in self.params]
        inner = {"name": self.name, "description": self.about, "parameters": parameters}
        return {"type": "function", "function": inner}


def weather_result(w: World, a: dict[str, Value]) -> Any:
    place = str(next(iter(a.values())))
    sky, degrees = w.pick(words.WEATHER), w.number(-15, 40)
    kind = w.number(0, 4)
    if kind == 0:
        return {"condition": sky, "temperature": degrees}
    if kind == 1:
        return f"{sky}, {degrees} degrees"
    if kind == 2:
        return f"The weather in {place} is {sky}, {degrees} degrees."
    out = {"city": place, "condition": sky, "temperature": degrees}
    return dict(w.rng.sample(list(out.items()), 3)) if kind == 3 else out


def calc_result(fn: Callable[[Any, Any], Any]) -> Result:
    def run(w: World, a: dict[str, Value]) -> Any:
        x, y = list(a.values())[:2]
        value = fn(x, y)
        return {"result": value} if w.chance(0.3) else value

    return run


def text_result(*forms: str) -> Result:
    def run(w: World, a: dict[str, Value]) -> Any:
        extra = {
            "n": w.amount(),
            "person": w.person(),
            "place": w.place(),
            "date": w.date(),
            "time": w.time(),
            "code": w.code(),
            "colour": w.pick(words.COLOURS),
            "job": w.pick(words.JOBS),
            "email": w.email(),
            "name": w.made_up(),
            "company": w.company(),
            "adj": w.pick(words.ADJECTIVES),
        }
        return w.pick(forms).format(**{**extra, **a})

    return run


def fact_result(w: World, a: dict[str, Value]) -> Any:
    relation = w.pick([r for r in RELATIONS if r.kind in ("person", "company", "building")])
    who = {"person": w.person, "company": w.company}.get(relation.kind, w.building)()
    said = w.pick(relation.say).format(s=who, v=relation.value(w))
    return [said] if w.chance(0.1) else said


def generic(w: World, a: dict[str, Value]) -> Any:
    """A result of no special kind: an object, a line of text or one value."""
    kind = w.number(0, 9)
    values: dict[str, Value] = {
        "status": w.pick(("ok", "done", "sent", "saved", "open", "closed", "pending")),
        "id": w.number(1, 9999),
        "code": w.code(),
        "owner": w.person(),
        "count": w.amount(),
        "price": w.amount(),
        "city": w.place(),
        "name": w.made_up(),
        "date": w.date(),
        "time": w.time(),
        "email": w.email(),
        "colour": w.pick(words.COLOURS),
        "order_id": w.number(1, 9999),
        "phone": f"555-{w.number(1000, 9999)}",
        "balance": w.number(0, 99999) / 100,
        "age": w.number(18, 90),
        "room": w.number(1, 400),
    }
    if kind < 5:
        values.update({k: v for k, v in a.items() if w.chance(0.4)})
        return {k: values[k] for k in w.some(sorted(values), 1, 3)}
    if kind == 5:
        return {"error": w.pick(("not found", "no access", "timeout", f"no such {w.word()}"))}
    if kind == 6:
        return w.pick(list(values.values()))
    if kind == 7:
        return [w.made_up() for _ in range(w.number(2, 4))]
    return fact_result(w, a)


def p(name: str, kind: str, value: Callable[[World], Value], about: str = "") -> Param:
    """Short for a parameter."""
    return Param(name, kind, value, about)


def enum(name: str, options: list[str]) -> Param:
    """A parameter with a closed list of values."""
    return Param(name, "string", lambda w: w.pick(options), "", options)


def small(w: World) -> int:
    """A number for arithmetic."""
    return w.number(1, w.pick((10, 50, 100, 1000)))


def decimal(w: World) -> float:
    """A number with one or two places behind the point."""
    return w.number(1, 9999) / w.pick((10, 100))


def either(w: World) -> Value:
    """A whole or a broken number."""
    return small(w) if w.chance(0.75) else decimal(w)
