"""Closed-book knowledge: capitals, what quire and its ideas are, small talk, little sums."""

from __future__ import annotations

from capitals import CAPITALS
from dialogue import END, EOT, Example
from world import World

UNKNOWN = "I do not know that."

DEFINITIONS: dict[str, str] = {
    "quire": "quire is an inference SDK for language models, written in plain Python on PyTorch.",
    "a KV cache": "A KV cache keeps the attention keys and values of past tokens, so that each new "
    "token needs only its own.",
    "paged attention": "Paged attention stores the KV cache in small blocks of memory, so that no "
    "space is wasted and blocks can be shared.",
    "continuous batching": "Continuous batching lets new requests join the running batch at every "
    "step instead of waiting for it to end.",
    "prefix caching": "Prefix caching reuses the KV cache blocks of a prompt beginning that was "
    "seen before.",
    "a token": "A token is a small piece of text, such as a word or a part of one, that a language "
    "model reads and writes.",
    "a tokenizer": "A tokenizer splits text into tokens and joins tokens back into text.",
    "an LLM": "An LLM is a large language model: a neural network that predicts the next token of "
    "a text.",
    "a language model": "A language model is a neural network that predicts the next token of a "
    "text.",
    "speculative decoding": "Speculative decoding lets a cheap draft guess several tokens, which "
    "the model then checks in one step.",
    "tensor parallelism": "Tensor parallelism splits the weight matrices of a model across several "
    "devices.",
    "quantization": "Quantization stores weights with fewer bits, so that a model needs less "
    "memory.",
    "RAG": "RAG is retrieval-augmented generation: the model answers from passages that were found "
    "for the question.",
    "an agent": "An agent is a program in which a language model chooses tools to call until a "
    "task is done.",
    "attention": "Attention lets each token look back at the tokens before it and take over what "
    "matters.",
    "a transformer": "A transformer is a neural network built of attention and feed-forward "
    "layers.",
    "an embedding": "An embedding is a list of numbers that stands for the meaning of a text.",
    "temperature": "Temperature sets how random sampling is: low values make the model choose the "
    "likeliest token.",
    "top-p sampling": "Top-p sampling chooses among the likeliest tokens whose probabilities add "
    "up to p.",
    "greedy decoding": "Greedy decoding always takes the likeliest next token.",
    "streaming": "Streaming sends each piece of the answer as soon as it is ready.",
    "LoRA": "LoRA adapts a model with small low-rank matrices beside its frozen weights.",
    "prefill": "Prefill is the step that reads the whole prompt at once and fills the KV cache.",
    "decoding": "Decoding is the phase in which the model writes one token after another.",
    "PyTorch": "PyTorch is a Python library for tensors and neural networks.",
    "Python": "Python is a programming language that is easy to read.",
    "a GPU": "A GPU is a processor that does many calculations at the same time.",
    "a prompt": "A prompt is the text that a language model is given to go on from.",
    "a stop string": "A stop string ends the answer as soon as the model writes it.",
    "structured output": "Structured output keeps the model to a given form, such as a JSON "
    "schema.",
    "a tool call": "A tool call is a request by the model to run a function with given arguments.",
    "chunked prefill": "Chunked prefill reads a long prompt in pieces, so that other requests are "
    "not held up.",
    "a scheduler": "A scheduler decides which requests run in the next step.",
    "throughput": "Throughput is the number of tokens an engine writes per second.",
    "latency": "Latency is the time one has to wait for an answer.",
    "machine learning": "Machine learning lets a program learn from examples instead of fixed "
    "rules.",
    "a neural network": "A neural network is a function with many weights that are learned from "
    "examples.",
    "JSON": "JSON is a text format for data made of objects, lists, strings and numbers.",
}
# The last phrasing of each list is the evaluation's alone, as are the held-out frames.
WHAT = [
    "What is {x}?",
    "What's {x}?",
    "what is {x}",
    "Explain {x}.",
    "Tell me what {x} is.",
    "Can you explain {x}?",
    "Define {x}.",
    "What does {x} mean?",
    "Tell me about {x}.",
    "Do you know what {x} is?",
    "Please explain {x}.",
    "I want to know what {x} is.",
    "What do you know about {x}?",
    "Could you tell me what {x} is?",
]
CAPITAL = [
    "What is the capital of {c}?",
    "What's the capital of {c}?",
    "capital of {c}",
    "What is the capital city of {c}?",
    "Which city is the capital of {c}?",
    "Tell me the capital of {c}.",
    "Name the capital of {c}.",
    "{c}: what is its capital?",
    "Do you know the capital of {c}?",
    "Capital of {c}?",
    "what is the capital of {c}",
    "Which city is {c}'s capital?",
    "Give me the capital of {c}.",
    "{c}'s capital?",
    "What city is the capital of {c}?",
    "I need the capital of {c}.",
    "Please name the capital city of {c}.",
    "Can you tell me the capital of {c}?",
]
COUNTRY = [
    "Which country has the capital {c}?",
    "{c} is the capital of which country?",
    "Of which country is {c} the capital?",
    "What country is {c} the capital of?",
    "{c} is the capital of what country?",
    "Whose capital is {c}?",
    "Which country's capital is {c}?",
]
TALK: list[tuple[str, str]] = [
    (
        "Hello|Hi|Hello!|Hi!|Hey|Good morning|Good evening|Hi there|Hey there!|Good day|Hello there!",
        "Hello! How can I help you?",
    ),
    (
        "How are you?|How are you doing?|How do you do?|How is it going?|How are you today?",
        "I am fine, thank you. How can I help you?",
    ),
    (
        "Who are you?|What are you?|Tell me about yourself.|Introduce yourself.|What is your name?|"
        "What's your name?|Which model are you?|What model is this?|Who am I talking to?|Say who you "
        "are.",
        "I am quire's bundled demo model: small, trained on made-up text, and I know little.",
    ),
    (
        "Thanks|Thank you|Thanks!|Thank you!|Thank you very much.|Many thanks!|Thanks a lot.|Great, "
        "thanks!",
        "You are welcome!",
    ),
    ("Bye|Goodbye|Bye!|See you later.|Good night|See you!|Goodbye!", "Goodbye!"),
    (
        "What can you do?|What are you good at?|How can you help me?|What can you help with?|Help|"
        "What do you do?|What are you able to do?",
        "I can name capitals, answer from a given text, call tools and fill in JSON.",
    ),
    (
        "Tell me a joke.|Do you know a joke?|Make me laugh.|A joke, please.|Say something funny.",
        "Why did the token cross the batch? To get to the other slot.",
    ),
    (
        "Are you human?|Are you a person?|Are you a robot?|Are you real?|Are you an AI?|Are you a "
        "machine?",
        "No human: I am a small language model.",
    ),
    (
        "Who made you?|Who built you?|Where do you come from?|Who trained you?|Who created you?",
        "I was trained for quire on made-up text.",
    ),
    (
        "How big are you?|How many parameters do you have?|How large are you?|What size are you?|"
        "How many parameters has this model?",
        "I have about four million parameters.",
    ),
    ("Say hello.|Say hello|Say hi.|Greet me.|Please say hello.", "Hello!"),
    ("Ok|Okay|Good|Great|Nice|Very good.|Fine.", "Is there anything else I can do?"),
    (
        "What color is the sky?|What colour is the sky?|Which colour has the sky?|What is the colour "
        "of the sky?|Tell me the colour of the sky.",
        "The sky is blue.",
    ),
    (
        "How many days are in a week?|How many days has a week?|Days in a week?|How many days does a "
        "week have?|How many days make a week?",
        "A week has seven days.",
    ),
    (
        "How many months are in a year?|How many months has a year?|Months in a year?|How many months "
        "does a year have?|How many months make a year?",
        "A year has twelve months.",
    ),
    (
        "How many legs does a dog have?|How many legs has a dog?|Legs of a dog?|A dog has how many "
        "legs?|Count the legs of a dog.",
        "A dog has four legs.",
    ),
    (
        "Write a short poem.|Write me a poem.|A poem, please.|Can you write a poem?|Make a poem.",
        "The lamp is low, the night is long, the river hums its quiet song.",
    ),
    (
        "Tell me a story.|Write a story.|Tell me a short story.|A story, please.|Can you tell a "
        "story?",
        "Once upon a time a small model lived on a laptop. It knew little, but it was "
        "quick, and everyone was glad of it.",
    ),
    (
        "Who is the president of the United States?|Who won the game yesterday?|What is the news "
        "today?|What is my name?|How old am I?|Who won the last election?|What will happen tomorrow?|"
        "Who is my boss?|Where do I live?|What did I eat yesterday?|What is the meaning of life?|"
        "What is the stock market doing?|Who is the king of England?|What time is it?|"
        "What day is it today?|What is the latest news?",
        UNKNOWN,
    ),
]
WRAPS = [
    "{}",
    "{}",
    "{}",
    "{}",
    "Hello! {}",
    "Hi, {}",
    "{} Thanks.",
    "Quick question: {}",
    "Please answer: {}",
    "A question: {}",
]


def _cap(text: str) -> str:
    return text[0].upper() + text[1:]


def held_out() -> list[tuple[str, str, str]]:
    """Every fact once, each asked in the phrasing that training never sees: kind, ask, answer."""
    out = [
        ("capital", _cap(CAPITAL[-1].format(c=c)), f"The capital of {c} is {city}.")
        for c, city in CAPITALS.items()
    ]
    out += [
        ("country", COUNTRY[-1].format(c=city), f"{city} is the capital of {c}.")
        for c, city in CAPITALS.items()
    ]
    out += [("definition", WHAT[-1].format(x=x), text) for x, text in DEFINITIONS.items()]
    out += [("talk", asks.split("|")[-1], answer) for asks, answer in TALK]
    for a in range(0, 11, 2):
        for b in range(1, 11, 2):
            out.append(("sum", f"How much is {a} plus {b}?", f"{a} plus {b} is {a + b}."))
            out.append(("sum", f"How much is {a} times {b}?", f"{a} times {b} is {a * b}."))
    return out


def capital(world: World) -> tuple[str, str]:
    """A question about a capital, in either direction."""
    country = world.pick(list(CAPITALS))
    city = CAPITALS[country]
    if world.chance(0.3):
        return world.phrase(COUNTRY).format(c=city), f"{city} is the capital of {country}."
    bare = world.chance(0.1)
    asked = country.removeprefix("the ") if bare else country
    text = _cap(world.phrase(CAPITAL).format(c=asked))
    return text, f"The capital of {country} is {city}."


def arithmetic(world: World) -> tuple[str, str]:
    """A sum or product of small numbers."""
    a, b = world.number(0, 10), world.number(0, 10)
    if world.chance(0.3):
        text = world.phrase(
            [
                "What is {a} times {b}?",
                "{a} times {b}?",
                "What is {a} * {b}?",
                "{a} * {b} =",
                "How much is {a} times {b}?",
            ]
        )
        return text.format(a=a, b=b), f"{a} times {b} is {a * b}."
    text = world.phrase(
        [
            "What is {a} plus {b}?",
            "{a} plus {b}?",
            "What is {a} + {b}?",
            "{a} + {b} =",
            "{a}+{b}?",
            "How much is {a} plus {b}?",
        ]
    )
    return text.format(a=a, b=b), f"{a} plus {b} is {a + b}."


def definition(world: World) -> tuple[str, str]:
    """What a word of the trade means."""
    thing = world.pick(list(DEFINITIONS))
    asked = thing
    if world.chance(0.15):
        asked = thing.removeprefix("an ").removeprefix("a ")
    return world.phrase(WHAT).format(x=asked), DEFINITIONS[thing]


def unknown(world: World) -> tuple[str, str]:
    """A question about someone invented, with no context to answer it from."""
    ask = world.phrase(
        [
            "Where does {p} live?",
            "How old is {p}?",
            "What does {p} do?",
            "What is {p}'s favourite colour?",
            "What is {p}'s job?",
            "What is {p}'s phone number?",
            "Who founded {c}?",
            "When was {c} founded?",
            "Where is {c} based?",
            "Who is {p} married to?",
            "Who leads {c}?",
        ]
    )
    return ask.format(p=world.person(), c=world.company()), UNKNOWN


def exchange(world: World) -> tuple[str, str]:
    """Any closed-book question with its answer."""
    kind = world.number(0, 99)
    if kind < 35:
        q, a = capital(world)
    elif kind < 47:
        q, a = definition(world)
    elif kind < 70:
        q, a = arithmetic(world)
    elif kind < 74:
        q, a = unknown(world)
    else:
        asks, a = world.pick(TALK)
        return world.phrase(asks.split("|")), a
    return (q if world.held else loose(world, world.pick(WRAPS).format(q))), a


def loose(world: World, text: str) -> str:
    """The text as hurried people type it, at times: a small first letter, no mark at the end."""
    if world.chance(0.08):
        text = text[0].lower() + text[1:]
    return text.rstrip("?.!") if world.chance(0.08) else text


SYSTEMS = [
    "You are a helpful assistant.",
    "You are quire.",
    "Answer briefly.",
    "Be brief.",
    "You are a friendly assistant.",
    "You are a helpful AI assistant.",
]


def generate(world: World) -> Example:
    """One to five exchanges; a few as plain lines of text."""
    rounds = 1 if world.held else world.number(1, 5)
    if not world.held and world.chance(0.12):
        text: list[tuple[str, float]] = []
        for i in range(rounds):
            q, a = exchange(world)
            head = "\n" if i else ""
            text += [(f"{head}Q: {q}\nA:", 0.0), (f" {a}", 1.0)]
        return Example("facts", text=[*text, (world.pick((EOT, END)), 1.0)])
    example = Example("facts")
    if world.chance(0.25):
        example.messages.append({"role": "system", "content": world.phrase(SYSTEMS)})
    for _ in range(rounds):
        q, a = exchange(world)
        example.user(q)
        example.answer(a)
    return example
