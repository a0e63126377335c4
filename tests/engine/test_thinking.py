"""Budgets of thoughts: kept wherever the thought begins, and whatever happens to the request meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AddedToken, AutoTokenizer

from quire import LLM, SamplingParams, StructuredOutputsParams
from quire.errors import InvalidParamsError
from quire.hub import bundled_model
from quire.outputs import CompletionOutput
from quire.sampling_params import RequestOutputKind
from tiny_models import make_checkpoint

ASK = [{"role": "user", "content": "What is the weather in Paris?"}]
_TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)
OPENED = _TURNS + "<think>\n"
CLOSED = _TURNS + "<think>\n\n</think>\n\n"
BY_MODEL = _TURNS + "{# <think> #}"


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM() as one:
        yield one


@pytest.fixture(scope="module")
def tight() -> Iterator[LLM]:
    """So few blocks that requests are preempted, and so few tokens in a step that chunks are cut."""
    with LLM(
        num_gpu_blocks_override=40, block_size=4, max_model_len=128, max_num_batched_tokens=16
    ) as one:
        yield one


def params(budget: int | None, **given: Any) -> SamplingParams:
    fields = {"temperature": 1.2, "seed": 5, "max_tokens": 50, "ignore_eos": True, **given}
    return SamplingParams(**fields, thinking_token_budget=budget)


def think(
    llm: LLM, asked: SamplingParams, template: str = OPENED, **options: Any
) -> list[CompletionOutput]:
    return llm.chat(ASK, asked, chat_template=template, use_tqdm=False, **options)[0].outputs


@pytest.mark.parametrize("budget", [0, 1, 2, 9])
def test_a_thought_that_the_prompt_opens_is_closed(llm: LLM, budget: int) -> None:
    free = think(llm, params(None, n=4))
    for one, without in zip(think(llm, params(budget, n=4)), free, strict=True):
        assert one.message is not None and without.message is not None
        assert without.message.num_reasoning_tokens == 50, "this model does not end its thoughts"
        assert one.message.num_reasoning_tokens == budget
        assert one.token_ids[:budget] == without.token_ids[:budget]
        thought, end, answer = one.text.partition("</think>")
        assert end and (one.message.reasoning or "") == thought.strip()
        assert (one.message.content or "") == answer.lstrip()
        assert len(one.token_ids) == 50


def test_a_thought_that_the_model_opens_is_closed(llm: LLM) -> None:
    shape = StructuredOutputsParams(regex=r"<think>(.|\n){200}")
    asked = params(6, structured_outputs=shape, ignore_eos=False)
    # The shape is of the whole text here: a chat would put it after the thought.
    chat_prompt = llm.get_tokenizer().encode("Q:", add_special_tokens=False)
    with pytest.raises(InvalidParamsError, match="no tags"):
        llm.generate({"prompt_token_ids": chat_prompt}, asked, use_tqdm=False)
    with LLM(reasoning_parser="qwen3") as thinking:
        [one] = thinking.generate("Q:", asked, use_tqdm=False)[0].outputs
        tokenizer = thinking.get_tokenizer()
        assert one.text.startswith("<think>") and "</think>" in one.text
        tags = [tokenizer.encode(tag, add_special_tokens=False) for tag in ("<think>", "</think>")]
        until_end = next(
            count
            for count in range(len(one.token_ids))
            if "</think>" in tokenizer.decode(one.token_ids[:count])
        )
        assert until_end <= sum(map(len, tags)) + 6
        # The same without a grammar, where the prompt opens the thought.
        [one] = thinking.generate("Q:<think>\n", params(3), use_tqdm=False)[0].outputs
        head = tokenizer.decode(one.token_ids[:3], skip_special_tokens=True)
        assert one.text.startswith(head + "</think>")


def test_structure_follows_a_thought_cut_short(llm: LLM) -> None:
    shape = StructuredOutputsParams(choice=["yes", "no"])
    for template in (OPENED, BY_MODEL):
        asked = params(4, structured_outputs=shape, ignore_eos=False, n=6, max_tokens=60)
        for one in think(llm, asked, template):
            assert one.message is not None and one.finish_reason == "stop"
            assert one.message.content in ("yes", "no")
            assert one.message.num_reasoning_tokens <= 4


def test_a_grammar_that_has_no_end_of_the_thought_outranks_the_budget() -> None:
    shape = StructuredOutputsParams(choice=["a long answer without any tag"])
    with LLM(reasoning_parser="think") as llm:
        asked = params(1, structured_outputs=shape, ignore_eos=False)
        [one] = llm.generate("Q:<think>\n", asked, use_tqdm=False)[0].outputs
        assert (one.text, one.finish_reason) == ("a long answer without any tag", "stop")


def test_preemption_chunks_and_the_cache_change_nothing(llm: LLM, tight: LLM) -> None:
    chats = [[{"role": "user", "content": f"{number}?"}] for number in range(4)]
    asked = [params(budget, n=2, logprobs=1) for budget in (0, 3, 17, 30)]
    runs = []
    for one in (llm, llm, tight, tight):  # the second time each from the cache
        outputs = one.chat(chats, asked, chat_template=OPENED, use_tqdm=False)
        runs.append([c.token_ids for output in outputs for c in output.outputs])
        for output, budget in zip(outputs, (0, 3, 17, 30), strict=True):
            for c in output.outputs:
                assert c.message is not None and c.message.num_reasoning_tokens == budget
                assert c.logprobs is not None and len(c.logprobs) == len(c.token_ids) == 50
    assert sum(o.metrics.num_preemptions for o in outputs if o.metrics) > 0
    assert all(run == runs[0] for run in runs)


def test_streams_count_what_is_new(llm: LLM) -> None:
    asked = params(8, output_kind=RequestOutputKind.DELTA)
    deltas = list(llm.stream_chat(ASK, asked, chat_template=OPENED))
    counts = [o.outputs[0].message.num_reasoning_tokens for o in deltas if o.outputs[0].message]
    assert sum(counts) == 8 and len(counts) == len(deltas)
    cumulative = asked.clone(output_kind=RequestOutputKind.CUMULATIVE)
    for output in llm.stream_chat(ASK, cumulative, chat_template=OPENED):
        assert output.outputs[0].message is not None
        assert output.outputs[0].message.num_reasoning_tokens == min(
            8, len(output.outputs[0].token_ids)
        )


def test_what_is_refused_and_what_says_nothing(llm: LLM) -> None:
    with pytest.raises(InvalidParamsError, match="no tags for that") as caught:
        llm.chat(ASK, params(4))
    assert caught.value.param == "thinking_token_budget"
    for wrong in (-2, 1.5, True, "4"):
        with pytest.raises(InvalidParamsError, match="thinking_token_budget"):
            params(wrong)  # type: ignore[arg-type]
    assert params(-1).thinking_token_budget is None
    [one] = think(llm, params(0), CLOSED)
    assert one.message is not None and "</think>" not in one.text
    assert one.message.num_reasoning_tokens == 0, "the template turned it off"


@pytest.mark.parametrize("special", [True, False])
def test_tags_that_are_one_token_each(tmp_path: Path, special: bool) -> None:
    """As Qwen 3 and Mistral have them; special ones are left out of texts unless they are asked for."""
    hf = AutoTokenizer.from_pretrained(bundled_model())
    hf.add_tokens([AddedToken(tag, special=special) for tag in ("<think>", "</think>")])
    hf.save_pretrained(tmp_path)
    shape = StructuredOutputsParams(choice=["yes", "no"])
    folder = make_checkpoint(tmp_path / "model", "llama", vocab_size=len(hf))
    with LLM(model=str(folder), tokenizer=str(tmp_path)) as llm:
        end = hf.convert_tokens_to_ids("</think>")
        asked = params(5, structured_outputs=shape, ignore_eos=False, n=8, temperature=1.0)
        for template in (OPENED, BY_MODEL):
            thought_of = [one.message for one in think(llm, asked, template)]
            assert all(m is not None and m.content in ("yes", "no") for m in thought_of)
            counts = [m.num_reasoning_tokens for m in thought_of if m is not None]
            assert max(counts) <= 5 and (template == BY_MODEL or 5 in counts)
        [one] = think(llm, params(2), OPENED)
        assert one.token_ids[2] == end and one.token_ids.count(end) >= 1
        assert one.message is not None and one.message.num_reasoning_tokens == 2
        [free] = think(llm, params(None), OPENED)
        assert free.token_ids[:2] == one.token_ids[:2]
        streamed = list(
            llm.stream_chat(
                ASK, params(2, output_kind=RequestOutputKind.DELTA), chat_template=OPENED
            )
        )
        messages = [o.outputs[0].message for o in streamed if o.outputs[0].message]
        assert "".join(m.reasoning or "" for m in messages) == (one.message.reasoning or "")
        assert "".join(m.content or "" for m in messages) == (one.message.content or "")
