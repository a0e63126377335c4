"""For tests of what is built on quire: engines that need no model.

    from quire import LLM
    from quire.testing import Answer, Call, ScriptedEngine

    engine = ScriptedEngine([Answer(calls=[Call("get_weather", {"city": "Rome"})]), "It is 21 degrees."])
    llm = LLM(engine=engine)              # or quire.connect(engine=engine), Service(engine), AsyncLLM(...)

`ScriptedEngine` says what a script has it say. `record` writes down what an engine is asked and answers,
`replay` is an engine that answers by such a file, and `recorded` is one or the other.
"""

from quire.testing.engine import ScriptedEngine
from quire.testing.executor import VirtualClock
from quire.testing.record import record
from quire.testing.replay import ReplayEngine, recorded, replay
from quire.testing.script import Answer, Call, ScriptedRequest, Token

__all__ = [
    "Answer",
    "Call",
    "ReplayEngine",
    "ScriptedEngine",
    "ScriptedRequest",
    "Token",
    "VirtualClock",
    "record",
    "recorded",
    "replay",
]
