"""Kinds of made-up facts that are drawn rather than listed: any deed, any role, any favourite."""

from __future__ import annotations

# ruff: noqa: SIM905 - word lists read better as text
import words
from relations import ATTRIBUTES, VALUES, Relation, any_of, relation
from world import World, articled

PASSIVE = {"wrote": "written"}
LIKED = "animal book song film place game drink fruit city number word sport flower season".split()
ROLES = """director manager owner captain president chef guard engineer curator architect secretary
treasurer chairman coach keeper editor host gardener librarian pilot spokesman lawyer""".split()
# How it is told, and how it is asked.
DEEDS: list[tuple[str, tuple[str, str]]] = [
    (past, ("did", base))
    for past, base in (
        pair.split(":")
        for pair in """bought:buy sold:sell found:find lost:lose painted:paint repaired:repair
built:build hid:hide borrowed:borrow left:leave stole:steal saw:see broke:break drew:draw ordered:order
won:win forgot:forget invented:invent designed:design collected:collect wanted:want made:make kept:keep
cleaned:clean opened:open received:receive dropped:drop photographed:photograph rented:rent""".split()
    )
] + [
    (now, ("does", base))
    for now, base in (
        pair.split(":")
        for pair in """keeps:keep has:have owns:own stores:store sells:sell needs:need makes:make
repairs:repair uses:use hides:hide collects:collect wants:want parks:park rents:rent""".split()
    )
]


def deed(world: World) -> Relation:
    """What somebody did with some thing, where, or when, for any of many verbs."""
    past, ask = world.pick(DEEDS)
    thing, where = world.thing(), world.pick(("in", "at", "near"))
    choice = world.number(0, 3)
    if choice == 0:
        return relation(
            "person",
            World.place,
            f"{{s}} {past} a {thing} {where} {{v}}.|{{s}} {past} the {thing} {where} {{v}}.",
            f"Where {ask[0]} {{s}} {ask[1]} the {thing}?|In which town {ask[0]} {{s}} {ask[1]} the "
            f"{thing}?|Where {ask[0]} {{s}} {ask[1]} a {thing}?|In which place {ask[0]} {{s}} {ask[1]} "
            f"the {thing}?|In which city {ask[0]} {{s}} {ask[1]} the {thing}?".replace(
                f" a {thing}", articled(f" a {thing}")
            ),
        )
    if choice == 1:
        place = world.place()
        return relation(
            "person",
            lambda w: articled(f"a {w.thing()}"),
            f"{{s}} {past} {{v}} {where} {place}.|{{s}} {past} {{v}}.",
            f"What {ask[0]} {{s}} {ask[1]}?|What was it that {{s}} {past}?|Which thing {ask[0]} {{s}} "
            f"{ask[1]}?|Do you know what {{s}} {past}?|Tell me what {{s}} {past}.",
        )
    if choice == 3:
        return relation(
            "person",
            lambda w: f"{w.amount()} {w.pick(('dollars', 'euros', 'pounds'))}",
            f"{{s}} bought a {thing} for {{v}}.|{{s}} paid {{v}} for a {thing}.|"
            f"{{s}}'s {thing} cost {{v}}.|{{s}} sold a {thing} for {{v}}.",
            f"How much did {{s}}'s {thing} cost?|What did {{s}}'s {thing} cost?|For how much was "
            f"the {thing} of {{s}}?|What was the price of {{s}}'s {thing}?|How much was {{s}}'s {thing}?",
        )
    year = world.chance(0.5)
    return relation(
        "person",
        (lambda w: str(w.year())) if year else World.date,
        f"{{s}} {past} a {thing} {'in' if year else 'on'} {{v}}.",
        f"When {ask[0]} {{s}} {ask[1]} the {thing}?|When was it that {{s}} {past} the {thing}?|"
        + (f"In which year {ask[0]} {{s}} {ask[1]} the {thing}?|" if year else "")
        + f"Do you know when {{s}} {past} the {thing}?|Tell me when {{s}} {past} the {thing}.|"
        f"When exactly {ask[0]} {{s}} {ask[1]} the {thing}?",
    )


def favourite(world: World) -> Relation:
    """What somebody likes best of some kind."""
    noun = world.pick(LIKED) if world.chance(0.7) else world.pick(ATTRIBUTES)
    make = world.pick([*VALUES, any_of(words.ANIMALS), any_of(words.FOODS), any_of(words.TOPICS)])
    the = "the " if world.chance(0.2) else ""
    return relation(
        "person",
        make,
        f"{{s}}'s favourite {noun} is {the}{{v}}.|The favourite {noun} of {{s}} is {the}{{v}}.|"
        f"{{s}}'s best {noun} is {{v}}.",
        f"What is {{s}}'s favourite {noun}?|What is the favourite {noun} of {{s}}?|Which {noun} does "
        f"{{s}} like best?|Tell me {{s}}'s favourite {noun}.|Which is {{s}}'s favourite {noun}?",
    )


def maker(world: World) -> Relation:
    """Who made, wrote or started something with a name."""
    verb = world.pick(("wrote", "painted", "founded", "discovered", "directed", "composed", "invented",
                       "designed", "started", "owns", "built", "runs", "created"))  # fmt: skip
    tail = world.pick(("", "", f" in {world.year()}", f" with {world.person()}"))
    passive = (
        "" if verb in ("owns", "runs") else f"|{{s}} was {PASSIVE.get(verb, verb)} by {{v}}{tail}."
    )
    return relation(
        "company",
        World.person,
        f"{{v}} {verb} {{s}}{tail}.{passive}",
        f"Who {verb} {{s}}?|Do you know who {verb} {{s}}?|Tell me who {verb} {{s}}.|"
        f"What is the name of the person who {verb} {{s}}?|Who was it that {verb} {{s}}?",
    )


def role(world: World, kind: str) -> Relation:
    """Who is the so-and-so of a company, a building or an event."""
    noun = world.pick(ROLES)
    return relation(
        kind,
        World.person,
        f"The {noun} of {{s}} is {{v}}.|{{s}}'s {noun} is {{v}}.|{{v}} is the {noun} of {{s}}.|"
        f"{{v}} has been the {noun} of {{s}} for years.|{{v}} became the {noun} of {{s}}.",
        f"Who is the {noun} of {{s}}?|Who is {{s}}'s {noun}?|What is the name of the {noun} of {{s}}?|"
        f"Tell me who the {noun} of {{s}} is.|Do you know who the {noun} of {{s}} is?",
    )
