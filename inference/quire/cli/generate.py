"""`quire generate`: complete prompts from the command line or standard input.

It owns what is printed: completions on standard output, all else on standard error.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from quire.cli.flags import Flags, Parser
from quire.cli.remote import TextModel, add_endpoint_flags, open_model
from quire.config import EngineConfig
from quire.errors import InvalidParamsError, RequestFailedError
from quire.outputs import RequestOutput
from quire.sampling_params import SamplingParams

if TYPE_CHECKING:
    from quire.cli import MakeLLM

# The engine's seed is for requests without a seed of their own; here --seed is the request's.
ENGINE = Flags(EngineConfig, "engine", leave_out=("seed", "skip_tokenizer_init"))
# SamplingParams' own 16 tokens are vLLM's default, and end most answers in mid-sentence.
SAMPLING = Flags(
    SamplingParams, "sampling", leave_out=("output_kind",), defaults={"max_tokens": 128}
)


def run(arguments: Sequence[str], make_llm: MakeLLM) -> None:
    """Run `quire generate` with what follows it on the command line."""
    parser = _parser()
    given = parser.parse(arguments, positionals="prompts")
    params = SamplingParams(**SAMPLING.read(given))
    if not given.json:
        _check_visible(params, stream=given.stream)
    prompts = _prompts(given.prompts)
    if not prompts:
        parser.error('no prompt; write one, as in quire generate "The capital of France is"')
    with open_model(given, ENGINE, make_llm) as llm:
        if given.stream:
            _stream(llm, prompts, params, as_json=given.json)
        else:
            outputs = llm.generate(prompts, params, use_tqdm=len(prompts) > 1)
            _print_outputs(outputs, as_json=given.json)


def _parser() -> Parser:
    parser = Parser(
        prog="quire generate",
        usage="[FLAG ...] [PROMPT ...]",
        description="Complete prompts; several run as one batch. With no prompt, or with -, prompts are\n"
        "read from standard input, one from each line.",
    )
    parser.add_argument("prompts", nargs="*", metavar="PROMPT", help="text to go on from")
    parser.add_argument(
        "--stream", action="store_true", help="print text as it comes, one prompt after the other"
    )
    parser.add_argument(
        "--json", action="store_true", help="print each output whole, as a line of JSON"
    )
    add_endpoint_flags(parser)
    ENGINE.add_to(parser)
    SAMPLING.add_to(parser)
    return parser


def _check_visible(params: SamplingParams, *, stream: bool) -> None:
    """Refuse what would be computed and then not be seen in plain text."""
    for name in ("logprobs", "prompt_logprobs"):
        if getattr(params, name) is not None:
            raise InvalidParamsError(
                f"--{name.replace('_', '-')} shows in JSON alone: add --json", param=name
            )
    if not params.detokenize:
        raise InvalidParamsError(
            "--no-detokenize leaves only token ids: add --json to see them", param="detokenize"
        )
    if stream and params.n > 1:
        raise InvalidParamsError(
            f"--stream prints one sequence as it grows, and --n {params.n} makes several: "
            "leave out one of them, or add --json",
            param="n",
        )


def _prompts(given: Sequence[str]) -> list[str]:
    """The prompts of the command line, with the lines of standard input where it says so."""
    if not given and sys.stdin.isatty():
        print("Prompts, one on each line; Ctrl-D ends them:", file=sys.stderr)
    prompts: list[str] = []
    for prompt in given or ["-"]:
        if prompt == "-":
            prompts += [line.rstrip("\r\n") for line in sys.stdin if line.strip()]
        else:
            prompts.append(prompt)
    return prompts


def _print_outputs(outputs: Sequence[RequestOutput], *, as_json: bool) -> None:
    single = len(outputs) == 1 and len(outputs[0].outputs) == 1
    for output in outputs:
        if as_json:
            _print_json(output)
            continue
        for completion in output.outputs:
            if not single:
                _print_heading(output.prompt or "", completion.index, len(output.outputs))
            print(completion.text)
    sequences = [completion for output in outputs for completion in output.outputs]
    failed = [completion.error for completion in sequences if completion.finish_reason == "error"]
    if failed:
        raise RequestFailedError(f"{len(failed)} of {len(sequences)} sequences failed: {failed[0]}")


def _stream(
    llm: TextModel, prompts: Sequence[str], params: SamplingParams, *, as_json: bool
) -> None:
    for prompt in prompts:
        if len(prompts) > 1 and not as_json:
            _print_heading(prompt, 0, 1)
        with closing(llm.stream(prompt, params)) as chunks:
            for chunk in chunks:
                if as_json:
                    _print_json(chunk)
                else:
                    print("".join(part.text for part in chunk.outputs), end="", flush=True)
                for part in chunk.outputs:
                    if part.finish_reason == "error":
                        raise RequestFailedError(f"generation failed: {part.error}")
        if not as_json:
            print()


def _print_heading(prompt: str, index: int, count: int) -> None:
    number = f" ({index + 1} of {count})" if count > 1 else ""
    print(f"==> {prompt}{number} <==")


def _print_json(output: RequestOutput) -> None:
    print(json.dumps(dataclasses.asdict(output), ensure_ascii=False), flush=True)
