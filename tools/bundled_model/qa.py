"""Questions over a given context: made-up facts, answers copied out, 'Not in the context.' else."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import prose
import words
from dialogue import END, EOT, START, Example
from world import World, articled

ABSENT = "Not in the context."
Maker = Callable[[World], str]


@dataclass(frozen=True)
class Relation:
    """One kind of fact: what it is about, how it is stated, how it is asked."""

    kind: str
    say: list[str]
    ask: list[str]
    value: Maker


def _r(kind: str, value: Maker, say: str, ask: str) -> Relation:
    return Relation(kind, say.split("|"), ask.split("|"), value)


def generic(world: World) -> Relation:
    """The so-and-so of someone or something, for any noun and any kind of value."""
    noun = world.word() if world.chance(0.1) else world.pick(ATTRIBUTES)
    make = world.pick(VALUES)
    return _r(world.pick(KINDS), make, f"The {noun} of {{s}} is {{v}}.|{{s}}'s {noun} is {{v}}.|"
              f"{{s}} has the {noun} {{v}}.",
              f"What is the {noun} of {{s}}?|What is {{s}}'s {noun}?|Which {noun} does {{s}} have?|"
              f"Tell me the {noun} of {{s}}.|Can you tell me the {noun} of {{s}}?")


def _some(items: list[str]) -> Maker:
    return lambda w: w.pick(items)


RELATIONS: list[Relation] = [
    _r("person", World.place, "{s} lives in {v}.|{s} has a home in {v}.|{s} moved to {v}.",
       "Where does {s} live?|In which city does {s} live?|Where is {s}'s home?|"
       "What city does {s} live in?|Which town does {s} live in?|In what town does {s} live?"),
    _r("person", World.place, "{s} was born in {v}.|{s}'s place of birth is {v}.",
       "Where was {s} born?|What is {s}'s place of birth?|In which city was {s} born?|"
       "What is the birthplace of {s}?|In what town was {s} born?"),
    _r("person", _some(words.JOBS), "{s} works as a {v}.|{s} is a {v}.|{s} is employed as a {v}.",
       "What does {s} do?|What is {s}'s job?|What does {s} work as?|What job does {s} have?|"
       "What is the profession of {s}?|What is the job of {s}?"),
    _r("person", World.company, "{s} works for {v}.|{s} is employed at {v}.",
       "Who does {s} work for?|Which company does {s} work for?|Where does {s} work?|"
       "What is {s}'s employer?|What company does {s} work for?"),
    _r("person", _some(words.HOBBIES), "{s} enjoys {v}.|{s}'s hobby is {v}.|{s} is fond of {v}.",
       "What is {s}'s hobby?|What does {s} enjoy?|What is the hobby of {s}?|"
       "Which hobby does {s} have?|What hobby does {s} have?"),
    _r("person", lambda w: str(w.number(18, 90)), "{s} is {v} years old.|{s} is aged {v}.",
       "How old is {s}?|What is {s}'s age?|What age is {s}?|What is the age of {s}?|"
       "Do you know how old {s} is?"),
    _r("person", _some(words.FOODS), "{s} likes to eat {v}.|{s}'s favourite food is {v}.",
       "What does {s} like to eat?|What is {s}'s favourite food?|Which food does {s} like?|"
       "What is the favourite food of {s}?|What food does {s} like?"),
    _r("person", _some(words.COLOURS), "{s}'s favourite colour is {v}.|{s} likes the colour {v}.",
       "What is {s}'s favourite colour?|Which colour does {s} like?|What colour does {s} like?|"
       "What is the favourite colour of {s}?|Which colour is {s}'s favourite?"),
    _r("person", World.first, "{s} has a pet called {v}.|{s}'s pet is named {v}.",
       "What is {s}'s pet called?|What is the name of {s}'s pet?|How is {s}'s pet called?|"
       "What is {s}'s pet named?|What name does {s}'s pet have?"),
    _r("person", World.person, "{s} is married to {v}.|{s}'s spouse is {v}.",
       "Who is {s} married to?|Who is {s}'s spouse?|To whom is {s} married?|"
       "What is the name of {s}'s spouse?|Who is the spouse of {s}?"),
    _r("person", lambda w: str(w.number(1, 999)),
       "{s}'s room number is {v}.|{s} sits in room {v}.|{s} has office {v}.",
       "What is {s}'s room number?|In which room does {s} sit?|Which room does {s} have?|"
       "What is the room number of {s}?|Which room does {s} sit in?"),
    _r("person", lambda w: f"555-{w.number(1000, 9999)}",
       "{s}'s phone number is {v}.|You can reach {s} at {v}.|{s} has the phone number {v}.",
       "What is {s}'s phone number?|How can I reach {s}?|What is the phone number of {s}?|"
       "Under which number can I call {s}?|Which phone number does {s} have?"),
    _r("person", World.email, "{s}'s email is {v}.|The email address of {s} is {v}.",
       "What is {s}'s email?|What is the email address of {s}?|Which email does {s} use?|"
       "What is {s}'s email address?|Which email address does {s} have?"),
    _r("person", _some(words.LANGUAGES), "{s} speaks {v}.|{s}'s mother tongue is {v}.",
       "Which language does {s} speak?|What language does {s} speak?|What does {s} speak?|"
       "What is {s}'s language?|What is the language of {s}?"),
    _r("company", lambda w: str(w.year()), "{s} was founded in {v}.|{s} has existed since {v}.",
       "When was {s} founded?|In what year was {s} founded?|Since when does {s} exist?|"
       "In which year was {s} founded?|What year was {s} founded in?"),
    _r("company", World.person, "{s} was founded by {v}.|The founder of {s} is {v}.",
       "Who founded {s}?|Who is the founder of {s}?|By whom was {s} founded?|"
       "Who started {s}?|What is the name of the founder of {s}?"),
    _r("company", World.place, "{s} is based in {v}.|The headquarters of {s} are in {v}.",
       "Where is {s} based?|Where are the headquarters of {s}?|In which city is {s} based?|"
       "Which city is {s} based in?|What city is {s} based in?"),
    _r("company", World.person, "The head of {s} is {v}.|{s} is led by {v}.",
       "Who leads {s}?|Who is the head of {s}?|Who runs {s}?|By whom is {s} led?|"
       "What is the name of the head of {s}?"),
    _r("company", lambda w: str(w.number(2, 9000)), "{s} has {v} employees.|{s} employs {v} people.",
       "How many employees does {s} have?|How many people work at {s}?|"
       "How many people does {s} employ?|How many staff does {s} have?|How many work for {s}?"),
    _r("company", lambda w: w.pick(words.THINGS) + "s", "{s} makes {v}.|{s} sells {v}.",
       "What does {s} make?|What does {s} sell?|What is made by {s}?|What does {s} produce?|"
       "Which product does {s} make?"),
    _r("building", lambda w: str(w.year()), "{s} opened in {v}.|{s} was opened in the year {v}.",
       "When did {s} open?|In what year did {s} open?|In which year was {s} opened?|"
       "When was {s} opened?|What year did {s} open?"),
    _r("building", World.place, "{s} stands in {v}.|{s} is located in {v}.",
       "Where is {s}?|Where is {s} located?|In which city is {s}?|Where does {s} stand?|"
       "In what town is {s}?"),
    _r("building", lambda w: f"{w.number(5, 900)} metres", "{s} is {v} tall.|The height of {s} is {v}.",
       "How tall is {s}?|What is the height of {s}?|How high is {s}?|What height does {s} have?|"
       "What is {s}'s height?"),
    _r("building", World.person, "{s} was designed by {v}.|The architect of {s} was {v}.",
       "Who designed {s}?|Who was the architect of {s}?|By whom was {s} designed?|"
       "Who is the architect of {s}?|What is the name of the architect of {s}?"),
    _r("building", World.time, "{s} closes at {v}.|The closing time of {s} is {v}.",
       "When does {s} close?|At what time does {s} close?|What is the closing time of {s}?|"
       "Until when is {s} open?|What time does {s} close?"),
    _r("item", lambda w: f"{w.number(1, 999)} {w.pick(('dollars', 'euros', 'pounds'))}",
       "{s} costs {v}.|The price of {s} is {v}.|{s} sells for {v}.",
       "How much does {s} cost?|What does {s} cost?|What is the price of {s}?|"
       "How much is {s}?|How much do I pay for {s}?"),
    _r("item", _some(words.COLOURS), "{s} is {v}.|The colour of {s} is {v}.|{s} is painted {v}.",
       "What colour is {s}?|What is the colour of {s}?|Which colour does {s} have?|"
       "Which colour is {s}?|What color is {s}?"),
    _r("item", _some(words.MATERIALS), "{s} is made of {v}.|{s} consists of {v}.",
       "What is {s} made of?|Of which material is {s}?|What material is {s} made of?|"
       "Which material is {s} made of?|What does {s} consist of?"),
    _r("item", lambda w: f"{w.number(1, 90)} {w.pick(('kilograms', 'grams', 'kg'))}",
       "{s} weighs {v}.|The weight of {s} is {v}.",
       "How heavy is {s}?|What is the weight of {s}?|How much does {s} weigh?|"
       "What does {s} weigh?|What weight does {s} have?"),
    _r("item", lambda w: f"{w.number(1, 12)} {w.pick(('years', 'months'))}",
       "{s} has a warranty of {v}.|The warranty of {s} lasts {v}.",
       "How long is the warranty of {s}?|What warranty does {s} have?|"
       "How long does the warranty of {s} last?|What is the warranty of {s}?|"
       "For how long is {s} under warranty?"),
    _r("secret", World.code, "The {s} is {v}.|Remember that the {s} is {v}.",
       "What is the {s}?|Which is the {s}?|Tell me the {s}.|Give me the {s}.|"
       "Can you tell me the {s}?"),
    _r("secret", World.made_up, "The {s} is {v}.|We call the {s} {v}.",
       "What is the {s}?|Which is the {s}?|Tell me the {s}.|Give me the {s}.|"
       "Can you tell me the {s}?"),
    _r("event", World.date, "{s} takes place on {v}.|{s} is on {v}.|The date of {s} is {v}.",
       "When is {s}?|On which date is {s}?|When does {s} take place?|What is the date of {s}?|"
       "What date is {s} on?"),
    _r("event", World.place, "{s} is held in {v}.|{s} takes place in {v}.",
       "Where is {s} held?|In which city is {s}?|Where does {s} take place?|"
       "Which city hosts {s}?|What city is {s} held in?"),
    _r("term", lambda w: f"a {w.pick(words.ADJECTIVES)} {w.pick(words.THINGS)} for {w.pick(words.HOBBIES)}",
       "A {s} is {v}.|The word {s} means {v}.",
       "What is a {s}?|What does {s} mean?|What is meant by {s}?|Define {s}.|"
       "What is the meaning of {s}?"),
    _r("term", lambda w: f"a kind of {w.pick(words.ANIMALS)} that eats {w.pick(words.FOODS)}",
       "A {s} is {v}.|The word {s} means {v}.",
       "What is a {s}?|What does {s} mean?|What is meant by {s}?|Define {s}.|"
       "What is the meaning of {s}?"),
]

KINDS = ["person", "company", "building", "item", "event", "term"]
ATTRIBUTES = """capital population mascot currency ruler river anthem flower name number code owner
author title address size length depth score rating budget salary rank version model type language
population leader mayor king queen founder captain symbol motto nickname password username key
status level colour shape smell taste speed power range limit origin source target goal deadline
manager assistant teacher doctor neighbour brother sister mother father friend car boat song book
""".split()
VALUES: list[Maker] = [
    World.made_up, World.person, World.place, World.company, World.code, World.date, World.time,
    World.subject, lambda w: str(w.amount()), lambda w: str(w.amount()), World.street, World.email,
    lambda w: str(w.year()), lambda w: w.pick(words.COLOURS), lambda w: w.pick(words.THINGS),
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


@dataclass
class Fact:
    """A stated fact: the sentence, a question for it and the answer."""

    relation: Relation
    subject: str
    value: str
    sentence: str


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def pronoun(kind: str, who: str) -> str:
    """He, she or it; the same for one name all through."""
    if kind != "person":
        return "It"
    return "He" if zlib.crc32(who.encode()) % 2 else "She"


def facts(world: World, count: int) -> list[Fact]:
    """So many facts, several about one subject at times; no two answer the same question."""
    out: list[Fact] = []
    used: set[tuple[str, str]] = set()
    kind, who = "", ""
    while len(out) < count:
        if not who or world.chance(0.6):
            kind = world.pick(RELATIONS).kind
            if out and world.chance(0.5):
                kind = world.pick(out).relation.kind
            who = subject(world, kind)
        relation = world.pick([r for r in RELATIONS if r.kind == kind])
        if kind in KINDS and world.chance(0.25):
            relation = replace(generic(world), kind=kind)
        asked = {(who, q) for q in relation.ask}
        if used & asked:
            who = ""
            continue
        used |= asked
        value = relation.value(world)
        named = who
        if out and out[-1].subject == who and world.chance(0.35) and kind != "secret":
            named = pronoun(kind, who)
        said = _sentence(world.pick(relation.say).format(s=named, v=value))
        said = said.replace(" of It ", " of it ").replace("It's ", "Its ")
        for one, other in (("He's ", "His "), ("She's ", "Her "), (" of He ", " of him "),
                           (" of She ", " of her "), (" of It", " of it"), ("reach He", "reach him"),
                           ("reach She", "reach her")):
            said = said.replace(one, other)
        out.append(Fact(relation, who, value, articled(said)))
    return out


def question(world: World, fact: Fact, alone: bool = False) -> str:
    """One way to ask for a fact; by first name at times where that can mean one person alone."""
    who = fact.subject
    if fact.relation.kind == "person" and alone and world.chance(0.12):
        who = who.split(" ")[0]
    text = world.phrase(fact.relation.ask).format(s=who)
    if world.chance(0.1):
        text = f"Please tell me: {text[0].lower() + text[1:]}"
    return text


def absent(world: World, known: list[Fact]) -> str:
    """A question the passage leaves open: an unknown name, or a fact not told of a known one."""
    for _ in range(20):
        base = world.pick(known)
        relation = world.pick([r for r in RELATIONS if r.kind == base.relation.kind])
        who = base.subject if world.chance(0.5) else subject(world, base.relation.kind)
        told = {(f.subject, q) for f in known for q in f.relation.ask}
        if not told & {(who, q) for q in relation.ask}:
            return question(world, Fact(relation, who, "", ""))
    return f"Where does {world.made_up()} live?"


def passages(world: World, known: list[Fact]) -> str:
    """The facts as one or several passages, in the layouts retrieval chains produce."""
    lines = [f.sentence for f in known]
    if world.chance(0.3):
        for _ in range(world.number(1, 3)):
            place = world.number(0, len(lines))
            if place == len(lines) or lines[place].split(" ")[0] not in PRONOUNS:
                lines.insert(place, prose.remark(world))
    parts: list[str] = []
    while lines:
        n = world.number(1, 3)
        parts.append(" ".join(lines[:n]))
        lines = lines[n:]
    style = world.number(0, 6)
    if style == 0:
        return "\n".join(f"[{i}] {p}" for i, p in enumerate(parts, 1))
    if style == 1:
        return "\n".join(f"- {p}" for p in parts)
    if style == 2:
        name = world.pick(("notes", "facts", "data", "report", "page")) + ".txt"
        return "\n\n".join(f"file_path: {name}\n\n{p}" for p in parts)
    if style == 3:
        return "\n".join(parts)
    if style == 4:
        return " ".join(parts)
    return "\n\n".join(parts)


PRONOUNS = ("He", "She", "It", "His", "Her", "Its")
LLAMA_INDEX = (
    "Context information is below.\n---------------------\n{c}\n---------------------\n"
    "Given the context information and not prior knowledge, answer the query.\n"
    "Query: {q}\nAnswer: "
)
LANG_CHAIN = (
    "Answer the question based only on the following context:\n{c}\n\nQuestion: {q}"
)
ASSIST = (
    "You are an assistant for question-answering tasks. Use the following pieces of retrieved "
    "context to answer the question. If you don't know the answer, just say that you don't know."
)
LONG = ASSIST + " Use three sentences maximum and keep the answer concise."
EXPERT = (
    "You are an expert Q&A system that is trusted around the world.\nAlways answer the query "
    "using the provided context information, and not prior knowledge.\nSome rules to follow:\n"
    "1. Never directly reference the given context in your answer.\n2. Avoid statements like "
    "'Based on the context, ...' or 'The context information ...' or anything along those lines."
)
USER = [
    LLAMA_INDEX, LLAMA_INDEX, LANG_CHAIN, LANG_CHAIN,
    LONG + "\nQuestion: {q} \nContext: {c} \nAnswer:",
    ASSIST + "\n\nContext: {c}\n\nQuestion: {q}",
    "Use the following pieces of context to answer the question at the end. If you don't know "
    "the answer, just say that you don't know, don't try to make up an answer.\n\n{c}\n\n"
    "Question: {q}\nHelpful Answer:",
    "Context:\n{c}\n\nQuestion: {q}", "Context: {c}\nQuestion: {q}\nAnswer:", "{c}\n\n{q}",
    "{c} {q}", "{c}\n{q}", "Read the text and answer.\n\n{c}\n\n{q}",
    "Question: {q}\n\nContext:\n{c}", "Text: {c}\n\nAnswer from the text only: {q}",
    "Answer the question using only the context.\n\nContext:\n{c}\n\nQuestion: {q}\n\nAnswer:",
]
SYSTEM = [
    LONG + "\n\n{c}", ASSIST + "\n\nContext: {c}", "Answer from this context:\n{c}",
    "Answer the user's question using only the following context:\n\n{c}",
    "You are a helpful assistant. Context:\n{c}", "Context:\n{c}",
]


def generate(world: World) -> Example:
    """One dialogue over a passage, sometimes as plain text to be completed."""
    most = 1 + round(9 * world.hardness)
    known = facts(world, world.number(1, most))
    context = passages(world, known)
    rounds = 1 if world.held else world.number(1, 4)
    asked: list[tuple[str, str]] = []
    for _ in range(rounds):
        if world.chance(0.18):
            asked.append((absent(world, known), ABSENT))
        else:
            fact = world.pick(known)
            first = fact.subject.split(" ")[0]
            alone = {f.subject for f in known if first in f.subject} == {fact.subject}
            asked.append((question(world, fact, alone), fact.value))
    if world.chance(0.15) and not world.held:
        return _plain(world, context, asked)
    example = Example("qa")
    if world.chance(0.3):
        system = world.pick(SYSTEM).format(c=context)
        example.messages.append({"role": "system", "content": system})
        shape = "{q}"
    else:
        if world.chance(0.2):
            text = world.pick((EXPERT, "You are a helpful assistant.", "Answer briefly.", prose.role(world)))
            example.messages.append({"role": "system", "content": text})
        shape = world.pick(USER)
    for i, (q, a) in enumerate(asked):
        example.user(shape.format(c=context, q=q) if i == 0 else q)
        example.answer(a)
    return example


def _plain(world: World, context: str, asked: list[tuple[str, str]]) -> Example:
    shape = world.pick((LLAMA_INDEX, LLAMA_INDEX, USER[4], USER[6], "{c}\nQ: {q}\nA:"))
    q, a = asked[0]
    prompt = shape.format(c=context, q=q)
    if not prompt.endswith(" ") and world.chance(0.8):
        a = " " + a
    end = END if world.chance(0.5) else EOT
    out = [(prompt, 0.0), (a + end, 1.0)]
    if "Q: " in shape:
        out[-1] = (a, 1.0)
        for q, a in asked[1:]:
            out += [(f"\nQ: {q}\nA:", 0.0), (f" {a}", 1.0)]
        out.append((EOT, 1.0))
    assert START not in prompt
    return Example("qa", text=out)
