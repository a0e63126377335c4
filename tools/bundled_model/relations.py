"""The kinds of made-up facts: how each is stated, how it is asked, what its answer may be."""

from __future__ import annotations

# ruff: noqa: SIM905 - word lists read better as text
from collections.abc import Callable
from dataclasses import dataclass

import words
from world import World

Maker = Callable[[World], str]


@dataclass(frozen=True)
class Relation:
    """One kind of fact: what it is about, how it is stated, how it is asked."""

    kind: str
    say: list[str]
    ask: list[str]
    value: Maker


def relation(kind: str, value: Maker, say: str, ask: str) -> Relation:
    return Relation(kind, say.split("|"), ask.split("|"), value)


def generic(world: World) -> Relation:
    """The so-and-so of someone or something, for any noun and any kind of value."""
    noun = world.word() if world.chance(0.1) else world.pick(ATTRIBUTES)
    make = world.pick(VALUES)
    return relation(
        world.pick(KINDS),
        make,
        f"The {noun} of {{s}} is {{v}}.|{{s}}'s {noun} is {{v}}.|{{s}} has the {noun} {{v}}.",
        f"What is the {noun} of {{s}}?|What is {{s}}'s {noun}?|Which {noun} does {{s}} have?|"
        f"Tell me the {noun} of {{s}}.|Can you tell me the {noun} of {{s}}?",
    )


def any_of(items: list[str]) -> Maker:
    return lambda w: w.pick(items)


RELATIONS: list[Relation] = [
    relation(
        "person",
        World.place,
        "{s} lives in {v}.|{s} has a home in {v}.|{s} moved to {v}.",
        "Where does {s} live?|In which city does {s} live?|Where is {s}'s home?|"
        "What city does {s} live in?|Which town does {s} live in?|In what town does {s} live?",
    ),
    relation(
        "person",
        World.place,
        "{s} was born in {v}.|{s}'s place of birth is {v}.",
        "Where was {s} born?|What is {s}'s place of birth?|In which city was {s} born?|"
        "What is the birthplace of {s}?|In what town was {s} born?",
    ),
    relation(
        "person",
        any_of(words.JOBS),
        "{s} works as a {v}.|{s} is a {v}.|{s} is employed as a {v}.",
        "What does {s} do?|What is {s}'s job?|What does {s} work as?|What job does {s} have?|"
        "What is the profession of {s}?|What is the job of {s}?",
    ),
    relation(
        "person",
        World.company,
        "{s} works for {v}.|{s} is employed at {v}.",
        "Who does {s} work for?|Which company does {s} work for?|Where does {s} work?|"
        "What is {s}'s employer?|What company does {s} work for?",
    ),
    relation(
        "person",
        any_of(words.HOBBIES),
        "{s} enjoys {v}.|{s}'s hobby is {v}.|{s} is fond of {v}.",
        "What is {s}'s hobby?|What does {s} enjoy?|What is the hobby of {s}?|"
        "Which hobby does {s} have?|What hobby does {s} have?",
    ),
    relation(
        "person",
        lambda w: str(w.number(18, 90)),
        "{s} is {v} years old.|{s} is aged {v}.",
        "How old is {s}?|What is {s}'s age?|What age is {s}?|What is the age of {s}?|"
        "Do you know how old {s} is?",
    ),
    relation(
        "person",
        any_of(words.FOODS),
        "{s} likes to eat {v}.|{s}'s favourite food is {v}.",
        "What does {s} like to eat?|What is {s}'s favourite food?|Which food does {s} like?|"
        "What is the favourite food of {s}?|What food does {s} like?",
    ),
    relation(
        "person",
        any_of(words.COLOURS),
        "{s}'s favourite colour is {v}.|{s} likes the colour {v}.",
        "What is {s}'s favourite colour?|Which colour does {s} like?|What colour does {s} like?|"
        "What is the favourite colour of {s}?|Which colour is {s}'s favourite?",
    ),
    relation(
        "person",
        World.first,
        "{s} has a pet called {v}.|{s}'s pet is named {v}.",
        "What is {s}'s pet called?|What is the name of {s}'s pet?|How is {s}'s pet called?|"
        "What is {s}'s pet named?|What name does {s}'s pet have?",
    ),
    relation(
        "person",
        World.person,
        "{s} is married to {v}.|{s}'s spouse is {v}.",
        "Who is {s} married to?|Who is {s}'s spouse?|To whom is {s} married?|"
        "What is the name of {s}'s spouse?|Who is the spouse of {s}?",
    ),
    relation(
        "person",
        lambda w: str(w.number(1, 999)),
        "{s}'s room number is {v}.|{s} sits in room {v}.|{s} has office {v}.",
        "What is {s}'s room number?|In which room does {s} sit?|Which room does {s} have?|"
        "What is the room number of {s}?|Which room does {s} sit in?",
    ),
    relation(
        "person",
        lambda w: f"555-{w.number(1000, 9999)}",
        "{s}'s phone number is {v}.|You can reach {s} at {v}.|{s} has the phone number {v}.",
        "What is {s}'s phone number?|How can I reach {s}?|What is the phone number of {s}?|"
        "Under which number can I call {s}?|Which phone number does {s} have?",
    ),
    relation(
        "person",
        World.email,
        "{s}'s email is {v}.|The email address of {s} is {v}.",
        "What is {s}'s email?|What is the email address of {s}?|Which email does {s} use?|"
        "What is {s}'s email address?|Which email address does {s} have?",
    ),
    relation(
        "person",
        any_of(words.LANGUAGES),
        "{s} speaks {v}.|{s}'s mother tongue is {v}.",
        "Which language does {s} speak?|What language does {s} speak?|What does {s} speak?|"
        "What is {s}'s language?|What is the language of {s}?",
    ),
    relation(
        "company",
        lambda w: str(w.year()),
        "{s} was founded in {v}.|{s} has existed since {v}.",
        "When was {s} founded?|In what year was {s} founded?|Since when does {s} exist?|"
        "In which year was {s} founded?|What year was {s} founded in?",
    ),
    relation(
        "company",
        World.person,
        "{s} was founded by {v}.|The founder of {s} is {v}.",
        "Who founded {s}?|Who is the founder of {s}?|By whom was {s} founded?|"
        "Who started {s}?|What is the name of the founder of {s}?",
    ),
    relation(
        "company",
        World.place,
        "{s} is based in {v}.|The headquarters of {s} are in {v}.",
        "Where is {s} based?|Where are the headquarters of {s}?|In which city is {s} based?|"
        "Which city is {s} based in?|What city is {s} based in?",
    ),
    relation(
        "company",
        World.person,
        "The head of {s} is {v}.|{s} is led by {v}.",
        "Who leads {s}?|Who is the head of {s}?|Who runs {s}?|By whom is {s} led?|"
        "What is the name of the head of {s}?",
    ),
    relation(
        "company",
        lambda w: str(w.number(2, 9000)),
        "{s} has {v} employees.|{s} employs {v} people.",
        "How many employees does {s} have?|How many people work at {s}?|"
        "How many people does {s} employ?|How many staff does {s} have?|How many work for {s}?",
    ),
    relation(
        "company",
        lambda w: w.pick(words.THINGS) + "s",
        "{s} makes {v}.|{s} sells {v}.",
        "What does {s} make?|What does {s} sell?|What is made by {s}?|What does {s} produce?|"
        "Which product does {s} make?",
    ),
    relation(
        "building",
        lambda w: str(w.year()),
        "{s} opened in {v}.|{s} was opened in the year {v}.",
        "When did {s} open?|In what year did {s} open?|In which year was {s} opened?|"
        "When was {s} opened?|What year did {s} open?",
    ),
    relation(
        "building",
        World.place,
        "{s} stands in {v}.|{s} is located in {v}.",
        "Where is {s}?|Where is {s} located?|In which city is {s}?|Where does {s} stand?|"
        "In what town is {s}?",
    ),
    relation(
        "building",
        lambda w: f"{w.number(5, 900)} metres",
        "{s} is {v} tall.|The height of {s} is {v}.",
        "How tall is {s}?|What is the height of {s}?|How high is {s}?|What height does {s} have?|"
        "What is {s}'s height?",
    ),
    relation(
        "building",
        World.person,
        "{s} was designed by {v}.|The architect of {s} was {v}.",
        "Who designed {s}?|Who was the architect of {s}?|By whom was {s} designed?|"
        "Who is the architect of {s}?|What is the name of the architect of {s}?",
    ),
    relation(
        "building",
        World.time,
        "{s} closes at {v}.|The closing time of {s} is {v}.",
        "When does {s} close?|At what time does {s} close?|What is the closing time of {s}?|"
        "Until when is {s} open?|What time does {s} close?",
    ),
    relation(
        "item",
        lambda w: f"{w.number(1, 999)} {w.pick(('dollars', 'euros', 'pounds'))}",
        "{s} costs {v}.|The price of {s} is {v}.|{s} sells for {v}.",
        "How much does {s} cost?|What does {s} cost?|What is the price of {s}?|"
        "How much is {s}?|How much do I pay for {s}?",
    ),
    relation(
        "item",
        any_of(words.COLOURS),
        "{s} is {v}.|The colour of {s} is {v}.|{s} is painted {v}.",
        "What colour is {s}?|What is the colour of {s}?|Which colour does {s} have?|"
        "Which colour is {s}?|What color is {s}?",
    ),
    relation(
        "item",
        any_of(words.MATERIALS),
        "{s} is made of {v}.|{s} consists of {v}.",
        "What is {s} made of?|Of which material is {s}?|What material is {s} made of?|"
        "Which material is {s} made of?|What does {s} consist of?",
    ),
    relation(
        "item",
        lambda w: f"{w.number(1, 90)} {w.pick(('kilograms', 'grams', 'kg'))}",
        "{s} weighs {v}.|The weight of {s} is {v}.",
        "How heavy is {s}?|What is the weight of {s}?|How much does {s} weigh?|"
        "What does {s} weigh?|What weight does {s} have?",
    ),
    relation(
        "item",
        lambda w: f"{w.number(1, 12)} {w.pick(('years', 'months'))}",
        "{s} has a warranty of {v}.|The warranty of {s} lasts {v}.",
        "How long is the warranty of {s}?|What warranty does {s} have?|"
        "How long does the warranty of {s} last?|What is the warranty of {s}?|"
        "For how long is {s} under warranty?",
    ),
    relation(
        "secret",
        World.code,
        "The {s} is {v}.|Remember that the {s} is {v}.",
        "What is the {s}?|Which is the {s}?|Tell me the {s}.|Give me the {s}.|"
        "Can you tell me the {s}?",
    ),
    relation(
        "secret",
        World.made_up,
        "The {s} is {v}.|We call the {s} {v}.",
        "What is the {s}?|Which is the {s}?|Tell me the {s}.|Give me the {s}.|"
        "Can you tell me the {s}?",
    ),
    relation(
        "event",
        World.date,
        "{s} takes place on {v}.|{s} is on {v}.|The date of {s} is {v}.",
        "When is {s}?|On which date is {s}?|When does {s} take place?|What is the date of {s}?|"
        "What date is {s} on?",
    ),
    relation(
        "event",
        World.place,
        "{s} is held in {v}.|{s} takes place in {v}.",
        "Where is {s} held?|In which city is {s}?|Where does {s} take place?|"
        "Which city hosts {s}?|What city is {s} held in?",
    ),
    relation(
        "term",
        lambda w: (
            f"a {w.pick(words.ADJECTIVES)} {w.pick(words.THINGS)} for {w.pick(words.HOBBIES)}"
        ),
        "A {s} is {v}.|The word {s} means {v}.",
        "What is a {s}?|What does {s} mean?|What is meant by {s}?|Define {s}.|"
        "What is the meaning of {s}?",
    ),
    relation(
        "term",
        lambda w: f"a kind of {w.pick(words.ANIMALS)} that eats {w.pick(words.FOODS)}",
        "A {s} is {v}.|The word {s} means {v}.",
        "What is a {s}?|What does {s} mean?|What is meant by {s}?|Define {s}.|"
        "What is the meaning of {s}?",
    ),
]

KINDS = ["person", "company", "building", "item", "event", "term"]
ATTRIBUTES = """capital population mascot currency ruler river anthem flower name number code owner
author title address size length depth score rating budget salary rank version model type language
population leader mayor king queen founder captain symbol motto nickname password username key
status level colour shape smell taste speed power range limit origin source target goal deadline
manager assistant teacher doctor neighbour brother sister mother father friend car boat song book
""".split()
VALUES: list[Maker] = [
    World.made_up,
    World.person,
    World.place,
    World.company,
    World.code,
    World.date,
    World.time,
    World.subject,
    lambda w: str(w.amount()),
    lambda w: str(w.amount()),
    World.street,
    World.email,
    lambda w: str(w.year()),
    lambda w: w.pick(words.COLOURS),
    lambda w: w.pick(words.THINGS),
    lambda w: f"{w.amount()} {w.pick(('metres', 'years', 'dollars', 'people', 'euros', 'hours'))}",
]
SECRETS = """wifi password|secret word|door code|project name|access code|gate number|team name
ship name|locker code|server name|flight number|ticket number|order code|magic word|version
model name|serial number|code word|launch code|room code""".replace("\n", "|").split("|")
EVENTS = "Festival Conference Fair Concert Marathon Workshop Meeting Summit".split()


def subject(world: World, kind: str) -> str:
    """A name for a fact to be about."""
    if kind == "person":
        return world.person()
    if kind == "company":
        if world.chance(0.3):  # a work, a project or a thing with a name of its own
            names = [world.made_up() for _ in range(world.number(1, 2))]
            return " ".join(names) if world.chance(0.8) else names[0].lower()
        return world.company()
    if kind == "building":
        return world.building()
    if kind == "item":
        model = world.made_up() if world.chance(0.6) else world.code()
        return f"the {model} {world.pick(words.THINGS)}"
    if kind == "secret":
        return world.pick(SECRETS)
    if kind == "event":
        return f"the {world.made_up()} {world.pick(EVENTS)}"
    return world.word()
