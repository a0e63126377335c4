"""Plain English to go on with: little stories and explanations from a grammar."""

from __future__ import annotations

import facts
import words
from capitals import CAPITALS
from dialogue import EOT, Example
from world import World, articled

GOALS = """find a lost {t}|build a new {t}|see the sea|learn to play the guitar|bake a {f} cake|
visit a friend in {c}|buy a {a} {t}|learn about {o}|open a small shop|write a book about {o}|
catch the first train|paint the old {t}|help a hurt {n}|plant a garden|win the race|
learn to cook {f}|fix the broken {t}|sleep under the stars|travel to {c}""".replace("\n", "")
PLACES = """in a {a} village by the sea|in a {a} house near the forest|in {c}|on a {a} farm|
in a small town between two hills|in a {a} flat above a shop|at the edge of {c}""".replace("\n", "")
EVENTS = """{p} met a {a} {n} on the way.|It began to rain, and {p} waited under a tree.|
A {j} stopped and asked what was wrong.|{p} sat down and ate some {f}.|The road was long and the
 night was cold.|An old {j} gave {p} a map.|{p} lost the way and had to ask a {j}.|
The {n} followed {p} all the way.|{p} found a {a} {t} under a stone.|Nobody in the village knew
 what to do.|The wind grew strong and the sky turned {k}.|{p} sang a song and felt better.|
A friend called {q} came along to help.|{q} laughed and said that it could not be done.|
In the morning the sun came out again.|They walked for hours without a word.|"I will help you,"
 said {q}.|"Do not be afraid," said the {j}.|{p} thought about it for a long time.|
They shared a little {f} and some bread.|The {t} was too heavy to carry alone.""".replace("\n", "")
ENDS = """At last everything was well, and {p} went home happy.|In the end {p} learned that good
 friends matter most.|From that day on, {p} and {q} were friends.|{p} smiled and went to sleep.|
And so the {a} {t} was found again.|That evening they all ate {f} together.|{p} never forgot that
 day.|And {p} lived happily ever after.|When night came, {p} was home again.""".replace("\n", "")
OPEN = """Once upon a time there was a {j} called {p} who lived {w}.|Once upon a time, {p} lived
 {w}.|{p} was a young {j} who lived {w}.|One day {p} woke up early.|There once was a {a} {n} that
 lived {w}.|It was a {k} morning when {p} left home.|Long ago, a {a} {j} lived {w}.|
Hello, my name is {p}. I am a {j} and I live {w}.|My name is {p} and I work as a {j}.|
Every {d}, {p} went to the market.|{p} opened the door and looked outside.|
Last summer {p} travelled to {c}.""".replace("\n", "")
WANTS = """{p} wanted to {g}.|More than anything, {p} wanted to {g}.|{p} had one wish: to {g}.|
The plan was to {g}.|One day {p} decided to {g}.|For years {p} had dreamed of one thing: to {g}.
""".replace("\n", "")
ESSAY = """The future of {o} is bright. Many people work on {o} every day, and new ideas come up all
 the time.|The future of AI is open. Language models will help people to write, to learn and to
 build things, but people will still decide what is good.|{O} is the study of how things work.
 People have asked about {o} for a long time, and every answer leads to a new question.|
To make {f}, you need fresh {f}, some salt and a little time. First wash your hands. Then cut
 everything into small pieces and heat it slowly.|The best way to learn {o} is to practise every
 day. Start with something simple, and do not be afraid of mistakes.|A {n} is an animal that needs
 food, water and a safe place to sleep. Most people like the {n} because it is {a}.|
The {t} is a useful thing. It can be made of {m}, and it is often {k}.|There are three reasons to
 learn {l}. First, many people speak it. Second, it opens the door to many books. Third, it is
 fun.|The weather today is {y}. Tomorrow it will be {y} with some wind from the {v}.|
The president of the United States is the head of the government and lives in the White House.|
In the city of {c} there are many {a} streets. People come from far away to see the old market and
 to eat {f}.|The most important thing in life is to be kind. Kind people make good friends, and good
 friends make a good life.|Water is a clear liquid. All plants and animals need water to live.|
The sun is a star. It gives light and warmth to the Earth, which goes round it once a year.|
A computer is a machine that follows instructions. A program is a list of such instructions.|
Today I went to the {t} shop and bought a {k} {t}. It was {a} and not expensive.|The quick brown fox
 jumps over the lazy dog.|Dear {p}, thank you for your letter. I am glad to hear that you are well.
 I hope to see you in {c} soon. Yours, {q}|Breaking news: a {a} {n} was seen in the streets of {c}
 this morning. A {j} said that nobody was hurt.""".replace("\n", "")
LINK = ["But then", "After a while", "Soon", "Later that day", "Suddenly", "In the meantime"]


def fill(world: World, text: str, who: str, friend: str) -> str:
    """Put words into the gaps of a sentence; people stay the same all through."""
    text = text.replace("{w}", world.pick(PLACES.split("|")))
    text = text.replace("{g}", world.pick(GOALS.split("|")))
    topic = world.pick(words.TOPICS)
    return text.format(
        p=who,
        q=friend,
        c=world.place(),
        o=topic,
        O=topic.capitalize(),
        t=world.pick(words.THINGS),
        f=world.pick(words.FOODS),
        a=world.pick(words.ADJECTIVES),
        n=world.pick(words.ANIMALS),
        j=world.pick(words.JOBS),
        k=world.pick(words.COLOURS),
        d=world.pick(words.DAYS),
        m=world.pick(words.MATERIALS),
        l=world.pick(words.LANGUAGES),
        y=world.pick(words.WEATHER),
        v=world.pick(("north", "south", "east", "west")),
    )


def story(world: World) -> str:
    """A short story about one or two people."""
    who, friend = world.named(words.FIRST), world.named(words.FIRST)
    parts = [world.pick(OPEN.split("|")), world.pick(WANTS.split("|"))]
    for event in world.some(EVENTS.split("|"), 2, 6):
        if event[0] != "{" and event[0] != '"' and world.chance(0.3):
            event = f"{world.pick(LINK)}, {event[0].lower()}{event[1:]}"
        parts.append(event)
    parts.append(world.pick(ENDS.split("|")))
    return articled(" ".join(fill(world, part, who, friend) for part in parts))


def remark(world: World) -> str:
    """One or two sentences that tell nothing anyone asks for."""
    kind = world.number(0, 2)
    if kind == 0:
        return world.pick(list(facts.DEFINITIONS.values()))
    who, friend = world.named(words.FIRST), world.named(words.FIRST)
    return fill(world, world.pick((ESSAY if kind == 1 else EVENTS).split("|")), who, friend)


def role(world: World) -> str:
    """A system prompt of no particular consequence."""
    kind = world.number(0, 4)
    job, adj, topic = world.pick(words.JOBS), world.pick(words.ADJECTIVES), world.pick(words.TOPICS)
    return (
        f"You are a helpful {job}.",
        f"You are {world.first()}, a {adj} assistant.",
        f"You are an assistant for {topic}. Be polite.",
        f"Act as a {job}.",
        f"You are a {adj} assistant. Answer in {world.pick(words.LANGUAGES)} or English.",
    )[kind]


def notes(world: World) -> str:
    """Facts about capitals or the trade, one after another, as running text."""
    out = []
    for _ in range(world.number(1, 4)):
        if world.chance(0.5):
            country = world.pick(list(CAPITALS))
            city = CAPITALS[country]
            out.append(
                world.pick(
                    (f"The capital of {country} is {city}.", f"{city} is the capital of {country}.")
                )
            )
        else:
            out.append(world.pick(list(facts.DEFINITIONS.values())))
    return " ".join(out)


def essay(world: World) -> str:
    """One to three short pieces of explanation."""
    who, friend = world.named(words.FIRST), world.named(words.FIRST)
    chosen = world.some(ESSAY.split("|"), 1, 3)
    return articled(" ".join(fill(world, part, who, friend) for part in chosen))


def generate(world: World) -> Example:
    """A piece of plain text, all of it in the loss at a small weight."""
    kind = world.number(0, 9)
    text = story(world) if kind < 5 else notes(world) if kind < 7 else essay(world)
    return Example("prose", text=[(text, 0.25), (EOT, 0.25)])
