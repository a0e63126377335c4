"""Small chores that demos of chains like to ask for, all answered by copying or by one word.

Remembering what the user said, jokes and names about a given subject, the first sentence as a
summary, a question to be rephrased, positive or negative, refining an answer.
"""

# ruff: noqa: SIM905 - word lists read better as text

from __future__ import annotations

import qa
import words
from dialogue import Example
from prose import essay, role
from world import World, articled

UNABLE = "That is beyond me: I am a small demo model."

ABOUT = {
    "joke": [
        "Tell me a joke about {x}.",
        "Tell me a short joke about {x}",
        "A joke about {x}?",
        "Do you know a joke about {x}?",
        "Give me a joke about {x}",
        "Make a joke about {x}.",
        "tell me a joke about {x}",
        "Write a joke about {x}.",
    ],
    "poem": [
        "Write a poem about {x}.",
        "Write a short poem about {x}",
        "A poem about {x}, please.",
        "Give me a poem about {x}.",
        "Write me a haiku about {x}.",
        "Make a poem about {x}.",
        "Write a haiku about {x}",
    ],
    "story": [
        "Tell me a story about {x}.",
        "Write a short story about {x}.",
        "Write a story about {x}",
        "A story about {x}, please.",
        "Tell a story about {x}.",
    ],
    "name": [
        "What is a good name for a company that makes {x}?",
        "Name a shop that sells {x}.",
        "Suggest a name for a company that makes {x}.",
        "Find a name for a firm selling {x}.",
        "What would be a good company name for a company that makes {x}?",
    ],
    "fact": [
        "Tell me a fact about {x}.",
        "Tell me something about {x}.",
        "What about {x}?",
        "Tell me an interesting fact about {x}.",
        "Say something about {x}.",
    ],
}
REPLY = {
    "joke": "Why did the {x} cross the road? To get to the other side.",
    "poem": "I dream of {x} by day and night, of {x} in the morning light.",
    "story": "Once upon a time there was nothing but {x}. Then someone came, looked at the {x} and "
    "smiled, and all was well.",
    "name": "The House of {x}",
    "fact": "All I know about {x} is that people like to talk about it.",
}
CANNOT = [
    "Translate {x} into French.",
    "Write a program about {x}.",
    "Draw {x}.",
    "Write Python code for {x}.",
    "What is the best book about {x}?",
    "Compare {x} and {y}.",
    "Write an essay about the history of {x}.",
    "How do I build {x}?",
    "Why is {x} important?",
    "Give me ten ideas for {x}.",
    "How does {x} work?",
    "Plan a trip for {x}.",
    "Explain the theory of {x}.",
    "What is the difference between {x} and {y}?",
]
SUMMARY = [
    "Summarize the text.\n\n{t}",
    "Summarize:\n{t}",
    "Write a concise summary of the following:\n\n{t}\n\nCONCISE SUMMARY:",
    "Give a short summary of this text: {t}",
    "{t}\n\nSum this up in one sentence.",
    "Summarize the following text in one sentence:\n{t}",
]
STANDALONE = (
    "Given the following conversation and a follow up question, rephrase the follow up question to "
    "be a standalone question, in its original language.\n\nChat History:\n{h}\nFollow Up Input: "
    "{q}\nStandalone question:"
)
CONDENSE = (
    "Given a conversation (between Human and Assistant) and a follow up message from Human, rewrite "
    "the message to be a standalone question that captures all relevant context from the "
    "conversation.\n\n<Chat History>\n{h}\n\n<Follow Up Message>\n{q}\n\n<Standalone question>\n"
)
REFINE = (
    "The original query is as follows: {q}\nWe have provided an existing answer: {a}\nWe have the "
    "opportunity to refine the existing answer (only if needed) with some more context below.\n"
    "------------\n{c}\n------------\nGiven the new context, refine the original answer to better "
    "answer the query. If the context isn't useful, return the original answer.\nRefined Answer: "
)
FEELING = [
    "Is this review positive or negative? {t}",
    "Classify the sentiment: {t}",
    "{t}\n\nIs that positive or negative?",
    "What is the sentiment of this? {t}",
    "Sentiment of this text, positive or negative: {t}",
    "Review: {t}\nSentiment:",
    "Answer positive or negative. {t}",
]
GOOD = """great wonderful excellent perfect lovely fantastic good amazing beautiful brilliant
""".split()
BAD = "awful terrible bad horrible broken useless ugly boring poor disappointing".split()
PRAISE = [
    "I love this {t}.",
    "The {t} works very well.",
    "I am very happy with the {t}.",
    "The best {t} I ever had.",
    "I would buy the {t} again.",
    "Thank you for this {t}.",
]
BLAME = [
    "I hate this {t}.",
    "The {t} does not work.",
    "I want my money back for the {t}.",
    "The worst {t} I ever had.",
    "The {t} broke after one day.",
    "Do not buy this {t}.",
]


def _feeling(world: World) -> tuple[str, str]:
    good = world.chance(0.5)
    thing = world.pick(words.THINGS + words.FOODS)
    short = f"The {thing} is {world.pick(('', 'really ', 'very ', 'so '))}"
    text = world.pick(PRAISE if good else BLAME).format(t=thing)
    if world.chance(0.6):
        text = f"{short}{world.pick(GOOD if good else BAD)}."
    if world.chance(0.3):
        text += " " + world.pick(PRAISE if good else BLAME).format(t=thing)
    return world.phrase(FEELING).format(t=text), "positive" if good else "negative"


def _subject(world: World) -> str:
    if world.chance(0.3):
        return f"{world.pick(words.COLOURS)} {world.pick(words.THINGS)}s"
    if world.chance(0.3):
        return world.pick(words.ANIMALS) + "s"
    return world.made_up() if world.chance(0.15) else world.subject()


def _about(world: World) -> tuple[str, str]:
    kind, thing = world.pick(sorted(ABOUT)), _subject(world)
    return world.phrase(ABOUT[kind]).format(x=thing), REPLY[kind].format(x=thing)


def _summary(world: World) -> tuple[str, str]:
    if world.chance(0.5):
        text = " ".join(f.sentence for f in qa.facts(world, world.number(2, 6)))
    else:
        text = essay(world)
    first = text.split(". ")[0].removesuffix(".") + "."
    return world.phrase(SUMMARY).format(t=text), first


def _standalone(world: World) -> tuple[str, str]:
    known = qa.facts(world, world.number(2, 4))
    lines = []
    for fact in known[:-1]:
        lines.append(f"Human: {qa.question(world, fact)}\nAssistant: {fact.value}")
    asked = qa.question(world, known[-1])
    shape = world.pick((STANDALONE, CONDENSE))
    return shape.format(h="\n".join(lines), q=asked), asked


def _refine(world: World) -> tuple[str, str]:
    known = qa.facts(world, world.number(2, 5))
    fact = known[0]
    told = known if world.chance(0.5) else known[1:]
    old = qa.ABSENT if world.chance(0.5) else fact.value
    answer = fact.value if told is known else old
    asked = qa.question(world, fact)
    return REFINE.format(q=asked, a=old, c=qa.passages(world, told)), answer


def _unable(world: World) -> tuple[str, str]:
    return world.phrase(CANNOT).format(x=_subject(world), y=_subject(world)), UNABLE


REMEMBER = [
    (
        "name",
        World.first,
        [
            "My name is {v}.",
            "Hi, I'm {v}.",
            "I am {v}.",
            "Hello, my name is {v}.",
            "Hi! I'm {v}",
            "Hi, my name is {v}!",
        ],
        "Nice to meet you, {v}!",
        [
            "What is my name?",
            "What's my name?",
            "Do you know my name?",
            "Who am I?",
            "Can you tell me my name?",
            "Do you remember my name?",
        ],
        "Your name is {v}.",
    ),
    (
        "place",
        World.place,
        ["I live in {v}.", "My home is in {v}.", "I am from {v}.", "My city is {v}."],
        "I will remember that you live in {v}.",
        [
            "Where do I live?",
            "Which city do I live in?",
            "Where is my home?",
            "Where am I from?",
            "In which city do I live?",
        ],
        "You live in {v}.",
    ),
    (
        "colour",
        lambda w: w.pick(words.COLOURS),
        ["My favourite colour is {v}.", "My favorite color is {v}.", "I like the colour {v}."],
        "I will remember that you like {v}.",
        [
            "What is my favourite colour?",
            "What is my favorite color?",
            "Which colour do I like?",
            "Do you know my favourite colour?",
            "What colour do I like?",
        ],
        "You like {v}.",
    ),
    (
        "job",
        lambda w: w.pick(words.JOBS),
        ["I work as a {v}.", "I am a {v}.", "My job is {v}."],
        "I will remember that you work as a {v}.",
        [
            "What is my job?",
            "What do I work as?",
            "What do I do?",
            "What do I do for a living?",
            "Which job do I have?",
        ],
        "You work as a {v}.",
    ),
    (
        "secret",
        World.code,
        ["The code is {v}.", "Remember the code {v}.", "My code is {v}."],
        "I will remember the code {v}.",
        [
            "What is the code?",
            "What was the code?",
            "Tell me the code.",
            "Which code did I tell you?",
            "Do you remember the code?",
        ],
        "The code is {v}.",
    ),
]


def _memory(world: World, example: Example) -> None:
    chosen = world.some(REMEMBER, 1, 3)
    values = []
    for _, make, say, reply, _, _ in chosen:
        value = make(world)
        values.append(value)
        example.user(articled(world.pick(say).format(v=value)))
        example.answer(articled(reply.format(v=value)))
    order = list(zip(chosen, values, strict=True))
    world.rng.shuffle(order)
    for (_, _, _, _, ask, answer), value in order[: 1 if world.held else 3]:
        example.user(world.phrase(ask))
        example.answer(articled(answer.format(v=value)))


KINDS = [_feeling, _about, _summary, _standalone, _refine, _unable, _about]


def generate(world: World) -> Example:
    """One dialogue of memory, or one to three chores."""
    example = Example("chores")
    if world.chance(0.2):
        text = world.pick(("You are a helpful assistant.", role(world)))
        example.messages.append({"role": "system", "content": text})
    if world.chance(0.3):
        _memory(world, example)
        return example
    make = world.pick(KINDS)
    for _ in range(1 if world.held else world.number(1, 2)):
        ask, answer = make(world)
        example.user(ask)
        example.answer(answer)
    return example
