"""`quire bench serve`: puts load on an OpenAI endpoint and tells how it bore it.

It owns the flags and the order of things: find the server, make prompts, warm up, load, report.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quire.cli.bench.serve_options import (
    ENDPOINTS,
    FLAGS,
    INPUT_LEN,
    PREFIX_LEN,
    ServeOptions,
)
from quire.cli.flags import Parser
from quire.cli.progress import progress_bar
from quire.cli.remote import find_key
from quire.errors import ConfigError, EndpointError

if TYPE_CHECKING:
    from quire.cli import MakeLLM
    from quire.cli.bench.client import LoadClient
    from quire.cli.bench.load import Events, Prompt, Record
    from quire.cli.bench.prompts import FilePrompts, RandomPrompts, Writer
    from quire.cli.bench.report import Report

CALIBRATION_WORDS = 200
READY_POLL_SECONDS = 0.5

EXAMPLES = """\
examples:
  quire bench serve --input-len 128 --output-len 64 --num-prompts 200 --max-concurrency 8 --ignore-eos
  quire bench serve --url http://host:8000 --request-rate 4 --goodput ttft:500 tpot:50 --plot load.png
"""


def run(arguments: Sequence[str], make_llm: MakeLLM) -> None:
    """Run `quire bench serve`; it makes no model."""
    parser = Parser(
        prog="quire bench serve",
        usage="[FLAG ...]",
        description="Put load on an OpenAI endpoint, and tell latencies and rates.",
        epilog=EXAMPLES,
    )
    FLAGS.add_to(parser)
    options = ServeOptions(**FLAGS.read(parser.parse(arguments)))

    from quire.cli.bench.report import draw

    model, report = asyncio.run(measure(options))
    print(report.table())
    if options.save_result:
        path = _save(options, model, report)
        print(f"\nsaved in {path}", file=sys.stderr)
    if options.plot and report.answered:
        draw(report, options.plot, f"{model} at {options.base_url}")
    if not report.answered:
        raise EndpointError(f"no request was answered: {report.errors()[0][1]}")


async def measure(options: ServeOptions) -> tuple[str, Report]:
    """Run the load; returns the model's name and the figures.

    Raises:
        ConfigError: the prompts cannot be had.
        EndpointError: the server is not there, or fails the calibration or the warm-up.
    """
    from quire.cli.bench.client import LoadClient, LoadError
    from quire.cli.bench.load import arrival_times, run_load
    from quire.cli.bench.report import Report

    clock = time.perf_counter
    client = LoadClient(options.base_url, api_key=find_key(options.api_key), clock=clock)
    try:
        card = await _find_model(client, options)
        model = str(card["id"])
        asker = _Asker(client, options, model)
        prompts = await _prompts(options, asker, card)
        rng = random.Random(options.seed)
        made = prompts.make(options.num_warmups + options.num_prompts, rng)
        warmups, measured = made[: options.num_warmups], made[options.num_warmups :]
        await asker.check(warmups)
        offsets = arrival_times(len(measured), options.request_rate, options.burstiness, rng)
        with progress_bar(len(measured)) as bar:
            cpu, start = time.process_time(), clock()
            records = await run_load(
                measured,
                offsets,
                asker.ask,
                max_concurrency=options.max_concurrency,
                clock=clock,
                on_end=lambda record: bar.update(),
            )
            share = (time.process_time() - cpu) / (clock() - start)
    except LoadError as error:
        raise EndpointError(f"{client.url}: {error}") from error
    finally:
        client.close()
    return model, Report(records, options.goals(), options.percents(), share)


async def _find_model(client: LoadClient, options: ServeOptions) -> Mapping[str, Any]:
    """The server's card of the model, once the server is there."""
    from quire.cli.bench.client import LoadError

    deadline = time.perf_counter() + options.ready_check_timeout_sec
    while True:
        try:
            answer = await client.get("/models")
            break
        except LoadError as error:
            if error.kind == "HTTP 404" and options.model:  # few endpoints list nothing
                return {"id": options.model}
            if time.perf_counter() >= deadline:
                raise
            await asyncio.sleep(READY_POLL_SECONDS)
    cards = answer.get("data") if isinstance(answer, dict) else None
    named = [card for card in cards or () if options.model in (None, card.get("id"))]
    if named:
        return dict(named[0])
    if options.model:
        return {"id": options.model}
    raise EndpointError(f"{client.url} has no models; name one by --model")


class _Asker:
    """Sends prompts as the options say."""

    def __init__(self, client: LoadClient, options: ServeOptions, model: str) -> None:
        self._client = client
        self._path = options.endpoint or ENDPOINTS[options.backend]
        self._chat = options.backend == "openai-chat"
        self._body: dict[str, Any] = {
            "model": model,
            "temperature": options.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
            **({"ignore_eos": True} if options.ignore_eos else {}),
            **(options.extra_body or {}),
        }

    def ask(self, prompt: Prompt) -> Events:
        fields = ("messages", "max_completion_tokens") if self._chat else ("prompt", "max_tokens")
        asked = dict(zip(fields, (prompt.content, prompt.max_tokens), strict=True))
        return self._client.stream(self._path, {**asked, **self._body})

    async def check(self, prompts: Sequence[Prompt]) -> list[Record]:
        """Ask one after the other; raises LoadError for the first that fails."""
        from quire.cli.bench.client import LoadError
        from quire.cli.bench.load import run_load

        records = await run_load(
            prompts, [0.0] * len(prompts), self.ask, max_concurrency=1, clock=time.perf_counter
        )
        for record in records:
            if record.error:
                raise LoadError("a first request failed", record.error[1])
        return records


async def _prompts(
    options: ServeOptions, asker: _Asker, card: Mapping[str, Any]
) -> RandomPrompts | FilePrompts:
    from quire.cli.bench.prompts import FilePrompts, RandomPrompts

    chat = options.backend == "openai-chat"
    if options.dataset_path is not None:
        return FilePrompts(Path(options.dataset_path), options.output_len, chat)
    shared = options.dataset_name == "shared-prefix"
    return RandomPrompts(
        writer=await _writer(options, asker, card),
        input_len=options.input_len or INPUT_LEN,
        output_len=options.output_len,
        range_ratio=options.range_ratio,
        prefix_len=(options.prefix_len or PREFIX_LEN) if shared else 0,
        num_prefixes=options.num_prefixes,
        chat=chat,
    )


async def _writer(options: ServeOptions, asker: _Asker, card: Mapping[str, Any]) -> Writer:
    """Texts by the model's tokenizer if it is to be had; else words, whose tokens the server counts."""
    from quire.cli.bench.load import Prompt
    from quire.cli.bench.prompts import TokenWriter, WordWriter
    from quire.hub import bundled_model

    root = str(card.get("root") or card["id"])
    source = options.tokenizer or (root if Path(root).is_dir() else None)
    if root == bundled_model().name:
        source = source or str(bundled_model())
    if source is not None:
        from quire.tokenizer import Tokenizer

        return TokenWriter(Tokenizer.load(source))
    text = WordWriter().write(CALIBRATION_WORDS, random.Random(options.seed))
    chat = options.backend == "openai-chat"
    [record] = await asker.check([Prompt([{"role": "user", "content": text}] if chat else text, 1)])
    return WordWriter((record.prompt_tokens or CALIBRATION_WORDS) / CALIBRATION_WORDS)


def _save(options: ServeOptions, model: str, report: Report) -> Path:
    now = datetime.now(timezone.utc)
    asked = {
        "date": now.strftime("%Y%m%d-%H%M%S"),
        "backend": options.backend,
        "model_id": model,
        "dataset_name": options.dataset_name,
        "num_prompts": options.num_prompts,
        "request_rate": "inf" if math.isinf(options.request_rate) else options.request_rate,
        "burstiness": options.burstiness,
        "max_concurrency": options.max_concurrency,
        "goodput": options.goals(),
    }
    name = options.result_filename
    if name is None:
        label = re.sub(r"[^\w.-]+", "-", model)
        name = f"{options.backend}-{label}-{asked['date']}.json"
    path = Path(options.result_dir or ".") / name
    result = {**asked, **report.figures(), **(report.details() if options.save_detailed else {})}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}", param="result_dir") from None
    return path
