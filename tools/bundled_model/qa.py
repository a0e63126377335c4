"""Questions over a given context: made-up facts, answers copied out, 'Not in the context.' else."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from itertools import pairwise

import prose
from dialogue import END, EOT, START, Example
from openended import deed, favourite, maker, role
from relations import KINDS, RELATIONS, Relation, generic, subject
from world import World, articled

ABSENT = "Not in the context."


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
        if kind == "person" and world.chance(0.35):
            relation = deed(world) if world.chance(0.65) else favourite(world)
        elif kind == "company" and world.chance(0.25):
            relation = maker(world)
        elif kind in ("company", "building", "event") and world.chance(0.25):
            relation = role(world, kind)
        elif kind in KINDS and world.chance(0.25):
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
        for one, other in (
            ("He's ", "His "),
            ("She's ", "Her "),
            (" of He ", " of him "),
            (" of She ", " of her "),
            (" of It", " of it"),
            ("reach He", "reach him"),
            ("reach She", "reach her"),
        ):
            said = said.replace(one, other)
        out.append(Fact(relation, who, value, articled(said)))
    return joined(world, out)


def joined(world: World, told: list[Fact]) -> list[Fact]:
    """At times two facts about one subject in one sentence; the second fact's own is empty then."""
    for before, fact in pairwise(told):
        start = f"{fact.subject} "
        same = before.subject == fact.subject and before.sentence.startswith(start)
        if same and fact.sentence.startswith(start) and world.chance(0.5):
            rest = fact.sentence.removeprefix(start)
            before.sentence = f"{before.sentence.removesuffix('.')} and {rest}"
            fact.sentence = ""
    return told


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
    lines = [f.sentence for f in known if f.sentence]
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
TREE = LLAMA_INDEX.replace("Context information is", "Context information from multiple sources is")
TREE = TREE.replace("the context information and", "the information from multiple sources and")
LANG_CHAIN = "Answer the question based only on the following context:\n{c}\n\nQuestion: {q}"
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
    LLAMA_INDEX,
    LLAMA_INDEX,
    TREE,
    LANG_CHAIN,
    LANG_CHAIN,
    LONG + "\nQuestion: {q} \nContext: {c} \nAnswer:",
    ASSIST + "\n\nContext: {c}\n\nQuestion: {q}",
    "Use the following pieces of context to answer the question at the end. If you don't know "
    "the answer, just say that you don't know, don't try to make up an answer.\n\n{c}\n\n"
    "Question: {q}\nHelpful Answer:",
    "Context:\n{c}\n\nQuestion: {q}",
    "Context: {c}\nQuestion: {q}\nAnswer:",
    "{c}\n\n{q}",
    "{c} {q}",
    "Use this context to answer the question.\n{c}\nQuestion: {q}",
    "Given the context below, answer: {q}\n\n{c}",
    "Here is a text:\n{c}\n\nNow a question: {q}",
    "<context>\n{c}\n</context>\n\n{q}",
    "Documents:\n{c}\n\nUser question: {q}",
    "{c}\n{q}",
    "Read the text and answer.\n\n{c}\n\n{q}",
    "Question: {q}\n\nContext:\n{c}",
    "Text: {c}\n\nAnswer from the text only: {q}",
    "Answer the question using only the context.\n\nContext:\n{c}\n\nQuestion: {q}\n\nAnswer:",
]
SYSTEM = [
    LONG + "\n\n{c}",
    ASSIST + "\n\nContext: {c}",
    "Answer from this context:\n{c}",
    "Answer the user's question using only the following context:\n\n{c}",
    "You are a helpful assistant. Context:\n{c}",
    "Context:\n{c}",
]


def generate(world: World) -> Example:
    """One dialogue over a passage, sometimes as plain text to be completed."""
    most = 1 + round(9 * world.hardness)
    known = facts(world, world.number(1, world.number(1, most)))
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
            text = world.pick(
                (EXPERT, "You are a helpful assistant.", "Answer briefly.", prose.role(world))
            )
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
