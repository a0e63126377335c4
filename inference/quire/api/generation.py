"""The engine's requests behind one call: their outputs as they come, or the last of each.

Owns their end: whoever lets go of a `Generation` has its requests aborted before the engine's next step.
Knows nothing of what the outputs are turned into.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from functools import partial

from quire.engine.output import RequestStream
from quire.engine.wakes import Wake
from quire.errors import RequestFailedError
from quire.outputs import RequestOutput


class Generation:
    """Requests that were submitted together, one for each prompt.

    Args:
        streams: of the engine, in the order of the prompts.
        prompt_lengths: tokens of each prompt.
    """

    def __init__(self, streams: Sequence[RequestStream], prompt_lengths: Sequence[int]) -> None:
        self._streams = streams
        self.num_prompt_tokens = sum(prompt_lengths)

    async def outputs(self) -> AsyncGenerator[tuple[int, RequestOutput], None]:
        """Yield (index of the prompt, output) in the order they come; ends after the last of each.

        Raises:
            RequestFailedError: the model failed on one of them; the others are aborted.
            EngineDeadError: the engine has stopped.
        """
        loop = asyncio.get_running_loop()
        ready: asyncio.Queue[int] = asyncio.Queue()

        def listen(index: int) -> None:
            self._streams[index].on_ready(Wake(loop, partial(ready.put_nowait, index)))

        try:
            for index in range(len(self._streams)):
                listen(index)
            running = len(self._streams)
            while running:
                index = await ready.get()
                output = next(self._streams[index])
                _check(output)
                yield index, output
                if output.finished:
                    running -= 1
                else:
                    listen(index)
        finally:
            self.close()

    async def results(self) -> list[RequestOutput]:
        """The last output for each prompt, in the order of the prompts; raises as `outputs`."""
        last: dict[int, RequestOutput] = {}
        async with contextlib.aclosing(self.outputs()) as outputs:
            async for index, output in outputs:
                last[index] = output
        return [last[index] for index in range(len(self._streams))]

    def close(self) -> None:
        """Abort what still runs."""
        for stream in self._streams:
            stream.close()


def _check(output: RequestOutput) -> None:
    for completion in output.outputs:
        if completion.finish_reason == "error":
            raise RequestFailedError(completion.error or "the model failed on this request")
