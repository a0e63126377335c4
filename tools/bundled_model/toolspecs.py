"""Tools the model learns to call: a hand-written list and a generator of random ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import words
from qa import RELATIONS
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


def _weather(w: World, a: dict[str, Value]) -> Any:
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


def _calc(fn: Callable[[Any, Any], Any]) -> Result:
    def run(w: World, a: dict[str, Value]) -> Any:
        x, y = list(a.values())[:2]
        value = fn(x, y)
        return {"result": value} if w.chance(0.3) else value

    return run


def _text(*forms: str) -> Result:
    def run(w: World, a: dict[str, Value]) -> Any:
        extra = {"n": w.amount(), "person": w.person(), "place": w.place(), "date": w.date(),
                 "time": w.time(), "code": w.code(), "colour": w.pick(words.COLOURS),
                 "job": w.pick(words.JOBS), "email": w.email(), "name": w.made_up(),
                 "company": w.company(), "adj": w.pick(words.ADJECTIVES)}
        return w.pick(forms).format(**{**extra, **a})

    return run


def _fact(w: World, a: dict[str, Value]) -> Any:
    relation = w.pick([r for r in RELATIONS if r.kind in ("person", "company", "building")])
    who = {"person": w.person, "company": w.company}.get(relation.kind, w.building)()
    said = w.pick(relation.say).format(s=who, v=relation.value(w))
    return [said] if w.chance(0.1) else said


def generic(w: World, a: dict[str, Value]) -> Any:
    """A result of no special kind: an object, a line of text or one value."""
    kind = w.number(0, 9)
    values: dict[str, Value] = {
        "status": w.pick(("ok", "done", "sent", "saved", "open", "closed", "pending")),
        "id": w.number(1, 9999), "code": w.code(), "owner": w.person(), "count": w.amount(),
        "price": w.amount(), "city": w.place(), "name": w.made_up(), "date": w.date(),
        "time": w.time(), "email": w.email(), "colour": w.pick(words.COLOURS),
        "order_id": w.number(1, 9999), "phone": f"555-{w.number(1000, 9999)}",
        "balance": w.number(0, 99999) / 100, "age": w.number(18, 90), "room": w.number(1, 400),
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
    return _fact(w, a)


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


def _two(name: str, about: str, op: str, ask: str, fn: Callable[[Any, Any], Any]) -> list[Tool]:
    out = []
    for kind in ("integer", "number"):
        for a, b in (("a", "b"), ("x", "y"), ("first", "second")):
            make = small if kind == "integer" else either
            requests = [q.replace("{a}", f"{{{a}}}").replace("{b}", f"{{{b}}}")
                        for q in ask.split("|")]
            out.append(Tool(name, about, [p(a, kind, make), p(b, kind, make)], requests,
                            _calc(fn), op))
    return out


def curated() -> list[Tool]:
    """The hand-written tools; those of one topic are never shown together."""
    s, i = "string", "integer"
    out: list[Tool] = []
    ask = ("What is the weather in {x}?|How is the weather in {x}?|What's the weather like in {x}?|"
           "Is it warm in {x} today?|Tell me the weather in {x}.|Weather in {x}?|"
           "Do I need an umbrella in {x}?|What is the temperature in {x}?|How cold is it in {x}?|"
           "Check the weather for {x}.|How warm is it in {x} right now?")
    for name in ("get_weather", "weather", "get_current_weather", "current_weather",
                 "weather_forecast", "getWeather"):
        for arg in ("city", "location", "place", "city"):
            about = {"get_weather": "Get the weather of a city", "weather": "Weather in a place"}
            requests = ask.replace("{x}", f"{{{arg}}}").split("|")
            out.append(Tool(name, about.get(name, "Get the current weather in a given city."),
                            [p(arg, s, World.place, "The city")], requests, _weather, "weather"))
    units = [p("city", s, World.place), enum("unit", words.UNITS)]
    out.append(Tool("get_temperature", "Get the temperature of a city", units, [
        "How warm is it in {city} in {unit}?", "Temperature in {city}, in {unit} please.",
        "What is the temperature in {city} in {unit}?"], _weather, "weather"))
    for _ in range(2):
        out += _two("add", "Add two numbers.", "add", "What is {a} plus {b}?|Add {a} and {b}.|"
                    "What is {a} + {b}?|Please add {a} to {b}.|Compute {a} + {b}.|"
                    "What is the sum of {a} and {b}?|How much is {a} plus {b}?",
                    lambda x, y: round(x + y, 2))
        out += _two("multiply", "Multiply two numbers.", "multiply", "What is {a} times {b}?|"
                    "Multiply {a} by {b}.|What is {a} * {b}?|Compute {a} times {b}.|{a} * {b} = ?|"
                    "What is the product of {a} and {b}?|How much is {a} times {b}?",
                    lambda x, y: round(x * y, 2))
    out += _two("subtract", "Subtract b from a.", "subtract", "What is {a} minus {b}?|"
                "Compute {a} - {b}.|What is {a} - {b}?|How much is {a} minus {b}?|{a} minus {b}?",
                lambda x, y: round(x - y, 2))
    out += _two("divide", "Divide a by b.", "divide", "What is {a} divided by {b}?|"
                "Divide {a} by {b}.|Compute {a} / {b}.|What is {a} / {b}?|How much is {a} / {b}?",
                lambda x, y: round(x / y, 2))
    find = ("Search for {q}.|Find {q}.|Look up {q}.|Search the web for {q}.|What do you find about "
            "{q}?|Please search for {q}.|Find information about {q}.|Can you look up {q}?")
    for name, about in (("search", "Search the web"), ("web_search", "Search the web for a query"),
                        ("search_docs", "Search the documents"), ("retrieve", "Find passages"),
                        ("lookup", "Look something up"), ("search_notes", "Search my notes")):
        for arg in ("query", "q", "text"):
            out.append(Tool(name, about, [p(arg, s, World.subject)],
                            find.replace("{q}", f"{{{arg}}}").split("|"), _fact, "search"))
    out += _services(s, i)
    return out


def _services(s: str, i: str) -> list[Tool]:
    money = [p("amount", "number", either), enum("from_currency", words.CURRENCIES[:6]),
             enum("to_currency", words.CURRENCIES[6:12])]
    for currency in money[1:]:
        currency.options = []
    return [
        Tool("convert_currency", "Convert an amount of money", money, [
            "Convert {amount} {from_currency} to {to_currency}.",
            "How much is {amount} {from_currency} in {to_currency}?",
            "What are {amount} {from_currency} in {to_currency}?",
            "Change {amount} {from_currency} into {to_currency}.",
            "I need {amount} {from_currency} in {to_currency}."],
            lambda w, a: {"amount": decimal(w), "currency": a["to_currency"]}, "money"),
        Tool("get_time", "Current time in a city", [p("city", s, World.place)], [
            "What time is it in {city}?", "Tell me the time in {city}.", "Time in {city}?",
            "What is the current time in {city}?", "How late is it in {city}?"],
            lambda w, a: w.pick((w.time(), {"time": w.time()}, f"It is {w.time()} in {a['city']}")),
            "time"),
        Tool("send_email", "Send an email", [p("to", s, World.email), p("subject", s, World.subject)],
            ["Send an email to {to} about {subject}.", "Email {to} about {subject}.",
             "Write to {to} with the subject {subject}.", "Please mail {to} about {subject}.",
             "Send {to} a mail about {subject}."], _text("Email sent to {to}."), "mail"),
        Tool("book_table", "Book a table in a restaurant", [
            p("restaurant", s, World.made_up), p("people", i, lambda w: w.number(1, 12)),
            p("time", s, World.time)],
            ["Book a table at {restaurant} for {people} people at {time}.",
             "I want a table for {people} at {restaurant} at {time}.",
             "Reserve a table for {people} at {restaurant}, {time}.",
             "Get us a table at {restaurant} at {time} for {people} people."],
            _text("Booked, the code is {code}.", "A table at {restaurant} is booked."), "book"),
        Tool("lookup_user", "Look up a user by id", [p("id", i, World.amount)], [
            "Who is user {id}?", "Look up user {id}.", "Find the user with id {id}.",
            "Show me user {id}.", "Tell me about user number {id}."],
            lambda w, a: {"name": w.person(), "email": w.email()}, "user"),
        Tool("get_price", "Price of a product", [p("product", s, World.thing)], [
            "How much is the {product}?", "What does the {product} cost?",
            "Price of the {product}?", "Tell me the price of the {product}.",
            "What is the price of the {product}?"],
            lambda w, a: w.pick(({"price": w.amount()}, w.amount())), "price"),
        Tool("set_timer", "Set a timer", [p("minutes", i, lambda w: w.number(1, 90))], [
            "Set a timer for {minutes} minutes.", "Start a timer of {minutes} minutes.",
            "Wake me in {minutes} minutes.", "Timer, {minutes} minutes.",
            "Remind me in {minutes} minutes."], _text("Timer set.", "The timer runs."), "timer"),
        Tool("translate", "Translate a text", [
            p("text", s, World.subject), enum("language", words.LANGUAGES[1:8])],
            ["Translate {text} into {language}.", "Translate \"{text}\" to {language}.",
             "What is \"{text}\" in {language}?", "How do you say \"{text}\" in {language}?",
             "Say \"{text}\" in {language}."], _text("{name} {name}"), "language"),
        Tool("create_event", "Add an event to the calendar", [
            p("title", s, World.subject), p("date", s, World.date)],
            ["Add {title} to my calendar on {date}.", "Create an event {title} on {date}.",
             "Put {title} in the calendar for {date}.", "Plan {title} for {date}.",
             "Schedule {title} on {date}."], _text("Event created.", "Added on {date}."), "event"),
        Tool("play_music", "Play music of an artist", [p("artist", s, World.person)], [
            "Play something by {artist}.", "Play {artist}.", "I want to hear {artist}.",
            "Put on some {artist}.", "Play music by {artist}."], _text("Playing {artist}."), "music"),
        Tool("turn_light", "Switch a light", [
            p("room", s, lambda w: w.pick(("kitchen", "bedroom", "office", "hall", "garage"))),
            p("on", "boolean", lambda w: w.chance(0.5))],
            ["Set the light in the {room} to on={on}.", "Light in the {room}: on={on}."],
            _text("Done."), "light"),
        Tool("capital_of", "The capital of a country", [p("country", s, World.country)], [
            "Use the tool to find the capital of {country}.",
            "Look up the capital of {country}.", "Find the capital city of {country}."],
            _text("{place}"), "capital"),
        Tool("get_stock_price", "Stock price of a company", [p("company", s, World.company)], [
            "What is the stock price of {company}?", "How is {company} trading?",
            "Stock price of {company}?", "What is {company} worth today?",
            "Check the stock of {company}."],
            lambda w, a: w.pick(({"price": decimal(w)}, decimal(w))), "stock"),
    ]
