"""The hand-written tools, as a table: name, description, arguments, ways to ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import words
from toolspecs import (
    Param,
    Result,
    Tool,
    Value,
    calc_result,
    decimal,
    either,
    fact_result,
    generic,
    small,
    text_result,
    weather_result,
)
from world import World

ROOMS = ["kitchen", "bedroom", "office", "hall", "garage", "bathroom"]
MAKERS: dict[str, tuple[str, Callable[[World], Value]]] = {
    "place": ("string", World.place),
    "country": ("string", World.country),
    "email": ("string", World.email),
    "subject": ("string", World.subject),
    "name": ("string", World.made_up),
    "person": ("string", World.person),
    "company": ("string", World.company),
    "thing": ("string", World.thing),
    "date": ("string", World.date),
    "time": ("string", World.time),
    "code": ("string", World.code),
    "word": ("string", lambda w: w.word() if w.chance(0.3) else w.pick(words.TOPICS)),
    "food": ("string", lambda w: w.pick(words.FOODS)),
    "room": ("string", lambda w: w.pick(ROOMS)),
    "currency": ("string", lambda w: w.pick(words.CURRENCIES)),
    "language": ("string", lambda w: w.pick(words.LANGUAGES)),
    "unit": ("string", lambda w: w.pick(words.UNITS)),
    "sum": ("string", lambda w: f"{small(w)} {w.pick('+-*/')} {small(w)}"),
    "id": ("integer", World.amount),
    "few": ("integer", lambda w: w.number(1, 12)),
    "minutes": ("integer", lambda w: w.number(1, 90)),
    "small": ("integer", small),
    "either": ("number", either),
    "flag": ("boolean", lambda w: w.chance(0.5)),
}

# topic; names; descriptions; arguments; requests
BOOK = """
weather;get_weather get_current_weather weather current_weather getWeather weather_forecast;Get the\
 weather of a city|Get the current weather in a given city.|Current weather;city=place;What is the\
 weather in {city}?|How is the weather in {city}?|What's the weather like in {city}?|Is it warm in\
 {city} today?|Tell me the weather in {city}.|Weather in {city}?|Do I need an umbrella in {city}?|\
What is the temperature in {city}?|How cold is it in {city}?|What's the weather in {city}?|Check\
 the weather for {city}.|What is the weather like in {city} today?|How warm is it in {city} now?
weather;get_weather get_temperature;Get the temperature of a city;city=place unit=unit;How warm is\
 it in {city} in {unit}?|Temperature in {city}, in {unit} please.|What is the temperature in {city}\
 in {unit}?|Weather in {city} in {unit}?|What is the weather in {city} in {unit}?
add;add sum add_numbers;Add two numbers.|Add two numbers together|Adds a and b;a=small b=small;What\
 is {a} plus {b}?|Add {a} and {b}.|What is {a} + {b}?|Please add {a} to {b}.|Compute {a} + {b}.|\
{a} + {b}|What's {a} plus {b}?|What is the sum of {a} and {b}?|How much is {a} plus {b}?
add;add;Add two numbers.;a=either b=either;What is {a} plus {b}?|Add {a} and {b}.|What is {a} + {b}?
multiply;multiply multiply_numbers times;Multiply two numbers.|Multiply two integers|Multiplies a\
 and b;a=small b=small;What is {a} times {b}?|Multiply {a} by {b}.|What is {a} * {b}?|Compute {a}\
 times {b}.|{a} * {b} = ?|Multiply {a} and {b}.|What's {a} times {b}?|What is {a} multiplied by\
 {b}?|What is the product of {a} and {b}?|How much is {a} times {b}?
multiply;multiply;Multiply two numbers.;a=either b=either;What is {a} times {b}?|Multiply {a} by {b}.
subtract;subtract minus;Subtract b from a.|Subtract two numbers;a=small b=small;What is {a} minus\
 {b}?|Compute {a} - {b}.|What is {a} - {b}?|{a} minus {b}?|How much is {a} minus {b}?
divide;divide;Divide a by b.|Divide two numbers;a=small b=small;What is {a} divided by {b}?|Divide\
 {a} by {b}.|Compute {a} / {b}.|What is {a} / {b}?|How much is {a} / {b}?
calculate;calculator calculate evaluate;Evaluate an arithmetic expression|Useful for sums;\
expression=sum;Calculate {expression}.|What is {expression}?|Compute {expression}.|Work out\
 {expression}.|How much is {expression}?
search;search web_search search_docs retrieve lookup search_notes;Search the web|Search the\
 documents|Find passages for a query|Look something up|Useful for questions about current events;\
query=subject;Search for {query}.|Find {query}.|Look up {query}.|Search the web for {query}.|What\
 do you find about {query}?|Please search for {query}.|Find information about {query}.|Search the\
 documents for {query}.|Can you look up {query}?
money;convert_currency convert;Convert an amount of money|Convert between currencies;amount=either\
 from_currency=currency to_currency=currency;Convert {amount} {from_currency} to {to_currency}.|How\
 much is {amount} {from_currency} in {to_currency}?|What are {amount} {from_currency} in\
 {to_currency}?|Change {amount} {from_currency} into {to_currency}.|I need {amount} {from_currency}\
 in {to_currency}.
time;get_time get_current_time;Current time in a city|Get the time;city=place;What time is it in\
 {city}?|Tell me the time in {city}.|Time in {city}?|What is the current time in {city}?|How late\
 is it in {city}?
time;get_time current_time now;Get the current time|The time of day;;What time is it?|Tell me the\
 time.|What is the time?|What is the current time?|How late is it?
date;get_date today;Get the date of today;;What day is it?|What is the date today?|Tell me the\
 date.|Which day is it today?|What is today's date?
mail;send_email send_mail email;Send an email|Send a mail to someone;to=email subject=subject;Send\
 an email to {to} about {subject}.|Email {to} about {subject}.|Write to {to} with the subject\
 {subject}.|Please mail {to} about {subject}.|Send {to} a mail about {subject}.
book;book_table reserve_table;Book a table in a restaurant;restaurant=name people=few time=time;Book\
 a table at {restaurant} for {people} people at {time}.|I want a table for {people} at {restaurant}\
 at {time}.|Reserve a table for {people} at {restaurant}, {time}.|Get us a table at {restaurant} at\
 {time} for {people} people.
user;lookup_user get_user find_user;Look up a user by id|Get a user;user_id=id;Who is user\
 {user_id}?|Look up user {user_id}.|Find the user with id {user_id}.|Show me user {user_id}.|Tell\
 me about user number {user_id}.
user;lookup_user get_user;Look up a user by id;id=id;Who is user {id}?|Look up user {id}.|Show me\
 user {id}.
price;get_price price_of;Price of a product|Get the price;product=thing;How much is the {product}?|\
What does the {product} cost?|Price of the {product}?|Tell me the price of the {product}.|What is\
 the price of the {product}?
timer;set_timer start_timer;Set a timer|Start a timer of some minutes;minutes=minutes;Set a timer\
 for {minutes} minutes.|Start a timer of {minutes} minutes.|Wake me in {minutes} minutes.|Timer,\
 {minutes} minutes.|Remind me in {minutes} minutes.
language;translate translate_text;Translate a text;text=subject language=language;Translate {text}\
 into {language}.|Translate "{text}" to {language}.|What is "{text}" in {language}?|How do you say\
 "{text}" in {language}?|Say "{text}" in {language}.
event;create_event add_event;Add an event to the calendar;title=subject date=date;Add {title} to my\
 calendar on {date}.|Create an event {title} on {date}.|Put {title} in the calendar for {date}.|Plan\
 {title} for {date}.|Schedule {title} on {date}.
music;play_music play;Play music of an artist;artist=person;Play something by {artist}.|Play\
 {artist}.|I want to hear {artist}.|Put on some {artist}.|Play music by {artist}.
light;turn_light set_light;Switch a light on or off;room=room on=flag;Set the light in the {room} to\
 on={on}.|Light in the {room}: on={on}.
capital;capital_of get_capital;The capital of a country;country=country;Use the tool to find the\
 capital of {country}.|Look up the capital of {country}.|Find the capital city of {country}.|\
What is the capital of {country}?|Capital of\
 {country}?|Which city is the capital of {country}?|What is the capital city of {country}?
stock;get_stock_price stock_price;Stock price of a company;company=company;What is the stock price\
 of {company}?|How is {company} trading?|Stock price of {company}?|Check the stock of {company}.|\
What is {company} worth today?
people;get_population population;Population of a city;city=place;How many people live in {city}?|\
What is the population of {city}?|Population of {city}?|How big is {city}?|How many people are in\
 {city}?
note;create_note save_note add_note;Save a note;text=subject;Note down {text}.|Save a note: {text}.|\
Write a note about {text}.|Make a note: {text}.|Remember {text} in my notes.
news;get_news news;Get the news about a topic;topic=subject;What is the news about {topic}?|News\
 about {topic}?|Tell me the news on {topic}.|Is there any news about {topic}?|Get me the news on\
 {topic}.
flight;find_flights search_flights;Find flights between two cities;origin=place destination=place\
 date=date;Find flights from {origin} to {destination} on {date}.|I want to fly from {origin} to\
 {destination} on {date}.|Flights from {origin} to {destination}, {date}?|Is there a flight from\
 {origin} to {destination} on {date}?|Which flights go from {origin} to {destination} on {date}?
distance;get_distance distance;Distance between two cities;a=place b=place;How far is it from {a} to\
 {b}?|What is the distance between {a} and {b}?|Distance from {a} to {b}?|How far is {a} from {b}?|\
How far is {b} if I start in {a}?
dice;roll_dice roll;Roll a dice;sides=few;Roll a dice with {sides} sides.|Roll a {sides} sided dice.|\
Throw a dice with {sides} sides.
order;order_food order;Order something to eat;dish=food count=few;Order {count} {dish}.|I want to\
 order {count} {dish}.|Please order {count} {dish}.|Get me {count} {dish}.|Order me {count} {dish}.
define;define get_definition dictionary;Define a word;word=word;Look up the word {word}.|Look {word}\
 up in the dictionary.|Use the dictionary for {word}.|Find the definition of {word}.|What does the\
 dictionary say about {word}?
files;list_files ls;List the files;;List the files.|Which files are there?|Show me the files.|What\
 files do I have?|List my files.
file;read_file open_file;Read a file;path=code;Read the file {path}.|Open {path}.|Show me the file\
 {path}.|What is in the file {path}?|What does {path} contain?
"""


def _time(w: World, a: dict[str, Value]) -> Any:
    where = f" in {a['city']}" if "city" in a else ""
    return w.pick((w.time(), {"time": w.time()}, f"It is {w.time()}{where}"))


RESULTS: dict[str, Result] = {
    "weather": weather_result,
    "add": calc_result(lambda x, y: round(x + y, 2)),
    "multiply": calc_result(lambda x, y: round(x * y, 2)),
    "subtract": calc_result(lambda x, y: round(x - y, 2)),
    "divide": calc_result(lambda x, y: round(x / y, 2)),
    "calculate": lambda w, a: w.pick((small(w), small(w), {"result": decimal(w)})),
    "search": fact_result,
    "news": fact_result,
    "money": lambda w, a: w.pick(
        (decimal(w), {"amount": decimal(w), "currency": a["to_currency"]})
    ),
    "time": _time,
    "date": lambda w, a: w.pick((w.date(), {"date": w.date()})),
    "mail": text_result("Email sent to {to}."),
    "book": text_result("Booked, the code is {code}.", "A table at {restaurant} is booked."),
    "user": lambda w, a: {"name": w.person(), "email": w.email()},
    "price": lambda w, a: w.pick(({"price": w.amount()}, w.amount())),
    "timer": text_result("Timer set.", "The timer runs.", "ok"),
    "language": text_result("{name} {name}", "{name}"),
    "event": text_result("Event created.", "Added on {date}."),
    "music": text_result("Playing {artist}.", "Now playing {artist}"),
    "light": text_result("Done.", "ok"),
    "capital": text_result("{place}"),
    "stock": lambda w, a: w.pick(({"price": decimal(w)}, decimal(w))),
    "people": lambda w, a: w.pick(({"population": w.amount()}, w.amount())),
    "dice": lambda w, a: w.number(1, 12),
    "note": text_result("Saved.", "Note saved as {code}."),
    "distance": lambda w, a: w.pick((f"{w.amount()} km", {"km": w.amount()})),
}
SYNONYMS = {
    "city": ["city", "city", "location", "place"],
    "query": ["query", "query", "q", "text"],
    "a": ["a", "a", "x", "first"],
    "b": ["b", "b", "y", "second"],
}


def tool(world: World, line: str) -> Tool:
    """One tool of the book, its name and the names of its arguments chosen at random."""
    topic, names, abouts, arguments, requests = line.split(";")
    variant = world.number(0, 3)
    params, asks = [], requests
    for pair in arguments.split():
        old, maker = pair.split("=")
        new = SYNONYMS.get(old, [old] * 4)[variant]
        asks = asks.replace(f"{{{old}}}", f"{{{new}}}")
        kind, make = MAKERS[maker]
        options = words.UNITS if maker == "unit" else []
        if kind == "integer" and maker == "small" and world.chance(0.3):
            kind = "number"
        params.append(Param(new, kind, make, "", options))
    about = world.pick(abouts.split("|"))
    result = RESULTS.get(topic, generic)
    return Tool(world.pick(names.split()), about, params, asks.split("|"), result, topic)


LINES = [line for line in BOOK.split("\n") if line]


def curated(world: World) -> Tool:
    """Any tool of the book."""
    return tool(world, world.pick(LINES))
