"""Ten tasks for agents: tools whose results depend on their arguments, questions, and what must come of them.

They are of the kinds that the bundled model was trained to do (`tools/bundled_model/toolbook.py`), with
arguments and results of their own. What it is too small for is left out: among five tools in LlamaIndex,
where descriptions are long, it often sees none that fits, and it misspells the subjects of mails. The module
knows no framework: tools are plain functions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Tool = Callable[..., Any]


def get_weather(city: str) -> str:
    """Get the weather of a city"""
    return f"It is cloudy, {10 + len(city)} degrees."


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def get_population(city: str) -> int:
    """Population of a city"""
    return 1207 * len(city)


def get_price(product: str) -> str:
    """Price of a product"""
    return f'{{"price": {31 * len(product)}}}'


def get_distance(a: str, b: str) -> str:
    """Distance between two cities"""
    return f"{103 * len(a + b)} km"


def lookup_user(user_id: int) -> str:
    """Look up a user by id"""
    return f'{{"name": "Greta Okafor", "email": "greta{user_id}@example.org"}}'


def get_stock_price(company: str) -> float:
    """Stock price of a company"""
    return len(company) + 37.5


def book_table(restaurant: str, people: int, time: str) -> str:
    """Book a table in a restaurant"""
    return f"Booked, the code is {restaurant[0].upper()}{people}{time[:2]}."


@dataclass(frozen=True)
class Task:
    """What an agent is asked, with which tools at hand, and what must come of it.

    Args:
        calls: every call that must be made, and no other.
        said: what the final answer must contain.
    """

    asked: str
    tools: tuple[Tool, ...]
    calls: tuple[tuple[str, dict[str, Any]], ...]
    said: tuple[str, ...]

    def prepared(self) -> tuple[list[Tool], list[tuple[str, dict[str, Any]]]]:
        """The tools, and a list into which they write how they were called."""
        made: list[tuple[str, dict[str, Any]]] = []
        return [_noted(tool, made) for tool in self.tools], made

    def check(self, made: list[tuple[str, dict[str, Any]]], answer: str) -> None:
        """Raises AssertionError unless the calls and the answer are right."""
        assert made == list(self.calls)
        assert [one for one in self.said if one not in answer] == [], answer


def _noted(tool: Tool, made: list[tuple[str, dict[str, Any]]]) -> Tool:
    @functools.wraps(tool)
    def noting(**arguments: Any) -> Any:
        made.append((tool.__name__, arguments))
        return tool(**arguments)

    return noting


TRAVEL = (get_weather, get_population, get_distance)
SUMS = (multiply, add, get_price)
OFFICE = (get_stock_price, lookup_user, book_table)


def _task(asked: str, tools: tuple[Tool, ...], tool: Tool, said: str, **arguments: Any) -> Task:
    return Task(asked, tools, ((tool.__name__, arguments),), (said,))


TASKS = [
    _task("What is the weather in Lisbon?", TRAVEL, get_weather, "16 degrees", city="Lisbon"),
    _task("How many people live in Turku?", TRAVEL, get_population, "6035", city="Turku"),
    _task(
        "What is the distance between Lima and Oslo?", TRAVEL, get_distance, "824 km",
        a="Lima", b="Oslo",
    ),
    _task("What is 12 times 17?", SUMS, multiply, "204", a=12, b=17),
    _task("What is 34 plus 19?", SUMS, add, "53", a=34, b=19),
    _task("How much is the ladder?", SUMS, get_price, "186", product="ladder"),
    _task("What is the price of the kettle?", SUMS, get_price, "186", product="kettle"),
    _task("Look up user 42.", OFFICE, lookup_user, "Greta Okafor", user_id=42),
    _task("What is the stock price of Acme?", OFFICE, get_stock_price, "41.5", company="Acme"),
    _task(
        "Book a table at Nobu for 4 people at 19:30.", OFFICE, book_table, "N419",
        restaurant="Nobu", people=4, time="19:30",
    ),
]  # fmt: skip
